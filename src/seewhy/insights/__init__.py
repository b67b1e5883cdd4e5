"""Why does it fail: what stands out over a whole data set. Reads run folders and computes nothing anew.

    seewhy.diff("before", "after")        two runs on the same images: what changed, the most changed first
    seewhy.slices("out")                  where the network is worse than elsewhere
    seewhy.neighbours("out")              similar images, duplicates, and labels that are probably wrong

How to read what comes out, and what it cannot show: docs/insights.md.
"""
