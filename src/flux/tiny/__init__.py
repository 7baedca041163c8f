"""The tiny scale model: a small FLUX-architecture text-to-image model and the picture world it learns."""
