"""Skip layers one by one and see what becomes of the pictures (arXiv 2411.14430, section 3.1)."""
