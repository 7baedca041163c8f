"""Fill a model from weight files, one tensor at a time: the gate that every part goes through.

The files are whole, the keys are the part's, the numbers are plain, every weight of the model is there in its
shape, and keys that nobody knows are said. Whether the numbers are finite is asked by `flux.finite`.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flux.formats.folder import files_of
from flux.formats.header import CheckpointError, is_pickle
from flux.formats.lazy import Tensors
from flux.formats.packed import keep_packed
from flux.formats.prefixes import behind
from flux.formats.schemes import plain, refuse_integers, refuse_unscaled
from flux.formats.weights import Weights

Convert = Callable[[Tensors], Tensors]
Asks = Callable[[str], bool]
Filled = Callable[[nn.Module, str], None]

SHOWN = 80  # characters of a key in a message


def never(key: str) -> bool:
    return False


def nothing(model: nn.Module, key: str) -> None:
    """What is done with a weight that is in the model, where nobody asks for more."""


def load_into(
    model: nn.Module,
    path: Path,
    device: torch.device | str,
    dtype: torch.dtype | Callable[[str], torch.dtype] | None,
    *,
    prefixes: Sequence[str] = (),
    convert: Convert = lambda tensors: tensors,
    optional: Asks = never,
    known: Asks = never,
    foreign: Asks = never,
    extra: bool = True,
    filled: Filled = nothing,
    packs: bool = False,
) -> tuple[list[str], list[str]]:
    """Fill a model, built on the meta device, from a file or a folder of shards; one tensor at a time.

    Each tensor goes from the file to `device` in `dtype` (None: the file's; or by key) and into the model, so
    that there is never a second copy of the model.

    prefixes: what may stand before the keys, see `flux.formats.prefixes`.
    convert: their names as the model's; it is run on shapes first, and nothing is read if they do not fit.
    optional: keys that may be missing, and stay as they were. known: keys too many, to be passed over.
    foreign: keys too many by which the file is another model's. extra: whether others are only warned of.
    filled: is told the model and the key of each tensor as soon as it is in, to quantise it before the next.
    packs: whether linear layers keep packed what a GGUF file has packed.
    Raises CheckpointError for all that is wrong, in one line. Returns the keys (missing in the file,
    unexpected by the model).
    """
    weights = Weights(files_of(path), device)

    def as_ours(tensors: Tensors) -> Tensors:
        return convert(plain(behind(tensors, prefixes, path), path))

    refuse_unscaled(behind(weights.shapes(), prefixes, path), path)
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    shapes = weights.shapes()
    shapes_of_ours = as_ours(shapes)
    missing, unexpected = fit(
        shapes_of_ours, wanted, path, optional=optional, known=known, foreign=foreign, extra=extra
    )
    if unexpected:
        warnings.warn(
            f"{path} has {len(unexpected)} keys that no part of the model has, they are left out: "
            f"{shortened(unexpected)}",
            stacklevel=4,
        )
    tensors = as_ours(weights)
    # What a key of ours is called in the file, where its tensor is taken as it stands there.
    names = {id(shape): name for name, shape in shapes.items()}
    for key in wanted:
        if key not in tensors:
            continue
        target = dtype(key) if callable(dtype) else dtype or computable(shapes_of_ours[key].dtype)
        packed = weights.packed(names.get(id(shapes_of_ours[key]), "")) if packs else None
        linear = model.get_submodule(key.rpartition(".")[0])
        if packed is not None and isinstance(linear, nn.Linear):
            keep_packed(linear, packed.packed().to(device), packed.kind, target)
        else:
            # A copy even where nothing changes: what was read is a view of the file, which may be rewritten.
            assign(model, key, tensors[key].to(device, target, copy=True))
        filled(model, key)
    return missing, unexpected


def check_fit(
    model: nn.Module, path: Path, *, prefixes: Sequence[str] = (), convert: Convert, **rules: Any
) -> None:
    """Raise CheckpointError where `load_into`, whose arguments these are, would; no tensor is read."""
    files = files_of(path)
    if any(map(is_pickle, files)):
        return  # which has no header, and may take minutes to read
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    shapes = behind(Weights(files).shapes(), prefixes, path)
    refuse_unscaled(shapes, path)
    fit(convert(plain(shapes, path)), wanted, path, **rules)


def fit(
    found: Tensors,
    wanted: Mapping[str, tuple[int, ...]],
    where: object,
    *,
    optional: Asks = never,
    known: Asks = never,
    foreign: Asks = never,
    extra: bool = True,
) -> tuple[list[str], list[str]]:
    """Hold the tensors of a file, on the meta device, against the shapes a model wants; see `load_into`."""
    shapes = {key: tuple(tensor.shape) for key, tensor in found.items()}
    missing = [key for key in wanted if key not in shapes]
    unexpected = [key for key in shapes if key not in wanted and not known(key)]
    deeper = deeper_than(wanted)
    others = [key for key in unexpected if not extra or foreign(key) or deeper(key)]
    misshapen = [
        f"{shown(key)} {shapes[key]} where {wanted[key]} is needed"
        for key in wanted
        if key in shapes and shapes[key] != wanted[key]
    ]
    needed = [key for key in missing if not optional(key)]
    refuse_integers({key: found[key] for key in shapes if not known(key)}, wanted, where)
    if misshapen or needed or others:
        raise _misfit(where, {"missing": needed, "unexpected": unexpected, "misshapen": misshapen})
    return missing, unexpected


def deeper_than(wanted: Iterable[str]) -> Asks:
    """Whether a key is of a block beyond those of the model, so that the file is of a deeper one."""
    blocks = _blocks(wanted)
    lists = {block.rpartition(".")[0] for block in blocks}
    return lambda key: any(block.rpartition(".")[0] in lists for block in _blocks([key]) - blocks)


def _blocks(keys: Iterable[str]) -> set[str]:
    """The numbered modules that keys stand in: `double_blocks.3`."""
    found = set()
    for key in keys:
        words = key.split(".")
        found |= {".".join(words[: i + 1]) for i, word in enumerate(words) if word.isdecimal()}
    return found


def computable(dtype: torch.dtype) -> torch.dtype:
    """The dtype itself, or bfloat16 for eight bits, which torch stores and does not compute with."""
    return torch.bfloat16 if dtype.itemsize == 1 else dtype


def assign(model: nn.Module, key: str, tensor: Tensor) -> None:
    """Put a tensor in the place of the parameter or buffer `key`, whatever device or dtype that has."""
    owner, _, name = key.rpartition(".")
    module = model.get_submodule(owner)
    old = getattr(module, name)
    is_parameter = isinstance(old, nn.Parameter)
    setattr(module, name, nn.Parameter(tensor, old.requires_grad) if is_parameter else tensor)


def _misfit(where: object, problems: Mapping[str, list[str]]) -> CheckpointError:
    """problems: keys by what is wrong with them."""
    told = "; ".join(f"{title}: {shortened(keys)}" for title, keys in problems.items() if keys)
    return CheckpointError(f"{where} does not fit the model, name the file of this model ({told})")


def shortened(keys: list[str], most: int = 10) -> str:
    """A list of keys in words, the first `most` of them."""
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(shown(key, 2 * SHOWN) for key in keys[:most]) + rest


def shown(key: str, most: int = SHOWN) -> str:
    """A key as it can be printed: a file may have any."""
    text = key if key.isprintable() else key.encode("unicode_escape", "backslashreplace").decode("ascii")
    return text if len(text) <= most else text[:most] + "..."
