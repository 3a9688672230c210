"""The tree of classes, and what a model can say on it."""
