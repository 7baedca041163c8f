"""From noise to latent: shapes, packing, the schedule, and the Euler sampler."""

import math

import pytest
import torch
from torch import Tensor

from flux.hooks import Hooks
from flux.sampling import (
    Evaluation,
    denoise,
    denoise_steps,
    get_lin_function,
    get_noise,
    get_schedule,
    guided,
    image_ids,
    pack,
    prepare,
    time_shift,
    unpack,
)

CPU = torch.device("cpu")
# Height and width in pixels, and how many tokens that is: a token for each 16 pixels begun.
SIZES = [((1024, 1024), (64, 64)), ((720, 1072), (45, 67)), ((768, 1360), (48, 85)), ((16, 33), (1, 3))]


# --- Noise and packing ----------------------------------------------------------------------------


@pytest.mark.parametrize(("pixels", "tokens"), SIZES)
def test_noise_has_the_shape_of_the_latent(pixels, tokens):
    noise = get_noise(2, *pixels, device=CPU, dtype=torch.bfloat16, seed=0)
    assert noise.shape == (2, 16, 2 * tokens[0], 2 * tokens[1])
    assert noise.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_noise_is_drawn_in_its_dtype_by_its_own_generator(dtype):
    noise = get_noise(1, 64, 96, device=CPU, dtype=dtype, seed=7)
    generator = torch.Generator(device="cpu").manual_seed(7)
    assert torch.equal(noise, torch.randn(1, 16, 8, 12, dtype=dtype, generator=generator))
    state = torch.get_rng_state()
    assert torch.equal(noise, get_noise(1, 64, 96, device=CPU, dtype=dtype, seed=7))
    assert not torch.equal(noise, get_noise(1, 64, 96, device=CPU, dtype=dtype, seed=8))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is nobody's to turn"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_seed_gives_the_same_noise_on_every_device(dtype):
    on_gpu = get_noise(1, 64, 96, device=torch.device("cuda"), dtype=dtype, seed=7)
    assert torch.equal(on_gpu.cpu(), get_noise(1, 64, 96, device=CPU, dtype=dtype, seed=7))


@pytest.mark.parametrize(("pixels", "tokens"), SIZES)
def test_unpack_undoes_pack(pixels, tokens):
    latent = get_noise(2, *pixels, device=CPU, dtype=torch.bfloat16, seed=0)
    packed = pack(latent)
    assert packed.shape == (2, tokens[0] * tokens[1], 64)
    unpacked = unpack(packed, *pixels)
    assert unpacked.dtype == torch.bfloat16
    assert torch.equal(unpacked, latent)


def test_tokens_run_by_rows_and_hold_channels_first():
    """Token (row r, column c) holds channel by channel the 2 x 2 patch there."""
    latent = torch.arange(16 * 4 * 6).view(1, 16, 4, 6)
    packed = pack(latent)
    for r in range(2):
        for c in range(3):
            corners = [(2 * r + y, 2 * c + x) for y in (0, 1) for x in (0, 1)]
            patch = [latent[0, channel, y, x] for channel in range(16) for y, x in corners]
            assert packed[0, 3 * r + c].tolist() == patch


def test_image_ids_are_zero_row_column():
    assert image_ids(2, 3).tolist() == [[0, r, c] for r in range(2) for c in range(3)]
    assert image_ids(2, 3).dtype == torch.float32


# --- prepare --------------------------------------------------------------------------------------


class FakeEmbedder:
    """Encodes each prompt as numbers made from its length, as bfloat16, in the shape of T5 or CLIP."""

    def __init__(self, *shape: int):
        self.shape = shape
        self.calls: list[list[str]] = []

    def __call__(self, prompts: list[str]) -> Tensor:
        self.calls.append(prompts)
        lengths = torch.tensor([float(len(prompt)) for prompt in prompts], dtype=torch.bfloat16)
        return lengths.view(-1, *[1] * len(self.shape)) * torch.ones(self.shape, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("latents", "prompt", "lengths"),
    [
        (1, "abc", [3]),
        (1, ["abc"], [3]),
        (1, ["a", "abc", "ab"], [1, 3, 2]),
        (3, "abc", [3, 3, 3]),
        (3, ["abc"], [3, 3, 3]),
        (2, ["a", "abc"], [1, 3]),
    ],
)
def test_prepare_repeats_the_single_one(latents, prompt, lengths):
    t5, clip = FakeEmbedder(7, 40), FakeEmbedder(24)
    noise = get_noise(latents, 32, 48, device=CPU, dtype=torch.float32, seed=0)
    prepared = prepare(t5, clip, noise, prompt)
    batch = len(lengths)
    shapes = {name: tuple(value.shape) for name, value in prepared.items()}
    assert shapes == {
        "img": (batch, 6, 64),
        "img_ids": (batch, 6, 3),
        "txt": (batch, 7, 40),
        "txt_ids": (batch, 7, 3),
        "vec": (batch, 24),
    }
    assert prepared["txt"][:, 0, 0].tolist() == prepared["vec"][:, 0].tolist() == lengths
    for row in range(batch):
        assert torch.equal(prepared["img"][row], pack(noise)[row if latents > 1 else 0])
        assert torch.equal(prepared["img_ids"][row], image_ids(2, 3))
    assert not prepared["txt_ids"].any()
    assert t5.calls == clip.calls == [[prompt] if isinstance(prompt, str) else prompt]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_prepare_leaves_latent_and_texts_in_their_own_dtypes(dtype):
    noise = get_noise(1, 32, 32, device=CPU, dtype=dtype, seed=0)
    prepared = prepare(FakeEmbedder(7, 40), FakeEmbedder(24), noise, "a")
    assert prepared["img"].dtype == dtype
    assert prepared["txt"].dtype == prepared["vec"].dtype == torch.bfloat16, "the encoder's"
    assert prepared["img_ids"].dtype == prepared["txt_ids"].dtype == torch.float32


def test_prepare_refuses_counts_that_do_not_match():
    noise = get_noise(2, 32, 32, device=CPU, dtype=torch.float32, seed=0)
    with pytest.raises(ValueError, match="3 prompts do not match 2 latents"):
        prepare(FakeEmbedder(7, 40), FakeEmbedder(24), noise, ["a", "b", "c"])


# --- Schedule -------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 15, 50])
@pytest.mark.parametrize("tokens", [16, 256, 1024, 4096])
def test_schedule_is_the_formula(steps, tokens):
    """Computed here in float64 from the formula alone."""
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    times = [1 - i / steps for i in range(steps)]
    expected = [math.exp(mu) / (math.exp(mu) + 1 / t - 1) for t in times] + [0.0]
    assert get_schedule(steps, tokens) == pytest.approx(expected, abs=2e-6)


def test_schedule_without_shift_is_even():
    assert get_schedule(4, 4096, shift=False) == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("steps", [1, 15])
def test_schedule_runs_from_one_to_zero_and_never_back(steps):
    times = get_schedule(steps, 4096)
    assert (len(times), times[0], times[-1]) == (steps + 1, 1.0, 0.0)
    assert all(a > b for a, b in zip(times, times[1:], strict=False))


def test_larger_pictures_stay_longer_near_noise():
    assert get_schedule(4, 4096)[2] > get_schedule(4, 1024)[2] > get_schedule(4, 4096, shift=False)[2]


@pytest.mark.parametrize("steps", [0, -3])
def test_schedule_needs_a_step(steps):
    with pytest.raises(ValueError, match=f"num_steps must be 1 or more; got {steps}"):
        get_schedule(steps, 256)


def test_the_line_and_the_shift_it_feeds():
    line = get_lin_function(x1=2, y1=10, x2=4, y2=20)
    assert (line(2), line(3), line(4)) == (10, 15, 20)
    assert get_lin_function()(256) == pytest.approx(0.5)
    assert get_lin_function()(4096) == pytest.approx(1.15)
    t = torch.tensor([0.2, 0.5], dtype=torch.float64)
    assert time_shift(0.0, 1.0, t).tolist() == pytest.approx(t.tolist())
    assert time_shift(1.0, 2.0, t).tolist() == pytest.approx([math.e / (math.e + 16), math.e / (math.e + 1)])


# --- denoise --------------------------------------------------------------------------------------


class FakeModel:
    """Notes what it is asked; its velocity is the first 64 channels of each token, plus the guidance."""

    def __init__(self) -> None:
        self.calls: list[dict] = []

    def __call__(self, **arguments) -> Tensor:
        self.calls.append(arguments)
        return arguments["img"][..., :64] + arguments["guidance"].view(-1, 1, 1)


def fake_inputs(batch: int = 2, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    noise = get_noise(batch, 32, 48, device=CPU, dtype=dtype, seed=0)
    return prepare(FakeEmbedder(7, 40), FakeEmbedder(24), noise, ["a", "abc"][:batch])


TIMES = [1.0, 0.6, 0.25, 0.0]


def test_euler_steps_move_by_the_velocity():
    model, inputs = FakeModel(), fake_inputs()
    x = inputs["img"].double()
    for t, t_next in zip(TIMES, TIMES[1:], strict=False):
        x = x + (t_next - t) * (x + 3.0)
    result = denoise(model, **inputs, timesteps=TIMES, guidance=3.0)
    torch.testing.assert_close(result.double(), x, rtol=1e-5, atol=1e-6)
    for call, t in zip(model.calls, TIMES, strict=False):
        assert call["timesteps"].tolist() == pytest.approx([t, t])
    assert all("hooks" not in call for call in model.calls), "a model without hooks must do"


def test_guidance_is_four_when_not_given():
    model = FakeModel()
    denoise(model, **fake_inputs(), timesteps=TIMES)
    assert model.calls and all(call["guidance"].tolist() == [4.0, 4.0] for call in model.calls)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_latent_keeps_its_dtype(dtype):
    model = FakeModel()
    assert denoise(model, **fake_inputs(dtype=dtype), timesteps=TIMES).dtype == dtype
    assert all(call["timesteps"].dtype == call["guidance"].dtype == dtype for call in model.calls)


def test_steps_say_what_they_did():
    model, inputs = FakeModel(), fake_inputs()
    steps = list(denoise_steps(model, **inputs, timesteps=TIMES))
    places = [(step.index, step.steps, step.t, step.t_next) for step in steps]
    assert places == [(0, 3, 1.0, 0.6), (1, 3, 0.6, 0.25), (2, 3, 0.25, 0.0)]
    assert torch.equal(steps[0].before, inputs["img"])
    for step, following in zip(steps, steps[1:], strict=False):
        assert torch.equal(step.after, following.before)
    for step in steps:
        torch.testing.assert_close(step.after, step.before + (step.t_next - step.t) * step.pred)
        torch.testing.assert_close(step.estimate, step.before - step.t * step.pred)
    assert torch.equal(steps[-1].after, denoise(model, **inputs, timesteps=TIMES))


def test_nothing_is_computed_before_it_is_asked_for():
    model = FakeModel()
    steps = denoise_steps(model, **fake_inputs(), timesteps=TIMES)
    assert len(model.calls) == 0
    next(steps)
    assert len(model.calls) == 1


@pytest.mark.parametrize("guidance", [[1.0, 3.0], (1.0, 3.0), torch.tensor([1.0, 3.0])])
def test_guidance_per_row_is_a_run_of_each(small_flux, guidance):
    model, inputs = small_flux(), fake_inputs()
    together = denoise(model, **inputs, timesteps=TIMES, guidance=guidance)
    for row, value in enumerate((1.0, 3.0)):
        single = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
        alone = denoise(model, **single, timesteps=TIMES, guidance=value)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_guidance_of_another_count_is_refused():
    with pytest.raises(ValueError, match=r"guidance has \(3,\) values for 2 rows"):
        denoise(FakeModel(), **fake_inputs(), timesteps=TIMES, guidance=[1.0, 2.0, 3.0])


def test_a_plan_is_told_the_step():
    model = FakeModel()
    denoise(model, **fake_inputs(), timesteps=TIMES, hooks=Hooks(skip=[1]))
    assert [(call["hooks"].step, call["hooks"].steps) for call in model.calls] == [(0, 3), (1, 3), (2, 3)]
    assert all(set(call["hooks"].skip) == {1} for call in model.calls)


# Velocities


def test_guidance_by_two_evaluations():
    at = Evaluation(0, 1)
    x = torch.randn(2, 3)
    with_text, without = (lambda x, t, at: 2 * x + t), (lambda x, t, at: x)
    torch.testing.assert_close(guided(with_text, without, 1.0)(x, 0.5, at), 2 * x + 0.5)
    assert torch.equal(guided(with_text, without, 0.0)(x, 0.5, at), x)
    torch.testing.assert_close(guided(with_text, without, 3.0)(x, 0.5, at), x + 3 * (x + 0.5))


def test_guidance_is_memory_of_its_own():
    model = FakeModel()
    denoise(model, **fake_inputs(), timesteps=TIMES, guidance=3.0)
    assert all(call["guidance"].is_contiguous() and call["guidance"].stride() == (1,) for call in model.calls)


def test_img_cond_joins_the_channels():
    model, inputs = FakeModel(), fake_inputs()
    cond = torch.randn(2, 6, 320)
    result = denoise(model, **inputs, timesteps=TIMES, img_cond=cond)
    assert torch.equal(result, denoise(FakeModel(), **inputs, timesteps=TIMES))
    for call in model.calls:
        assert call["img"].shape == (2, 6, 384)
        assert torch.equal(call["img"][..., 64:], cond)


def test_img_cond_seq_joins_the_tokens_and_is_not_denoised():
    model, inputs = FakeModel(), fake_inputs()
    cond, cond_ids = torch.randn(2, 4, 64), torch.ones(2, 4, 3)
    result = denoise(model, **inputs, timesteps=TIMES, img_cond_seq=cond, img_cond_seq_ids=cond_ids)
    assert torch.equal(result, denoise(FakeModel(), **inputs, timesteps=TIMES))
    for call in model.calls:
        assert torch.equal(call["img"][:, 6:], cond)
        assert torch.equal(call["img_ids"], torch.cat((inputs["img_ids"], cond_ids), dim=1))


@pytest.mark.parametrize("half", ["img_cond_seq", "img_cond_seq_ids"])
def test_img_cond_seq_needs_its_ids(half):
    with pytest.raises(ValueError, match="img_cond_seq and img_cond_seq_ids must be given together"):
        denoise(FakeModel(), **fake_inputs(), timesteps=TIMES, **{half: torch.zeros(2, 4, 3)})


@pytest.mark.parametrize("wrong", ["img", "txt"])
def test_a_tensor_that_is_no_sequence_is_named_by_its_shape(small_flux, small_inputs, wrong):
    inputs = small_inputs()
    inputs[wrong] = inputs[wrong][:, 0]
    with pytest.raises(ValueError, match=r"img and txt must be \(batch, tokens, channels\)"):
        small_flux()(**inputs)


def test_a_distilled_model_needs_guidance(small_flux, small_inputs):
    inputs = small_inputs() | {"guidance": None}
    with pytest.raises(ValueError, match="guidance"):
        small_flux()(**inputs)
    small_flux(guidance_embed=False)(**inputs)
