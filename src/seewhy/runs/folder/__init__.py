"""The run folder: what lies on the disk, and how it is written and read."""
