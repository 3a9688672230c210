"""Everything that a user can set: the keys with their bounds and defaults, and the pages they are read from."""
