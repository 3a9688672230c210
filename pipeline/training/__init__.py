"""The one training loop, and what it is handed: a learner, batches made ahead, objectives, checkpoints."""
