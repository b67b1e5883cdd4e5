"""The registry: names from files, classes by name, mistakes."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import seewhy
import seewhy.explainers
from seewhy import registry
from seewhy.errors import UnknownName
from support import networks
from support.networks import build, pictures
from support.typed import unchecked


def test_names_are_the_public_files() -> None:
    folder = Path(seewhy.explainers.__path__[0])
    assert registry.names("explainers") == sorted(p.stem for p in folder.glob("*.py") if not p.name.startswith("_"))


def test_every_class_is_found_by_both_names_and_at_the_top() -> None:
    for cls, name in registry.class_names("explainers").items():
        assert registry.load("explainers", cls) is registry.load("explainers", name)
        assert getattr(seewhy, cls) is getattr(seewhy.explainers, cls)
        assert registry.load("explainers", cls).__name__ == cls
        assert cls in seewhy.__all__
        assert cls in dir(seewhy.explainers)


def test_an_unknown_name() -> None:
    with pytest.raises(
        UnknownName,
        match="^" + re.escape("There is no explainer 'occlusoin'. Did you mean 'occlusion'?") + "$",
    ):
        registry.load("explainers", "occlusoin")
    with pytest.raises(AttributeError, match=r"^module 'seewhy\.explainers' has no attribute 'GradCAMM'$"):
        _ = seewhy.explainers.GradCAMM


close = torch.testing.assert_close


def test_a_file_without_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty_one.py").write_text('"""Nothing."""\n')
    folders = [*seewhy.explainers.__path__, str(tmp_path)]
    monkeypatch.setattr(seewhy.explainers, "__path__", folders)
    monkeypatch.setattr(seewhy.explainers.__spec__, "submodule_search_locations", folders)
    registry.forget()
    try:
        with pytest.raises(UnknownName, match=r"^empty_one\.py has no class called 'emptyone' in any case\.$"):
            registry.load("explainers", "empty_one")
    finally:
        monkeypatch.undo()
        registry.forget()


FOUND = registry.names("explainers")
NEW = '''"""Brightness, as an example. Source: Nobody, 2026."""
from dataclasses import dataclass
from seewhy.explainers import Explainer
from seewhy.attribution import Attribution


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BrightSpot(Explainer):
    """The picture's brightness."""

    gain: float = 1.0

    def _explain(self, model, inputs, request):
        outputs = model(inputs)
        targets = request.resolve(outputs)
        raw = self.gain * inputs.mean(1, keepdim=True).expand(-1, targets.count, -1, -1)
        return Attribution(raw=raw, outputs=outputs, targets=targets)
'''


@pytest.fixture
def new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def forget() -> None:
        registry.forget()
        sys.modules.pop("seewhy.explainers.bright_spot", None)

    (tmp_path / "bright_spot.py").write_text(NEW)
    folders = [*seewhy.explainers.__path__, str(tmp_path)]
    monkeypatch.setattr(seewhy.explainers, "__path__", folders)
    monkeypatch.setattr(seewhy.explainers.__spec__, "submodule_search_locations", folders)
    forget()
    yield
    monkeypatch.undo()
    forget()


@pytest.mark.usefixtures("new_file")
def test_a_new_explainer_is_one_new_file() -> None:
    assert "bright_spot" in registry.names("explainers")
    assert set(FOUND) < set(registry.names("explainers"))
    assert registry.load("explainers", "BrightSpot") is registry.load("explainers", "bright_spot")
    assert "BrightSpot" in seewhy.__all__
    x = pictures()
    close(unchecked(seewhy).BrightSpot(build(networks.Pooled), gain=2.0).attribute(x, 1), 2 * x.mean(1, keepdim=True))


def test_the_new_file_is_gone() -> None:
    assert registry.names("explainers") == FOUND


# -------------------------------------------------------------------------------- what is named instead of a method


def test_what_is_offered_needs_no_more_than_there_is() -> None:
    assert registry.instead("scores") == "RISE or Occlusion"
    assert registry.instead("features") == "ReciproCAM, RISE or Occlusion"
    assert registry.instead("gradients") == "GradCAM, ReciproCAM, RISE or Occlusion"
    assert registry.instead("features", tokens=True) == "RISE or Occlusion"
    kinds = [registry.load("explainers", name) for name in FOUND]
    offered = [kind for kind in kinds if kind.offered]
    assert len({kind.offered for kind in offered}) == len(offered) == 4
    assert not any(kind.chance or kind.classes_only for kind in offered)


LOWER = ("models", "targets.py", "detection.py", "types.py", "perturbation.py", "images", "datasets", "boxes.py")


def test_lower_rooms_name_no_explainer_in_what_they_say() -> None:
    source = Path(seewhy.__file__).parent
    files = [f for room in LOWER for f in ([source / room] if room.endswith(".py") else (source / room).rglob("*.py"))]
    assert len(files) > 80
    names = set(registry.class_names("explainers")) - {"Gradient"}
    said = []
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        told = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}  # docstrings
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                said += [
                    f"{file.name}:{node.lineno} {word}" for word in re.findall(r"\w+", node.value) if word in names
                ]
    assert said == []
