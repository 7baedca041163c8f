"""Saved pictures: file names, JPEG quality, EXIF fields and the NSFW check."""

import pytest
import torch
from PIL import ExifTags, Image, JpegImagePlugin

from flux.pictures import safety
from flux.pictures.files import exif_of, next_index, save_image, to_pil
from flux.pictures.watermark import embed_watermark
from flux.weights.hub import require_hub

TAG = ExifTags.Base

pytestmark = pytest.mark.filterwarnings("ignore:pictures of fewer than 256")


def pictures(count: int, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def nsfw(*scores: float):
    """A classifier that gives one score after the other."""
    remaining = iter(scores)
    return lambda image: [{"label": "normal", "score": 0.5}, {"label": "nsfw", "score": next(remaining)}]


def exif(path) -> Image.Exif:
    with Image.open(path) as picture:
        return picture.getexif()


def test_one_picture(tmp_path):
    name = str(tmp_path / "new" / "img_{idx}.jpg")
    assert save_image(None, "flux-dev", name, 3, pictures(1), True, "a red house") == 4
    with Image.open(tmp_path / "new" / "img_3.jpg") as picture:
        assert picture.format == "JPEG" and picture.size == (48, 32)
        assert JpegImagePlugin.get_sampling(picture) == 0
        assert sum(picture.quantization[0]) < 400  # quality 95; 75, the default, has 1800
        fields = picture.getexif()
    assert fields[TAG.Software] == "AI generated;txt2img;flux"
    assert fields[TAG.Make] == "Black Forest Labs"
    assert fields[TAG.Model] == "flux-dev"
    assert fields[TAG.ImageDescription] == "a red house"


def test_each_picture_has_its_own_prompt(tmp_path):
    name = str(tmp_path / "img_{idx}.jpg")
    assert save_image(None, "flux-dev", name, 0, pictures(2), True, ["a cat", "a dog"]) == 2
    assert [exif(tmp_path / f"img_{i}.jpg")[TAG.ImageDescription] for i in range(2)] == ["a cat", "a dog"]
    with pytest.raises(ValueError, match="1 prompts for 2 pictures"):
        save_image(None, "flux-dev", name, 0, pictures(2), True, ["a cat"])


def test_prompt_is_left_out_on_request(tmp_path):
    save_image(None, "flux-dev", str(tmp_path / "img_{idx}.jpg"), 0, pictures(1), False, "secret")
    fields = exif(tmp_path / "img_0.jpg")
    assert TAG.ImageDescription not in fields and fields[TAG.Model] == "flux-dev"
    assert b"secret" not in (tmp_path / "img_0.jpg").read_bytes()


@pytest.mark.parametrize("prompt", ["ein grünes Haus", "猫と犬", "𝔣lux"])
def test_prompt_in_any_script(tmp_path, prompt):
    save_image(None, "flux-dev", str(tmp_path / "img_{idx}.jpg"), 0, pictures(1), True, prompt)
    assert prompt.encode("utf-8") in (tmp_path / "img_0.jpg").read_bytes()


def test_a_very_long_prompt_is_cut_and_saved(tmp_path):
    save_image(None, "flux-dev", str(tmp_path / "img_{idx}.jpg"), 0, pictures(1), True, "ü" * 100_000)
    assert exif(tmp_path / "img_0.jpg")[TAG.Model] == "flux-dev"


@pytest.mark.parametrize("name", ["flux-dev", "flux-dev-krea", "flux-schnell", "flux-tiny"])
def test_text_to_picture_models(name):
    assert exif_of(name, None)[TAG.Software] == "AI generated;txt2img;flux"


@pytest.mark.parametrize("task", ["canny", "canny-lora", "depth", "depth-lora", "redux", "fill", "kontext"])
def test_picture_to_picture_models(task):
    assert exif_of(f"flux-dev-{task}", None)[TAG.Software] == "AI generated;img2img;flux"


def test_marked_before_saving(tmp_path):
    picture = pictures(1, 256, 256)
    save_image(None, "flux-dev", str(tmp_path / "img_{idx}.png"), 0, picture, True, "a")
    with Image.open(tmp_path / "img_0.png") as saved:
        assert saved.tobytes() == to_pil(embed_watermark(picture)[0]).tobytes()


def test_nsfw_takes_no_number(tmp_path, capsys):
    name = str(tmp_path / "img_{idx}.jpg")
    assert save_image(nsfw(0.1, 0.85, 0.84), "flux-dev", name, 5, pictures(3), True, "a") == 7
    assert sorted(file.name for file in tmp_path.iterdir()) == ["img_5.jpg", "img_6.jpg"]
    assert "NSFW" in capsys.readouterr().out
    assert save_image(nsfw(0.6), "flux-dev", name, 7, pictures(1), True, "a", nsfw_threshold=0.5) == 7


def test_usage_is_reported_on_request_and_for_saved_pictures_only(tmp_path, monkeypatch):
    reported = []
    monkeypatch.setattr(
        "flux.pictures.files.track_usage_via_api", lambda name, n=1: reported.append((name, n))
    )
    name = str(tmp_path / "img_{idx}.jpg")
    save_image(None, "flux-dev", name, 0, pictures(1), True, "a")
    save_image(nsfw(0.9), "flux-dev", name, 1, pictures(1), True, "a", track_usage=True)
    assert reported == []
    save_image(nsfw(0.9, 0.1, 0.1), "flux-dev", name, 1, pictures(3), True, "a", track_usage=True)
    assert reported == [("flux-dev", 2)]


def test_to_pil_rounds_and_clamps():
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 1.5, 0.5]).reshape(1, 1, 6).expand(3, 1, 6)
    assert [to_pil(x).getpixel((i, 0))[0] for i in range(6)] == [0, 0, 128, 255, 255, 191]
    assert to_pil(x.bfloat16().requires_grad_()).mode == "RGB"


def test_next_index(tmp_path):
    assert next_index(tmp_path) == next_index(tmp_path / "missing") == 0
    for name in ("img_2.jpg", "img_10.jpg", "img_11.png", "img_x.jpg", "my_img_40.jpg"):
        (tmp_path / name).touch()
    assert next_index(tmp_path) == 11


# The classifier


def test_without_the_classifier_it_is_said_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(safety, "NSFW_MODEL", "nobody/nothing")
    with pytest.warns(UserWarning, match="hf download nobody/nothing$") as caught:
        assert safety.load_nsfw_classifier() is None
    assert "\n" not in str(caught[0].message) and "not checked for NSFW" in str(caught[0].message)


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="127.0.0.1:9 does not answer"):
        require_hub()


def test_classifier_of_a_local_folder(tmp_path, monkeypatch):
    import json

    from transformers import ViTConfig, ViTForImageClassification

    labels = {0: "normal", 1: "nsfw"}
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label=labels,
        label2id={label: i for i, label in labels.items()},
    )
    ViTForImageClassification(config).save_pretrained(tmp_path)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    monkeypatch.setattr(safety, "_classifier_folder", lambda: str(tmp_path))
    classifier = safety.load_nsfw_classifier("cpu")
    image = to_pil(pictures(1)[0])
    assert {entry["label"] for entry in classifier(image)} == {"normal", "nsfw"}
    assert safety.is_nsfw(classifier, image, threshold=0.0)
    assert not safety.is_nsfw(classifier, image, threshold=1.1)
