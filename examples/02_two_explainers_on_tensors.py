"""Explainers as objects: tensors in, maps out, several targets from one pass."""

import torch

import seewhy
from seewhy.demo import model, photographs
from seewhy.images import read

network = model()
inputs = torch.cat([network.preprocessing(read(path))[0] for path in photographs().values()])
cam = seewhy.GradCAM(network, layer="auto")
recipro = seewhy.ReciproCAM(network)

saliency = cam(inputs)
everything = recipro.attribute(inputs, "all", native=True)
print("GradCAM of the predicted class:", tuple(saliency.shape), "in [0, 1]")
print("ReciproCAM of all classes from one pass:", tuple(everything.shape))

found = recipro.run(inputs)
assert found.targets.classes is not None
same = torch.nn.functional.cosine_similarity(saliency.flatten(2), recipro(inputs).flatten(2), dim=2)
print("agreement of the two (cosine):", [round(v, 2) for v in same.flatten().tolist()])
