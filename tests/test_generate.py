"""What is on the device when: the parts of a model take turns; stand-ins note who comes and goes."""

import pytest
from helpers_demos import small_models

from flux.generate import Sampling, decode, encode, generate, sample_steps
from flux.methods.stable_flow import Edit, EditRequest, edit_steps

SAMPLING = Sampling(steps=3, guidance=3.5, width=32, height=32)
PARTS = ("t5", "clip", "flow", "ae")


class Device:
    """Notes which parts are on it; `most` is the most that were there at a time."""

    def __init__(self, models):
        self.there: set[str] = set()
        self.most: set[tuple[str, ...]] = set()
        for name in PARTS:
            part = getattr(models, name)
            part.to = lambda device, name=name, part=part: self.moved(name, True, part)
            part.cpu = lambda name=name, part=part: self.moved(name, False, part)

    def moved(self, name, comes, part):
        (self.there.add if comes else self.there.discard)(name)
        self.most.add(tuple(sorted(self.there)))
        return part


@pytest.fixture
def models():
    return small_models()


def test_offload_keeps_one_part_on_the_device(models):
    device = Device(models)
    generate(models, ["a"], [0], SAMPLING, offload=True)
    assert device.most == {(), ("t5",), ("clip", "t5"), ("clip",), ("flow",), ("ae",)}


def test_offload_decodes_edits_without_the_flow_model(models):
    """The generator that samples is suspended at its last step while the caller decodes."""
    device = Device(models)
    request = EditRequest("a", (Edit("b", (0,)), Edit("c", (1,))), SAMPLING, batch=1, offload=True)
    for step in edit_steps(models, request):
        last = step.step.index == SAMPLING.steps - 1
        assert device.there == (set() if last else {"flow"}) and bool(step.pictures) == last
    assert not any(len(each) > 1 for each in device.most - {("clip", "t5")})


def test_at_its_last_step_a_run_has_left_the_device(models):
    device, texts = Device(models), encode(models, ["a"], offload=True)
    for step in sample_steps(models, texts, ["a"], [0], SAMPLING, offload=True):
        if step.index == SAMPLING.steps - 1:
            decode(models, step.after, SAMPLING, offload=True)
            assert not device.there
    assert ("ae", "flow") not in device.most


def test_a_run_that_is_given_up_leaves_the_device(models):
    device, texts = Device(models), encode(models, ["a"], offload=True)
    steps = sample_steps(models, texts, ["a"], [0], SAMPLING, offload=True)
    next(steps)
    assert device.there == {"flow"}
    steps.close()
    assert not device.there
