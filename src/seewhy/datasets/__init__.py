"""Pictures that come with their truth.

A data set is one file here. `seewhy.datasets.shapes` draws pictures of textured shapes and knows every pixel of them,
for tests that need the right answer.
"""
