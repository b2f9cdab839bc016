"""Files: how they are written, checkpoints, and the files of a run."""
