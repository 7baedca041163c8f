"""Models of `transformers`, whole: weights that a file lacks are an error, not random numbers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from flux.files import read_json_object
from flux.formats.folder import files_of
from flux.formats.header import CheckpointError, refuse_pipes
from flux.formats.schemes import quantised, refuse_quantised
from flux.formats.weights import Weights, check_file
from flux.modules.encoders import MOST_LAYERS


def load_whole(kind: type, source: str, *, unused: tuple[str, ...] = (), **options: Any) -> nn.Module:
    """`kind.from_pretrained(source, **options)`, whose files are checked first where the source is a folder.

    unused: beginnings of the names of weights that may be missing, since nobody looks at what they give.
    Raises ValueError, in one line, where others are or are no numbers; OSError for files that cannot be had.
    """
    if Path(source).is_dir():
        check_pretrained(Path(source))
    with quiet_loading():
        model, found = kind.from_pretrained(source, output_loading_info=True, **options)
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(unused))
    if missing:
        import transformers

        raise ValueError(
            f"{source} lacks {len(missing)} weights of a {type(model).__name__}, {missing[0]} for one: "
            f"download it again (or transformers, here {transformers.__version__}, knows them by other names)"
        )
    for name, tensor in model.named_parameters():
        plain = type(tensor) is nn.Parameter  # not of a `quantization_config` that a client has passed
        if plain and not tensor.isfinite().all():
            raise ValueError(f"{source} has NaN or infinity in {name}: it is damaged, download it again")
    return model


def check_pretrained(folder: Path) -> None:
    """Raise CheckpointError, in one line, for a folder whose config or weights are damaged or quantised.

    Headers alone are looked at.
    """
    refuse_pipes(folder)
    config = folder / "config.json"
    found = read_json_object(config) if config.is_file() else None
    if found is None:
        raise CheckpointError(f"{config} is missing or not a JSON object: download it again")
    if found.get("quantization_config"):
        raise quantised(folder, "a scheme that its config.json names")
    layers = found.get("num_hidden_layers", 1)
    if type(layers) is not int or not 0 < layers < MOST_LAYERS:
        raise CheckpointError(
            f"{config} describes no model, num_hidden_layers is {layers!r}: download it again"
        )
    files = files_of(folder)
    if not files:
        raise CheckpointError(f"{folder} has no weights: download the model.safetensors into it")
    for file in files:
        check_file(file)
    safe = [file for file in files if file.suffix == ".safetensors"]
    refuse_quantised(Weights(safe), folder)


@contextmanager
def in_one_line(source: str) -> Iterator[None]:
    """Whatever transformers makes of the files in a folder, as a CheckpointError that names the folder.

    Errors of names that are no folder pass: they are about the hub.
    """
    try:
        yield
    except (CheckpointError, MemoryError, ImportError):
        raise
    except Exception as error:  # Its tokenizers raise plain Exception, its readers anything.
        if not Path(source).exists() or "out of memory" in str(error):
            raise
        reason = next(iter(str(error).strip().splitlines()), "")[:300]
        raise CheckpointError(
            f"{source} cannot be loaded ({type(error).__name__}: {reason}): download it again"
        ) from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """transformers shows a bar and a report for each model it reads; the bars of downloads stay."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    shown, hub_silent = logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    restore: Callable[[], None] = disable_progress_bars if hub_silent else enable_progress_bars
    restore()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
            restore()
