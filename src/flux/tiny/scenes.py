"""flux-tiny's world: procedural pictures with full ground truth.

A picture shows a sky, its weather, a ground, and one to three things. Each thing has a kind, a colour, a
size, a hat or no hat, and a free place; a figure also has a pose, a sign a letter. A `Scene` is the complete
truth about a picture; all else is computed from it:

    scene = sample_scene(np.random.default_rng(0))
    image = render(scene)               # uint8 (H, W, 3)
    masks = thing_masks(scene)          # bool (n_things, H, W)
    labels = token_labels(scene)        # int64 (H/16, W/16) each: what every 16-pixel token shows

One combination in eight of (kind, colour, size, hat) is *held out*: it is never sampled for training, so a
model that draws it correctly has put the parts together by itself. See `is_held_out`.

Pictures are drawn with flat colours and dark outlines at a multiple of the final resolution, then averaged
down, which gives smooth edges that a small autoencoder can reproduce.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]
Box = tuple[float, float, float, float]

KINDS = ("house", "tree", "car", "boat", "cat", "flower", "figure", "sign")
COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
SIZES = ("small", "big")
SKIES = ("day", "night", "sunset")
GROUNDS = ("grass", "sand", "snow", "water")
WEATHERS = ("clear", "cloudy", "rainy")
HATS = (False, True)
POSES = ("arms down", "arms up")
LETTERS = ("B", "K", "O", "T", "X")
THING_VALUES = {
    "kind": KINDS,
    "colour": COLOURS,
    "size": SIZES,
    "hat": HATS,
    "pose": POSES,
    "letter": LETTERS,
}
"""The attributes of a thing and their values; only a figure has a pose, and only a sign a letter."""
OWNERS = {"pose": "figure", "letter": "sign"}
SCENERY = {"sky": SKIES, "ground": GROUNDS, "weather": WEATHERS}
ATTRIBUTES = (*SCENERY, *THING_VALUES)
WORLD = 2
"""Counts up when pictures or captions of the same seed change: no training goes on in another world."""

SIZE_PIXELS = {"small": 32, "big": 48}  # side of the body box; the same on every canvas
HAT_RISE = 0.26  # a hat adds this fraction of the size to a thing's height
MIN_SIDE = 64
SIDE_MULTIPLE = 16
MARGIN = 1.5  # pixels kept free between a thing's box and the canvas border
TWO_THINGS_SIDE = 112  # canvases of a shorter side hold one thing
THREE_THINGS_WIDTH = 128  # narrower ones at most two
COUNT_SHARES = (0.35, 0.40, 0.25)  # how many scenes of wider canvases hold one, two, three things
MAX_OVERLAP = 0.04  # of a full-size box, which keeps the boxes of two things as drawn below 10 %
CROWDED_SIDE = 40  # side of the box that three things are placed by, so that they fit

THING_RGB: dict[str, RGB] = {
    "red": (226, 38, 44),
    "yellow": (255, 214, 10),
    "green": (18, 142, 62),
    "blue": (36, 76, 226),
    "purple": (148, 52, 196),
    "white": (252, 252, 252),
}
GROUND_RGB: dict[str, RGB] = {
    "grass": (158, 210, 104),
    "sand": (226, 196, 148),
    "snow": (226, 234, 244),
    "water": (84, 168, 206),
}
SKY_RGB: dict[str, tuple[RGB, RGB]] = {  # at the top of the picture, at the horizon
    "day": ((150, 212, 250), (186, 228, 252)),
    "night": ((16, 20, 58), (26, 34, 84)),
    "sunset": ((250, 142, 62), (250, 164, 186)),
}
NIGHT_DIM = 0.72  # grounds are this much darker at night

OUTLINE_RGB: RGB = (34, 30, 40)
OUTLINE_PIXELS = 1.33
HALO_PIXELS = 1.0
BROWN: RGB = (128, 80, 44)
LEAF_GREEN: RGB = (60, 160, 60)
GLASS: RGB = (196, 232, 250)
PINK: RGB = (244, 150, 160)
BLACK: RGB = (24, 22, 28)
WHITE: RGB = (255, 255, 255)
HAT_BAND: RGB = (255, 204, 0)
CLOUD_RGB: dict[str, RGB] = {"cloudy": (240, 244, 250), "rainy": (124, 132, 150)}
RAIN_RGB: RGB = (200, 222, 250)
SKIN: RGB = (250, 206, 160)
SUN_RGB: RGB = (255, 232, 96)
MOON_RGB: RGB = (250, 244, 206)


@dataclass(frozen=True)
class Thing:
    """One thing. `x` is its centre and `y` its foot line, both in pixels of its canvas.

    pose: of a figure; letter: on a sign; None for all other kinds. Without them a figure has its arms down
    and a sign is empty.
    """

    kind: str
    colour: str
    size: str
    hat: bool
    x: float
    y: float
    pose: str | None = None
    letter: str | None = None


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows. `seed` decides only decorations: horizon, light, stars, waves, clouds."""

    sky: str
    ground: str
    things: tuple[Thing, ...]
    width: int
    height: int
    seed: int = 0
    weather: str = "clear"


@dataclass(frozen=True)
class Decor:
    """The decorations of a scene, in pixels of its canvas."""

    horizon: float  # the row where the sky ends
    light: Point  # centre of the sun or moon
    stars: tuple[Point, ...]
    wave_phase: float  # radians
    clouds: tuple[Point, ...]  # their middles
    drops: tuple[Point, ...]  # where streaks of rain begin


# ---------------------------------------------------------------------------------------------------------
# Held-out combinations
# ---------------------------------------------------------------------------------------------------------


def is_held_out(item: Thing | Scene) -> bool:
    """Whether a thing's (kind, colour, size, hat), or that of any thing of a scene, is kept from training.

    Half of the 48 (kind, colour) pairs give up one of their four (size, hat) variants, in a chequerboard:
    24 of the 192 combinations. Every kind thus loses 3 of its 24 combinations, every colour 4 of its 32, and
    every (kind, colour) pair keeps at least three. Poses and letters are free.
    """
    if isinstance(item, Scene):
        return any(is_held_out(thing) for thing in item.things)
    kind, colour = KINDS.index(item.kind), COLOURS.index(item.colour)
    if (kind + colour) % 2:
        return False
    variant = 2 * SIZES.index(item.size) + HATS.index(item.hat)
    return variant == (kind + (kind + colour) // 2) % 4


@cache
def _looks(kind: str, held_out: bool) -> tuple[tuple[str, str, bool], ...]:
    """All (colour, size, hat) of a kind that are held out, or all that are not."""
    looks = [(colour, size, hat) for colour in COLOURS for size in SIZES for hat in HATS]
    return tuple(look for look in looks if is_held_out(Thing(kind, *look, x=0, y=0)) == held_out)


# ---------------------------------------------------------------------------------------------------------
# Sampling scenes
# ---------------------------------------------------------------------------------------------------------


def sample_scene(
    rng: np.random.Generator,
    width: int = 128,
    height: int = 128,
    n_things: int | None = None,
    held_out: bool = False,
) -> Scene:
    """Draw a random scene.

    Without `n_things` a scene holds one to three things, as many as the canvas has room for. With
    `held_out=False` every thing has a combination allowed in training; with `held_out=True` exactly one
    thing has a held-out combination.
    """
    _check_canvas(width, height)
    most = _most_things(width, height)
    if n_things is None:
        shares = np.array(COUNT_SHARES[:most])
        n_things = 1 + int(rng.choice(most, p=shares / shares.sum())) if most > 1 else 1
    if not 1 <= n_things <= most:
        raise ValueError(f"a canvas of {width}x{height} holds 1 to {most} things, not {n_things}")
    sky, ground, seed = _pick(rng, SKIES), _pick(rng, GROUNDS), int(rng.integers(2**31))
    scene = Scene(sky, ground, (), width, height, seed, _pick(rng, WEATHERS))
    places = _sample_places(rng, scene, n_things)
    kinds = rng.choice(len(KINDS), size=n_things, replace=False)
    novel = int(rng.integers(n_things)) if held_out else -1
    things = []
    for index, (kind_index, (x, y)) in enumerate(zip(kinds, places, strict=True)):
        kind = KINDS[kind_index]
        look = _pick(rng, _looks(kind, index == novel))
        things.append(_with_details(Thing(kind, *look, x=x, y=y), rng))
    return replace(scene, things=tuple(things))


def variations(scene: Scene, attribute: str, rng: np.random.Generator) -> Scene:
    """The same scene with one attribute changed to another value; places and all else stay.

    For a thing's attribute `rng` picks the thing, a figure for a pose and a sign for a letter; ValueError
    where the scene has none. The kinds of a scene stay unlike. The result may hold a held-out combination:
    ask `is_held_out` where that matters.
    """
    if attribute in SCENERY:
        other = _pick_other(rng, SCENERY[attribute], {getattr(scene, attribute)})
        return replace(scene, **{attribute: other})
    if attribute not in THING_VALUES:
        raise ValueError(f"unknown attribute {attribute!r}; known: {ATTRIBUTES}")
    able = [i for i, thing in enumerate(scene.things) if getattr(thing, attribute) is not None]
    if not able:
        raise ValueError(f"no thing of the scene has a {attribute}")
    chosen = _pick(rng, tuple(able))
    thing = scene.things[chosen]
    taken = {t.kind for t in scene.things} if attribute == "kind" else {getattr(thing, attribute)}
    changed = replace(thing, **{attribute: _pick_other(rng, THING_VALUES[attribute], taken)})
    if attribute == "kind":
        changed = _with_details(changed, rng)
    things = scene.things[:chosen] + (changed,) + scene.things[chosen + 1 :]
    return replace(scene, things=things)


def thing_box(thing: Thing) -> Box:
    """The box (left, top, right, bottom), in pixels, that a thing with its hat stays inside."""
    side = SIZE_PIXELS[thing.size]
    rise = HAT_RISE * side if thing.hat else 0.0
    return (thing.x - side / 2, thing.y - side - rise, thing.x + side / 2, thing.y)


def box_overlap(a: Box, b: Box) -> float:
    """The area two boxes share, as a fraction of the smaller one, in [0, 1]."""
    shared_width = min(a[2], b[2]) - max(a[0], b[0])
    shared_height = min(a[3], b[3]) - max(a[1], b[1])
    if shared_width <= 0 or shared_height <= 0:
        return 0.0
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared_width * shared_height / smaller


def horizon_of(scene: Scene) -> float:
    """The row, in pixels, where the scene's sky meets its ground."""
    return _decor(scene).horizon


def _sample_places(rng: np.random.Generator, scene: Scene, n_things: int) -> list[Point]:
    """Places (x, y) for things, in pixels, with room for the big size and a hat at each.

    The room is kept whatever the thing's real size, so that `variations` can change it in place. Three things
    have a little less room: big ones may overlap at their edges.
    """
    side = SIZE_PIXELS["big"]
    half = side / 2 + MARGIN
    highest = max(horizon_of(scene) + 5, side * (1 + HAT_RISE) + MARGIN)
    lowest = max(highest, scene.height - MARGIN)
    room = CROWDED_SIDE if n_things > 2 else side
    places: list[Point] = []
    boxes: list[Box] = []
    tries = 0
    while len(places) < n_things:
        tries += 1
        if tries % 30 == 0:  # what stands there leaves no room for the rest
            places, boxes = [], []
        x, y = round(rng.uniform(half, scene.width - half), 1), round(rng.uniform(highest, lowest), 1)
        box = (x - room / 2, y - room * (1 + HAT_RISE), x + room / 2, y)
        if all(box_overlap(box, other) <= MAX_OVERLAP for other in boxes):
            places.append((x, y))
            boxes.append(box)
    return places


def _with_details(thing: Thing, rng: np.random.Generator) -> Thing:
    """The thing with the pose or the letter that its kind has, and no other."""
    details = {
        name: _pick(rng, THING_VALUES[name]) if kind == thing.kind else None for name, kind in OWNERS.items()
    }
    return replace(thing, **details)


def _decor(scene: Scene) -> Decor:
    """Decorations from the scene's seed."""
    rng = np.random.default_rng(scene.seed)
    horizon = scene.height * rng.uniform(0.50, 0.60)
    light = (rng.uniform(14, scene.width - 14), rng.uniform(12, 0.45 * horizon))
    spots = rng.uniform((0.04, 0.08), (0.96, 0.85), size=(7, 2)) * (scene.width, horizon)
    stars = tuple((float(x), float(y)) for x, y in spots if math.dist((x, y), light) > 16)
    phase = rng.uniform(0, 2 * math.pi)
    return Decor(horizon, light, stars, phase, *_sky_places(rng, scene.width, horizon))


def _sky_places(
    rng: np.random.Generator, width: int, horizon: float
) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """Middles of clouds, side by side along the top, and the upper ends of streaks of rain below them."""
    count = max(2, width // 42)
    clouds = tuple(
        ((i + 0.5 + rng.uniform(-0.2, 0.2)) * width / count, rng.uniform(10, 20)) for i in range(count)
    )
    columns = np.arange(8, width, 14) + rng.uniform(-3, 3)
    drops = tuple((float(x), float(rng.uniform(26, max(27, horizon - 12)))) for x in columns)
    return clouds, drops


def _pick(rng: np.random.Generator, options: tuple):
    """One of `options`, all equally likely."""
    return options[int(rng.integers(len(options)))]


def _pick_other(rng: np.random.Generator, options: tuple, taken: set):
    """One of `options` that is not in `taken`."""
    return _pick(rng, tuple(option for option in options if option not in taken))


def _most_things(width: int, height: int) -> int:
    """How many things a canvas has room for."""
    if min(width, height) < TWO_THINGS_SIDE:
        return 1
    return 3 if width >= THREE_THINGS_WIDTH else 2


def _check_canvas(width: int, height: int) -> None:
    """Refuse canvases that the world cannot fill."""
    if min(width, height) < MIN_SIDE or width % SIDE_MULTIPLE or height % SIDE_MULTIPLE:
        raise ValueError(f"sides must be multiples of {SIDE_MULTIPLE} from {MIN_SIDE}, not {width}x{height}")


# ---------------------------------------------------------------------------------------------------------
# Rendering and ground truth
# ---------------------------------------------------------------------------------------------------------


def render(scene: Scene, supersample: int = 3) -> np.ndarray:
    """Draw a scene: uint8 (H, W, 3), drawn `supersample` times larger and averaged down."""
    _check_canvas(scene.width, scene.height)
    image = _draw_background(scene, supersample)
    draw = ImageDraw.Draw(image)
    for index in _back_to_front(scene):
        _draw_thing(draw, scene.things[index], supersample)
    return np.asarray(image.reduce(supersample) if supersample > 1 else image)


def thing_masks(scene: Scene) -> np.ndarray:
    """Visible pixels of each thing with its hat: bool (n_things, H, W), in the order of `scene.things`.

    A pixel belongs to a thing that covers at least half of it; things in front hide those behind.
    """
    scale = 3
    image = Image.new("L", (scene.width * scale, scene.height * scale), 0)
    draw = ImageDraw.Draw(image)
    for index in _back_to_front(scene):
        _draw_thing(draw, scene.things[index], scale, label=index + 1)
    labels = np.asarray(image).reshape(scene.height, scale, scene.width, scale)
    masks = [(labels == index + 1).mean(axis=(1, 3)) >= 0.5 for index in range(len(scene.things))]
    return np.stack(masks) if masks else np.zeros((0, scene.height, scene.width), bool)


def token_labels(scene: Scene, patch: int = 16) -> dict[str, np.ndarray]:
    """What each square token of `patch` pixels shows: int64 (H/patch, W/patch) for every key.

    'thing'   index of the thing that covers the most of the token, where it covers 15 % or more, else -1
    'kind', 'colour', ... 'letter'   that thing's value, as an index into THING_VALUES, else -1
    'ground'  1 where the token's middle lies below the horizon, else 0; things are ignored
    """
    rows, columns = scene.height // patch, scene.width // patch
    masks = thing_masks(scene)[:, : rows * patch, : columns * patch]
    cover = masks.reshape(-1, rows, patch, columns, patch).mean(axis=(2, 4))
    if scene.things:
        thing = np.where(cover.max(axis=0) >= 0.15, cover.argmax(axis=0), -1).astype(np.int64)
    else:
        thing = np.full((rows, columns), -1, dtype=np.int64)
    labels = {"thing": thing}
    for name, values in THING_VALUES.items():
        own = [getattr(t, name) for t in scene.things]
        lookup = [-1 if v is None else values.index(v) for v in own] + [-1]  # [-1]: index -1 finds -1
        labels[name] = np.array(lookup, dtype=np.int64)[thing]
    below = (np.arange(rows) + 0.5) * patch > horizon_of(scene)
    labels["ground"] = np.repeat(below.astype(np.int64)[:, None], columns, axis=1)
    return labels


def _back_to_front(scene: Scene) -> list[int]:
    """Indices of the things in drawing order: a lower foot line is nearer to the viewer."""
    return sorted(range(len(scene.things)), key=lambda index: scene.things[index].y)


# ---------------------------------------------------------------------------------------------------------
# Background
# ---------------------------------------------------------------------------------------------------------


def _draw_background(scene: Scene, scale: int) -> Image.Image:
    """The sky, its light, and the ground, as an RGB image `scale` times the canvas."""
    decor = _decor(scene)
    size = (scene.width * scale, scene.height * scale)
    image = _sky_gradient(scene.sky, size, decor.horizon * scale)
    draw = ImageDraw.Draw(image)
    _draw_light(draw, scene.sky, decor, scale)
    if scene.weather != "clear":
        _draw_weather(draw, scene, decor, scale)
    ground = GROUND_RGB[scene.ground]
    if scene.sky == "night":
        ground = _mix(ground, SKY_RGB["night"][0], 1 - NIGHT_DIM)
    top = round(decor.horizon * scale)
    draw.rectangle((0, top, size[0], size[1]), fill=ground)
    draw.rectangle((0, top, size[0], top + round(1.2 * scale) - 1), fill=_mix(ground, OUTLINE_RGB, 0.45))
    if scene.ground == "water":
        _draw_waves(draw, decor, size, scale, _mix(ground, WHITE, 0.4))
    return image


def _sky_gradient(sky: str, size: tuple[int, int], horizon: float) -> Image.Image:
    """A vertical gradient from the sky's top colour to its colour at `horizon` (pixels of this image)."""
    top, bottom = (np.array(colour, dtype=np.float64) for colour in SKY_RGB[sky])
    share = np.minimum(np.arange(size[1]) / horizon, 1.0)[:, None]
    column = np.rint(top + (bottom - top) * share).astype(np.uint8)
    return Image.fromarray(column[:, None, :]).resize(size, Image.Resampling.NEAREST)


def _draw_light(draw: ImageDraw.ImageDraw, sky: str, decor: Decor, scale: int) -> None:
    """The sun by day, half a sun on the horizon at sunset, a crescent moon and stars at night."""
    x, y = decor.light
    if sky == "day":
        _disc(draw, x, y, 9, SUN_RGB, scale, outline=_mix(SUN_RGB, OUTLINE_RGB, 0.6))
    elif sky == "sunset":
        _disc(draw, x, decor.horizon, 15, SUN_RGB, scale, outline=_mix(SUN_RGB, OUTLINE_RGB, 0.6))
    else:
        for star_x, star_y in decor.stars:
            _disc(draw, star_x, star_y, 1.2, MOON_RGB, scale)
        _disc(draw, x, y, 9, MOON_RGB, scale)
        shade = _mix(*SKY_RGB["night"], min(y / decor.horizon, 1.0))
        _disc(draw, x + 4.5, y - 2.5, 7.5, shade, scale)


def _draw_weather(draw: ImageDraw.ImageDraw, scene: Scene, decor: Decor, scale: int) -> None:
    """Clouds along the top of the sky, pale or dark, and streaks of rain below dark ones."""
    colour = CLOUD_RGB[scene.weather]
    if scene.sky == "night":
        colour = _mix(colour, SKY_RGB["night"][0], 1 - NIGHT_DIM)
    if scene.weather == "rainy":
        for x, y in decor.drops:
            ends = [(x * scale, y * scale), ((x - 3) * scale, (y + 9) * scale)]
            draw.line(ends, fill=RAIN_RGB, width=round(1.6 * scale))
    for x, y in decor.clouds:
        for dx, dy, radius in ((-10, 2, 7), (10, 2, 7), (0, 3, 8), (-4, -3, 8), (5, -1, 8)):
            _disc(draw, x + dx, y + dy, radius, colour, scale)


def _draw_waves(
    draw: ImageDraw.ImageDraw, decor: Decor, size: tuple[int, int], scale: int, colour: RGB
) -> None:
    """Three soft wave lines across the water."""
    xs = np.arange(0, size[0] + 2 * scale, 2 * scale)
    for line, depth in enumerate((0.22, 0.52, 0.82)):
        middle = decor.horizon * scale + depth * (size[1] - decor.horizon * scale)
        ys = middle + 1.6 * scale * np.sin(xs / scale * (2 * math.pi / 26) + decor.wave_phase + 2 * line)
        draw.line(
            list(zip(xs.tolist(), ys.tolist(), strict=True)),
            fill=colour,
            width=round(1.6 * scale),
            joint="curve",
        )


def _disc(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    radius: float,
    fill: RGB,
    scale: int,
    outline: RGB | None = None,
) -> None:
    """A filled circle; `x`, `y` and `radius` in pixels of the canvas."""
    box = ((x - radius) * scale, (y - radius) * scale, (x + radius) * scale, (y + radius) * scale)
    draw.ellipse(box, fill=fill, outline=outline, width=round(scale) if outline else 0)


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    """Colour `a` moved towards colour `b` by `share` in [0, 1]."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------------------------
# Things
#
# Shapes are given in units of the thing's size: u runs from -0.5 (left) to 0.5 (right), v from 0 (the foot)
# to 1 (the top of the body).
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pen:
    """Draws outlined shapes for one thing. With a `label`, every shape is filled with that number instead
    of colours, on a one-channel image; that is how masks come from the very same shapes."""

    draw: ImageDraw.ImageDraw
    thing: Thing
    scale: int
    label: int | None = None

    def at(self, u: float, v: float) -> Point:
        """Image coordinates of a point of the thing."""
        side = SIZE_PIXELS[self.thing.size]
        return ((self.thing.x + u * side) * self.scale, (self.thing.y - v * side) * self.scale)

    def ink(self, colour: RGB) -> RGB | int:
        return colour if self.label is None else self.label

    def pixels(self, units: float) -> float:
        """A length in units of the thing's size, in image pixels."""
        return units * SIZE_PIXELS[self.thing.size] * self.scale

    @property
    def outline_width(self) -> int:
        return max(1, round(OUTLINE_PIXELS * self.scale))

    def polygon(self, points: list[Point], fill: RGB) -> None:
        corners = [self.at(*point) for point in points]
        self.draw.polygon(corners, fill=self.ink(fill))
        closed = corners + corners[:2]  # one edge twice, so that the last corner is joined too
        self.draw.line(closed, fill=self.ink(OUTLINE_RGB), width=self.outline_width, joint="curve")

    def box(self, left: float, bottom: float, right: float, top: float, fill: RGB) -> None:
        self.polygon([(left, bottom), (left, top), (right, top), (right, bottom)], fill)

    def ellipse(self, u: float, v: float, ru: float, rv: float, fill: RGB, outline: bool = True) -> None:
        corners = (self.at(u - ru, v + rv), self.at(u + ru, v - rv))
        edge = self.ink(OUTLINE_RGB if outline else fill)
        self.draw.ellipse(corners, fill=self.ink(fill), outline=edge, width=self.outline_width)

    def stroke(self, points: list[Point], width: float, fill: RGB) -> None:
        """A thick outlined line of `width` units with round joints and flat ends."""
        path = [self.at(*point) for point in points]
        inner = max(1, round(self.pixels(width)))
        for colour, thickness in ((OUTLINE_RGB, inner + 2 * self.outline_width), (fill, inner)):
            self.draw.line(path, fill=self.ink(colour), width=thickness, joint="curve")


def _draw_thing(draw: ImageDraw.ImageDraw, thing: Thing, scale: int, label: int | None = None) -> None:
    """Draw a thing and its hat, in colours or (with a `label`) as a flat silhouette."""
    pen = Pen(draw, thing, scale, label)
    painters = {
        "house": _draw_house,
        "tree": _draw_tree,
        "car": _draw_car,
        "boat": _draw_boat,
        "cat": _draw_cat,
        "flower": _draw_flower,
        "figure": _draw_figure,
        "sign": _draw_sign,
    }
    hat_place = painters[thing.kind](pen, THING_RGB[thing.colour])
    if thing.hat:
        _draw_hat(pen, *hat_place)


# Each painter returns where a hat's brim goes: (u, v).


def _draw_house(pen: Pen, colour: RGB) -> Point:
    pen.box(-0.38, 0.02, 0.38, 0.56, colour)
    pen.polygon([(-0.48, 0.54), (0.0, 0.97), (0.48, 0.54)], _mix(colour, BLACK, 0.35))
    pen.box(-0.25, 0.02, -0.03, 0.37, BROWN)
    pen.box(0.09, 0.20, 0.29, 0.40, GLASS)
    return (0.0, 0.90)


def _draw_tree(pen: Pen, colour: RGB) -> Point:
    pen.box(-0.09, 0.02, 0.09, 0.40, BROWN)
    lobes = ((-0.24, 0.52, 0.22), (0.24, 0.52, 0.22), (0.0, 0.50, 0.22), (0.0, 0.70, 0.29))  # u, v, radius
    for u, v, radius in lobes:
        pen.ellipse(u, v, radius, radius, colour)
    inset = pen.outline_width / pen.pixels(1)
    for u, v, radius in lobes:  # again without outlines, so that only the crown's own outline stays
        pen.ellipse(u, v, radius - inset, radius - inset, colour, outline=False)
    return (0.0, 0.94)


def _draw_car(pen: Pen, colour: RGB) -> Point:
    cabin = [(-0.33, 0.43), (-0.22, 0.70), (0.16, 0.70), (0.30, 0.43)]
    pen.polygon([(-0.48, 0.12), (-0.48, 0.40), *cabin, (0.48, 0.37), (0.48, 0.12)], colour)
    pen.polygon([(-0.23, 0.43), (-0.155, 0.61), (-0.04, 0.61), (-0.04, 0.43)], GLASS)
    pen.polygon([(0.05, 0.43), (0.05, 0.61), (0.12, 0.61), (0.21, 0.43)], GLASS)
    for u in (-0.27, 0.27):
        pen.ellipse(u, 0.14, 0.14, 0.14, BLACK)
        pen.ellipse(u, 0.14, 0.05, 0.05, (200, 200, 205), outline=False)
    return (-0.03, 0.67)


def _draw_boat(pen: Pen, colour: RGB) -> Point:
    pen.box(-0.09, 0.28, -0.03, 0.98, BROWN)
    pen.polygon([(-0.01, 0.92), (0.42, 0.38), (-0.01, 0.38)], _mix(colour, WHITE, 0.3))
    pen.polygon([(-0.48, 0.32), (0.48, 0.32), (0.32, 0.02), (-0.32, 0.02)], colour)
    return (-0.06, 0.94)


def _draw_cat(pen: Pen, colour: RGB) -> Point:
    pen.stroke([(0.2, 0.1), (0.36, 0.12), (0.42, 0.24), (0.38, 0.38)], 0.07, colour)
    pen.ellipse(0.0, 0.24, 0.28, 0.24, colour)
    for side in (-1, 1):
        pen.ellipse(side * 0.12, 0.06, 0.11, 0.06, colour)
        pen.polygon([(side * 0.36, 0.64), (side * 0.38, 0.97), (side * 0.08, 0.82)], colour)
    pen.ellipse(0.0, 0.61, 0.37, 0.27, colour)
    for side in (-1, 1):
        pen.ellipse(side * 0.15, 0.64, 0.095, 0.105, WHITE, outline=False)
        pen.ellipse(side * 0.14, 0.63, 0.055, 0.080, BLACK, outline=False)
    pen.polygon([(-0.04, 0.53), (0.04, 0.53), (0.0, 0.48)], PINK)
    return (0.0, 0.83)


def _draw_flower(pen: Pen, colour: RGB) -> Point:
    pen.stroke([(0.0, 0.0), (0.0, 0.5)], 0.06, LEAF_GREEN)
    pen.polygon([(0.03, 0.06), (0.12, 0.20), (0.34, 0.24), (0.24, 0.09)], LEAF_GREEN)
    for petal in range(6):
        angle = 2 * math.pi * (petal + 0.5) / 6
        pen.ellipse(0.225 * math.cos(angle), 0.6 + 0.225 * math.sin(angle), 0.165, 0.165, colour)
    pen.ellipse(0.0, 0.6, 0.15, 0.15, (84, 48, 24))
    return (0.0, 0.92)


def _draw_figure(pen: Pen, colour: RGB) -> Point:
    for side in (-1, 1):
        pen.stroke([(side * 0.10, 0.32), (side * 0.14, 0.03)], 0.11, _mix(colour, BLACK, 0.45))
        hand = (side * 0.42, 0.86) if pen.thing.pose == "arms up" else (side * 0.38, 0.26)
        pen.stroke([(side * 0.14, 0.56), hand], 0.10, colour)
        pen.ellipse(*hand, 0.075, 0.075, SKIN)
    pen.polygon([(-0.17, 0.62), (0.17, 0.62), (0.24, 0.26), (-0.24, 0.26)], colour)
    pen.ellipse(0.0, 0.76, 0.17, 0.18, SKIN)
    for side in (-1, 1):
        pen.ellipse(side * 0.065, 0.77, 0.03, 0.04, BLACK, outline=False)
    return (0.0, 0.90)


# Strokes of each letter, in a box from (-1, -1) to (1, 1); the bows of B are drawn with corners.
LETTER_STROKES: dict[str, tuple[tuple[Point, ...], ...]] = {
    "B": (
        ((-0.8, -1), (-0.8, 1), (0.4, 1), (0.7, 0.7), (0.7, 0.3), (0.4, 0), (-0.8, 0)),
        ((0.4, 0), (0.85, -0.3), (0.85, -0.7), (0.5, -1), (-0.8, -1)),
    ),
    "K": (((-0.8, -1), (-0.8, 1)), ((0.8, 1), (-0.8, -0.1)), ((-0.2, 0.25), (0.85, -1))),
    "O": (
        (
            (0, 1),
            (0.7, 0.7),
            (0.95, 0),
            (0.7, -0.7),
            (0, -1),
            (-0.7, -0.7),
            (-0.95, 0),
            (-0.7, 0.7),
            (0, 1),
            (0.7, 0.7),
        ),
    ),
    "T": (((-0.95, 1), (0.95, 1)), ((0, 1), (0, -1))),
    "X": (((-0.85, 1), (0.85, -1)), ((0.85, 1), (-0.85, -1))),
}


def _draw_sign(pen: Pen, colour: RGB) -> Point:
    """A board on a post, its letter dark, or white where the board is dark."""
    pen.box(-0.07, 0.02, 0.07, 0.36, BROWN)
    pen.box(-0.42, 0.33, 0.42, 0.94, colour)
    dark = sum(colour) < 400
    for line in LETTER_STROKES[pen.thing.letter] if pen.thing.letter else ():
        path = [pen.at(0.23 * u, 0.61 + 0.19 * v) for u, v in line]
        width = max(1, round(pen.pixels(0.085)))
        pen.draw.line(path, fill=pen.ink(WHITE if dark else BLACK), width=width, joint="curve")
    return (0.0, 0.92)


def _draw_hat(pen: Pen, u: float, v: float) -> None:
    """A black top hat with a yellow band and a white halo; its brim rests at (u, v)."""
    halo = HALO_PIXELS / SIZE_PIXELS[pen.thing.size]
    parts = [(0.25, 0.0, 0.07), (0.16, 0.06, 0.31)]  # brim and crown: half width, bottom, top
    for grow, colour in ((halo, WHITE), (0.0, BLACK)):
        for half, bottom, top in parts:
            _fill_box(pen, u - half - grow, v + bottom - grow, u + half + grow, v + top + grow, colour)
    _fill_box(pen, u - 0.16, v + 0.08, u + 0.16, v + 0.15, HAT_BAND)


def _fill_box(pen: Pen, left: float, bottom: float, right: float, top: float, fill: RGB) -> None:
    """A box without an outline."""
    pen.draw.rectangle((*pen.at(left, top), *pen.at(right, bottom)), fill=pen.ink(fill))
