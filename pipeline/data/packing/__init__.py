"""Decoded images on disk: shards of pixels or of JPEG, originals that are decoded anew, and packs that runs share."""
