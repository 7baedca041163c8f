"""A folder in PIE-Bench's layout, made here, with its metrics by small random models."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_demos import small_models
from helpers_models import save_tokenizer
from helpers_sweeps import save_clip
from PIL import Image

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import editing  # noqa: E402
from editing_parts import pie, pie_metrics  # noqa: E402
from editing_parts.rows import Row, Run  # noqa: E402
from editing_parts.running import Bench, Folder  # noqa: E402

pytest.importorskip("torchmetrics", reason='PIE-Bench\'s metrics need pip install "flux[bench]"')

SIDE = 64
BOX = (128, 192, 256, 384)
"""Left, top, right, bottom of the edited region, at 512 x 512."""


def runs(left, top, right, bottom):
    return [number for row in range(top, bottom) for number in (512 * row + left, right - left)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pie")
    rng, entries = np.random.default_rng(0), {}
    for i, (kind, mask) in enumerate(((1, runs(*BOX)), (2, runs(0, 0, 256, 512)), (9, [0, 512 * 512]))):
        name = f"{kind}_kind/{i:012}.jpg"
        file = root / pie.PICTURES / name
        file.parent.mkdir(parents=True, exist_ok=True)
        levels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(levels).resize((512, 512), Image.Resampling.BICUBIC).save(file)
        entries[f"{i:012}"] = {
            "image_path": name,
            "original_prompt": "a [red] boat",
            "editing_prompt": "a [blue] boat with a hat",
            "editing_instruction": "make it blue",
            "editing_type_id": str(kind),
            "blended_word": "red blue",
            "mask": mask,
        }
    (root / pie.MAPPING).write_text(json.dumps(entries))
    return root


@pytest.fixture(scope="module")
def models_of_metrics(tmp_path_factory):
    """Folders of a small CLIP and of a small DINO of twelve layers."""
    from transformers import ViTConfig, ViTModel

    root = tmp_path_factory.mktemp("metrics")
    save_clip(root / "clip")
    save_tokenizer(root / "clip")
    shape = ViTConfig(
        hidden_size=16, num_hidden_layers=12, num_attention_heads=2, intermediate_size=16, patch_size=56
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ViTModel(shape, add_pooling_layer=False).save_pretrained(root / "dino")
    return root


def distance(a, b):
    return (a - b).square().mean()


@pytest.fixture(scope="module")
def yardstick(models_of_metrics):
    return partial(
        pie_metrics.PieYardstick,
        structure=pie_metrics.structure_distance(models_of_metrics / "dino"),
        lpips=distance,
        clip=pie_metrics.ClipScores(models_of_metrics / "clip"),
    )


def test_a_mask_is_runs_row_by_row_and_the_border():
    mask = pie.decode_mask(runs(*BOX))
    left, top, right, bottom = BOX
    expected = np.zeros((512, 512), dtype=bool)
    expected[top:bottom, left:right] = True
    expected[[0, -1]] = expected[:, [0, -1]] = True
    assert np.array_equal(mask, expected)
    assert pie.decode_mask([512 * 512 - 1, 99]).sum() == 4 * 511
    for wrong in ([5], [512 * 512, 1], [-1, 2]):
        with pytest.raises(ValueError, match="a mask must be pairs of a start"):
            pie.decode_mask(wrong)


def test_cases_are_read_with_their_kinds_and_without_brackets(folder):
    cases = pie.read_cases(folder)
    assert [case.attribute for case in cases] == ["change object", "add object", "change style"]
    assert cases[0].prompts == ("a red boat", "a blue boat with a hat")
    assert all(case.picture.is_file() for case in cases) and len(pie.read_cases(folder, 2)) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"editing_prompt": None}, "cannot be read"),
        ({"editing_type_id": "12"}, "editing_type_id is 12, and there are 0 to 9"),
        ({"mask": "x"}, "cannot be read"),
        ("editing_prompt", "has no 'editing_prompt'"),
    ],
)
def test_a_damaged_entry_is_said_in_one_line(folder, tmp_path, changes, said):
    entries = json.loads((folder / pie.MAPPING).read_text())
    entry = entries["000000000001"]
    entry.update(changes) if isinstance(changes, dict) else entry.pop(changes)
    (tmp_path / pie.MAPPING).write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=said) as error:
        pie.read_cases(tmp_path)
    assert "000000000001" in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_is_none_is_said_in_one_line(tmp_path, capsys):
    assert editing.main(["pie", str(tmp_path), "--model", "flux-tiny"]) == 2
    said = capsys.readouterr().err
    assert said == f"editing.py: {tmp_path} holds no {pie.MAPPING}: name a folder in PIE-Bench's layout\n"


def test_metrics_are_the_benchmarks(folder, yardstick):
    tasks = pie.draw_folder(small_models(), pie.read_cases(folder), SIDE, 2)
    measured = yardstick(tasks)
    same = measured.measure(tasks.photos)
    assert same["structure"] == pytest.approx([0, 0, 0], abs=1e-4)
    assert same["psnr_whole"] == [60] * 3 and same["ssim_whole"] == pytest.approx([100] * 3, abs=1e-3)
    assert same["psnr"][:2] == [60, 60] and np.isnan(same["psnr"][2])  # a style has no background

    inside, outside = tasks.photos.copy(), tasks.photos.copy()
    inside[tasks.differs] = 255 - inside[tasks.differs]
    outside[~tasks.differs] = 255 - outside[~tasks.differs]
    inner, outer = measured.measure(inside), measured.measure(outside)
    assert inner["psnr"][:2] == [60, 60] and inner["lpips"][:2] == [0, 0]
    assert inner["psnr_whole"][0] < 20 and inner["lpips_whole"][0] > 0 and inner["structure"][0] > 0
    assert outer["clip_edited"] == same["clip_edited"] and inner["clip_edited"] != same["clip_edited"]
    black = [np.where(tasks.differs[0][..., None], 0, each[0]) / 255 for each in (tasks.photos, outside)]
    error = np.square(black[0] - black[1]).mean()
    assert outer["psnr"][0] == pytest.approx(-10 * np.log10(error), abs=1e-3)


def test_structure_is_what_the_keys_of_the_last_layer_say(models_of_metrics):
    from transformers import ViTModel

    model = ViTModel.from_pretrained(models_of_metrics / "dino", add_pooling_layer=False).eval()
    pictures = torch.rand(2, 3, 224, 224)
    states = model(
        (pictures - torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        / torch.tensor([0.229, 0.224, 0.225])[:, None, None],
        output_hidden_states=True,
    ).hidden_states[11]
    names = dict(model.named_modules())
    normed = names[next(name for name in names if name.endswith("11.layernorm_before"))](states)
    endings = ("11.attention.k_proj", "11.attention.attention.key")
    key = names[next(name for name in names if name.endswith(endings))]
    unit = torch.nn.functional.normalize(key(normed), dim=-1)
    alike = unit @ unit.transpose(1, 2)
    expected = (alike[0] - alike[1]).square().mean()
    found = pie_metrics.structure_distance(models_of_metrics / "dino")(*(2 * pictures[:, None] - 1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def test_the_clip_score_is_a_hundred_times_the_cosine(models_of_metrics):
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(models_of_metrics / "clip").eval().requires_grad_(False)
    scored = pie_metrics.ClipScores(models_of_metrics / "clip")
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    clip = pie_metrics.Clip(models_of_metrics / "clip")
    seen = torch.from_numpy(clip.embed([Image.fromarray(picture)])[0, 0])
    tokenizer = AutoTokenizer.from_pretrained(models_of_metrics / "clip")
    scores = []
    for prompt in ("a red boat", "the sky on a hat"):
        ids = tokenizer([prompt], return_tensors="pt").input_ids
        pixels = torch.zeros(1, 3, *[model.config.vision_config.image_size] * 2)
        said = model(input_ids=ids, pixel_values=pixels).text_embeds[0]
        scores.append(max(0.0, 100 * float(seen @ said)))
        assert scored.text(picture, prompt) == pytest.approx(scores[-1], abs=1e-3)
    assert scores[0] != scores[1]


def test_clip_holds_edits_against_their_source_and_against_the_way_of_their_prompts(models_of_metrics):
    """By the cosines written out, on features of a model of transformers."""
    from transformers import AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(models_of_metrics / "clip").eval().requires_grad_(False)
    scored = pie_metrics.ClipScores(models_of_metrics / "clip")
    photo, edit = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    seen = scored.clip.embed([Image.fromarray(each) for each in (photo, edit)])[:, 0].astype(np.float64)
    assert scored.image(photo, edit) == pytest.approx(100 * float(seen[0] @ seen[1]), abs=1e-3)
    assert scored.image(photo, photo) == pytest.approx(100, abs=1e-3)
    prompts, said = ("a red boat", "the sky on a hat"), []
    tokenizer = AutoTokenizer.from_pretrained(models_of_metrics / "clip")
    for prompt in prompts:
        pixels = torch.zeros(1, 3, *[model.config.vision_config.image_size] * 2)
        found = model(input_ids=tokenizer([prompt], return_tensors="pt").input_ids, pixel_values=pixels)
        said.append(found.text_embeds[0].double().numpy())
    ways = seen[1] - seen[0], said[1] - said[0]
    cosine = ways[0] @ ways[1] / np.linalg.norm(ways[0]) / np.linalg.norm(ways[1])
    assert scored.direction((photo, edit), prompts) == pytest.approx(100 * cosine, abs=1e-2)
    assert scored.direction((edit, photo), prompts) == pytest.approx(-100 * cosine, abs=1e-2)
    assert scored.direction((photo, photo), prompts) == scored.direction((photo, edit), prompts[:1] * 2) == 0


def test_a_folder_is_edited_measured_and_shown(folder, yardstick, tmp_path):
    models, cases = small_models(), pie.read_cases(folder)
    bench = Bench(models, lambda: pie.draw_folder(models, cases, SIDE, 2), yardstick)
    rows = [
        Row("plain", Run("flowedit"), pairs=3),
        Row("masked", Run("flowedit", mask="true", operators=(("masked", {}),)), paste=True, pairs=3),
    ]
    table = Folder(tmp_path)
    bench.make(table, rows, 2, say=lambda _: None)
    facts = {"model": "small", "weights": {}, "sources": "photos", "split": folder.name}
    kinds = [case.attribute for case in cases]
    text = editing.show(table, rows, facts, kinds, "plain", pie_metrics.MEASURES)
    assert "| clip image | clip direction |" in text
    assert "| masked | 3 |" in text and "psnr, by kind" in text
    records = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert records[1]["figures"]["psnr"][0] > records[0]["figures"]["psnr"][0]


def test_a_table_has_one_yardstick(folder, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise ValueError("that far")

    monkeypatch.setattr(pie_metrics, "load", stop)
    for clip, said in (("a/clip", "that far"), ("a/clip", "that far"), ("b/clip", "holds a table with clip")):
        command = ["pie", str(folder), "--model", "flux-tiny", "--clip", clip, "--out", str(tmp_path / "out")]
        assert editing.main([*command, "--rows", "flowedit"]) == 2
        assert said in capsys.readouterr().err


def test_what_is_missing_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r'pip install (--upgrade )?"flux\[bench\]"'):
        pie_metrics.squeeze_lpips()


def test_lpips_is_torchmetrics_own():
    pytest.importorskip("torchvision")
    lpips = pie_metrics.squeeze_lpips()
    a = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    assert float(lpips(a, a)) == pytest.approx(0, abs=1e-5) and float(lpips(a, -a)) > 0
