"""Masks by words: where image tokens look at words in which two prompts differ (LayerVerse, ECCV 2026)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from flux.hooks import Hooks, Site
from flux.hooks.attention import attention_to
from flux.methods.masks import CHANNELS
from flux.methods.task import EditTask
from flux.sampling import Evaluation


def word_mask(at: float, steepness: float, blur: float) -> Callable[[EditTask], Tensor]:
    """From a task to its mask, packed, (N, L, 64): by the words that an edit's prompt lost or has new.

    The attention of image tokens to these words, in the task's `word_layers`, is read once, from the source's
    latent noised to the level of the share `at` of the steps, under both prompts; what it makes of each is
    `region`, of both their union. Where no words differ, or none are known, all may change.
    """

    def find(task: EditTask) -> Tensor:
        index = min(round(at * task.steps), task.steps - 1)
        t, where = task.times[index], Evaluation(index, task.steps)
        z = (1 - t) * task.clean + t * task.noise(0)
        # Who looks at a negative prompt does not count.
        field = replace(task.field, away=None)
        gone, new = ([pair[side] for pair in task.words] for side in (0, 1))
        # Of each source the words of every edit, since they differ by edit.
        in_source = _tokens([gone] * len(task.clean), field.sources.txt)
        in_edit = _tokens([[words] for words in new], field.edits.txt)
        keep, source_maps = _keeper(in_source)
        field.source(z, t, where, 1.0, Hooks(inject=dict.fromkeys(task.word_layers, keep)))
        keep, edit_maps = _keeper(in_edit)
        field.edit(field.of_edits(z), t, where, 1.0, Hooks(inject=dict.fromkeys(task.word_layers, keep)))
        before, behind = torch.stack(source_maps).mean(0), torch.stack(edit_maps).mean(0)
        masks = []
        for i, source in enumerate(field.of):
            maps = [before[source, i]] * bool(gone[i]) + [behind[i, 0]] * bool(new[i])
            regions = [region(each.reshape(field.size).cpu().numpy(), steepness, blur) for each in maps]
            masks.append(np.any(regions, axis=0) if regions else np.ones(field.size, dtype=bool))
        tokens = torch.from_numpy(np.stack(masks)).flatten(1).to(z)
        return tokens[:, :, None].expand(-1, -1, 4 * CHANNELS)

    return find


def region(attention: np.ndarray, steepness: float = 3.0, blur: float = 0.72) -> np.ndarray:
    """Where attention, (h, w), is high, as bool.

    Scaled to 0 to 1, through sigmoid(steepness (a - .5)), blurred by a Gaussian of `blur` tokens, split by
    Otsu's threshold, and closed by 3 x 3.
    """
    low, high = attention.min(), attention.max()
    scaled = (attention - low) / max(high - low, 1e-12)
    soft = (1 / (1 + np.exp(-steepness * (scaled - 0.5)))).astype(np.float32)
    smooth = cv2.GaussianBlur(soft, (0, 0), blur) if blur else soft
    levels = np.round(255 * smooth).astype(np.uint8)
    _, high_ones = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return cv2.morphologyEx(high_ones, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0


def _tokens(words: Sequence[Sequence[Sequence[int]]], txt: Tensor) -> Tensor:
    """For each row of a batch the tokens of its words, 1 for those of a word: (rows, W, L_txt)."""
    chosen = torch.zeros(len(words), len(words[0]), txt.shape[1], device=txt.device)
    for row, of_row in enumerate(words):
        for word, tokens in enumerate(of_row):
            chosen[row, word, list(tokens)] = 1
    return chosen


def _keeper(words: Tensor) -> tuple[Callable, list[Tensor]]:
    """An injection that changes nothing, and the list to which it adds who looks at the words."""
    found: list[Tensor] = []

    def keep(q: Tensor, k: Tensor, v: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        # Behind the prompt's text there may be those of regions, or of a picture that is read as text.
        found.append(attention_to(q, k, site, pad(words, (0, site.txt_len - words.shape[2]))))
        return q, k, v

    return keep, found
