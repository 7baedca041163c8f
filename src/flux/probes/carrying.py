"""What a layer carries of another picture: its keys and values are a stranger's.

How far the picture moves towards the stranger says how much of a source the layer brings into an edit. On
flux-tiny this ranks layers as copying in edits does; skipping them does not.
"""

from flux.hooks import Hooks, LookAtSource
from flux.probes import Spot


def carry(spot: Spot, *, keys: bool, values: bool) -> Hooks:
    """Image tokens of row B + i take keys, values or both of row i, for B = `spot.sources` sources."""
    rows = tuple(range(spot.sources))
    heads = None if spot.head is None else (spot.head,)
    return Hooks(inject={spot.layer: LookAtSource(of=rows + rows, keys=keys, values=values, heads=heads)})
