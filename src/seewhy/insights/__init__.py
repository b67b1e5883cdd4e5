"""Why does it fail: what stands out over a whole data set. Reads run folders; only patterns ask the network again.

    seewhy.diff("before", "after")        two runs on the same images: what changed, the most changed first
    seewhy.slices("out")                  where the network is worse than elsewhere
    seewhy.patterns("out", model, data)   what it uses in some images of a class and not in the others: shortcuts
    seewhy.neighbours("out")              similar images, duplicates, and labels that are probably wrong

How to read what comes out, and what it cannot show: docs/insights.md.
"""
