"""What is no number ends in one line with step, dtype and remedy, and looking for it does not wait."""

from dataclasses import replace

import pytest
import torch
from helpers_demos import save_clone, small_models
from torch.utils._python_dispatch import TorchDispatchMode

from flux.finite import NotFinite
from flux.formats.fill import load_into
from flux.generate import Sampling, decode, encode, generate, sample_steps
from flux.hooks import Hooks
from flux.methods.stable_flow import Edit, EditRequest, edit_steps
from flux.sampling import pack
from flux.weights.load import load_models

SAMPLING = Sampling(steps=4, guidance=3.5, width=32, height=32)


def spoil(part: torch.nn.Module, key: str, value: float = float("nan")) -> None:
    """The last number, which no query reads: torch's attention swallows those on some processors."""
    with torch.no_grad():
        part.get_parameter(key).view(-1)[-1] = value


def told(models, **plan) -> str:
    with pytest.raises(NotFinite) as error:
        generate(models, ["a", "b"], [0, 1], SAMPLING, **plan)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "key", ["img_in.weight", "single_blocks.7.linear1.bias", "final_layer.linear.weight"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_weight_is_named(key, value):
    models = small_models()
    spoil(models.flow, key, value)
    assert told(models) == (
        "latents are not finite: from step 1 of 4 on, in float32; "
        f"the flow model's {key} is not finite: download its weights again"
    )


@pytest.mark.parametrize("dtype, remedy", [
    (torch.float32, "; look at what the hooks of layers [5] return"),
    (torch.bfloat16, "; use dtype float32 or look at what the hooks of layers [5] return"),
    (torch.float16, "; use dtype bfloat16 or float32 or look at what the hooks of layers [5] return"),
])  # fmt: skip
@pytest.mark.parametrize("first", [1, 3, 4])
def test_the_first_step_to_go_wrong_is_named(first, dtype, remedy):
    def after(img, txt, site):
        return (img * float("nan") if site.step + 1 >= first else img), txt

    message = told(small_models(dtype), hooks=Hooks(after={5: after}))
    name = str(dtype).removeprefix("torch.")
    assert message == f"latents are not finite: from step {first} of 4 on, in {name}{remedy}"


def test_layers_that_are_skipped_are_named():
    models = small_models()
    with torch.no_grad():
        models.flow.final_layer.linear.bias.fill_(3e38)  # a number, but not after two steps
    message = told(models, hooks=Hooks(skip=[1, "single.2"]))
    assert "not finite with layers [1, 'single.2'] skipped: from step" in message
    assert message.endswith("; skip fewer layers")


@pytest.mark.parametrize("part", ["t5", "clip"])
def test_texts_that_are_no_numbers_are_named(part):
    models = small_models(torch.float16)
    models = replace(models, **{part: NoNumbers(getattr(models, part))})
    assert f"; {part.upper()} gives no numbers for a prompt: use dtype bfloat16 or float32" in told(models)


class NoNumbers(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, prompts):
        return self.encoder(prompts) * float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_picture_that_is_no_number_is_not_handed_out(dtype):
    models = small_models(dtype)
    spoil(models.ae, "decoder.conv_out.bias")
    name = str(dtype).removeprefix("torch.")
    assert told(models) == (
        f"decoded pictures are not finite, in {name}: the autoencoder's decoder.conv_out.bias is not finite: "
        "download its weights again"
    )


def test_latents_beyond_what_can_be_decoded():
    models = small_models()
    tokens = pack(torch.full((1, 16, 4, 4), 3e38))
    with pytest.raises(NotFinite, match="in float32: they were decoded from numbers that are too large"):
        decode(models, tokens, SAMPLING)


def test_earlier_steps_are_shown_and_the_last_is_not():
    models, seen = small_models(), []
    spoil(models.flow, "txt_in.bias")
    texts = encode(models, ["a"])
    with pytest.raises(NotFinite):
        for step in sample_steps(models, texts, ["a"], [0], SAMPLING):
            seen.append(step.index)
    assert seen == [0, 1, 2]
    request = EditRequest("a", (Edit("b", (0,)),), SAMPLING)
    with pytest.raises(NotFinite):
        for step in edit_steps(models, request):
            assert not step.pictures and not step.latents


class Waits(TorchDispatchMode):
    """Counts how often a number is read off the device, for which a GPU would be waited for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device():
    models = small_models()
    texts = encode(models, ["a"])
    counts = []
    for steps in (2, 6):
        with Waits() as waits:
            list(sample_steps(models, texts, ["a"], [0], replace(SAMPLING, steps=steps)))
        counts.append(waits.count)
    assert counts[0] == counts[1] >= 1, "once behind the last step, however many there are"


# --- Guidance, and weights beyond float16 ---------------------------------------------------------


@pytest.mark.parametrize("value", [1e308, 100.5, float("inf"), float("-inf"), float("nan"), 10**400])
def test_guidance_is_a_number_of_one_hundred_at_most(value):
    with pytest.raises(ValueError, match="guidance must be a number, 100 or less"):
        replace(SAMPLING, guidance=value)


@pytest.mark.parametrize("value", [None, 0, 30, 100.0])
def test_guidance_that_people_use(value):
    assert replace(SAMPLING, guidance=value).guidance == value


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return save_clone(tmp_path_factory.mktemp("clone"))


@pytest.mark.parametrize("key", ["double_blocks.1.img_mlp.0.bias", "single_blocks.4.linear2.bias"])
def test_a_weight_beyond_float16_is_refused_where_clipping_would_hide_it(clone, tmp_path, key):
    """Both draw a wrong picture that is finite: the residual stream is clipped to float16's range."""
    from safetensors.torch import load_file, save_file

    for each in clone.iterdir():
        (tmp_path / each.name).symlink_to(each)
    tensors = load_file(clone / "flux1-tiny.safetensors")
    tensors[key].view(-1)[0] = 1e6
    (tmp_path / "flux1-tiny.safetensors").unlink()
    save_file(tensors, tmp_path / "flux1-tiny.safetensors")
    with pytest.raises(NotFinite) as error:
        load_models("flux-tiny", device="cpu", dtype="float16", weights=tmp_path)
    expected = f"the flow model's {key} is beyond float16's range: use dtype bfloat16 or float32"
    assert str(error.value) == expected
    flow = load_models("flux-tiny", device="cpu", dtype="bfloat16", weights=tmp_path).flow
    assert flow.get_parameter(key).isfinite().all()
    load_into(flow, tmp_path / "flux1-tiny.safetensors", "cpu", torch.float16)  # which does not look
    assert flow.get_parameter(key).isinf().any()
