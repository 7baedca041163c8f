"""Train the text encoders alone, before the flow model, to say what a caption says.

T5 must know all about each thing *at the token that names the thing*, its number too: that is what the flow
model attends to, and without it colours end up on the wrong thing. CLIP must know the whole scene from its
pooled output.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from flux.tiny.scenes import GROUNDS, KINDS, SKIES, THING_VALUES, WEATHERS, Scene
from flux.tiny.training import tokenizers
from flux.tiny.training.device import CPU
from flux.tiny.training.export import save_clip
from flux.tiny.training.layouts import paired_scenes
from flux.tiny.training.loop import Drawn, Stage
from flux.tiny.training.shapes import SHIPPED
from flux.tiny.training.wordings import Wording, kinds_of_nouns, with_strays, word

SCENES = 36_000
CAPTIONS = 108_000
SCENERY_CLASSES = {"sky": len(SKIES) + 1, "ground": len(GROUNDS) + 1, "weather": len(WEATHERS)}
"""How many classes of each, with one more for "not said"; clear weather need not be said."""
THING_CLASSES = {name: len(values) + (name == "size") for name, values in THING_VALUES.items()}
MOST_ALIKE = 2
FOLDERS = {"clip": ("text_encoder", "tokenizer"), "t5": ("text_encoder_2", "tokenizer_2")}


class TextParts(nn.Module):
    """Both encoders, and the heads that read them back; only the encoders ship."""

    def __init__(self, t5_vocab: int, clip_vocab: int):
        super().__init__()
        width = SHIPPED.params.context_in_dim
        self.t5 = T5EncoderModel(
            T5Config(
                vocab_size=t5_vocab,
                d_model=width,
                d_kv=32,
                d_ff=256,
                num_layers=3,
                num_heads=4,
                relative_attention_num_buckets=16,
                relative_attention_max_distance=32,
                dropout_rate=0.0,
                feed_forward_proj="gated-gelu",
                pad_token_id=0,
                eos_token_id=1,
            )
        )
        self.clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=clip_vocab,
                hidden_size=SHIPPED.params.vec_in_dim,
                intermediate_size=256,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=SHIPPED.t5_length,
                hidden_act="quick_gelu",
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
                projection_dim=SHIPPED.params.vec_in_dim,
            )
        )
        scenery = sum(SCENERY_CLASSES.values())
        self.t5_scenery = nn.Linear(width, scenery)
        self.t5_thing = nn.Linear(width, sum(THING_CLASSES.values()) + MOST_ALIKE)
        self.clip_scenery = nn.Linear(SHIPPED.params.vec_in_dim, scenery)
        of_a_kind = 1 + MOST_ALIKE + sum(THING_CLASSES.values()) - THING_CLASSES["kind"]
        self.clip_things = nn.Linear(SHIPPED.params.vec_in_dim, len(KINDS) * of_a_kind)


def train(
    folder: Path, out: Path, steps: int, seed: int = 0, batch: int = 192, device: torch.device = CPU
) -> None:
    """Fit the tokenizers, train both encoders, and save all four to `out` in the layout of a FLUX
    repository."""
    captions, labels = labelled_captions(seed, CAPTIONS)
    length = SHIPPED.t5_length
    tokenizers.train_t5(captions, out / "tokenizer_2", length)
    tokenizers.train_clip(captions, out / "tokenizer", length)
    t5_tok, clip_tok = (AutoTokenizer.from_pretrained(out / FOLDERS[name][1]) for name in ("t5", "clip"))
    padded = dict(padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    rng = np.random.default_rng((seed, 2))
    captions = [with_strays(caption, rng) for caption in captions]  # not before: strays are no pieces
    t5_ids, clip_ids = (tokenizer(captions, **padded)["input_ids"] for tokenizer in (t5_tok, clip_tok))
    kind_of_token = torch.full((len(t5_tok),), -1)
    for noun, kind in kinds_of_nouns().items():
        kind_of_token[t5_tok.convert_tokens_to_ids(tokenizers.SPACE + noun)] = KINDS.index(kind)
    kind_of_token[t5_tok.unk_token_id] = -1  # a noun that no caption has
    t5_ids, clip_ids, kind_of_token = (ids.to(device) for ids in (t5_ids, clip_ids, kind_of_token))
    labels = {name: values.to(device) for name, values in labels.items()}

    torch.manual_seed(seed)
    model = TextParts(len(t5_tok), len(clip_tok)).to(device)

    def draw(rng: np.random.Generator, step: int) -> Drawn:
        return Drawn("captions", rng.integers(len(captions), size=batch))

    def loss(kind: str, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        truth = {name: values[rows] for name, values in labels.items()}
        hidden = model.t5(input_ids=t5_ids[rows]).last_hidden_state
        pooled = model.clip(input_ids=clip_ids[rows]).pooler_output
        parts = {
            "t5_scenery": scenery_loss(model.t5_scenery(hidden.mean(dim=1)), truth),
            "t5_things": thing_loss(model.t5_thing(hidden), kind_of_token[t5_ids[rows]], truth),
            "clip_scenery": scenery_loss(model.clip_scenery(pooled), truth),
            "clip_things": pooled_loss(model.clip_things(pooled), truth),
        }
        return sum(parts.values()), {name: value.detach() for name, value in parts.items()}

    optimizer = torch.optim.AdamW(model.parameters(), lr=1.2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    Stage("text", folder, model, [optimizer], draw, loss, steps, seed, warmup=80).run()
    model.cpu()
    model.t5.save_pretrained(out / FOLDERS["t5"][0])
    save_clip(model.clip, out / FOLDERS["clip"][0])


def labelled_captions(seed: int, count: int) -> tuple[list[str], dict[str, Tensor]]:
    """Captions and what they say.

    'sky', 'ground', 'weather': (count,), an extra last class of sky and ground for "not said". 'colour',
    'size', 'hat', 'pose', 'letter': (count, kinds), -1 for what is not there, size with the extra class.
    'count': (count, kinds), how many there are.
    """
    rng = np.random.default_rng((seed, 1))
    truth = paired_scenes(seed, min(SCENES, count), 128)
    texts, rows = [], []
    for i in tqdm(range(count), desc="captions", mininterval=5):
        scene = truth[i % len(truth)]
        wording = word(scene, rng, complete=rng.random() < 0.5)
        texts.append(wording.text)
        rows.append(_labels(scene, wording))
    return texts, {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def _labels(scene: Scene, wording: Wording) -> dict[str, int | list]:
    things = {name: [-1] * len(KINDS) for name in THING_CLASSES if name != "kind"}
    things["count"] = [0] * len(KINDS)
    for thing, says_size in zip(scene.things, wording.sizes, strict=True):
        i = KINDS.index(thing.kind)
        things["count"][i] += 1
        for name, values in THING_VALUES.items():
            if name != "kind":
                value = getattr(thing, name)
                things[name][i] = -1 if value is None else values.index(value)
        if not says_size:
            things["size"][i] = THING_CLASSES["size"] - 1
    return {
        "sky": SKIES.index(scene.sky) if wording.sky else len(SKIES),
        "ground": GROUNDS.index(scene.ground) if wording.ground else len(GROUNDS),
        "weather": WEATHERS.index(scene.weather),
        **things,
    }


def scenery_loss(logits: Tensor, truth: dict[str, Tensor]) -> Tensor:
    parts = logits.split(tuple(SCENERY_CLASSES.values()), dim=-1)
    return sum(F.cross_entropy(part, truth[name]) for part, name in zip(parts, SCENERY_CLASSES, strict=True))


def thing_loss(logits: Tensor, kinds: Tensor, truth: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of kind, attributes and number at the tokens that name things. logits: (B, L, ...);
    kinds: (B, L), the kind that a token names, or -1."""
    named, kind = kinds >= 0, kinds.clamp(min=0)
    row = torch.arange(len(kinds), device=kinds.device)[:, None]
    *parts, number = logits.split((*THING_CLASSES.values(), MOST_ALIKE), dim=-1)
    targets = [kinds if name == "kind" else truth[name][row, kind] for name in THING_CLASSES]
    loss = 0.0
    for part, target in zip((*parts, number), (*targets, truth["count"][row, kind] - 1), strict=True):
        loss = loss + _cross_entropy(part.flatten(0, 1), torch.where(named, target, -1).flatten())
    return loss


def pooled_loss(logits: Tensor, truth: dict[str, Tensor]) -> Tensor:
    """Cross-entropy, per kind, of how many there are and, if any, of their attributes."""
    names = [name for name in THING_CLASSES if name != "kind"]
    sizes = (1 + MOST_ALIKE, *(THING_CLASSES[name] for name in names))
    number, *parts = logits.unflatten(-1, (len(KINDS), -1)).split(sizes, dim=-1)
    loss = F.cross_entropy(number.flatten(0, 1), truth["count"].flatten())
    for part, name in zip(parts, names, strict=True):
        loss = loss + _cross_entropy(part.flatten(0, 1), truth[name].flatten())
    return loss


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The mean over rows that have a target, 0 if none has; logits: (N, classes), target: -1 or a class."""
    total = F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
    return total / (target >= 0).sum().clamp(min=1)
