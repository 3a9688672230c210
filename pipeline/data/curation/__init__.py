"""What is kept of a source, and for what: splits, duplicates, and the labels that people gave."""
