"""Control, Fill, Redux and Kontext, from latents to latents, against diffusers on the same random weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers_models import SMALL_AE, random_state
from helpers_references import (
    ae,
    flow,
    flow_params,
    half_mask,
    picture,
    save_redux,
    save_siglip,
    t5_and_clip,
)
from PIL import Image

from flux import references
from flux.conditions import Conditions, Negative, Region, Regions
from flux.generate import Sampling, encode, sample_steps
from flux.hooks import CopySource, Hooks
from flux.methods import METHODS
from flux.methods.stable_flow import Edit, EditRequest, Row, edit
from flux.model import Flux
from flux.models import configs, kontext_size
from flux.modules.autoencoder import AutoEncoder
from flux.modules.image_embedders import CannyImageEncoder, ReduxImageEncoder
from flux.photos.editing import PhotoRequest, SourceEdit, edit_photo_steps
from flux.photos.sources import EditSource
from flux.pictures.opening import PictureError
from flux.sampling import (
    denoise,
    get_noise,
    get_schedule,
    prepare,
    prepare_control,
    prepare_fill,
    prepare_kontext,
    prepare_redux,
    unpack,
)
from flux.weights import convert
from flux.weights.load import Models

HEIGHT, WIDTH, STEPS, GUIDANCE = 64, 96, 3, 30.0
EXACT = {"dtype": torch.float32}
PROMPTS = ["a robot made out of gold", "a cup"]


@pytest.fixture
def files(tmp_path):
    """A picture of another size than asked for, one of that size, and a mask."""
    for name, image in {
        "robot.png": picture(120, 70),
        "cup.png": picture(WIDTH, HEIGHT, 1),
        "mask.png": half_mask(WIDTH, HEIGHT),
    }.items():
        image.save(tmp_path / name)
    return tmp_path


def noise(seed: int = 5, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    return get_noise(1, height, width, "cpu", torch.float32, seed)


def run(task: str, inputs: dict) -> torch.Tensor:
    timesteps = get_schedule(STEPS, inputs["img"].shape[1])
    return denoise(flow(task), **inputs, timesteps=timesteps, guidance=GUIDANCE)


def pipeline(name: str, task: str, **parts):
    """A pipeline of diffusers on the same weights. Its autoencoder's posterior has next to no spread."""
    diffusers = pytest.importorskip("diffusers")
    flow_model = diffusers.FluxTransformer2DModel(**convert.flow_config(flow_params(task)))
    rules = convert.flow_rules(flow_params(task))
    flow_model.load_state_dict(dict(convert.to_diffusers(rules, random_state(Flux, flow_params(task)))))
    state = random_state(AutoEncoder, SMALL_AE, 1)
    state["encoder.conv_out.weight"][16:] = 0
    state["encoder.conv_out.bias"][16:] = -30
    vae = diffusers.AutoencoderKL(**convert.ae_config(SMALL_AE))
    vae.load_state_dict(dict(convert.to_diffusers(convert.ae_rules(SMALL_AE), state)))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, max_image_seq_len=4096
    )
    none = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    made = getattr(diffusers, name)(scheduler=scheduler, vae=vae, transformer=flow_model, **none, **parts)
    made.set_progress_bar_config(disable=True)
    return made


def run_diffusers(pipe, inputs: dict, **more) -> torch.Tensor:
    """The final latents, packed, from the same noise and texts."""
    return pipe(
        prompt_embeds=inputs["txt"],
        pooled_prompt_embeds=inputs["vec"],
        latents=inputs["img"].clone(),
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="latent",
        **more,
    ).images


def assert_near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "two"])
def test_control_as_diffusers(files, prompts):
    import cv2

    inputs = prepare_control(
        *t5_and_clip(), noise(), prompts, ae(), CannyImageEncoder("cpu"), files / "robot.png", **EXACT
    )
    assert inputs["img_cond"].shape == (len(prompts), HEIGHT * WIDTH // 256, 64)
    scaled = picture(120, 70).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    edges = Image.fromarray(cv2.Canny(np.array(scaled), 50, 200)).convert("RGB")
    assert 0.01 < np.mean(np.array(edges)) / 255 < 0.5
    pipe = pipeline("FluxControlPipeline", "control")
    size = {"height": HEIGHT, "width": WIDTH}
    theirs = run_diffusers(pipe, inputs, control_image=[edges] * len(prompts), **size)
    assert_near(run("control", inputs), theirs)


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "two"])
def test_fill_as_diffusers(files, prompts):
    inputs = prepare_fill(
        *t5_and_clip(), noise(), prompts, ae(), files / "cup.png", files / "mask.png", **EXACT
    )
    assert inputs["img_cond"].shape == (len(prompts), HEIGHT * WIDTH // 256, 320)
    theirs = run_diffusers(
        pipeline("FluxFillPipeline", "fill"),
        inputs,
        image=picture(WIDTH, HEIGHT, 1),
        mask_image=half_mask(WIDTH, HEIGHT),
        height=HEIGHT,
        width=WIDTH,
    )
    assert_near(run("fill", inputs), theirs)


SIZES = [(64, 112), (96, 80), (112, 64)]


@pytest.mark.parametrize("target", [{}, {"target_width": 64, "target_height": 80}], ids=["own", "target"])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "two"])
def test_kontext_as_diffusers(files, monkeypatch, prompts, target):
    """Both choose the reference's size from a table, here one of small sizes."""
    monkeypatch.setattr("flux.models.PREFERED_KONTEXT_RESOLUTIONS", SIZES)
    inputs, height, width = prepare_kontext(
        *t5_and_clip(), prompts, ae(), files / "robot.png", 5, "cpu", **target, **EXACT
    )
    assert (height, width) == ((80, 64) if target else (64, 112))
    seen = inputs.pop("img_cond_orig")
    assert seen.shape == (1, 3, 64, 112) and -1 <= seen.min() < seen.max() <= 1
    assert inputs["img_cond_seq"].shape == (len(prompts), 4 * 7, 64)
    rounded = get_noise(1, height, width, "cpu", torch.bfloat16, 5)
    assert torch.equal(inputs["img"], prepare(*t5_and_clip(), rounded.float(), prompts)["img"])
    pipe = pipeline("FluxKontextPipeline", "kontext")
    from diffusers.pipelines.flux import pipeline_flux_kontext

    monkeypatch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", SIZES)
    theirs = run_diffusers(
        pipe, inputs, image=picture(120, 70), height=height, width=width, max_area=height * width
    )
    assert_near(run("kontext", inputs), theirs)


def test_kontext_repeats_a_prompt(files, monkeypatch):
    monkeypatch.setattr("flux.models.PREFERED_KONTEXT_RESOLUTIONS", SIZES)
    inputs, *_ = prepare_kontext(*t5_and_clip(), "a cup", ae(), files / "robot.png", 5, "cpu", bs=3)
    assert {len(inputs[name]) for name in ("img", "txt", "vec", "img_cond_seq", "img_cond_seq_ids")} == {3}
    assert inputs["img_cond_seq"].dtype == torch.bfloat16


@pytest.fixture(scope="module")
def redux_parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("redux")
    return save_siglip(folder / "siglip"), save_redux(folder / "redux.safetensors")


def redux_encoder(parts, monkeypatch, dtype=torch.float32) -> ReduxImageEncoder:
    siglip, projector = parts
    monkeypatch.setattr(ReduxImageEncoder, "siglip_model_name", str(siglip))
    return ReduxImageEncoder("cpu", projector, 24, 48, dtype)


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "two"])
def test_redux_as_diffusers(files, redux_parts, monkeypatch, prompts):
    """The prior's tokens, and what the flow model makes of them."""
    diffusers = pytest.importorskip("diffusers")
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder as Projector
    from safetensors.torch import load_file
    from transformers import SiglipImageProcessorPil, SiglipVisionModel

    siglip, file = redux_parts
    encoder = redux_encoder(redux_parts, monkeypatch)
    inputs = prepare_redux(*t5_and_clip(), noise(), prompts, encoder, files / "robot.png", **EXACT)
    projector = Projector(redux_dim=24, txt_in_features=48)
    projector.load_state_dict(load_file(file))
    prior = diffusers.FluxPriorReduxPipeline(
        image_encoder=SiglipVisionModel.from_pretrained(siglip),
        feature_extractor=SiglipImageProcessorPil.from_pretrained(siglip),
        image_embedder=projector,
    )
    tokens = prior.image_embedder(prior.encode_image(picture(120, 70), "cpu", 1)).image_embeds
    texts = prepare(*t5_and_clip(), noise(), prompts)
    given = texts | {"txt": torch.cat((texts["txt"], tokens.expand(len(prompts), -1, -1)), dim=1)}
    theirs = run_diffusers(pipeline("FluxPipeline", "redux"), given, height=HEIGHT, width=WIDTH)
    assert_near(run("redux", inputs), theirs)
    assert inputs["txt_ids"].shape == (len(prompts), 7 + 9, 3) and not inputs["txt_ids"].any()


def test_references_are_bfloat16_unless_asked(files, redux_parts, monkeypatch):
    texts = t5_and_clip()
    control = prepare_control(
        *texts, noise(), "a cup", ae(), CannyImageEncoder("cpu"), str(files / "cup.png")
    )
    fill = prepare_fill(*texts, noise(), "a cup", ae(), str(files / "cup.png"), str(files / "mask.png"))
    assert control["img_cond"].dtype == fill["img_cond"].dtype == torch.bfloat16
    assert control["img"].dtype == torch.float32
    encoder = redux_encoder(redux_parts, monkeypatch, torch.bfloat16)
    assert encoder(picture(30, 50)).dtype == torch.bfloat16
    redux = prepare_redux(*texts, noise(), "a cup", encoder, files / "cup.png")
    assert redux["txt"].dtype == torch.float32  # T5's own, here


# What is asked for is what comes


def test_the_mask_is_in_the_channels(files):
    """Each token's 256 mask channels are the 16 x 16 pixels of its place, in blocks of 8 x 8."""
    reference = references.fill(files / "cup.png", half_mask(WIDTH, HEIGHT), HEIGHT, WIDTH, ae(), **EXACT)
    masked = reference.channels[0, :, 64:].reshape(HEIGHT // 16, WIDTH // 16, 8, 8, 2, 2)
    pixels = masked.permute(0, 4, 2, 1, 5, 3).reshape(HEIGHT, WIDTH)
    expected = torch.from_numpy(np.array(half_mask(WIDTH, HEIGHT))) / 255
    assert torch.equal(pixels, expected)


def test_what_is_to_be_filled_is_not_seen(files):
    """Under the mask the picture does not count; outside it does."""
    one, other = picture(WIDTH, HEIGHT, 1), picture(WIDTH, HEIGHT, 2)
    mask = half_mask(WIDTH, HEIGHT)
    mixed = Image.composite(other, one, mask)
    size = (HEIGHT, WIDTH, ae())
    first = references.fill(one, mask, *size, **EXACT).channels
    assert torch.equal(first, references.fill(mixed, mask, *size, **EXACT).channels)
    assert not torch.equal(first, references.fill(other, mask, *size, **EXACT).channels)


@pytest.mark.parametrize(
    "size, expected",
    [((1000, 1000), (1024, 1024)), ((16, 9), (1392, 752)), ((10, 3000), (672, 1568)), ((3, 4), (880, 1184))],
)
def test_kontexts_sizes(size, expected):
    assert kontext_size(*size) == expected


def test_of_two_sizes_as_near_the_narrower_is_taken(monkeypatch):
    monkeypatch.setattr("flux.models.PREFERED_KONTEXT_RESOLUTIONS", [(96, 64), (32, 64)])
    assert kontext_size(64, 64) == (32, 64)


def test_references_side_by_side():
    one = references.Reference(tokens=torch.zeros(1, 4, 64), ids=torch.ones(1, 4, 3))
    other = replace(one, tokens=torch.ones(1, 4, 64))
    assert references.joined([one, one]) is one
    both = references.joined([one, other]).of_denoising(2)
    assert both.keys() == {"img_cond_seq", "img_cond_seq_ids"}
    assert both["img_cond_seq"][:, 0, 0].tolist() == [0, 1]
    longer = replace(one, tokens=torch.zeros(1, 5, 64), ids=torch.ones(1, 5, 3))
    with pytest.raises(ValueError, match="differ in shape .*: make them one by one"):
        references.joined([one, longer])


# Bad input


@pytest.mark.parametrize("name", ["absent.png", "broken.png", "folder"])
def test_a_reference_that_is_no_picture(files, name):
    (files / "broken.png").write_bytes((files / "cup.png").read_bytes()[:60])
    (files / "folder").mkdir()
    with pytest.raises(PictureError, match=name) as told:
        prepare_control(*t5_and_clip(), noise(), "a", ae(), CannyImageEncoder("cpu"), files / name)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("wrong", ["picture", "mask"])
def test_fill_needs_one_size(files, wrong):
    sources = {"picture": files / "cup.png", "mask": files / "mask.png"} | {wrong: files / "robot.png"}
    said = f"the {wrong} has 120 x 70 pixels where 96 x 64 are needed"
    with pytest.raises(ValueError, match=said):
        prepare_fill(*t5_and_clip(), noise(), "a", ae(), sources["picture"], sources["mask"])


# Beside prompts, seeds and hooks, as `flux.generate` makes pictures


@pytest.fixture(scope="module")
def loaded():
    """`loaded(task)`: small models of a task, as `load_models` gives them, with texts by prompt."""

    def make(task: str) -> Models:
        t5, clip = t5_and_clip()
        spec = replace(configs[RECORD[task]], params=flow_params(task), ae_params=SMALL_AE)
        parts = {"t5": t5, "clip": clip, "device": torch.device("cpu"), "dtype": torch.float32}
        return Models(name=RECORD[task], flow=flow(task), ae=ae(), spec=spec, **parts)

    return make


RECORD = {
    "control": "flux-dev-canny",
    "fill": "flux-dev-fill",
    "kontext": "flux-dev-kontext",
    "redux": "flux-dev-redux",
}
SAMPLING = Sampling(STEPS, GUIDANCE, WIDTH, HEIGHT)


def reference(task: str, files, seed: int = 0) -> references.Reference:
    """One for each task, in the size of `SAMPLING` where it has one."""
    generator = torch.Generator().manual_seed(seed)
    if task == "control":
        return references.control(files / "robot.png", HEIGHT, WIDTH, CannyImageEncoder("cpu"), ae(), **EXACT)
    if task == "fill":
        return references.fill(files / "cup.png", files / "mask.png", HEIGHT, WIDTH, ae(), **EXACT)
    if task == "kontext":
        return references.kontext(files / "robot.png", ae(), **EXACT)[0]
    return references.Reference(text=torch.randn(1, 9, 48, generator=generator))


def last(steps) -> torch.Tensor:
    *_, step = steps
    return step.after


def sampled(models, prompts, seeds, given=(), hooks=None, **conditions) -> torch.Tensor:
    conditions = Conditions(references=tuple(given), **conditions)
    texts = encode(models, [*prompts, *conditions.prompts])
    return last(sample_steps(models, texts, prompts, seeds, SAMPLING, hooks=hooks, conditions=conditions))


TASKS = pytest.mark.parametrize("task", RECORD)


@pytest.fixture
def small_sizes(monkeypatch):
    monkeypatch.setattr("flux.models.PREFERED_KONTEXT_RESOLUTIONS", SIZES)


@TASKS
def test_sampling_with_a_reference(loaded, files, small_sizes, task):
    """As the model is run by hand on what `prepare` and the reference give."""
    models, given = loaded(task), reference(task, files)
    made = sampled(models, PROMPTS, [5, 5], [given])
    rounded = get_noise(1, HEIGHT, WIDTH, "cpu", torch.bfloat16, 5).float()
    inputs = prepare(*t5_and_clip(), rounded, PROMPTS)
    if given.text is not None:
        inputs["txt"] = torch.cat((inputs["txt"], given.text.expand(2, -1, -1)), dim=1)
        inputs["txt_ids"] = torch.zeros(2, 7 + 9, 3)
    assert torch.equal(made, run(task, inputs | given.of_denoising(2)))


@TASKS
def test_rows_side_by_side_are_as_made_alone(loaded, files, small_sizes, task):
    models, one = loaded(task), reference(task, files)
    other = references.Reference(
        *(None if x is None else 0.5 * x for x in (one.channels, one.tokens)),
        ids=one.ids,
        text=None if one.text is None else 0.5 * one.text,
    )
    both = sampled(models, PROMPTS, [5, 6], [one, other])
    for row, given in enumerate((one, other)):
        alone = sampled(models, PROMPTS[row : row + 1], [5 + row], [given])
        torch.testing.assert_close(both[row : row + 1], alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both[:1], sampled(models, PROMPTS[:1], [5], [other]), atol=1e-2)


@TASKS
@pytest.mark.parametrize("beside", [True, False])
def test_a_negative_prompt_sees_the_reference_too(loaded, files, small_sizes, task, beside):
    models, given = loaded(task), reference(task, files)
    negative = Negative("blurred", 2.0, beside=beside)
    made = sampled(models, PROMPTS[:1], [5], [given], negative=negative)
    torch.testing.assert_close(
        made,
        sampled(models, PROMPTS[:1], [5], [given], negative=replace(negative, beside=not beside)),
        rtol=1e-4,
        atol=1e-4,
    )
    assert not torch.allclose(made, sampled(models, PROMPTS[:1], [5], [given]), atol=1e-2)


def test_as_many_references_as_rows(loaded, files, small_sizes):
    given = reference("kontext", files)
    with pytest.raises(ValueError, match="3 references do not match 2 rows"):
        sampled(loaded("kontext"), PROMPTS, [5, 5], [given] * 3)


def test_regions_beside_a_picture_that_is_text(loaded, files):
    regions = Regions((Region("a cup", torch.ones(HEIGHT // 16, WIDTH // 16)),))
    with pytest.raises(ValueError, match="regions cannot go with a picture that is read as text"):
        sampled(loaded("redux"), PROMPTS[:1], [5], [reference("redux", files)], regions=regions)


# Hooks


@TASKS
def test_an_edit_beside_its_source(loaded, files, small_sizes, task):
    """It takes the source's keys and values; the source stays as it is alone."""
    models, given = loaded(task), reference(task, files)
    plain = sampled(models, PROMPTS, [5, 5], [given])
    edited = sampled(models, PROMPTS, [5, 5], [given], Hooks(inject={"all": CopySource()}))
    torch.testing.assert_close(edited[0], plain[0], rtol=1e-4, atol=1e-4)
    assert (edited[1] - plain[1]).norm() > 0.05 * plain[1].norm()


@pytest.mark.parametrize("too", [False, True], ids=["own tokens alone", "references too"])
def test_an_injection_touches_reference_tokens_only_where_asked(loaded, files, small_sizes, too):
    seen = []

    def note(q, k, v, site):
        seen.append((k, v, site))
        return q, k, v

    chain = [note, CopySource(references=too), note]
    sampled(loaded("kontext"), PROMPTS, [5, 5], [reference("kontext", files)], Hooks(inject={"all": chain}))
    assert seen
    for (k, v, site), (k_after, v_after, _) in zip(seen[::2], seen[1::2], strict=True):
        own, behind = HEIGHT * WIDTH // 256, 4 * 7
        assert (site.img.start, site.img.stop) == (7, 7 + own) and k.shape[2] == 7 + own + behind
        for before, after in ((k, k_after), (v, v_after)):
            assert torch.equal(after[:, :, :7], before[:, :, :7])
            assert torch.equal(after[1, :, site.img], before[0, :, site.img])
            expected = before[0] if too else before[1]
            assert torch.equal(after[1, :, site.img.stop :], expected[:, site.img.stop :])


# Edits


@TASKS
def test_edits_side_by_side(loaded, files, small_sizes, task):
    """Source and edits look at one picture; each edit alone is as sampling gives it."""
    models, given = loaded(task), reference(task, files)
    edits = (Edit("a cup", (1, 3)), Edit("a hat", (0,)))
    request = EditRequest(PROMPTS[0], edits, SAMPLING, seed=5, batch=2, reference=given)
    result = edit(models, request)
    plan = Hooks(inject={1: CopySource(rows=(1,)), 3: CopySource(rows=(1,)), 0: CopySource(rows=(2,))})
    rows = sampled(models, [PROMPTS[0], "a cup", "a hat"], [5, 5, 5], [given], plan)
    latents = torch.stack([result.latents[Row("source")], *(result.latents[Row("edit", i)] for i in (0, 1))])
    torch.testing.assert_close(latents, unpack(rows, HEIGHT, WIDTH), rtol=1e-4, atol=1e-4)
    if task == "kontext":  # which also goes without
        plain = edit(models, replace(request, reference=None)).latents[Row("edit", 0)]
        assert not torch.allclose(plain, result.latents[Row("edit", 0)], atol=1e-2)


@pytest.mark.parametrize(
    "method, task",
    [*((row.name, "kontext") for row in METHODS), *(("flowedit", t) for t in ("control", "fill", "redux"))],
)
def test_every_method_edits_with_a_reference(loaded, files, small_sizes, task, method):
    """Sources are sampled with it, and each evaluation of the model has it."""
    models, given = loaded(task), reference(task, files)
    seen = []
    plain = models.flow.forward

    def forward(img, *args, **options):
        seen.append((img.shape, options["txt"].shape[1]))
        return plain(img, *args, **options)

    models.flow.forward = lambda **options: forward(options.pop("img"), **options)
    request = PhotoRequest(
        (EditSource(PROMPTS[0], None, 5),),
        (SourceEdit("a cup", 0, half_mask(WIDTH, HEIGHT)),),
        replace(SAMPLING, guidance=2.0),
        method=method,
        paste=False,
        gate=False,
        reference=given,
    )
    *_, step = edit_photo_steps(models, request)
    (result,) = step.results.values()
    assert result.picture.shape == (3, HEIGHT, WIDTH) and result.picture.isfinite().all()
    channels = {"control": 128, "fill": 384}.get(task, 64)
    tokens = HEIGHT * WIDTH // 256 + (28 if task == "kontext" else 0)
    assert {(shape[1], shape[2]) for shape, _ in seen} == {(tokens, channels)}
    assert {length for _, length in seen} == {7 + (9 if task == "redux" else 0)}
