"""A data set: maps, scores and uncertainty of every picture in a folder that is never computed twice."""

import sys
from pathlib import Path

import seewhy
from seewhy.demo import model, photographs
from seewhy.runs.query import Run
from seewhy.runs.query.explanations import explanation

out = Path(sys.argv[1] if len(sys.argv) > 1 else "example-run")
runner = seewhy.ImageClassificationRunner(out, model(), "softmax", list(photographs().values()), progress=False)
runner.register_saliency(explainers=["grad_cam", "recipro_cam"], benchmarkers=["deletion_auc(steps=8)", "sparseness"])
runner.register_uncertainty()
print(runner.run())

runner.register_saliency(explainers=["grad_cam", "recipro_cam", "eigen_cam"], benchmarkers=["sparseness"])
print(runner.run())  # only EigenCAM is computed

run = Run(out)
for hit in run.labels(sort="score:grad_cam:sparseness", descending=True, limit=3):
    label = hit.labels[0]
    print(hit.record.name, run.class_name(label), hit.record.scores[label, "grad_cam", "sparseness"])
first = next(run.records())
explanation(run, first.sample, "grad_cam").overlay().save(out / "overlay.png")
