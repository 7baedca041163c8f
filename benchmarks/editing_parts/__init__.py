"""The parts of `benchmarks/editing.py`: task sets, rows, what makes and measures them, table and page."""
