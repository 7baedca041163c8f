"""What a picture is made from beside its prompt, against the pipelines of diffusers on the same weights.

From latents to latents, in float32. Their schedule, their masks and their guidance are their own code's.
"""

import inspect
from dataclasses import replace

import pytest
import torch
from helpers_demos import FLOW, small_models
from helpers_models import SMALL_AE, random_state, save_text_encoders

from flux.conditions import Conditions, Negative, Region, Regions, Start, box_region
from flux.flags import cut
from flux.generate import Sampling, encode, sample_steps, several
from flux.hooks import Hooks
from flux.hooks.regions import RegionAttention
from flux.methods.masks import packed
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.sampling import get_noise, pack, prepare
from flux.strength import START_RULES, first_step
from flux.util import load_clip, load_t5
from flux.weights import convert

SIZE = (48, 32)  # width, height
SAMPLING = Sampling(steps=5, guidance=3.5, width=SIZE[0], height=SIZE[1])
TOKENS = (SIZE[0] // 16) * (SIZE[1] // 16)


@pytest.fixture(scope="module")
def models():
    return small_models()


def ours(models, prompts, seeds, conditions=None, sampling=SAMPLING, hooks=None):
    """The latent that sampling ends with, packed."""
    texts = encode(models, [*prompts, *(conditions.prompts if conditions else ())])
    steps = sample_steps(models, texts, prompts, seeds, sampling, hooks=hooks, conditions=conditions)
    return list(steps)[-1].after


def relative(a, b):
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def noise_of(seeds):
    return torch.cat([get_noise(1, SIZE[1], SIZE[0], "cpu", torch.bfloat16, seed) for seed in seeds]).float()


# Those of diffusers


@pytest.fixture(scope="module")
def parts():
    """What their pipelines are made of: our small random weights, converted."""
    diffusers = pytest.importorskip("diffusers")
    flow = diffusers.FluxTransformer2DModel(**convert.flow_config(FLOW))
    flow.load_state_dict(dict(convert.to_diffusers(convert.flow_rules(FLOW), random_state(Flux, FLOW))))
    ae = diffusers.AutoencoderKL(**convert.ae_config(SMALL_AE))
    state = random_state(AutoEncoder, SMALL_AE, seed=1)
    ae.load_state_dict(dict(convert.to_diffusers(convert.ae_rules(SMALL_AE), state)))
    schedule = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    return {
        "transformer": flow.eval().requires_grad_(False),
        "vae": ae.eval().requires_grad_(False),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**schedule),
        **dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")),
    }


@pytest.fixture
def theirs(parts, models):
    """`theirs("FluxPipeline", prompts, seeds, ...)`: their latent, packed. texts: CLIP's and T5's prompts."""
    import diffusers

    def run(name, prompts, seeds, prompts_2=None, negative=None, **options):
        made = getattr(diffusers, name)(**parts)
        made.set_progress_bar_config(disable=True)
        given = {
            "prompt_embeds": models.t5(list(prompts_2 or prompts)).float(),
            "pooled_prompt_embeds": models.clip(list(prompts)).float(),
        }
        if negative is not None:
            given["negative_prompt_embeds"] = models.t5([negative] * len(seeds)).float()
            given["negative_pooled_prompt_embeds"] = models.clip([negative] * len(seeds)).float()
        known = inspect.signature(made.__call__).parameters
        options = {"guidance_scale": SAMPLING.guidance, "num_inference_steps": SAMPLING.steps} | options
        if name == "FluxPipeline":
            options["latents"] = pack(noise_of(seeds))
        assert not set(options) - set(known), cut(str(options))
        with torch.no_grad():
            return made(**given, **options, width=SIZE[0], height=SIZE[1], output_type="latent").images

    return run


def test_a_second_prompt_is_for_t5(models, theirs):
    prompts, second = ["a cat", "a dog"], ("a small cat", "a big dog")
    made = ours(models, prompts, [1, 2], Conditions(prompts_2=second))
    assert relative(made, theirs("FluxPipeline", prompts, [1, 2], second)) < 1e-4
    assert relative(made, ours(models, prompts, [1, 2])) > 1e-2
    assert relative(made, ours(models, list(second), [1, 2])) > 1e-3


@pytest.mark.parametrize("beside", [True, False])
def test_guidance_away_from_a_negative_prompt(models, theirs, beside):
    prompts, seeds = ["a cat", "a dog"], [1, 2]
    made = ours(models, prompts, seeds, Conditions(negative=Negative("blurred", 2.5, beside=beside)))
    expected = theirs("FluxPipeline", prompts, seeds, negative="blurred", true_cfg_scale=2.5)
    assert relative(made, expected) < 1e-4
    assert relative(made, ours(models, prompts, seeds)) > 1e-2


@pytest.fixture(scope="module")
def clean():
    """A picture's latent, (1, 16, h, w)."""
    shape = (1, 16, SIZE[1] // 8, SIZE[0] // 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def same_noise(monkeypatch):
    """Their pipelines from pictures draw their noise themselves; here they draw ours, of the seeds given."""

    def draw(name, seeds):
        module = inspect.getmodule(getattr(pytest.importorskip("diffusers"), name))
        monkeypatch.setattr(module, "randn_tensor", lambda shape, **options: noise_of(seeds).reshape(shape))

    return draw


@pytest.mark.parametrize("strength", [1.0, 0.6, 0.2])
def test_image_to_image(models, theirs, clean, same_noise, strength):
    same_noise("FluxImg2ImgPipeline", [1, 2])
    start = Start(pack(clean), strength, rule="diffusers")
    made = ours(models, ["a cat", "a dog"], [1, 2], Conditions(start=start))
    options = {"image": clean.expand(2, -1, -1, -1), "strength": strength}
    assert relative(made, theirs("FluxImg2ImgPipeline", ["a cat", "a dog"], [1, 2], **options)) < 1e-4


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_inpainting(models, theirs, clean, same_noise, strength):
    same_noise("FluxInpaintPipeline", [1])
    mask = torch.zeros(1, SIZE[1] // 8, SIZE[0] // 8)
    mask[:, 1:3, 2:] = 1
    whole = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)[None]
    made = ours(
        models,
        ["a cat"],
        [1],
        Conditions(start=Start(pack(clean), strength, packed(mask), rule="diffusers")),
    )
    options = {"image": clean, "mask_image": whole, "masked_image_latents": clean, "strength": strength}
    assert relative(made, theirs("FluxInpaintPipeline", ["a cat"], [1], **options)) < 1e-4
    outside = packed(mask) == 0
    torch.testing.assert_close(made[outside], pack(clean)[outside])


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Text encoders of both programs from one folder: ours, and the parts of theirs."""
    from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

    folder = tmp_path_factory.mktemp("encoders")
    save_text_encoders(folder, FLOW.context_in_dim, FLOW.vec_in_dim)
    theirs = {
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder"),
        "text_encoder_2": T5EncoderModel.from_pretrained(folder / "text_encoder_2"),
        "tokenizer": AutoTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77),
        "tokenizer_2": AutoTokenizer.from_pretrained(folder / "tokenizer_2", model_max_length=8),
    }
    where = {"weights": folder, "dtype": torch.float32}
    return (load_t5("cpu", 8, **where), load_clip("cpu", **where)), theirs


def test_several_pictures_of_two_prompts_each_with_real_encoders(models, parts, encoders):
    """Their own code reads the prompts, and repeats them."""
    import diffusers

    class Rounded(diffusers.FluxPipeline):
        """Upstream's encoders, and ours, hand on what they read in bfloat16."""

        def encode_prompt(self, *args, **options):
            return tuple(x.bfloat16().float() for x in super().encode_prompt(*args, **options))

    (t5, clip), their_parts = encoders
    made = Rounded(**{**parts, **their_parts})
    made.set_progress_bar_config(disable=True)
    texts = {"prompt": ["a boat", "a hat"], "prompt_2": ["a red boat on the sea", "a hat with a boat"]}
    prompts, seeds = several(texts["prompt"], [3, 8], 2)
    assert (prompts, seeds) == (["a boat", "a boat", "a hat", "a hat"], [3, 4, 8, 9])
    second, _ = several(texts["prompt_2"], [3, 8], 2)
    options = {"guidance_scale": 3.5, "num_inference_steps": 5, "num_images_per_prompt": 2}
    size = {"width": SIZE[0], "height": SIZE[1], "max_sequence_length": 8}
    with torch.no_grad():
        expected = made(
            **texts, **options, **size, latents=pack(noise_of(seeds)), output_type="latent"
        ).images
    own = replace(models, t5=t5, clip=clip)
    assert relative(ours(own, prompts, seeds, Conditions(prompts_2=tuple(second))), expected) < 1e-4


# Where a strength starts


def test_upstream_and_diffusers_start_where_their_products_round_to():
    assert first_step(10, 0.9) == 0 and first_step(10, 0.9, "diffusers") == 1
    for rule in START_RULES:
        assert [first_step(8, s, rule) for s in (1.0, 0.5, 0.126)] == [0, 4, 6]


@pytest.mark.parametrize("strength, steps", [(0.0, 5), (1e-18, 5), (-0.1, 5), (1.1, 5), (float("nan"), 5)])
def test_a_strength_that_leaves_no_step_is_refused(strength, steps):
    with pytest.raises(ValueError, match="strength"):
        first_step(steps, strength)


def test_conditions_that_make_no_sense_are_refused(clean):
    with pytest.raises(ValueError, match="true_cfg must be above 1"):
        Negative("blurred", 1.0)
    with pytest.raises(ValueError, match="strength must be above 0"):
        Start(pack(clean), 0.0)
    with pytest.raises(ValueError, match="choose from upstream, diffusers"):
        Start(pack(clean), 0.5, rule="mine")
    with pytest.raises(ValueError, match="encode it at the size"):
        Start(pack(clean)[:, 1:]).on(torch.zeros(1, TOKENS, 64), [1.0, 0.0])
    with pytest.raises(ValueError, match="holds no token"):
        box_region("a cat", (0, 0, 5, 5), SIZE)


def test_a_prompt_for_t5_must_fit_the_rows(models):
    with pytest.raises(ValueError, match="3 prompts for T5 do not match 2 rows"):
        prepare(models.t5, models.clip, noise_of([0, 1]), ["a", "b"], prompt_2=["a", "b", "c"])


# Regions

LEFT, RIGHT = torch.tensor([[1, 0, 0], [1, 0, 0]]), torch.tensor([[0, 0, 1], [0, 0, 1]])


def test_without_conditions_all_is_as_ever(models):
    torch.testing.assert_close(
        ours(models, ["a cat"], [1], Conditions()), ours(models, ["a cat"], [1]), rtol=0, atol=0
    )


def test_a_region_that_is_the_whole_picture_reads_its_prompt_alone(models):
    """The whole picture's text stands there and is read by nobody; CLIP reads it as ever."""
    whole = Regions((Region("a dog", torch.ones(2, 3)),), alone=True)
    made = ours(models, ["a cat"], [1], Conditions(regions=whole))
    assert relative(made, ours(models, ["a cat"], [1], Conditions(prompts_2=("a dog",)))) < 1e-5


def test_regions_that_obey_in_no_layer_change_nothing(models):
    parts = Region("a dog", LEFT), Region("a boat", RIGHT)
    made = ours(models, ["a cat"], [1], Conditions(regions=Regions(parts, layers=())))
    assert relative(made, ours(models, ["a cat"], [1])) < 1e-5
    everywhere = ours(models, ["a cat"], [1], Conditions(regions=Regions(parts)))
    single = ours(models, ["a cat"], [1], Conditions(regions=Regions(parts, layers=("single.*",))))
    assert relative(everywhere, made) > 1e-2 and relative(single, everywhere) > 1e-3


def test_regions_move_away_from_a_negative_prompt_in_both_ways(models):
    parts = Region("a dog", LEFT), Region("a boat", RIGHT)
    results = [
        ours(
            models,
            ["a cat", "a hat"],
            [1, 2],
            Conditions(regions=Regions(parts), negative=Negative("blurred", 2.0, beside=beside)),
        )
        for beside in (True, False)
    ]
    assert relative(*results) < 1e-5


@pytest.mark.parametrize(
    "options", [{}, {"alone": True}, {"apart": True}, {"apart": True, "alone": True}, {"obey": False}]
)
def test_region_attention_is_plain_masked_attention(options):
    """Against softmax over the keys that the rules name, one query at a time, in float64."""
    from flux.hooks import Site

    txt, regions, refs, heads, dim = 2, 2, 2, 2, 8
    inside = torch.stack((LEFT.flatten(), torch.tensor([1, 1, 0, 0, 0, 0])))[None].bool()
    texts, image = txt * (regions + 1), inside.shape[-1]
    length = texts + image + refs
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, heads, length, dim, generator=generator)
    identity = torch.eye(2).expand(1, 1, length, dim // 2, 2, 2)
    site = Site(0, texts, identity, img=slice(texts, texts + image))
    made = RegionAttention(inside, **options)(q, k, v, site)

    def groups(i):  # the regions of a token: of text, of the picture
        return (
            {i // txt - 1} - {-1}
            if i < texts
            else set(torch.nonzero(inside[0, :, i - texts]).flatten().tolist())
        )

    def sees(i, j):
        kind_i, kind_j = (0 if n < texts else 1 if n < texts + image else 2 for n in (i, j))
        if kind_j == 2:
            return True
        if kind_i == 0 and kind_j == 0:
            return i // txt == j // txt
        if kind_i == 0:
            return i < txt or bool(groups(i) & groups(j))
        if kind_j == 1:
            if kind_i == 2 or not options.get("apart"):
                return True
            return not groups(i) or not groups(j) or bool(groups(i) & groups(j))
        if kind_i == 2 or options.get("obey") is False or not groups(i):
            return j < txt
        return bool(groups(i) & groups(j)) or (j < txt and not options.get("alone"))

    for i in range(length):
        keys = [j for j in range(length) if sees(i, j)]
        for head in range(heads):
            logits = k[0, head, keys].double() @ q[0, head, i].double() / dim**0.5
            expected = logits.softmax(0) @ v[0, head, keys].double()
            torch.testing.assert_close(
                made[0, i, head * dim : (head + 1) * dim], expected.float(), rtol=1e-5, atol=1e-5
            )


def test_a_plan_beside_regions_holds_in_its_window_alone(models):
    regions, seen = Regions((Region("a dog", LEFT),)), []

    def note(img, txt, site):
        seen.append((site.step, len(img)))
        return img, txt

    plan = Hooks(after={3: note}).within(1, 3)
    made = ours(models, ["a cat"], [1], Conditions(regions=regions), hooks=plan)
    assert seen == [(1, 1), (2, 1)]
    torch.testing.assert_close(made, ours(models, ["a cat"], [1], Conditions(regions=regions)))
    seen.clear()
    ours(models, ["a cat"], [1], Conditions(negative=Negative("", 2.0)), hooks=plan)
    assert seen == [(1, 1), (1, 1), (2, 1), (2, 1)]


def test_regions_do_not_attend_where_another_plan_does(models):
    plan = Hooks(attend={0: lambda q, k, v, site: q.transpose(1, 2).flatten(-2)})
    with pytest.raises(ValueError, match="attend: both plans name layer 0"):
        ours(models, ["a cat"], [1], Conditions(regions=Regions((Region("a dog", LEFT),))), hooks=plan)


def test_a_region_of_another_size_is_refused(models):
    regions = Regions((Region("a dog", torch.ones(4, 4)),))
    with pytest.raises(ValueError, match="regions of 16 tokens and 2 texts do not fit a picture of 6 tokens"):
        ours(models, ["a cat"], [1], Conditions(regions=regions))


def test_a_box_counts_tokens_of_which_half_is_in_it():
    where = box_region("a cat", (8, 0, 39, 16), SIZE).where >= 0.5
    assert where.tolist() == [[True, True, False], [False, False, False]]


def test_rows_have_regions_of_their_own(models):
    first, second = Region("a dog", LEFT), Region("a boat", RIGHT)
    rows = Regions(rows=((first,), (), (first, second)))
    made = ours(models, ["a cat"] * 3, [1, 2, 3], Conditions(regions=rows))
    alone = [Regions((first,)), None, Regions((first, second))]
    for row, (regions, seed) in enumerate(zip(alone, (1, 2, 3), strict=True)):
        assert (
            relative(made[row : row + 1], ours(models, ["a cat"], [seed], Conditions(regions=regions))) < 1e-5
        )
    with pytest.raises(ValueError, match="regions of 3 rows do not match 2 rows"):
        ours(models, ["a cat"] * 2, [1, 2], Conditions(regions=rows))
