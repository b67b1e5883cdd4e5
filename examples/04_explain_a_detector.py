"""A detector: what it finds in a photograph, and for each box where it looked. All boxes share the same passes."""

import sys
from pathlib import Path

import seewhy
from seewhy.api import detections
from seewhy.demo import photographs
from seewhy.errors import CheckpointError
from seewhy.zoo import nanodet

out = Path(sys.argv[1] if len(sys.argv) > 1 else "example-out")
try:
    model = nanodet()
except CheckpointError as error:  # the model is not part of seewhy
    print(error)
    sys.exit()

picture = photographs()["cat"]
found = detections(model, picture, score_threshold=0.4)
for one in found:
    print(f"{model.labels[one.label]}: {one.score:.3f} at {one.box}")

boxes = seewhy.explain(model, picture, found, method="rise", num_masks=200, perturbation_per_eval=8)
classes = seewhy.explain(model, picture, [found[0].label], method="det_class_probability_map")
for explanation in (boxes, classes):
    print(explanation.passes, *explanation.warnings, sep="\n")
    print(*explanation.save(out), sep="\n")
