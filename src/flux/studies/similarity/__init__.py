"""Demo 3: how alike pictures are, and which layers are vital."""
