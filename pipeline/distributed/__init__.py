"""Several processes that work on one run: who leads, and how they share a batch."""
