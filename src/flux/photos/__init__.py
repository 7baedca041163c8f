"""Photographs: what of one is edited and at what size, how well it comes back, the edit, and its way home."""
