"""Attention, watched: where places of a picture look, and which places look at words, for demos 1 and 4."""
