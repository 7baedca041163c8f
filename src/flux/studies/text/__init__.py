"""Demo 0: pictures from text, and the check of an install."""
