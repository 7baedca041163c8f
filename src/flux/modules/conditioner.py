"""Text encoders: T5 for the tokens, CLIP for the pooled text, through `transformers` (4.45 and later)."""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flux.extras import lazy_names
from flux.formats.fill import Filled, nothing
from flux.formats.folder import files_of
from flux.formats.header import refuse_pipes
from flux.formats.weights import Weights
from flux.modules import encoders
from flux.modules.encoders import load_encoder
from flux.modules.pretrained import in_one_line, load_whole
from flux.modules.words import Spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUOTED = 200  # characters of a cut prompt that a warning repeats

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        name: f"transformers:{name}"
        for name in ("CLIPTextModel", "CLIPTokenizer", "T5EncoderModel", "T5Tokenizer")
    },
)


class HFEmbedder(nn.Module):
    """A frozen text encoder with its tokenizer.

    version: a hub name, a folder, or a weight file. A folder is either one model with its tokenizer, or, in
    the layout of a FLUX.1-dev clone, the model's folder (`text_encoder`) with its tokenizer beside it
    (`tokenizer`). A file is read with the `config.json` beside it, or as T5 or CLIP-L where its weights tell.
    CLIP is told from T5 by the name's prefix `openai`, for a folder by `model_type` in its `config.json`, or
    by `clip`. tokenizer: its hub name or folder, if not the one that goes with `version`.
    max_length: tokens are cut or padded to this length; no attention mask is used.
    filled, packs: what is done with each weight, and whether GGUF stays packed, see `flux.formats.fill`.
    hf_kwargs: passed to the model's `from_pretrained`. `torch_dtype`, also spelt `dtype`, is float32 if not
    given, whatever the default of the installed transformers.
    Raises ValueError for a folder that holds neither, or weights that are damaged, quantised or too few;
    OSError for files that cannot be had.
    """

    def __init__(
        self,
        version: str,
        max_length: int,
        *,
        clip: bool | None = None,
        tokenizer: str | None = None,
        filled: Filled = nothing,
        packs: bool = False,
        **hf_kwargs,
    ):
        super().__init__()
        self.max_length = max_length
        self.is_clip = is_clip(version) if clip is None else clip
        self.output_key = "pooler_output" if self.is_clip else "last_hidden_state"
        self.tokenizer = load_tokenizer(tokenizer or tokenizer_of(version), max_length, hf_kwargs)
        module = load_module(version, self.is_clip, hf_kwargs, filled=filled, packs=packs)
        self.hf_module = module.eval().requires_grad_(False)
        _require_one_vocabulary(version, len(self.tokenizer), self.hf_module)
        self._warned: set[str] = set()

    def forward(self, text: list[str]) -> Tensor:
        """Prompts to bfloat16 (B, max_length, width) for T5, (B, width) for CLIP.

        Warns of what does not fit into `max_length` tokens: T5 once for each prompt, CLIP once at all.
        """
        tokens = self.tokenizer(
            text, truncation=True, max_length=self.max_length, padding="max_length", return_tensors="pt"
        )
        self._warn_of_cuts(text)
        output = self.hf_module(input_ids=tokens["input_ids"].to(self.hf_module.device), attention_mask=None)
        return output[self.output_key].bfloat16()

    def lost_to_length(self, prompt: str) -> str:
        """The end of a prompt that does not fit into `max_length` tokens, as the tokenizer spells it."""
        ids = self.tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        room = self.max_length - self.tokenizer.num_special_tokens_to_add(pair=False)
        return self.tokenizer.decode(ids[room:]).strip() if len(ids) > room else ""

    def spans(self, prompt: str) -> Spans | None:
        """Where each token that is read, padding aside, stands in the prompt: (start, stop) in letters.

        Equal for a token that stands for none. None where the tokenizer does not know.
        """
        if not getattr(self.tokenizer, "is_fast", False):
            return None
        read = self.tokenizer(
            prompt, truncation=True, max_length=self.max_length, return_offsets_mapping=True, verbose=False
        )
        return [tuple(span) for span in read["offset_mapping"]]

    def _warn_of_cuts(self, text: list[str]) -> None:
        prompts = [text] if isinstance(text, str) else text
        for prompt in dict.fromkeys(prompts):
            if self.is_clip and self._warned:  # it does no harm, and lists have many such prompts
                return
            lost = "" if prompt in self._warned else self.lost_to_length(prompt)
            if lost:
                self._warned.add(prompt)
                warnings.warn(self._cut_message(lost), stacklevel=3)

    def _cut_message(self, lost: str) -> str:
        quoted = lost if len(lost) <= QUOTED else lost[:QUOTED] + "..."
        if self.is_clip:
            return (
                f"CLIP's summary of a prompt covers its first {self.max_length} tokens, which does no harm "
                f"where T5 reads on (said once); the summary misses {quoted!r}"
            )
        return f"T5 reads the first {self.max_length} tokens of a prompt; what came after was cut: {quoted!r}"


def load_tokenizer(source: str, max_length: int, hf_kwargs: dict) -> "PreTrainedTokenizerBase":
    """The tokenizer of a hub name or folder."""
    from transformers import AutoTokenizer

    local = {key: value for key, value in hf_kwargs.items() if key == "local_files_only"}
    with in_one_line(source):
        if Path(source).is_dir():
            refuse_pipes(Path(source))
        return AutoTokenizer.from_pretrained(source, model_max_length=max_length, **local)


def load_module(
    version: str, clip: bool, hf_kwargs: dict, *, filled: Filled = nothing, packs: bool = False
) -> nn.Module:
    """The model of a hub name, folder or file; options that are about transformers alone lead through it.

    Where they do, it is there in full before `filled` is told of its weights.
    """
    from transformers import PreTrainedModel

    # Looked up in this module, where clients patch them.
    kind = getattr(sys.modules[__name__], "CLIPTextModel" if clip else "T5EncoderModel")
    options = with_known_dtype(hf_kwargs)
    dtype = options.get("dtype", options.get("torch_dtype"))
    reader = getattr(kind.from_pretrained, "__func__", None)
    plain = len(options) == 1 and reader is PreTrainedModel.from_pretrained.__func__
    with in_one_line(version):
        if plain and Path(version).exists() and isinstance(dtype, torch.dtype):
            encoder = encoders.CLIP if clip else encoders.T5
            return load_encoder(kind, encoder, Path(version), dtype, filled=filled, packs=packs)
        model = load_whole(kind, version, **options)
    for key in dict(model.named_parameters()):
        filled(model, key)
    return model


def _require_one_vocabulary(version: str, tokens: int, module: nn.Module) -> None:
    """T5 has a few rows more than its tokenizer has tokens, CLIP none."""
    rows = module.get_input_embeddings().num_embeddings
    if not rows / 2 <= tokens <= rows:
        raise ValueError(
            f"{version} reads {rows} tokens and its tokenizer has {tokens}, it is another model's: "
            "put the tokenizer of this encoder beside it"
        )


def with_known_dtype(hf_kwargs: dict) -> dict:
    """The same keyword arguments with the number type under the name the installed transformers knows."""
    import transformers

    kwargs = dict(hf_kwargs)
    given = [kwargs.pop(name, None) for name in ("dtype", "torch_dtype")]
    dtype = next((dtype for dtype in given if dtype is not None), torch.float32)
    release = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    gone = [name for name in ("load_in_8bit", "load_in_4bit") if name in kwargs and release >= (5, 0)]
    if gone:
        raise ValueError(
            f"{gone[0]} is no option of transformers {transformers.__version__}: pass a quantization_config"
        )
    return {**kwargs, "dtype" if release >= (4, 56) else "torch_dtype": dtype}


def is_clip(version: str) -> bool:
    """Whether a hub name or folder holds CLIP rather than T5; ValueError for a folder that holds neither."""
    if Path(version).is_file():
        return not any(".block." in key or ".blk." in key for key in Weights(files_of(Path(version))))
    if not Path(version).is_dir():
        return version.startswith("openai")
    config = Path(version) / "config.json"
    if not config.is_file():
        raise ValueError(f"{version} has no config.json: name the folder of a T5 or CLIP text encoder")
    kind = _model_type(config)
    if not kind.startswith(("clip", "t5", "mt5", "umt5")):
        raise ValueError(f"{config} says model_type {kind!r}: a CLIP text model or a T5 encoder is needed")
    return kind.startswith("clip")


def _model_type(config: Path) -> str:
    try:
        return str(json.loads(config.read_text(encoding="utf-8")).get("model_type", ""))
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{config} is not the config of a text encoder: {error}") from error


def tokenizer_of(version: str) -> str:
    """Where the tokenizer of a model is: with it, or in the sibling `tokenizer*` of `text_encoder*`."""
    if not Path(version).exists():
        return version
    # Not `resolve`: the sibling of a link named text_encoder stands beside the link.
    folder = Path(os.path.abspath(version))
    if folder.is_file():
        folder = folder.parent
    sibling = folder.with_name(folder.name.replace("text_encoder", "tokenizer")) if folder.name else folder
    return str(sibling if sibling.is_dir() else folder)
