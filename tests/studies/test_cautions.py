"""What a method makes of a model without guidance is said before it is made, in a line."""

import pytest
from PIL import Image

from flux.methods import METHODS, method_record
from flux.studies.edit.spec import EditSpec
from flux.studies.reading import SpecError, read_spec


def spec_of(method, model="flux-schnell", **more) -> EditSpec:
    mask = {"mask": [0, 0, 512, 512]} if method_record(method["name"]).needs_mask else {}
    layers = {"layers": [0]} if method_record(method["name"]).layers else {}
    whole = {"source": "a dog", "edits": ["a cat"], "method": method, "model": model}
    whole |= mask | layers | more
    return read_spec(EditSpec, whole, "my.json")


def notes(*args, **more) -> list[str]:
    return list(spec_of(*args, **more).notes())


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
def test_a_way_to_noise_is_no_way_on_a_distilled_model(row):
    assert notes({"name": row.name}, model="flux-dev") == []
    if row.needs_guidance:
        with pytest.raises(
            SpecError, match="uniedit.*: needs a model with guidance, which flux-schnell has not"
        ):
            spec_of({"name": row.name})
        return
    able = "inpaint" if row.needs_mask else "flowedit, decflowedit, flowalign, gentle, noise"
    said = (
        f"{row.name} goes from the picture to noise first, from where flux-schnell, distilled to 4 steps, "
        f"hardly comes back; without that way: {able}"
    )
    assert notes({"name": row.name}) == ([said] if row.inverts else [])


def test_seeds_that_change_nothing_are_named(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")
    photo = {"prompt": "a dog", "image": str(tmp_path / "photo.png")}
    edits = [{"prompt": "a cat", "seeds": [1, 2]}]
    said = "seeds: {} draws no noise for a photo, so that all of them give the same picture"

    def of(name, **more):
        whole = {"source": photo, "edits": edits, "method": name, "model": "flux-tiny"} | more
        return list(read_spec(EditSpec, whole, "my.json").notes())

    for name in ("stable-flow", "fireflow"):
        assert of(name) == [said.format(name)] and of(name, source="a dog") == []
    assert of("kv-edit", mask=[0, 0, 16, 16]) == [said.format("kv-edit")]
    straight = {"name": "kv-edit", "origin": "straight"}
    assert of(straight, mask=[0, 0, 16, 16]) == of("flowedit") == of("uniedit", mask="velocity") == []
    assert of("fireflow", edits=[{"prompt": "a cat", "seeds": [1]}]) == []


def test_a_straight_way_is_none_to_noise():
    assert notes({"name": "kv-edit", "origin": "straight"}) == []


def test_guidance_that_does_nothing_is_named():
    more = {"schedules": {"edit": "vags"}}
    assert notes({"name": "flowedit", "source_guidance": 2, "start": 0.5}, **more) == [
        "method.source_guidance, schedules: flux-schnell takes no guidance, so this changes nothing"
    ]
    assert notes({"name": "flowedit", "source_guidance": 2}, model="flux-dev", **more) == []
