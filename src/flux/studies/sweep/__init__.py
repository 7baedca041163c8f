"""Demo 2: layers skipped one by one (arXiv 2411.14430, section 3.1)."""
