"""Whole data sets: what is to be done, the folder that keeps what was done, and the job that does it.

    runner = ImageClassificationRunner(summary_dir="./summary", network=network, data=(dataset, classes))
    runner.register_saliency(explainers=["grad_cam", "rise"], benchmarkers=["insertion_auc"])
    summary = runner.run()

plan.py names every item of work by what it is, so that resuming a killed run, adding an explainer to an old one and
running the same twice are one mechanism. store.py is the run folder: immutable parts, no server, no lock. work.py
computes a chunk of pictures, runner.py hands chunks to an engine, query.py reads what is there, also while it grows.
"""
