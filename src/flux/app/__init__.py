"""The page of `demos/demo_gr.py`: fields become a spec, and the studies of the other demos make it.

Nothing here draws or edits by itself. What a tab asks for is an object such as stands in a spec's file; the
same reader checks it, and the same study makes it, with models that are loaded already.
"""
