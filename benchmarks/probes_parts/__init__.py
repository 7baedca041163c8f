"""The parts of `benchmarks/probes.py`."""
