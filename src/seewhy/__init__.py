"""seewhy shows why a vision model said what it said, and whether that explanation can be believed.

    import seewhy

    explanation = seewhy.explain("timm:resnet50", "cat.jpg")
    explanation.overlay().show()

Public names are loaded on first use (PEP 562), so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from importlib.metadata import version
from typing import Any

_PLACES = {
    "BoxTarget": "targets",
    "DRISETarget": "targets",
    "Comparison": "comparison",
    "ClassTarget": "targets",
    "Detection": "detection",
    "EpistemicUncertainty": "uncertainty.epistemic_uncertainty",
    "Explanation": "explanation",
    "FunctionModel": "models.function",
    "HierarchicalOcclusion": "counterfactuals.hierarchical_occlusion",
    "ImageClassificationRunner": "runs.runner",
    "KeypointTarget": "targets",
    "MaskTarget": "targets",
    "OoDNet": "ood.ood_net",
    "Outputs": "types",
    "Preprocessing": "images.preprocessing",
    "RegionTarget": "targets",
    "Sample": "types",
    "SimilarityTarget": "targets",
    "TextTarget": "targets",
    "TorchModel": "models.torch.model",
    "accelerate": "models.accelerate",
    "assert_looks_at": "gates",
    "compare": "comparing",
    "detections": "api",
    "diff": "insights.diff",
    "explain": "api",
    "keep_memory": "memory",
    "load": "models.loading",
    "neighbours": "insights.neighbours",
    "patterns": "insights.patterns",
    "slices": "insights.slices",
    "spoken": "models.torch.towers",
    "report": "web.report",
    "saliency_to_image": "draw.overlay",
    "show": "web.notebook",
}


def public_names() -> dict[str, str]:
    """Public name -> the module that it is taken from, below seewhy."""
    registry = importlib.import_module("seewhy.registry")  # an import statement would end up in __getattr__
    found = {name: f"explainers.{file}" for name, file in registry.class_names("explainers").items()}
    return {**_PLACES, **found}


@lru_cache  # a look into the folder takes a millisecond, and every use of a public name asks
def subpackages() -> tuple[str, ...]:
    """The modules and packages right below seewhy that are there for users: ``seewhy.metrics``, ``seewhy.runs`` ..."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("seewhy")
    if name == "__all__":
        return sorted(public_names())
    if name == "heads":
        return importlib.import_module("seewhy.models.heads")
    if name in subpackages():
        return importlib.import_module(f"seewhy.{name}")
    if (place := public_names().get(name)) is None:
        raise AttributeError(f"module 'seewhy' has no attribute {name!r}")
    return getattr(importlib.import_module(f"seewhy.{place}"), name)


def __dir__() -> list[str]:
    return sorted({*public_names(), *subpackages(), "__version__"})
