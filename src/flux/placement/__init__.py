"""What is where when: parts of a model that wait on the host, and what a device holds at a time.

`modes.py` names the ways, `work.py` applies them to the part that is at work, `peaks.py` says beforehand what
each of them needs.
"""
