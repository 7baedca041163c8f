"""Attention, watched: what image tokens receive, where chosen tokens look, who looks at chosen words.

All of it is computed beside the model's own attention, in slices, and changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flux.hooks.plan import Site
from flux.math import apply_rope, rows_of


def received_attention(q: Tensor, k: Tensor, site: Site, *, budget: int = 2**25) -> Tensor:
    """Attention each image token receives: mean over heads and image queries of softmax(q k / sqrt(D)).

    q, k: (B, H, L, D) before RoPE; scored as the model attends, after RoPE, softmax over all keys. Image
    tokens are those of `site.img`, the picture itself.
    Returns float32 (B, L_img). Queries are taken in slices of about `budget` scores (128 MiB by default), two
    of which are held while softmax runs, whatever the size of the picture.
    """
    q, k = _rotated(q, k, site)
    batch, heads, queries, dim = q.shape
    total = torch.zeros(batch, k.shape[2], dtype=torch.float32, device=k.device)
    for part in q.split(max(1, budget // (batch * heads * k.shape[2])), dim=2):
        # Unnamed and scaled in place: a name would keep each slice alive beside the next.
        total = total + (part @ k.transpose(-1, -2)).float().mul_(dim**-0.5).softmax(dim=-1).sum(dim=(1, 2))
    return total[:, site.img] / (heads * queries)


class AttentionMaps:
    """An injection that changes nothing and keeps the attention image tokens receive, by (layer, step).

    `maps[layer, step]` is float32 (B, L_img) on the CPU, divided by the uniform share: 1 is what a token
    would receive if attention were spread evenly. Of a step that evaluates the model twice it is the first,
    of one that does not at its start the one halfway.
    Use one object per call.
    """

    def __init__(self) -> None:
        self.maps: dict[tuple[int, int], Tensor] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        if site.substep == 0 or (site.layer, site.step) not in self.maps:
            received = received_attention(q, k, site) * k.shape[2]
            self.maps[site.layer, site.step] = received.cpu()
        return q, k, v


def attention_from(
    q: Tensor, k: Tensor, site: Site, places: Sequence[Sequence[int]], *, budget: int = 2**25
) -> Tensor:
    """Where places look: mean over heads and a place's image queries of softmax(q k / sqrt(D)).

    q, k: (B, H, L, D) before RoPE. places: each the numbers of its tokens, from 0, among those of `site.img`.
    Returns float32 (B, places, L), over all keys, text first; each row adds up to 1. `budget` as in
    `received_attention`.
    """
    q, k = _rotated(q, k, site)
    found = []
    for tokens in places:
        total = torch.zeros(len(k), k.shape[2], dtype=torch.float32, device=k.device)
        for part in _slices(q[:, :, list(tokens)], k, budget):
            total = total + _softmax(part, k).sum(dim=(1, 2))
        found.append(total / (q.shape[1] * len(tokens)))
    return torch.stack(found, dim=1) if found else torch.zeros(len(k), 0, k.shape[2], device=k.device)


def attention_to(q: Tensor, k: Tensor, site: Site, words: Tensor, *, budget: int = 2**25) -> Tensor:
    """Who looks at words: of each image query, mean over heads of softmax(q k / sqrt(D)) on a word's tokens.

    q, k: (B, H, L, D) before RoPE. words: (B, W, L_txt), 1 for the text tokens of a word, which are added up.
    Returns float32 (B, W, L_img), of the tokens of `site.img`. `budget` as in `received_attention`.
    """
    q, k = _rotated(q, k, site)
    # One copy for all slices, which are added up over words before the next is there.
    words = words.to(k.device, torch.float32).transpose(1, 2)  # (B, L_txt, W)
    found = [_softmax(part, k)[..., : site.txt_len].mean(dim=1) @ words for part in _slices(q, k, budget)]
    return torch.cat(found, dim=1).transpose(1, 2)


def _rotated(q: Tensor, k: Tensor, site: Site) -> tuple[Tensor, Tensor]:
    """The image's queries and all keys as attention sees them, each in one piece of memory: products of
    slices would copy the keys, whose heads lie beside each other, once a slice."""
    q, k = apply_rope(q, k, site.pe)
    return q[:, :, site.img].contiguous(), k.contiguous()


def _slices(q: Tensor, k: Tensor, budget: int) -> Iterator[Tensor]:
    """Queries, (B, H, n, D) at a time, so few that there are about `budget` scores."""
    batch, heads, length = k.shape[:3]
    yield from q.split(max(1, budget // (batch * heads * length)), dim=2)


def _softmax(q: Tensor, k: Tensor) -> Tensor:
    """Attention of rotated queries, (B, H, n, D), over all keys: float32 (B, H, n, L)."""
    return (q @ k.transpose(-1, -2)).float().mul_(q.shape[-1] ** -0.5).softmax(dim=-1)


@dataclass(frozen=True)
class Watched:
    """One layer at one step, of the rows watched, on the CPU.

    places: where each place looks, (rows, P, L) over all keys, text first. words: who looks at each word,
    (rows, W, L_img). Both are float16 and times the uniform share, 1 / L for each token: 1 is what would be
    if attention were spread evenly. shares: of a place's attention that goes to text tokens, to the picture's
    own, and to references, (rows, P, 3), float32.
    """

    places: Tensor
    words: Tensor
    shares: Tensor


class WatchAttention:
    """An injection that changes nothing and keeps where places look and who looks at words.

    rows: of the batch, those that are watched. places: each the numbers of its image tokens, the same in all
    rows. words: for each row watched, the text tokens of each word; of a word that its prompt has not, none.
    It sees the keys that the layer attends with if it stands last in the layer's chain.
    `found[layer, step]` is a `Watched`; of a step that evaluates the model twice it is of the first, or with
    `last` of the last; of one that does not at its start, of the one halfway. Use one object per call.
    """

    def __init__(
        self,
        rows: Sequence[int],
        places: Sequence[Sequence[int]] = (),
        words: Sequence[Sequence[Sequence[int]]] = (),
        *,
        last: bool = False,
    ) -> None:
        self.rows = tuple(rows)
        self.places = tuple(map(tuple, places))
        self.words = tuple(words) or ((),) * len(self.rows)
        self.last = last
        self.found: dict[tuple[int, int], Watched] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        if self.last or site.substep == 0 or (site.layer, site.step) not in self.found:
            self.found[site.layer, site.step] = self._watch(q, k, site)
        return q, k, v

    @torch.no_grad()
    def _watch(self, q: Tensor, k: Tensor, site: Site) -> Watched:
        rows, length = list(self.rows), k.shape[2]
        site = site if len(site.pe) == 1 else replace(site, pe=rows_of(site.pe, rows))
        q, k = rows_of(q, rows), rows_of(k, rows)
        places = attention_from(q, k, site, self.places)
        picture, after = places[..., site.img], site.txt_len + site.img_len(length)
        parts = (places[..., : site.txt_len], picture, places[..., after:])
        tokens = self._tokens(site.txt_len)  # (rows, W, L_txt)
        counts = tokens.sum(dim=-1, keepdim=True).clamp(min=1)
        words = attention_to(q, k, site, tokens).cpu() / counts if tokens.shape[1] else picture[:, :0].cpu()
        return Watched(
            _half(places * length),
            _half(words * length),
            torch.stack([part.sum(dim=-1) for part in parts], dim=-1).cpu(),
        )

    def _tokens(self, txt_len: int) -> Tensor:
        tokens = torch.zeros(len(self.rows), len(self.words[0]), txt_len)
        for row, words in enumerate(self.words):
            for word, numbers in enumerate(words):
                tokens[row, word, list(numbers)] = 1
        return tokens


def _half(times_uniform: Tensor) -> Tensor:
    """In float16, whose range a single key that takes all attention of a very large picture exceeds."""
    return times_uniform.clamp(max=torch.finfo(torch.float16).max).half().cpu()
