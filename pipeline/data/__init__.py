"""From files on disk to batches: sources, decoding, the packed data set, its batches."""
