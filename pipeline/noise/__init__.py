"""Noise on images: one by one where they are loaded, by the batch where they are trained on, and mixtures of them."""
