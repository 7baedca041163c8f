"""What the parts of benchmarks/gpu.py share: records, the machine, the models, the clock, the figures."""
