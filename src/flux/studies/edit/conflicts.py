"""What of demo 4's keys does not go together: sources and edits, and what methods take and do not take."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flux.studies.edit.choices import MethodChoice, pinning_problem
from flux.studies.edit.items import EditItem, Source, Strategy, roles_in
from flux.studies.layers import layer_problems
from flux.studies.looking import beside_text, looking_problems
from flux.studies.spec import KeyPath, Problem, Section, below
from flux.studies.wanted import GUIDED, region_problems
from flux.studies.watch.spec import Watch

if TYPE_CHECKING:
    from flux.studies.edit.spec import EditSpec

MOST_PAIRS = 1000

BY_METHOD = frozenset(
    ("sources", "method", "mask", "outside", "operators", "schedules", "paste", "fit", "pixels")
)
"""Keys of the spec that came with methods."""

EITHER_WAY = GUIDED | {"regional", "reference", "roles"}
"""Keys that came later, and are for edits side by side too."""

OF_METHODS = ("method", "fit", "pixels")
"""Keys of the spec that edits side by side do not take."""

BESIDE = "is for edits beside their source, and one that is kept stands beside none"
"""Of what needs more of a source than its keys and values, as they are."""

NEEDS_METHOD = "is for edits by a method: name one, as in --method flowedit"


def as_written(value: Any) -> Any:
    """A part of a spec as it would stand in the file, for messages."""
    if isinstance(value, tuple):
        return [as_written(each) for each in value]
    return value.as_json() if isinstance(value, Section) else value


def items_of(spec: "EditSpec") -> Iterator[tuple[KeyPath, EditItem]]:
    """Every edit of a spec, and where it stands."""
    for i, edit in enumerate(spec.edits or ()):
        yield ("edits", i), edit
    for i, each in enumerate(spec.sources or ()):
        for j, edit in enumerate(each.edit or ()):
            yield ("sources", i, "edit", j), edit


def _places(spec: "EditSpec") -> Iterator[tuple[KeyPath, Any]]:
    """Wherever a spec says how it is edited: itself, its edits, its sources."""
    yield (), spec
    yield from items_of(spec)
    for i, each in enumerate(spec.sources or ()):
        yield ("sources", i), each


def missing(spec: "EditSpec") -> Iterator[Problem]:
    """What is missing of sources and edits, or there twice; and whether there are too many."""
    if spec.sources is None:
        if spec.source is None:
            keys = ", ".join(Source.model_fields)
            yield Problem(("source",), f"must be an object with the keys {keys}", None)
        if spec.edits is None:
            yield Problem(("edits",), "must be a list", None)
    elif spec.source is not None:
        yield Problem(("sources",), "stands in the place of source: name one of both")
    elif spec.edits is None:
        for i, each in enumerate(spec.sources):
            if each.edit is None:
                yield Problem(("sources", i, "edit"), "missing: its own edit, or edits for all sources")


def too_many(spec: "EditSpec") -> Iterator[Problem]:
    edits = (edit for each in spec.pictures for edit in each.edit)
    pairs = sum(1 if edit.seeds is None else len(edit.seeds) for edit in edits)
    if pairs > MOST_PAIRS:
        key = "edits" if spec.sources is None else "sources"
        yield Problem((key,), f"{pairs} pairs of source and edit are more than the {MOST_PAIRS} of one run")


def without_method(spec: "EditSpec") -> Iterator[Problem]:
    """Keys that only methods take."""
    fields = type(spec).model_fields
    for name in OF_METHODS:
        if getattr(spec, name) != fields[name].default:
            yield Problem((name,), NEEDS_METHOD, as_written(getattr(spec, name)))
    if spec.kept_source == "off":
        return
    text = "looks at the source's velocity, and of a source that is kept there are keys and values alone"
    for path, item in ((), spec), *items_of(spec):
        for name in ("mask", "operators", "schedules"):
            if getattr(item, name, None) is not None:
                yield Problem((*path, name), f"{text}: leave it out, or kept_source")
        for name in ("outside", "roles", "strength"):
            if _stands_beside(name, getattr(item, name)):
                yield Problem((*path, name), f"{BESIDE}: leave it out, or kept_source")


def _stands_beside(name: str, value: Any) -> bool:
    """Whether how an edit looks is more than to take keys and values, by one strength in all layers."""
    if name == "strength":
        return isinstance(value, str | tuple)
    if name == "outside":
        return bool(value)
    first, *others = value or [None]
    if first is None:
        return False
    return bool(others) or first.side != "everywhere" or _stands_beside("strength", first.strength)


def with_method(spec: "EditSpec", method: MethodChoice) -> Iterator[Problem]:
    """What the method of a spec cannot do, as far as it is known without its code."""
    row, model = method.row, spec.model.record
    if spec.pixels is not None and spec.fit != "fit":
        yield Problem(("pixels",), f'is for fit "fit"; "{spec.fit}" takes width and height', spec.pixels)
    elif all(each.image is None for each in spec.pictures):
        text = "is for photos, and these sources are generated in width x height: leave it out"
        for name in ("fit", "pixels"):
            if (value := getattr(spec, name)) != type(spec).model_fields[name].default:
                yield Problem((name,), text, value)
    if row is None:
        yield from _of_ones_own(spec)
        return
    if text := pinning_problem(method.settings):
        yield Problem(("method", "pinning"), text, "exact")
    yield from _looks_of_its_own(spec, method)
    if spec.steps < row.fewest:
        yield Problem(("steps",), f"{row.name} takes {row.fewest} at least", spec.steps)
    if row.needs_guidance and model.guidance is None:
        able = ", ".join(each.name for each in method.rows if not each.needs_guidance)
        text = f"needs a model with guidance, which {spec.model.name} has not: choose from {able}"
        yield Problem(("method",), text, method.name)
    if spec.integrator.name != "euler" and all(each.image is not None for each in spec.pictures):
        text = "is what generated sources are sampled by, and these are photos: leave it out"
        text += "; what inverts them is method.integrator" if "integrator" in row.settings else ""
        yield Problem(("integrator",), text, spec.integrator.as_json())
    if spec.guidance is not None and method.given.get("guidance", spec.guidance) != spec.guidance:
        yield Problem(("guidance",), "stands in method too, with another value", spec.guidance)
    if row.needs_mask:
        for i, each in enumerate(spec.pictures):
            if any((edit.mask or each.mask) is None for edit in each.edit):
                path = ("mask",) if spec.sources is None else ("sources", i, "mask")
                yield Problem(path, f"missing: {method.name} edits inside a mask alone; give one")
        yield from _own_changes(spec, method)
    if not row.pairs:
        yield from _alone(spec, method, but="mask" if row.needs_mask else "")
    else:
        yield from _in_no_layers(spec, method)
        yield from _outside_of_nothing(spec, method)
    scheduled = spec.schedules is not None and spec.schedules.source is not None
    if scheduled and not row.pairs and "source_guidance" not in row.settings:
        text = f"{row.name} never asks for the source under its prompt: leave it out"
        yield Problem(("schedules", "source"), text)


def _of_ones_own(spec: "EditSpec") -> Iterator[Problem]:
    """What does not reach a function of the user's own; what the model's guidance is stands for null."""
    if spec.method.is_own and spec.model.record.guidance not in (None, spec.guidance):
        text = "is a setting of methods of the table: give yours as method.guidance, if it has such a setting"
        yield Problem(("guidance",), text, spec.guidance)


def _own_changes(spec: "EditSpec", method: MethodChoice) -> Iterator[Problem]:
    """Masks of the edit's own change, for a method that changes nothing, or all, without one."""
    text = (
        f"is the edit's own change, which a first run without a mask finds, and {method.name} edits inside a "
        'mask alone: give a picture, a box, "velocity" or "words"'
    )
    used = [each.mask if edit.mask is None else edit.mask for each in spec.pictures for edit in each.edit]
    for path, place in _places(spec):
        if place.mask is not None and place.mask.where == "auto" and place.mask in used:
            yield Problem((*path, "mask"), text, "auto")


def _looks_of_its_own(spec: "EditSpec", method: MethodChoice) -> Iterator[Problem]:
    """Looks beside what weighs the tokens of a method's own look, which they take the place of."""
    if method.settings.get("background", 1) == 1:
        return
    text = f"takes the place of the look of {method.name} that background weighs: leave one of both out"
    for path, place in _places(spec):
        for name in ("layers", "outside", "roles"):
            if getattr(place, name, None):
                yield Problem((*path, name), text)


def wanted_problems(spec: "EditSpec") -> Iterator[Problem]:
    """What of second prompts, a negative one and regions does not go together."""
    places: list[tuple[KeyPath, Any]] = [(("source",), spec.source)] if spec.source is not None else []
    places += [(("sources", i), each) for i, each in enumerate(spec.sources or ())]
    read: dict[str, str | None] = {}
    for path, each in (*places, *items_of(spec)):
        if read.setdefault(each.prompt, each.prompt_2) != each.prompt_2:
            text = "its prompt stands elsewhere too, where T5 reads another text: give both the same"
            yield Problem((*path, "prompt_2"), text, each.prompt_2)
    beside = [(path, item) for path, item in items_of(spec) if item.regions is not None]
    if spec.kept_source != "off" and (spec.method is not None or spec.chain):
        text = (
            "is for edits side by side, without a method or a chain, whose edits have a source each: leave "
        )
        text += "it out, or the chain" if spec.chain else "it out, or the method"
        yield Problem(("kept_source",), text, spec.kept_source)
    if spec.method is not None and spec.two_passes:
        yield Problem(("two_passes",), "is for edits side by side: methods always take two", True)
    if beside and spec.watch is not None:
        yield Problem(("watch",), "looks at edits without regions: leave one of both out")
    if beside and spec.method is not None and spec.method.settings.get("background", 1) != 1:
        text = "weighs tokens in attention, as regions do: leave one of both out"
        yield Problem(("method", "background"), text, spec.method.settings["background"])
    if spec.regional is not None and not beside:
        yield Problem(("regional",), "is for regions: give edits regions")
    elif spec.regional is not None:
        yield from below(("regional",), layer_problems(("layers",), spec.regional.layers, spec.model))
    # Of photos they are looked at when these are opened.
    photos = any(each.image is not None for each in spec.pictures)
    for path, item in beside if not photos else ():
        yield from below(path, region_problems(item.regions, None, spec))
    given = ["prompt_2"] if any(read.values()) else []
    given += ["true_cfg and negative_prompt"] if spec.true_cfg is not None else []
    if spec.chain and given:
        text = f"goes on from its links by their prompts and regions alone: leave out {' and '.join(given)}"
        yield Problem(("chain",), text)


def reference_problems(spec: "EditSpec") -> Iterator[Problem]:
    """Pictures that the model of a spec does not look at, or cannot, and those that it misses.

    Whether one to be filled is as large as a photo is known when that is opened.
    """
    places = [
        (("reference",) if own is None else ("sources", i, "reference"), each.reference)
        for i, each in enumerate(spec.pictures)
        for own in [None if spec.sources is None else spec.sources[i].reference]
    ]
    photos = any(each.image is not None for each in spec.pictures)
    yield from looking_problems(spec.model, None if photos else (spec.width, spec.height), places)
    for path, item in items_of(spec):
        if item.regions is not None:
            yield from below((*path, "regions"), beside_text(spec.model))


def watch_problems(spec: "EditSpec", watch: Watch) -> Iterator[Problem]:
    """What cannot be watched."""
    prompts, many = {}, spec.sources is not None
    for i, source in enumerate(spec.pictures):
        prompts[f"sources[{i}].prompt" if many else "the source's prompt"] = _read(source)
        place = f"sources[{i}].edit" if many else "edits"
        prompts |= {f"{place}[{j}]": _read(edit) for j, edit in enumerate(source.edit)}
    # Of photos it is known when they are opened.
    photos = any(source.image is not None for source in spec.pictures)
    yield from watch.problems_in(spec.model, None if photos else (spec.width, spec.height), prompts)


def _read(item: Any) -> str:
    """What T5 reads of a source or an edit."""
    return item.prompt if item.prompt_2 is None else item.prompt_2


def chain_problems(spec: "EditSpec") -> Iterator[Problem]:
    """What of a spec with a chain does not go together, and what of `after` stands without one."""
    if not spec.chain:
        for i, edit in enumerate(spec.edits or ()):
            if edit.after is not None:
                yield Problem(("edits", i, "after"), "is for a chain: set chain to true", edit.after)
        return
    if spec.method is None and spec.integrator.name != "euler":
        text = "a chain without a method goes Euler's way: leave it out, or name a method"
        yield Problem(("integrator",), text, spec.integrator.as_json())
    if spec.sources is not None:
        yield Problem(("chain",), "goes on from one source: give source and edits in the place of sources")
        return
    if spec.watch is not None:
        yield Problem(("watch",), "is for edits by themselves: leave chain out")
    for i, edit in enumerate(spec.edits):
        if edit.seeds is not None:
            yield Problem(("edits", i, "seeds"), "a chain has the seed of its spec: leave seeds out")
        if edit.after is not None and edit.after > i:
            itself = "the edit itself" if edit.after == i + 1 else "made later"
            text = f"is {itself}: a chain goes on from 0, the source, or from an edit before it"
            yield Problem(("edits", i, "after"), text + (f", 1 to {i}" if i else ""), edit.after)
    image = spec.source.image
    if image is not None and spec.output is not None and image.is_relative_to(spec.output):
        text = "lies in the chain's own output folder, so that it would be its own source: copy it elsewhere"
        yield Problem(("source", "image"), text, str(image))


def _alone(spec: "EditSpec", method: MethodChoice, but: str) -> Iterator[Problem]:
    """What a method does not take that never evaluates source and edit side by side, `but` one key."""
    able = ", ".join(row.name for row in method.rows if row.pairs)
    text = f"{method.name} takes none, as it never sees source and edit side by side; those that do: {able}"
    for path, place in _places(spec):
        for name in ("layers", "outside", "roles", "mask", "operators"):
            if name != but and (value := getattr(place, name, None)) is not None:
                yield Problem((*path, name), text, as_written(value))
        for name, value in _said_of_looks(place):
            instead = f", or give its own, method.{name}" if name in method.row.settings else ""
            looks = f"{method.name} never looks at its source in layers: leave it out{instead}"
            yield Problem((*path, name), looks, as_written(value))


def _said_of_looks(place: Any) -> Iterator[tuple[str, Any]]:
    """What a place says of how edits look at their source, beside the layers in which they do."""
    for name, usual in {"strength": 1.0, "window": None, "strategy": Strategy()}.items():
        if (value := getattr(place, name, None)) not in (None, usual):
            yield name, value


def _in_no_layers(spec: "EditSpec", method: MethodChoice) -> Iterator[Problem]:
    """How to look, said of edits for which no layers are named; an empty list of them is named."""
    text = (
        "is how an edit looks at its source, and no layers are named to look in: name layers, or leave it out"
    )
    if method.row.needs_mask:
        text = f"does not reach the look that {method.name} has of its own: leave it out, or name outside"
    scanned = spec.scan is not None and spec.scan.layers is not None
    blind = {path: item for path, item in items_of(spec) if not scanned and not _looks(spec, item)}
    if len(blind) == len(list(items_of(spec))) and not scanned:
        blind[()] = spec
        if spec.scan is not None and spec.scan.strength:
            yield Problem(("scan", "strength"), text)
    for path, place in blind.items():
        for name, value in _said_of_looks(place):
            yield Problem((*path, name), text, as_written(value))


def _looks(spec: "EditSpec", item: EditItem) -> bool:
    """Whether layers are named in which an edit looks at its source."""
    named = (getattr(place, name) for place in (item, spec) for name in ("layers", "outside"))
    return roles_in(spec, item) is not None or any(each is not None for each in named)


def _outside_of_nothing(spec: "EditSpec", method: MethodChoice) -> Iterator[Problem]:
    """Looks outside a mask where no edit that they are for has one."""
    if method.row.own_mask:
        return
    masked = {path for path, item in items_of(spec) if _mask_of(spec, path, item) is not None}
    text = "looks outside a mask, and there is none: give mask, or name layers"
    for path, place in ((), spec), *items_of(spec):
        if any(each[: len(path)] == path for each in masked):
            continue
        if place.outside:
            yield Problem((*path, "outside"), text, as_written(place.outside))
        for i, role in enumerate(place.roles or ()):
            if role.side == "outside":
                yield Problem((*path, "roles", i, "side"), text, "outside")


def _mask_of(spec: "EditSpec", path: KeyPath, item: EditItem) -> Any:
    """The mask of the edit at a path: its own, its source's or the spec's."""
    source = spec.sources[path[1]].mask if path[0] == "sources" else None
    return next((each for each in (item.mask, source, spec.mask) if each is not None), None)
