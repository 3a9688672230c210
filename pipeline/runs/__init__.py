"""A run: its plan, its folder, how each step is made there, and where it stands."""
