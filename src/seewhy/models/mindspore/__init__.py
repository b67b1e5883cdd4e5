"""The MindSpore side: a ``mindspore.nn.Cell`` as a model that gives scores, features and gradients.

library.py    the one file that imports MindSpore
model.py      the model
look.py       what a cell does with a picture: its operations, its layers, the automatic one
rules.py      other rules for the way back through ReLUs
bridge.py     a cell as a module of torch, for what is trained on its features
"""
