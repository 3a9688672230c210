"""The classifier of a run as a program or a folder that works without the run."""
