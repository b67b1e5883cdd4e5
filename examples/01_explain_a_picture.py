"""One picture, one call: what the model says, where it looked, and what the explanation cost."""

import sys
from pathlib import Path

import seewhy
from seewhy.demo import model, photographs

out = Path(sys.argv[1] if len(sys.argv) > 1 else "example-out")
explanation = seewhy.explain(model(), photographs()["cat"], ["tabby", "tiger cat", "Egyptian cat"], method="grad_cam")
for label, probability in zip(explanation.labels[0], explanation.probabilities[0].tolist(), strict=True):
    print(f"{label}: {probability:.3f}")
print(explanation.passes, *explanation.warnings, sep="\n")
print(*explanation.save(out), sep="\n")
