"""Small GGUF files with the official names, or llama.cpp's for T5, written by the `gguf` package."""

import re

import gguf
import numpy as np
import torch

from flux.formats.gguf_blocks import BLOCKS
from flux.modules.encoders import LLAMA_CPP, LLAMA_CPP_ENDS

SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where the float16 factors of a block stand that the package cannot quantise to."""


def packed(weight, kind):
    """Bytes of a weight (rows, bytes of a row), or None where its rows are no whole blocks.

    Of kinds that the package cannot make: random blocks with factors of about 1/1000.
    """
    layout = BLOCKS[kind]
    if weight.ndim != 2 or weight.shape[1] % layout.numbers:
        return None
    if kind not in SCALES:
        return gguf.quants.quantize(weight.float().numpy(), gguf.GGMLQuantizationType[kind])
    blocks = weight.shape[1] // layout.numbers
    data = np.random.default_rng(0).integers(0, 256, (weight.shape[0], blocks, layout.size), dtype=np.uint8)
    for at in SCALES[kind]:
        data[:, :, at : at + 2] = np.array([0.001], dtype=np.float16).view(np.uint8)
    return data.reshape(weight.shape[0], -1)


def write_gguf(file, state, kind="Q8_0", architecture="flux", plain=np.float32):
    """kind: of every weight that has whole blocks, or what gives it for a key, None for plain numbers.

    Returns the numbers of each tensor, by the package's own dequantisation.
    """
    writer, numbers = gguf.GGUFWriter(file, architecture), {}
    for key, tensor in state.items():
        name = kind(key) if callable(kind) else kind
        data = packed(tensor, name) if name else None
        if data is None:
            data = tensor.float().numpy().astype(plain)
            writer.add_tensor(key, data)
            numbers[key] = torch.from_numpy(data.astype(np.float32))
        else:
            made = gguf.GGMLQuantizationType[name]
            writer.add_tensor(key, data, raw_dtype=made)
            numbers[key] = torch.from_numpy(gguf.quants.dequantize(data, made))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return numbers


def as_llama_cpp(state):
    """T5's tensors under llama.cpp's names."""
    parts = {theirs: ours for ours, theirs in LLAMA_CPP.items()} | {"1.DenseReluDense.wi": "ffn_up"}
    ends = {theirs: ours for ours, theirs in LLAMA_CPP_ENDS.items()}

    def name(key):
        found = re.fullmatch(r"encoder\.block\.(\d+)\.layer\.(.+)\.weight", key)
        return f"enc.blk.{found[1]}.{parts[found[2]]}.weight" if found else ends[key]

    return {name(key): tensor for key, tensor in state.items() if key != "encoder.embed_tokens.weight"}
