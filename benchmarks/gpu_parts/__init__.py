"""The parts of benchmarks/gpu.py, one file each. A part has two functions:

run(setup, record)    measures, and puts each figure into the record as soon as it is known
table(figures)        the figures as lines of Markdown
"""
