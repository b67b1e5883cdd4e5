"""What computes a run: the job, the plan, and the worker that does a chunk of it."""
