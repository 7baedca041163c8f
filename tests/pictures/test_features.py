"""Features, figures of pairs, and what is kept of them: against independent oracles."""

import io
import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers_sweeps import drawn, save_clip, save_dino
from PIL import Image
from skimage import metrics as oracle

from flux.extras import need
from flux.pictures import feature_cache, metrics
from flux.pictures.feature_cache import FeatureCache, PairCache
from flux.pictures.features import Clip, Dino
from flux.pictures.metrics import cosine, psnr, scaled, ssim
from flux.studies.pages.plots import DOTS, Bar, importance_map, importance_plot
from flux.studies.similarity import measuring
from flux.studies.similarity.measuring import Store, finite, measure
from flux.studies.similarity.spec import DinoSpec
from flux.weights.identity import pretrained_id


@pytest.fixture(scope="session")
def dino(tmp_path_factory) -> Path:
    return save_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    """Four of one size, the first two of them alike."""
    paths = []
    for number, (prompt, change) in enumerate([(0, 0), (0, 0.1), (1, 0), (2, 0)]):
        paths.append(tmp_path / f"{number}.png")
        drawn(prompt, change).save(paths[-1])
    return paths


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """How many pictures went through a model at a time."""
    counts = []
    for kind in (Dino, Clip):
        embed = kind.embed

        def count(self, images, embed=embed):
            counts.append(len(images))
            return embed(self, images)

        monkeypatch.setattr(kind, "embed", count)
    return counts


def asked(pictures: list[Path], **keys) -> DinoSpec:
    return DinoSpec.model_validate({"pictures": list(map(str, pictures)), **keys})


# Figures


def test_psnr_and_ssim_are_scikit_images():
    a, b = drawn(0), drawn(0, 0.3)
    pixels = [np.asarray(each) for each in (a, b)]
    assert psnr(a, b) == pytest.approx(oracle.peak_signal_noise_ratio(*pixels, data_range=255))
    expected = oracle.structural_similarity(*pixels, channel_axis=-1, data_range=255)
    assert ssim(a, b) == pytest.approx(expected) and ssim(a, a) == 1
    grey = [each.convert("L") for each in (a, b)]
    levels = [np.asarray(each) for each in grey]
    assert ssim(*grey) == pytest.approx(oracle.structural_similarity(*levels, data_range=255))


def test_cosine():
    assert cosine(np.array([1.0, 0.0]), np.array([0.0, 2.0])) == 0
    assert cosine(np.array([1.0, 1.0]), np.array([-2.0, -2.0])) == -1
    assert cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(24 / 25)
    odd = np.full(7, 0.1, np.float32)
    assert cosine(odd, odd.copy()) == 1
    assert (scaled(-1), scaled(0), scaled(1)) == (0, 0.5, 1)


def test_dino_tokens(dino):
    from transformers import BitImageProcessor, Dinov2Model

    images = [drawn(0), drawn(1, size=(48, 80))]
    processor, model = BitImageProcessor.from_pretrained(dino), Dinov2Model.from_pretrained(dino).eval()
    with torch.inference_mode():
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        hidden = model(pixels).last_hidden_state
    assert pixels.shape == (2, 3, 64, 64)
    wanted = {"class": hidden[:, 0], "patches": hidden[:, 1:].mean(dim=1)}
    both = Dino(dino).embed(images)
    for index, (token, expected) in enumerate(wanted.items()):
        expected = expected / expected.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(Dino(dino, token=token).features(images), expected)
        torch.testing.assert_close(torch.from_numpy(both[:, index]), expected)
    assert Dino(dino).similarity(images[0], images[0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "key, name",
    [("image_processor_type", "BitImageProcessor"), ("feature_extractor_type", "BitFeatureExtractor")],
)
def test_pillow_prepares_pictures_where_torchvision_is_asked_for(dino, tmp_path, monkeypatch, key, name):
    """As 5.6 does; older folders name their processor by another key."""
    import transformers

    if not hasattr(transformers, "BitImageProcessorPil"):
        pytest.skip("this release has one processor, by Pillow")

    def ask(*_, **__):
        raise ImportError("AutoImageProcessor requires the Torchvision library")

    expected = Dino(dino).embed([drawn(0)])
    folder = Path(shutil.copytree(dino, tmp_path / "dino"))
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    settings.pop("image_processor_type", None)
    file.write_text(json.dumps({**settings, key: name}))
    monkeypatch.setattr(transformers, "AutoImageProcessor", SimpleNamespace(from_pretrained=ask))
    np.testing.assert_array_equal(Dino(folder).embed([drawn(0)]), expected)
    file.write_text(json.dumps({**settings, "image_processor_type": "NoSuchProcessor"}))
    with pytest.raises((ImportError, ValueError), match="Torchvision"):
        Dino(folder)


def test_registers_are_no_patches(tmp_path):
    transformers = pytest.importorskip("transformers", minversion="4.48", reason="has no registers")
    Dinov2WithRegistersConfig = transformers.Dinov2WithRegistersConfig
    Dinov2WithRegistersModel = transformers.Dinov2WithRegistersModel
    torch.manual_seed(0)
    shape = Dinov2WithRegistersConfig(
        **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"image_size": 64, "patch_size": 16, "num_register_tokens": 3},
    )
    Dinov2WithRegistersModel(shape).save_pretrained(save_dino(tmp_path))
    model = Dino(tmp_path, token="patches")
    with torch.inference_mode():
        pixels = model.processor(images=[drawn(0)], return_tensors="pt")["pixel_values"]
        hidden = model.model(pixels).last_hidden_state
    assert hidden.shape[1] == 1 + 3 + 16
    expected = torch.nn.functional.normalize(hidden[:, 4:].mean(dim=1), dim=-1)
    torch.testing.assert_close(model.features([drawn(0)]), expected)


def test_clip_image_features(clip):
    from transformers import CLIPImageProcessor, CLIPModel

    images = [drawn(0), drawn(1, size=(48, 80))]
    processor, model = CLIPImageProcessor.from_pretrained(clip), CLIPModel.from_pretrained(clip).eval()
    with torch.inference_mode():
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        expected = model.visual_projection(model.vision_model(pixels).pooler_output)
    expected = expected / expected.norm(dim=-1, keepdim=True)
    found = Clip(clip).embed(images)
    assert found.shape == (2, 1, 16)
    torch.testing.assert_close(torch.from_numpy(found[:, 0]), expected)


def test_a_models_identity(dino, tmp_path):
    copy = save_dino(tmp_path / "copy")
    assert pretrained_id(copy) == pretrained_id(dino) != pretrained_id(dino, "bfloat16")
    settings = copy / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("0.5", "0.4"))
    assert pretrained_id(copy) != pretrained_id(dino)
    assert pretrained_id("nobody/has-this-model") is None and pretrained_id("/no such/name at/all") is None


# What is kept


def test_measure_reads_the_second_time(dino, clip, pictures, counted, tmp_path):
    spec = asked(pictures, metrics=["dino", "clip", "psnr", "ssim"], batch=3, clip=str(clip))
    pairs = [(a, b) for a in pictures for b in pictures if a < b]
    first = measure(spec, pairs, str(dino), Store())
    assert counted == [3, 1, 3, 1]
    assert first.computed == {"dino": 4, "clip": 4, "psnr": 6, "ssim": 6} and first.problems == []
    features = Dino(dino).features([Image.open(path) for path in pictures]).numpy()
    for a, b in pairs:
        images = Image.open(a), Image.open(b)
        dot = features[pictures.index(a)] @ features[pictures.index(b)]
        assert first.figures[a, b]["dino"] == pytest.approx(float(dot), abs=1e-5)
        assert first.figures[a, b]["psnr"] == psnr(*images)
        assert first.figures[a, b]["ssim"] == ssim(*images)

    counted.clear()
    again = measure(spec, pairs, str(dino), Store())
    assert counted == [] and again.figures == first.figures
    assert set(again.computed.values()) == {0}
    # The other token comes from the same pass.
    other = measure(asked(pictures, token="patches"), pairs, str(dino), Store())
    assert counted == []
    assert other.figures[pairs[0]]["dino"] != first.figures[pairs[0]]["dino"]

    # A changed picture is a new one, and no other is made again.
    drawn(9).save(pictures[0])
    measure(asked(pictures), pairs, str(dino), Store())
    assert counted == [1]
    hidden = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert {name.partition("-")[0] for name in hidden} == {".features", ".figures.json"}


def test_equal_pictures_are_looked_at_once(dino, pictures, counted, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(pictures[0].read_bytes())
    made = measure(asked(pictures), [(pictures[0], copy)], str(dino), Store())
    assert counted == [1] and made.figures[pictures[0], copy]["dino"] == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "foreign"])
def test_a_damaged_or_foreign_cache_is_made_again(damage, dino, pictures, counted, tmp_path):
    pairs = [(pictures[0], pictures[2])]
    first = measure(asked(pictures), pairs, str(dino), Store(tmp_path / "kept"))
    (cache,) = (tmp_path / "kept").iterdir()
    whole = cache.read_bytes()
    if damage == "foreign":
        FeatureCache(cache, "another", {"0" * 64: np.zeros((2, 3), np.float32)}).save()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        broken = {"cut": whole[:middle], "flipped": flipped, "empty": b"", "text": b"{}"}[damage]
        cache.write_bytes(broken)
    counted.clear()
    again = measure(asked(pictures), pairs, str(dino), Store(tmp_path / "kept"))
    assert again.figures == first.figures and counted == [2]
    (line,) = again.problems
    assert line == f"{cache}: is {'of another model' if damage == 'foreign' else 'damaged'} and is made again"
    assert FeatureCache.open(cache, pretrained_id(dino)).problem is None
    counted.clear()
    assert measure(asked(pictures), pairs, str(dino), Store(tmp_path / "kept")).problems == []
    assert counted == []


@pytest.mark.parametrize("text", ["[]", '{"psnr": 3}', '{"psnr": {"a b": "c"}}', '{"psnr": {', "[" * 99_999])
def test_damaged_figures_are_made_again(text, pictures, tmp_path):
    (tmp_path / ".figures.json").write_text(text)
    made = measure(asked(pictures, metrics="psnr"), [(pictures[0], pictures[0])], "", Store())
    assert made.problems == [f"{tmp_path / '.figures.json'}: is damaged and is made again"]
    assert made.figures[pictures[0], pictures[0]]["psnr"] == math.inf
    # Infinity is kept as such.
    again = PairCache.open(tmp_path / ".figures.json")
    assert again.problem is None and list(again.figures["psnr"].values()) == [math.inf]


def test_a_run_that_is_cut_short_keeps_what_it_found(dino, pictures, counted, monkeypatch, tmp_path):
    embed = Dino.embed

    def stop_at_the_second(self, images):
        if counted:
            raise KeyboardInterrupt
        return embed(self, images)

    monkeypatch.setattr(Dino, "embed", stop_at_the_second)
    pairs = [(pictures[0], each) for each in pictures[1:]]
    with pytest.raises(KeyboardInterrupt):
        measure(asked(pictures, batch=2), pairs, str(dino), Store())
    monkeypatch.setattr(Dino, "embed", embed)
    counted.clear()
    measure(asked(pictures, batch=2), pairs, str(dino), Store())
    assert counted == [2]
    assert not list(tmp_path.glob("*.partial"))


def test_a_folder_that_cannot_be_written_to_is_named_and_no_obstacle(dino, pictures, monkeypatch):
    def refuse(path, content):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(feature_cache, "write_atomically", refuse)
    made = measure(asked(pictures, metrics=["dino", "psnr"]), [tuple(pictures[:2])], str(dino), Store())
    assert len(made.problems) == 2 and made.figures[tuple(pictures[:2])]["psnr"] > 0
    assert "not written, so it is computed again next time (Read-only file system)" in made.problems[0]


def test_pictures_of_two_sizes_have_no_psnr(pictures, tmp_path):
    odd, small = tmp_path / "odd.png", tmp_path / "small.png"
    drawn(0, size=(32, 64)).save(odd)
    drawn(0, size=(6, 6)).save(small)
    pairs = [(pictures[0], odd), (pictures[0], pictures[1]), (small, small)]
    made = measure(asked(pictures, metrics=["psnr", "ssim"]), pairs, "", Store())
    assert made.figures[pairs[0]] == {"psnr": None, "ssim": None} and made.figures[pairs[1]]["ssim"] < 1
    assert made.figures[pairs[2]] == {"psnr": math.inf, "ssim": None}
    assert [line.partition(":")[0] for line in made.problems] == [
        "PSNR was not measured for 1 of 3 pairs",
        "SSIM was not measured for 2 of 3 pairs",
    ]


def test_a_model_that_is_not_there_ends_in_one_line(pictures, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"^DINO model .*none not loaded: "):
        measure(asked(pictures), [tuple(pictures[:2])], str(tmp_path / "none"), Store())


def test_finite():
    assert finite([1.0, None, math.inf, -2.0]) == [1.0, -2.0]


# Extras


def test_a_missing_extra_is_named(monkeypatch):
    for module, extra, package in (
        ("skimage.metrics", "similarity", "scikit-image"),
        ("matplotlib", "plots", "matplotlib"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError) as caught:
            need(module, extra, "the plot")
        assert str(caught.value) == f'the plot needs {package}: pip install "flux[{extra}]"'
    with pytest.raises(ImportError, match="SSIM needs scikit-image"):
        metrics.ssim(drawn(0), drawn(0))


def test_a_broken_extra_is_told_from_a_missing_one(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("import nothing_of_this_name")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ImportError, match=r"cannot be imported here \(No module named 'nothing_of_this_name'\)"
    ):
        need("broken_extra", "plots")


# Plots


def bars(count: int, joint: bool = True) -> list[Bar]:
    heights = np.random.default_rng(0).random(count) ** 4 / 2
    made = [
        Bar(str(i), "double" if i < count // 3 else "single", h, h - 0.02, h + 0.02, h > 0.05)
        for i, h in enumerate(heights)
    ]
    return [*made, Bar("2+3", "joint", 0.3)] if joint else made


def grey(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float)


@pytest.mark.parametrize("count", [1, 12, 57])
def test_the_importance_plot(count):
    options = {"title": "a $5 title", "measure": "DINO similarity", "confidence": 0.95}
    png = importance_plot(bars(count), **options, threshold=0.95, floor=0.01)
    image = grey(png)
    assert image.shape[1] > 1000 and image.shape[0] > 500 and (image < 100).any()
    if count != 12:
        return
    assert png == importance_plot(bars(count), **options, threshold=0.95, floor=0.01)
    # Each of them leaves a trace that is there without colour.
    for change in ({"threshold": None, "floor": 0.01}, {"threshold": 0.95, "floor": None}):
        assert not np.array_equal(image, grey(importance_plot(bars(count), **options, **change)))
    plain = [Bar(bar.label, bar.kind, bar.height) for bar in bars(count)]
    assert not np.array_equal(image, grey(importance_plot(plain, **options, threshold=0.95, floor=0.01)))


@pytest.mark.parametrize("count", [1, 12, 57])
def test_a_narrow_plot_can_be_read_on_a_phone(count):
    """At the 336 pixels that a phone of 390 has for it, a letter of 8 points keeps 10 pixels or more."""
    options = {
        "title": "",
        "measure": "DINO similarity",
        "confidence": 0.95,
        "threshold": 0.95,
        "floor": 0.01,
    }
    image = grey(importance_plot(bars(count), **options, narrow=True))
    height, width = image.shape
    assert 8 / 72 * DOTS * 336 / width > 10
    # A row for each layer, and all of them on the plot.
    assert height > count * 0.16 * DOTS and (image < 100).any()
    plain = [Bar(bar.label, bar.kind, bar.height) for bar in bars(count)]
    assert not np.array_equal(image, grey(importance_plot(plain, **options, narrow=True)))
    for change in ({"threshold": None}, {"floor": None}):
        assert not np.array_equal(
            image, grey(importance_plot(bars(count), **options | change, narrow=True))[: len(image)]
        )


def test_double_and_single_blocks_are_told_apart_in_grey():
    """In the middle of a bar: even and dark for double blocks, bright and hatched for single ones."""
    options = {"title": "", "measure": "x", "confidence": 0.95}
    both = [Bar("0", "double", 1.0), Bar("1", "single", 1.0)]
    image = grey(importance_plot(both, **options))
    height, width = image.shape
    patches = [image[height // 3 : height // 2, int(width * x) : int(width * x) + 80] for x in (0.26, 0.66)]
    assert patches[0].std() < 1 < 10 < patches[1].std()
    assert np.median(patches[0]) < np.median(patches[1]) - 40


def test_the_map_leaves_missing_pictures_empty():
    values = np.array([[1.0, 0.5], [np.nan, 0.9]])
    options = {"title": "", "measure": "x"}
    two = bars(2, joint=False)
    whole = grey(importance_map(np.nan_to_num(values, nan=1.0), ["a", "b $"], two, **options))
    holed = grey(importance_map(values, ["a", "b $"], two, **options))
    assert whole.shape == holed.shape and not np.array_equal(whole, holed)
    assert holed.mean() > whole.mean()
    # Nothing at all is no reason to fail.
    importance_map(np.full((1, 2), np.nan), ["a"], two, **options)


def test_a_users_matplotlib_settings_have_no_part_in_it(monkeypatch):
    import matplotlib

    options = {"title": "", "measure": "x", "confidence": 0.9}
    plain = importance_plot(bars(3), **options)
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
    assert importance_plot(bars(3), **options) == plain and matplotlib.rcParams["font.size"] == 30


def test_saving_now_and_then(dino, pictures, monkeypatch):
    saves = []
    save = FeatureCache.save
    monkeypatch.setattr(measuring, "SAVE_EVERY", 2)
    monkeypatch.setattr(FeatureCache, "save", lambda cache: (saves.append(len(cache.features)), save(cache)))
    pairs = [(pictures[0], each) for each in pictures[1:]]
    measure(asked(pictures, batch=1), pairs, str(dino), Store())
    assert saves == [2, 4, 4]


def test_pictures_are_seen_as_a_viewer_shows_them(tmp_path):
    """16-bit levels scaled, not cut off at 255; what is transparent on white, not as what lies below it."""
    from flux.pictures.rgb import rgb

    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(levels).save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as deep:
        assert np.array_equal(np.asarray(rgb(deep))[..., 0], levels // 257)
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    clear.save(tmp_path / "clear.png")
    with Image.open(tmp_path / "clear.png") as image:
        assert rgb(image).getpixel((0, 0)) == (255, 0, 0)
        assert rgb(image).getpixel((1, 1)) == (255, 255, 255)
    palette = clear.quantize(4)
    assert rgb(palette).getpixel((1, 1)) == (255, 255, 255)
    assert rgb(Image.new("L", (2, 2), 7)).getpixel((0, 0)) == (7, 7, 7)


# Patch by patch


def test_patches_are_the_models_own_of_the_whole_picture(dino):
    """By hand: what transformers' model gives for the picture, scaled to the side that it sees."""
    model = Dino(dino)
    image = drawn(0, 0).resize((96, 64))
    side = model.processor.size["height"]
    levels = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    mean, std = (np.array(getattr(model.processor, f"image_{name}")) for name in ("mean", "std"))
    pixels = torch.from_numpy(((levels - mean) / std).astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        hidden = model.model(pixels, output_hidden_states=True).hidden_states
    for block in (1, len(hidden) - 1):
        expected = torch.nn.functional.normalize(hidden[block][:, 1:], dim=-1)
        torch.testing.assert_close(model.patches([image], block), expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(model.patches([image]), model.patches([image], 1))  # a shallow model's default


def test_patches_of_a_model_that_cuts_out_the_middle_show_the_edges_too(dino, tmp_path):
    folder = shutil.copytree(dino, tmp_path / "cutting")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings |= {"do_center_crop": True, "crop_size": settings["size"], "size": {"shortest_edge": 256}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    a = drawn(0, 0).resize((300, 100))
    b = a.copy()
    b.paste("red", (0, 0, 40, 100))
    whole, cutting = Dino(dino), Dino(folder)
    torch.testing.assert_close(cutting.patches([a]), whole.patches([a]), rtol=1e-4, atol=1e-4)
    assert metrics.patch_similarity(a, b, cutting) < 0.999
    assert metrics.patch_similarity(a, b, cutting) == metrics.patch_similarity(b, a, cutting)


def test_patches_see_a_change_of_a_corner_that_grows(dino):
    model, a = Dino(dino), drawn(0, 0).resize((96, 96))
    values = []
    for side in (0, 24, 48, 96):
        b = a.copy()
        b.paste("red", (0, 0, side, side))
        values.append(metrics.patch_similarity(a, b, model))
    assert values[0] == pytest.approx(1, abs=1e-6)
    assert values == sorted(values, reverse=True)
