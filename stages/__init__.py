"""The stages of a run: one file a word of the command line. Each reads artifacts and never another stage's code."""
