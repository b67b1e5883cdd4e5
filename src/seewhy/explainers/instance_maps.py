"""InstanceMaps: the masks that an instance segmentation gives for a class, each as strong as its score.

    map_c = sum over the objects o of class c of  score_o [mask_o > mask_threshold]  /  number of those objects

An object is a detection with a score above the threshold that is left after suppression, class by class. The map is a
mean of scores, so its values mean the same in every image, and it is shown on the scale 0 to 1 as it is: one object
of score 0.05 does not look like one of 0.99.

Source: documented as InstSegExplainAlgo of OpenVINO Training Extensions (2022), which stretches each class to the full
scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seewhy.attribution import Attribution
from seewhy.checks import check_fraction
from seewhy.detection import OVERLAP, detect
from seewhy.errors import BadOutput, InvalidTarget
from seewhy.explainers import Explainer
from seewhy.explainers._checks import at_places
from seewhy.models import Model
from seewhy.plain import Meaning
from seewhy.targets import Request, TargetSet
from seewhy.types import Outputs

__all__ = ["InstanceMaps"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class InstanceMaps(Explainer):
    """The mean over a class's objects of score times mask, in one pass (OTX 2022).

    Attributes:
        score_threshold: objects with a score above it count.
        mask_threshold: a mask covers the positions with a value above it.
        nms_threshold: an object whose box overlaps that of a better one of its class by more does not count.

    Example:
        >>> InstanceMaps(detector)(inputs, 1).shape
        torch.Size([2, 1, 32, 32])
    """

    score_threshold: float = 0.05
    mask_threshold: float = 0.5
    nms_threshold: float = OVERLAP

    classes_only: ClassVar[bool] = True
    values: ClassVar[Meaning] = "score"

    def __post_init__(self) -> None:
        for name in ("score_threshold", "mask_threshold", "nms_threshold"):
            check_fraction(name, getattr(self, name))

    def _explain(self, model: Model, inputs: Tensor, request: Request) -> Attribution:
        outputs = model(inputs)
        if outputs.masks is None or outputs.boxes is None:
            lacks = "boxes" if outputs.masks is not None else "instance masks"
            raise InvalidTarget(f"InstanceMaps needs instance masks with boxes: {model.name} gives no {lacks}.")
        if not outputs.activated:
            raise BadOutput(f"InstanceMaps needs probabilities: {model.name} must return Outputs(activated=True, ...).")
        targets = request.classes_only(outputs, type(self).__name__)
        raw, counts = self._maps(outputs, targets)
        none = (counts == 0) if request.kind != "all" else torch.zeros_like(counts, dtype=torch.bool)
        text = f"no object has a score above {self.score_threshold:g}."
        return Attribution(
            raw=raw,
            outputs=outputs,
            targets=targets,
            notes=tuple(at_places(none, "no object", text)),
        )

    def _maps(self, outputs: Outputs, targets: TargetSet) -> tuple[Tensor, Tensor]:
        """(N, T, h, w) maps, and (N, T) how many objects each stands for."""
        assert outputs.masks is not None
        assert targets.classes is not None
        n, _, h, w = outputs.masks.shape
        maps = outputs.masks.new_zeros((n, outputs.num_classes, h, w), dtype=torch.float32)
        counts = maps.new_zeros((n, outputs.num_classes))
        found = detect(
            outputs, score_threshold=self.score_threshold, nms_threshold=self.nms_threshold,
            max_detections=outputs.scores[0].numel(),
        )  # fmt: skip
        for i, one in ((i, one) for i, objects in enumerate(found) for one in objects):
            assert one.mask is not None
            maps[i, one.label] += one.score * (one.mask > self.mask_threshold)
            counts[i, one.label] += 1
        asked = targets.classes
        mean = maps / counts.clamp_min(1)[..., None, None]
        return mean.gather(1, asked[..., None, None].expand(-1, -1, h, w)), counts.gather(1, asked)
