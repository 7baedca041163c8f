"""What Control and Redux models see of a picture, against OpenCV's and transformers' own answers."""

import numpy as np
import pytest
import torch
from helpers_models import save_weights
from helpers_references import picture, save_depth_model, save_redux, save_siglip

from flux.formats.header import CheckpointError
from flux.modules.image_embedders import CannyImageEncoder, DepthImageEncoder, ReduxImageEncoder
from flux.references import as_tensor


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedders")
    save_depth_model(folder / "depth")
    save_siglip(folder / "siglip")
    save_redux(folder / "redux.safetensors")
    return folder


@pytest.mark.parametrize("thresholds", [(), (10, 30)])
def test_edges(thresholds):
    import cv2

    image = picture(70, 45)
    edges = CannyImageEncoder("cpu", *thresholds)(as_tensor(image))
    expected = cv2.Canny(np.array(image), *(thresholds or (50, 200)))
    assert edges.shape == (1, 3, 45, 70) and edges.dtype == torch.float32
    for channel in edges[0]:
        assert np.array_equal(channel.numpy() > 0, expected > 0)
    assert edges.unique().tolist() == [-1, 1]


def test_edges_are_drawn_of_one_picture():
    with pytest.raises(ValueError, match="one picture at a time; got 2"):
        CannyImageEncoder("cpu")(torch.zeros(2, 3, 16, 16))


def test_every_level_of_a_picture_is_seen_as_it_is(monkeypatch):
    """Cut instead of rounded, one level in five is another one."""
    import cv2

    seen = []
    monkeypatch.setattr(cv2, "Canny", lambda image, *more: seen.append(image) or image[..., 0])
    levels = torch.arange(256.0).reshape(1, 1, 16, 16).expand(1, 3, -1, -1)
    CannyImageEncoder("cpu")(levels / 127.5 - 1)
    assert np.array_equal(seen[0][..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("batch", [1, 2])
def test_depths(models, monkeypatch, batch):
    """As the model's own processor and head give them, drawn at the picture's size."""
    from transformers import AutoModelForDepthEstimation, DPTImageProcessorPil

    monkeypatch.setattr(DepthImageEncoder, "depth_model_name", str(models / "depth"))
    images = [picture(90, 60, seed) for seed in range(batch)]
    given = torch.cat([as_tensor(image) for image in images])
    drawn = DepthImageEncoder("cpu")(1.5 * given)  # values outside of [-1, 1] are clamped
    processor = DPTImageProcessorPil.from_pretrained(models / "depth")
    model = AutoModelForDepthEstimation.from_pretrained(models / "depth")
    clamped = [(((1.5 * as_tensor(image)).clamp(-1, 1) + 1) * 127.5)[0].round().numpy() for image in images]
    pixels = processor(images=[x.astype(np.uint8) for x in clamped], return_tensors="pt")
    with torch.no_grad():
        depth = model(**pixels).predicted_depth[:, None]
    expected = torch.nn.functional.interpolate(depth, (60, 90), mode="bicubic", antialias=True) / 127.5 - 1
    assert drawn.shape == (batch, 3, 60, 90)
    torch.testing.assert_close(drawn, expected.expand(-1, 3, -1, -1), rtol=1e-4, atol=1e-5)
    assert drawn[0].std() > 1e-3


def redux(models, monkeypatch, path=None) -> ReduxImageEncoder:
    monkeypatch.setattr(ReduxImageEncoder, "siglip_model_name", str(models / "siglip"))
    return ReduxImageEncoder("cpu", path or models / "redux.safetensors", 24, 48, torch.float32)


def test_pictures_as_words(models, monkeypatch):
    from safetensors.torch import load_file
    from transformers import SiglipImageProcessorPil, SiglipModel

    tokens = redux(models, monkeypatch)(picture(90, 60))
    state = load_file(models / "redux.safetensors")
    pixels = SiglipImageProcessorPil.from_pretrained(models / "siglip")(picture(90, 60), return_tensors="pt")
    with torch.no_grad():
        seen = SiglipModel.from_pretrained(models / "siglip").vision_model(**pixels).last_hidden_state
    up = torch.nn.functional.silu(seen @ state["redux_up.weight"].T + state["redux_up.bias"])
    expected = up @ state["redux_down.weight"].T + state["redux_down.bias"]
    assert tokens.shape == (1, 9, 48)
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-5)


def test_nothing_is_left_to_train(models, monkeypatch):
    assert not any(parameter.requires_grad for parameter in redux(models, monkeypatch).parameters())


def test_a_file_that_holds_no_projector(models, monkeypatch, tmp_path):
    file = save_weights(tmp_path / "other.safetensors", {"img_in.weight": torch.zeros(2, 2)})
    with pytest.raises(CheckpointError, match="other.safetensors does not fit the model.*redux_up.weight"):
        redux(models, monkeypatch, file)


@pytest.mark.parametrize("kind", [DepthImageEncoder, ReduxImageEncoder])
def test_a_model_that_cannot_be_had(models, monkeypatch, tmp_path, kind):
    """One line that names it, where there is no network."""
    from flux.weights.hub import NoHub

    def refuse():
        raise NoHub("the hub does not answer")

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("flux.pictures.features.require_hub", refuse)
    for name in ("depth_model_name", "siglip_model_name"):
        if hasattr(kind, name):
            monkeypatch.setattr(kind, name, "nobody/nothing-at-all")
    rest = () if kind is DepthImageEncoder else (models / "redux.safetensors", 24, 48)
    with pytest.raises(OSError, match="hf download nobody/nothing-at-all") as told:
        kind("cpu", *rest)
    assert "\n" not in str(told.value)
