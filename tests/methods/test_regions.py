"""Regions of edits by methods: a text for a part of the picture, beside the whole picture's."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from helpers_demos import small_models
from helpers_methods import small_task, velocity_of

from flux.conditions import Region, Regions
from flux.generate import encode
from flux.hooks import Hooks
from flux.hooks.regions import region_hooks
from flux.methods import METHODS, defaults
from flux.methods.field import Conditioning
from flux.methods.looks import Role, look_at_source
from flux.methods.lookup import find_method, load_function
from flux.methods.word_masks import word_mask
from flux.model import layers_of
from flux.references import Reference
from flux.sampling import Evaluation

EDITS = ("a cat", "a bird", "a boat")
LEFT = torch.tensor([[1.0, 0, 0], [1, 0.4, 0]])
TOP = torch.tensor([[1.0, 1, 1], [0, 0, 0]])
PARTS = (
    (Region("the sea", LEFT), Region("the sky", TOP)),
    (),
    (Region("a hat", TOP),),
)
AT = Evaluation(0, 4)
HOW = (Regions(), Regions(layers=("double.*",)), Regions(alone=True, apart=True))


@cache
def texts():
    return encode(small_models(), [*EDITS, "the sea", "the sky", "a hat", "a fog"])


def regional_task(regional=HOW[0], **parts):
    """Of the three edits the first has two regions, the second none and the third one."""
    task = small_task(regional=regional, **parts)
    edits = Conditioning.of(texts(), EDITS, PARTS)
    return replace(task, field=replace(task.field, edits=edits))


def alone(task, z, t, pair, guidance, regional, own=None):
    """The velocity of one edit by itself: its texts behind each other, and attention by its regions."""
    found, parts = texts(), PARTS[pair]
    if not parts:
        return velocity_of(small_task(edits=(own or EDITS[pair],) * 3), z, t, "edit", pair, guidance)
    read = [found.txt[own or EDITS[pair]], *(found.txt[own or each.prompt] for each in parts)]
    inside = torch.stack([each.where.flatten() >= 0.5 for each in parts])[None]
    how = {"alone": regional.alone, "apart": regional.apart}
    hooks = region_hooks(inside, layers_of(task.field.flow), regional.layers, **how)
    edits = replace(task.field.edits, txt=torch.cat(read, dim=1).expand(3, -1, -1))
    if own:
        edits = replace(edits, vec=found.vec[own].expand(3, -1))
    one = replace(task, field=replace(task.field, edits=edits))
    return velocity_of(one, z, t, "edit", pair, guidance, hooks)


@pytest.mark.parametrize("regional", HOW)
@pytest.mark.parametrize("side", ["edit", "pair"])
def test_each_edit_obeys_its_own_regions(side, regional):
    task = regional_task(regional)
    z = torch.randn(3, 6, 64, generator=torch.Generator().manual_seed(1))
    if side == "edit":
        v = task.field.edit(z, 0.5, AT, 3.0)
    else:
        v_source, v = task.field.pair(task.clean, z, 0.5, AT, (1.0, 3.0))
        for row, pair in ((0, 0), (1, 2)):  # sources have no regions
            plain = velocity_of(task, task.clean[row], 0.5, "source", pair, 1.0)
            torch.testing.assert_close(v_source[row].double(), plain, rtol=1e-4, atol=1e-4)
    for pair in range(3):
        expected = alone(task, z[pair], 0.5, pair, 3.0, regional)
        torch.testing.assert_close(v[pair].double(), expected, rtol=1e-4, atol=1e-4)
        plain = velocity_of(small_task(), z[pair], 0.5, "edit", pair, 3.0)
        assert torch.allclose(v[pair].double(), plain, atol=1e-3) == (not PARTS[pair])


def test_regions_move_away_from_one_text():
    """The negative prompt's stands in the place of every region's."""
    away = (Conditioning.of(texts(), ["a fog"]), 2.5)
    task = regional_task(away=away)
    z = torch.randn(3, 6, 64, generator=torch.Generator().manual_seed(1))
    v = task.field.edit(z, 0.5, AT, 3.0)
    for pair in (0, 2):
        against = alone(task, z[pair], 0.5, pair, 3.0, Regions(), own="a fog")
        wanted = against + 2.5 * (alone(task, z[pair], 0.5, pair, 3.0, Regions()) - against)
        torch.testing.assert_close(v[pair].double(), wanted, rtol=1e-4, atol=1e-4)


def test_an_edit_looks_at_its_source_beside_its_regions():
    """Both plans hold: a look at strength 0 changes nothing of regions, at 1 the edit."""
    layers = layers_of(small_task().field.flow)
    z, made = torch.randn(3, 6, 64, generator=torch.Generator().manual_seed(1)), {}
    for strength in (0.0, 1.0):
        look = look_at_source([Role(("all",), strength=strength)], layers)
        task = regional_task(look=look)
        made[strength] = task.field.pair(task.clean, z, 0.5, AT, (1.0, 3.0))[1]
    plain = regional_task()
    expected = plain.field.pair(plain.clean, z, 0.5, AT, (1.0, 3.0))[1]
    torch.testing.assert_close(made[0.0], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(made[1.0], expected, atol=1e-2)


@pytest.mark.parametrize("method", [row.name for row in METHODS])
def test_every_method_edits_with_regions(method):
    row = find_method(method)
    mask = torch.ones(3, 6, 64)
    mask[:, :2] = 0

    def last(task):
        task = task.with_mask(mask) if row.needs_mask else task
        *_, step = load_function(row.function)(task, **defaults(method))
        return step.edit

    with_regions, without = last(regional_task()), last(small_task())
    assert with_regions.isfinite().all()
    assert not torch.allclose(with_regions[0], without[0], atol=1e-3)
    torch.testing.assert_close(with_regions[1], without[1], rtol=1e-3, atol=1e-3)


def test_masks_by_words_are_found_beside_regions():
    task = regional_task()
    task = replace(task, words=(((0,), (1,)),) * 3, word_layers=(1,))
    assert word_mask(0.5, 3.0, 0.72)(task).shape == (3, 6, 64)


def test_what_cannot_be_done_with_regions():
    task = regional_task(reference=Reference(text=torch.zeros(1, 2, 48)))
    with pytest.raises(ValueError, match="regions cannot go with a picture that is read as text"):
        task.field.edit(torch.zeros(3, 6, 64), 0.5, AT, 1.0)
    with pytest.raises(ValueError, match="attend: both plans name layer"):
        attends = Hooks(attend={"all": lambda q, k, v, site: v})
        regional_task().field.edit(torch.zeros(3, 6, 64), 0.5, AT, 1.0, attends)
