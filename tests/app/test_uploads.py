"""What comes from a browser: pictures of a few kinds and sizes, and specs; all else in one line."""

import json
import struct
import zlib

import pytest
from PIL import Image

from flux.app.uploads import take_picture, take_spec
from flux.pictures.opening import open_picture


def save(path, kind, size=(40, 30)):
    Image.new("RGB", size, (200, 30, 30)).save(path, format=kind)
    return path


@pytest.mark.parametrize(("kind", "ending"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp")])
def test_a_picture_is_kept_as_it_is_under_its_digest(tmp_path, kind, ending):
    file = save(tmp_path / "../x.exe".replace("../", ""), kind)
    kept = take_picture(file, tmp_path / "uploads", 1)
    assert kept.parent == tmp_path / "uploads" and kept.suffix == ending and len(kept.stem) == 32
    assert kept.read_bytes() == file.read_bytes()
    assert take_picture(file, tmp_path / "uploads", 1) == kept


def test_a_photo_of_a_phone_is_a_jpeg_with_more_behind_it(tmp_path):
    file = tmp_path / "phone.jpg"
    photo, more = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))
    photo.save(file, format="MPO", save_all=True, append_images=[more])
    kept = take_picture(file, tmp_path / "uploads", 1)
    assert kept.suffix == ".jpg" and kept.read_bytes() == file.read_bytes()
    assert open_picture(kept).getpixel((5, 5)) == (254, 0, 0)


def test_a_large_photo_is_painted_on_in_small_and_its_mask_is_large(tmp_path):
    pytest.importorskip("gradio", reason='the page needs gradio: pip install "flux[app]"')
    from flux.app.brush import LONGEST_SIDE, Brush, mask_file

    file = save(tmp_path / "large.png", "PNG", (3 * LONGEST_SIDE, 30))
    shown = Brush.value(file)["background"]
    assert shown.size == (LONGEST_SIDE, 10)
    painted = Image.new("RGBA", shown.size)
    painted.paste((255, 0, 0, 255), (0, 0, 7, 10))
    mask = Image.open(mask_file({"layers": [painted]}, file, tmp_path / "uploads"))
    assert mask.size == (3 * LONGEST_SIDE, 30) and mask.getbbox() == (0, 0, 21, 30)


def torn(path):
    path.write_bytes(save(path, "PNG", (400, 400)).read_bytes()[:300])
    return path


def bomb(path):
    """A PNG of a few bytes that claims 30000 x 30000 pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")))
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: save(path, "GIF"), "is GIF, and PNG, JPEG, WEBP are taken"),
        (lambda path: save(path, "TIFF"), "is TIFF"),
        (lambda path: path.write_text("hello") and path, "it is no picture"),
        (lambda path: path.write_text("<svg onload='x'>") and path, "it is an SVG drawing"),
        (lambda path: path.write_bytes(b"") or path, "it is empty"),
        (lambda path: path.write_bytes(b"0" * (2**20 + 1)) and path, "1 are taken at most"),
        (bomb, "million pixels"),
        (
            lambda path: path.write_bytes(save(path, "PNG", (400, 400)).read_bytes()[:300]) and path,
            "cut short",
        ),
    ],
)
def test_what_is_not_taken_is_said_in_one_line(tmp_path, make, said):
    file = make(tmp_path / "upload.png")
    with pytest.raises(ValueError) as error:
        take_picture(file, tmp_path / "uploads", 1)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)
    assert not (tmp_path / "uploads").exists()


def test_a_spec_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"prompts": ["a"]}), encoding="utf-8-sig")
    assert take_spec(tmp_path / "a.json") == {"prompts": ["a"]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"prompts": ["a"],}', "a.json: not valid JSON at line 1"),
        (b"[1]", "must hold a JSON object, {...}; got list"),
        (b"\xff\xfe\xfa", "cannot be read as UTF-8"),
        (b'{"a": 1, "a": 2}', "given twice"),
        (b"[" * 10**6, "not valid JSON: nested too deeply"),
        (b'"' + b"a" * 2**20 + b'"', "is longer than a spec may be"),
    ],
)
def test_a_broken_spec_is_said_in_one_line(tmp_path, data, said):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ValueError) as error:
        take_spec(tmp_path / "a.json")
    assert said in str(error.value) and "\n" not in str(error.value)
