"""What parts of a model are made of: blocks that run one after the other, modulation layers, and the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from flux.model import Flux
from flux.placement.masters import tensors_of

T = TypeVar("T")

AHEAD = 2
"""How many blocks are on their way while one is at work."""


def blocks_of(module: nn.Module) -> tuple[nn.Module, ...]:
    """The blocks of a flow model, or those of T5, in the order in which they run; else none."""
    if isinstance(module, Flux):
        return (*module.double_blocks, *module.single_blocks)
    encoder = getattr(getattr(module, "hf_module", None), "encoder", None)
    return tuple(getattr(encoder, "block", ()))


def modulations_of(owner: nn.Module) -> tuple[nn.Module, ...]:
    """The modulation layers of a block, or of a flow model's last layer, in the order in which it asks them.

    None where a client has put a block of another kind in its place.
    """
    kinds = (("img_mod", "txt_mod"), ("modulation",), ("adaLN_modulation",))
    for names in kinds:
        found = tuple(getattr(owner, name, None) for name in names)
        if all(isinstance(each, nn.Module) for each in found):
            return found
    return ()


def modulated(module: nn.Module) -> dict[nn.Module, tuple[nn.Module, ...]]:
    """Blocks and last layer of a flow model, each with its modulation layers."""
    if not isinstance(module, Flux):
        return {}
    owners = (*blocks_of(module), module.final_layer)
    return {owner: layers for owner in owners if (layers := modulations_of(owner))}


def staying_of(blocks: Sequence[T], count: int) -> tuple[T, ...]:
    """Those of a number of blocks that stay, spread evenly, so that the next has time to come behind each.

    All of them, if no more would pass through than there are rooms for.
    """
    many = len(blocks)
    if count and many - count <= 1 + AHEAD:
        return tuple(blocks)
    return tuple(block for i, block in enumerate(blocks) if (i + 1) * count // many > i * count // many)


@dataclass(frozen=True)
class Shares:
    """The tensors of a module: of each block, of the modulation layers of each owner, and all others."""

    blocks: dict[nn.Module, list[Tensor]]
    modulations: dict[nn.Module, list[Tensor]]
    rest: list[Tensor]


def shares_of(module: nn.Module, *, modulation: bool, stream: bool) -> Shares:
    """modulation: whether these layers stand apart. stream: whether blocks do."""
    taken: set[int] = set()

    def take(modules: Sequence[nn.Module]) -> list[Tensor]:
        found = [tensor for tensor in tensors_of(*modules) if id(tensor) not in taken]
        taken.update(map(id, found))
        return found

    owners = modulated(module) if modulation else {}
    modulations = {owner: take(layers) for owner, layers in owners.items()}
    blocks = {block: take([block]) for block in blocks_of(module)} if stream else {}
    return Shares(blocks, modulations, take([module]))
