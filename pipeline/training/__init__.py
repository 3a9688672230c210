"""The one training loop, and what it is handed: objectives, noise on batches, schedules, checkpoints."""
