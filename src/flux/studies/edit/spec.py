"""The spec of demo 4: what is edited, by which method, and when to say that an edit did not work."""

from collections.abc import Iterator
from functools import reduce
from operator import getitem
from typing import Annotated, Any, ClassVar, Literal

from flux.flags import UsageError, is_typed, shown
from flux.limits import MOST_GUIDANCE, MOST_PIXELS
from flux.methods import DEFAULT_METHOD, METHODS
from flux.models import configs
from flux.prompts import prompt_file
from flux.studies.edit.cautions import cautions
from flux.studies.edit.choices import MethodChoice, OperatorChoice, Schedules, usual_steps
from flux.studies.edit.conflicts import (
    BY_METHOD,
    EITHER_WAY,
    chain_problems,
    items_of,
    missing,
    reference_problems,
    too_many,
    wanted_problems,
    watch_problems,
    with_method,
    without_method,
)
from flux.studies.edit.items import (
    AMask,
    APasting,
    EditItem,
    RoleItem,
    Roles,
    Source,
    Sparse,
    Strategy,
    Strength,
    role_conflicts,
    strength_problems,
)
from flux.studies.edit.scanning import Scan, scan_problems
from flux.studies.edit.sources import SourceItem, Sources
from flux.studies.layers import LayerChoice, layer_numbers, layer_problems
from flux.studies.looking import REFERENCE, ReferenceChoice
from flux.studies.prompts import PromptItem, from_file, read_prompts
from flux.studies.spec import (
    ConfigDict,
    Field,
    HubOrFolder,
    Problem,
    Rows,
    Seed,
    Several,
    Share,
    Spec,
    Window,
    below,
    model_validator,
    or_one,
    whole,
)
from flux.studies.wanted import Guided, RegionHow
from flux.studies.watch.spec import Watch, with_watch


class Checks(Sparse):
    """When a run says that an edit did not work."""

    quiet: ClassVar[frozenset[str]] = frozenset({"gate"})

    pixel: whole(0, 255) = Field(
        8, description="a pixel counts as changed when a channel differs by more than so many of 255 levels"
    )
    did_nothing: Share = Field(
        0.002,
        description="an edit did nothing when this share of its pixels, or fewer, differs from the source; "
        "the run's measured noise floor counts where it is larger",
    )
    lost_source: Share = Field(
        0.2,
        description="an edit lost the source when more of it is lost than this: outlines that only one of "
        "the two has, and places that look like neither the source nor the picture without injection; a "
        "model's judge, which flux-tiny has, decides instead where it understands the prompts",
    )
    dino: HubOrFolder = Field(
        "auto",
        description="the DINOv2 model for similarities, by class token: auto (the model's own, or "
        "facebook/dinov2-base), off, a folder, or a hub name",
    )
    gate: bool = Field(
        True, description="with a method: measure before editing how well each picture can be given back"
    )


def _edit(item: PromptItem) -> Any:
    """A prompt of a file as an edit."""
    return item.prompt if item.seed is None else {"prompt": item.prompt, "seeds": [item.seed]}


def _typed_prompts(words: list[Any]) -> list[Any]:
    """What was typed behind `--prompts`, or the prompts of the file that was; at least one entry."""
    try:
        path = prompt_file(words[0]) if len(words) == 1 and isinstance(words[0], str) else None
        return list(read_prompts(path)) if path is not None else words or [""]
    except ValueError as error:
        raise UsageError(f"--prompts = {shown(words)}: {error}") from None


def _complete_method(data: dict[str, Any]) -> dict[str, Any]:
    """Steps and guidance that the method decides, where they are null and its row and the model are known."""
    method, model = data["method"], data.get("model", "flux-tiny")
    given = method if isinstance(method, dict) else {"name": method}
    row = next((row for row in METHODS if row.name == given.get("name")), None)
    name = model.get("name", "flux-tiny") if isinstance(model, dict) else model
    record = configs.get(name) if isinstance(name, str) else None
    if row is None or record is None:
        return data
    if data.get("steps") is None:
        data = data | {"steps": usual_steps(row, record)}
    if data.get("layers") is None and data.get("roles") is None and row.layers:
        data = data | {"layers": row.layers}
    if data.get("guidance") is None and record.guidance is not None and "guidance" in row.settings:
        own = given.get("guidance")
        fits = isinstance(own, int | float) and 0 <= own <= MOST_GUIDANCE
        data = data | {"guidance": own if fits else row.settings["guidance"].default}
    return data


SIDE_BY_SIDE = {"layers": "default", "paste": "auto"}
"""What stands for null where no method is named."""


def _without_others(data: dict[str, Any]) -> dict[str, Any]:
    """Sources that were typed take the place of the source of the spec, and of its edits."""
    if not is_typed(data["sources"]) or data.get("source") is None or is_typed(data["source"]):
        return data
    theirs = [name for name in ("source", "edits") if not is_typed(data.get(name))]
    return {name: value for name, value in data.items() if name not in theirs}


def _one_or_many(schema: dict[str, Any]) -> None:
    """In the JSON Schema: source and edits, or sources."""
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["sources"]}]


class EditSpec(Guided, Spec):
    """Demo 4: pictures, generated or photographed, and their edits."""

    demo: ClassVar[str] = "edit"
    quiet: ClassVar[frozenset[str]] = BY_METHOD | EITHER_WAY | {"kept_source"}
    model_config = ConfigDict(json_schema_extra=_one_or_many)

    source: Source | None = Field(description="the picture to edit: its prompt")
    edits: Annotated[Several[EditItem], from_file(EditItem, alone=(), entry=_edit)] | None = Field(
        description="the edits: prompts, or objects with keys of their own; or the path of a file of prompts"
    )
    layers: LayerChoice | None = Field(
        None,
        description='layers in which an edit looks at its source: numbers, double.i, single.i, "0-3", '
        'double.*, "all"; the name of a set; a vital-set file (.json); null: "default", by most methods none',
    )
    any_model: bool = Field(False, description="take a vital-set file that was found on another model")
    strategy: Strategy = Field("copy", validate_default=True, description="what is copied, to which tokens")
    strength: Strength = Field(
        1.0,
        description="0 leaves an edit's own keys and values, 1 takes the source's; or linear or cosine, "
        "from 1 to 0, or a number for each step",
    )
    window: Window | None = Field(None, description="[start, stop]: inject from step start to before stop")
    seed: Seed = Field(0, description="of the noise that source and edits start from; -1 is drawn")
    batch: Rows = Field(4, description="edits that run beside the source at once; fewer need less memory")
    compare: bool = Field(True, description="make each edit without injection too; not with a method")
    checks: Checks = Field({}, validate_default=True, description="when to say that an edit did not work")
    sources: Sources | None = Field(
        None,
        description="many pictures in the place of one: a list of objects, or a table (.csv, .json, .jsonl) "
        "with image, prompt and edit in each row",
    )
    method: MethodChoice | None = Field(
        None,
        description=f"how pictures are edited; null: photos by {DEFAULT_METHOD}, generated pictures side by "
        "side from one noise",
    )
    mask: AMask | None = Field(None, description="where edits may change their source")
    outside: LayerChoice | None = Field(
        None, description="layers in which an edit looks at its source outside the mask only, as `layers`"
    )
    operators: Annotated[Several[OperatorChoice], or_one(OperatorChoice)] | None = Field(
        None, description="what becomes of the edit's velocity beside the source's, in turn"
    )
    schedules: Schedules | None = Field(None, description="what becomes of guidance from noise to picture")
    paste: APasting | None = Field(
        None,
        description="whether the edit comes back into its source's own pixels; null: auto; false: it stays "
        "as the model draws it",
    )
    fit: Literal["fit", "crop", "pad"] = Field(
        "fit",
        description="how a photo becomes a picture of multiples of 16: fit, all of it in about as many "
        "pixels as width x height; crop, its middle, and pad, all of it, in exactly width x height",
    )
    pixels: whole(256, MOST_PIXELS**2) | None = Field(
        None, description="about how many pixels a photo is edited at, with fit; null: width x height"
    )
    watch: Watch | None = Field(
        None,
        description="whose attention is watched: where points or a box of an edit look, at its text or the "
        "source, and which places look at words; of photos in their own pixels",
    )
    scan: Scan | None = Field(
        None,
        description="values of strength, layers, guidance and the method's settings: a grid of the edits "
        "with each and each",
    )

    regional: RegionHow | None = Field(
        None, description="how regions of edits obey their prompts; null: in all layers"
    )
    reference: ReferenceChoice | None = REFERENCE
    kept_source: Literal["off", "auto", "device", "host"] = Field(
        "off",
        description="off: the source stands beside every batch of edits; else it is made once, by itself, "
        "and its keys and values are kept: on the device, on the host, or auto, by their size",
    )
    chain: bool = Field(False, description="each edit goes on from the one before it, or from its `after`")
    roles: Roles | None = Field(
        None,
        description="in the place of layers and outside: objects that say for some layers on which side of "
        "the mask an edit looks at its source, whether for keys, values or both, how much and when",
    )

    @classmethod
    def from_flags(cls, flags: dict[str, Any]) -> dict[str, Any]:
        """`--prompts "source" "edit 1" ...`, or a file of these, as the source and its edits."""
        if "prompts" not in flags:
            return flags
        source, *edits = _typed_prompts(flags.pop("prompts"))
        if not edits:
            raise UsageError(
                '--prompts: needs the source\'s prompt and at least one edit\'s: --prompts "source" "edit"'
            )
        if isinstance(source, PromptItem):
            own = {} if source.seed is None else {"seed": source.seed}
            return {"source": {"prompt": source.prompt}, "edits": list(map(_edit, edits)), **own, **flags}
        return {"source": {"prompt": source} if isinstance(source, str) else source, "edits": edits, **flags}

    @classmethod
    def require_alone(cls, flags: dict[str, Any]) -> None:
        """The demo's own prompts are of its own picture: of a photo that was typed they would be wrong."""
        if "source.image" in flags and not {"prompts", "source.prompt"} & flags.keys():
            raise UsageError(
                f"--source.image = {shown(flags['source.image'])}: also say what it shows and what its edits "
                'should show, --prompts "source" "edit"'
            )

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, data: Any) -> Any:
        """With what stands for null, of which other keys decide."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if data.get("sources") is not None:
            data = {"source": None, "edits": None} | _without_others(data)
        photo = isinstance(data.get("source"), dict) and data["source"].get("image") is not None
        if data.get("method") is None and (photo or data.get("sources") is not None):
            data["method"] = DEFAULT_METHOD
        if data.get("method") is not None:
            return _complete_method(data)
        usual = {name: value for name, value in SIDE_BY_SIDE.items() if data.get(name) is None}
        if data.get("roles") is not None:
            usual.pop("layers", None)
        # In the run's spec, so that it is no run of those that were made before edits were pasted.
        return data | usual

    @property
    def pictures(self) -> tuple[SourceItem, ...]:
        """All sources, each with its edits, mask and seed."""
        if self.sources is None:
            own = {name: getattr(self.source, name) for name in Source.model_fields}
            rest = {"edit": self.edits, "mask": self.mask, "seed": self.seed, "reference": self.reference}
            return (SourceItem.model_construct(**own, **rest),)
        return tuple(
            each.model_copy(
                update={
                    "edit": self.edits if each.edit is None else each.edit,
                    "mask": self.mask if each.mask is None else each.mask,
                    "seed": self.seed if each.seed is None else each.seed,
                    "reference": self.reference if each.reference is None else each.reference,
                }
            )
            for each in self.sources
        )

    @property
    def looks(self) -> bool:
        return any(each.reference is not None for each in self.pictures)

    @property
    def settings(self) -> dict[str, Any]:
        """Those that the method runs with, as far as they are known here."""
        if self.method is None:
            return {}
        guidance = {} if self.guidance is None or self.method.is_own else {"guidance": self.guidance}
        known = self.method.settings
        return known | {name: value for name, value in guidance.items() if name in known}

    @property
    def seconds(self) -> dict[str, str]:
        """What T5 reads in the place of a prompt, by the prompt."""
        items = [*self.pictures, *(item for _, item in items_of(self))]
        return {each.prompt: each.prompt_2 for each in items if each.prompt_2 is not None}

    def notes(self) -> Iterator[str]:
        yield from super().notes()
        yield from cautions(self)

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if wrong := list(missing(self)) or list(too_many(self)):
            yield from wrong
            return
        yield from role_conflicts(self)
        yield from self._choice_problems(self)
        for path, item in items_of(self):
            yield from below(path, self._choice_problems(item))
        yield from without_method(self) if self.method is None else with_method(self, self.method)
        if self.watch is not None:
            yield from below(("watch",), watch_problems(self, self.watch))
        yield from self.guidance_problems()
        yield from wanted_problems(self)
        yield from reference_problems(self)
        yield from chain_problems(self)
        if self.scan is not None:
            yield from below(("scan",), scan_problems(self, self.scan))

    def _choice_problems(self, chosen: "EditSpec | EditItem") -> Iterator[Problem]:
        """What is wrong with the layers and the window of the spec, or of an edit."""
        for name in ("layers", "outside"):
            if (layers := getattr(chosen, name)) is not None:
                yield from layer_problems((name,), layers, self.model, any_model=self.any_model)
        yield from self._step_problems(chosen)
        for i, role in enumerate(chosen.roles or ()):
            wrong = layer_problems(("layers",), role.layers, self.model, any_model=self.any_model)
            yield from below(("roles", i), [*wrong, *self._step_problems(role)])

    def _step_problems(self, chosen: "EditSpec | EditItem | RoleItem") -> Iterator[Problem]:
        """What is wrong with a window, and with a strength for each step."""
        if chosen.window is not None and chosen.window[1] > self.steps:
            yield Problem(
                ("window",), f"stop must be at most {self.steps}, the number of steps", list(chosen.window)
            )
        yield from below(("strength",), strength_problems(chosen.strength, self.steps))

    def recipe(self) -> dict[str, Any]:
        recipe = super().recipe()
        if self.method is not None:
            recipe["method"] = {"name": self.method.name, **self.settings}
        for path, item in ((), self), *items_of(self):
            place = reduce(getitem, path, recipe)
            for name in ("layers", "outside"):
                if (choice := getattr(item, name)) is not None:
                    place[name] = list(layer_numbers(choice, self.model))
            for i, role in enumerate(item.roles or ()):
                place["roles"][i]["layers"] = list(layer_numbers(role.layers, self.model))
        later = {} if self.scan is None else {"scan": self.scan.as_numbers(self.model)}
        later |= {"chain": True} if self.chain else {}
        recipe = {name: value for name, value in recipe.items() if name not in ("scan", "chain")} | later
        return with_watch(recipe, self.watch, self.model)
