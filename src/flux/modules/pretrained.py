"""Models of `transformers`, whole: weights that a file lacks are an error, not random numbers."""

from typing import Any

from torch import nn


def load_whole(kind: type, source: str, *, unused: tuple[str, ...] = (), **options: Any) -> nn.Module:
    """`kind.from_pretrained(source, **options)`.

    unused: beginnings of the names of weights that may be missing, since nobody looks at what they give.
    Raises ValueError, in one line, where others are; OSError for files that cannot be had.
    """
    model, found = kind.from_pretrained(source, output_loading_info=True, **options)
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(unused))
    if missing:
        import transformers

        raise ValueError(
            f"{source} lacks {len(missing)} weights of a {type(model).__name__}, {missing[0]} for one: "
            f"download it again (or transformers, here {transformers.__version__}, knows them by other names)"
        )
    return model
