"""Draws ants and bees with Pillow: a small data folder for demos and tests without a network.

A picture is first planned (scene, light, insects) and then painted from back to front: the scene, the insects'
shadows, the insects, a plant that may cover part of them, and last the light that falls on all of it.

Lengths are in picture units (the picture's longest side is 1) or, inside an insect or a plant, in units of its own
length. x runs to the right or forwards, y runs down or to the figure's right. Angles are in radians, clockwise.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from types import MappingProxyType

from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from tqdm.auto import tqdm

__all__ = ["CLASSES", "draw", "write_drawn_set"]

CLASSES = ("ants", "bees")
TRAIN_COUNTS: Mapping[str, int] = MappingProxyType({"ants": 123, "bees": 121})
VAL_COUNTS: Mapping[str, int] = MappingProxyType({"ants": 70, "bees": 83})


def draw(kind: str, seed: int, longest_side: int = 320) -> Image.Image:
    """Return one RGB picture of `kind`; equal arguments give equal pixels.

    `longest_side` is in pixels and scales the same picture; the shape (4:3, 3:4, 1:1 or 3:2) follows from the seed.
    Raises ValueError, naming the kinds, for a kind that is not one of `CLASSES`.
    """
    if kind not in CLASSES:
        raise ValueError(f"unknown kind {kind!r}: the kinds are {' and '.join(CLASSES)}")
    # A string seeds the same numbers in every process; Python's own hash of it would not.
    return paint(plan(kind, Random(f"{kind}/{seed}")), longest_side)


def write_drawn_set(
    root: Path,
    *,
    train: Mapping[str, int] = TRAIN_COUNTS,
    val: Mapping[str, int] = VAL_COUNTS,
    seed: int = 0,
    longest_side: int = 320,
) -> Path:
    """Write root/{train,val}/{ants,bees}/NAME.jpg, with that many pictures of each kind, and return `root`.

    `root` appears only once it is complete. Raises FileExistsError if it exists already, and ValueError for a kind
    that is not one of `CLASSES`.
    """
    if root.exists():
        raise FileExistsError(f"{root} exists already")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
        # Inside the temporary folder, which other users can't read: a folder of its own gets the usual permissions.
        unfinished = Path(temporary) / root.name
        for kind in CLASSES:
            write_pictures(unfinished / "train" / kind, kind, range(train[kind]), seed, longest_side)
            # Validation numbers follow those of training, so that no picture is in both splits.
            numbers = range(train[kind], train[kind] + val[kind])
            write_pictures(unfinished / "val" / kind, kind, numbers, seed, longest_side)
        unfinished.rename(root)
    return root


def write_pictures(folder: Path, kind: str, numbers: Iterable[int], seed: int, longest_side: int) -> None:
    folder.mkdir(parents=True)
    for number in tqdm(numbers, f"{folder.parent.name}/{kind}", leave=False, disable=None):
        picture = draw(kind, seed * 1_000_000 + number, longest_side)
        picture.save(folder / f"drawn_{kind.removesuffix('s')}_{number:04d}.jpg", quality=90)


# --- Plain data -------------------------------------------------------------------------------------------------------
Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """A kind of background: how it is painted and how often each insect occurs in it."""

    paint: Callable[[Canvas], None]
    tones: tuple[str, ...]  # each: a dark, a middle and a bright colour
    ants: float  # relative frequency of ants
    bees: float  # relative frequency of bees
    side_view: float = 0.15  # the chance that insects are seen from the side, not from above
    airy: bool = False  # no ground: walkers need a twig, and there are no shadows


@dataclass(frozen=True)
class Light:
    """The light of one picture and how sharply it was taken."""

    towards: float  # the direction of the sun in the picture
    sunny: Colour
    shady: Colour
    vignette: float
    shadow_length: float
    shadow_blur: float
    depth_blur: float  # of the scene behind the insects
    focus_blur: float  # of everything
    grain: float


@dataclass(frozen=True)
class Coat:
    """The colours of one insect."""

    front: Colour  # head and chest
    rear: Colour
    dark: Colour  # legs, antennae, stripes


@dataclass(frozen=True)
class Insect:
    """One insect: where it is, how it is seen, and the seed of its smaller details."""

    kind: str
    x: float
    y: float
    length: float
    heading: float
    from_side: bool
    flying: bool
    coat: Coat
    habits: int


@dataclass(frozen=True)
class Plan:
    """Everything that decides one picture, before a pixel is painted."""

    width: float
    height: float
    scene: Scene
    tones: tuple[Colour, ...]
    light: Light
    insects: tuple[Insect, ...]
    covered: bool  # by a leaf, a petal or grass in front
    details: int  # the seed of the scene's smaller things


@dataclass(frozen=True)
class Anatomy:
    """The joints of one side's limbs, from the body outwards, in body lengths; y runs away from the body or down."""

    legs_above: tuple[tuple[Point, ...], ...]
    legs_side: tuple[tuple[Point, ...], ...]
    antenna: tuple[Point, ...]
    limb_width: float


# --- Colours and tables -----------------------------------------------------------------------------------------------
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
GREENS = ((96, 144, 60), (132, 168, 72), (72, 122, 74), (162, 180, 92), (112, 150, 96))
DRY_LEAVES = ((176, 124, 66), (150, 94, 56), (200, 160, 84))
PETALS = ((248, 246, 236), (242, 172, 190), (236, 122, 108), (252, 210, 88), (182, 152, 220), (136, 168, 232))
CRUMBS = ((240, 220, 174), (226, 188, 126), (248, 240, 218))
LICHENS = ((194, 186, 100), (154, 172, 132), (220, 212, 190), (212, 156, 82))
SHAPES = ((1, 3 / 4), (3 / 4, 1), (1, 1), (1, 2 / 3))

# The tint of the light on the sunny and on the shady side: noon, evening, cool morning, dusk, under leaves, overcast.
MOODS = (
    "#fffffa #eceef4",
    "#fff6da #ecc8a2",
    "#f0f8ff #c4d4ee",
    "#ffdcc4 #b09cc8",
    "#faffe8 #c2dcb8",
    "#ecedf4 #c0c4d4",
)

# Each coat: front, rear and dark parts, the commonest first. Both kinds come in black, brown, red and gold.
COATS = {
    "ants": (
        *("#403a44 #322e36 #241f26", "#764c32 #583826 #3e281c", "#bc4e2e #a23e26 #6e2a1c"),
        *("#be5632 #3e3030 #602e22", "#da9240 #c87e32 #824c22", "#9c6c44 #dcaa56 #563826"),
    ),
    "bees": (
        *("#f0b44c #f6be40 #442e20", "#fad45c #e2ae54 #322a2a", "#e6d09c #c09a68 #32261e"),
        *("#c08a4e #b87a42 #3c281e", "#d0703c #8a6c5c #302622", "#7c6450 #6a5444 #2c2422"),
    ),
}
COAT_WEIGHTS = (6, 5, 4, 3, 1, 1)

ANT = Anatomy(
    legs_above=(
        ((0.17, 0.04), (0.27, 0.22), (0.40, 0.30), (0.47, 0.40)),
        ((0.09, 0.05), (0.08, 0.27), (0.07, 0.41), (0.12, 0.50)),
        ((0.02, 0.04), (-0.14, 0.25), (-0.30, 0.37), (-0.44, 0.46)),
    ),
    legs_side=(
        ((0.17, 0.03), (0.29, -0.07), (0.35, 0.17), (0.42, 0.28)),
        ((0.10, 0.04), (0.13, -0.02), (0.07, 0.19), (0.12, 0.28)),
        ((0.03, 0.03), (-0.14, -0.14), (-0.24, 0.12), (-0.34, 0.28)),
    ),
    antenna=((0.05, 0.04), (0.10, 0.20), (0.24, 0.25), (0.36, 0.22)),
    limb_width=0.030,
)
BEE = Anatomy(
    legs_above=(
        ((0.20, 0.10), (0.31, 0.20), (0.38, 0.26)),
        ((0.10, 0.12), (0.10, 0.26), (0.15, 0.35)),
        ((0.00, 0.10), (-0.14, 0.24), (-0.28, 0.32)),
    ),
    legs_side=(
        ((0.20, 0.10), (0.27, 0.19), (0.23, 0.28)),
        ((0.10, 0.12), (0.12, 0.23), (0.06, 0.32)),
        ((0.00, 0.10), (-0.08, 0.22), (-0.16, 0.30)),
    ),
    antenna=((0.05, 0.03), (0.12, 0.10), (0.21, 0.09)),
    limb_width=0.034,
)


# --- Planning a picture -----------------------------------------------------------------------------------------------
def plan(kind: str, chance: Random) -> Plan:
    width, height = chance.choice(SHAPES)
    scene = chance.choices(SCENES, [scene.ants if kind == "ants" else scene.bees for scene in SCENES])[0]
    tones = colours(chance.choice(scene.tones))
    return Plan(
        width=width,
        height=height,
        scene=scene,
        tones=tones,
        light=plan_light(chance),
        insects=tuple(plan_insects(kind, chance, (width, height), scene, tones[1])),
        covered=chance.random() < 0.35,
        details=chance.getrandbits(32),
    )


def plan_light(chance: Random) -> Light:
    sunny, shady = colours(chance.choice(MOODS))
    return Light(
        towards=chance.uniform(0, 2 * math.pi),
        sunny=sunny,
        shady=shady,
        vignette=chance.choice((0, 0.15, 0.35)),
        shadow_length=chance.uniform(0.03, 0.11),
        shadow_blur=chance.uniform(0.004, 0.02),
        depth_blur=chance.choice((0, 0.004, 0.010)),
        focus_blur=chance.choice((0, 0, 0, 0.002, 0.0035)),
        grain=chance.choice((0, 0.04, 0.08, 0.14)),
    )


def plan_insects(kind: str, chance: Random, size: Point, scene: Scene, ground: Colour) -> Iterable[Insect]:
    count = chance.choices((1, 2, 3), (72, 20, 8))[0]
    shortest, longest = ((0.42, 1.08), (0.42, 0.62), (0.36, 0.50))[count - 1]
    from_side = chance.random() < scene.side_view
    coats = [Coat(*colours(names)) for names in chance.choices(COATS[kind], COAT_WEIGHTS, k=3)]
    for x, y in plan_positions(chance, size, count):
        yield Insect(
            kind=kind,
            x=x,
            y=y,
            length=min(size) * chance.uniform(shortest, longest),
            heading=plan_heading(chance, from_side),
            from_side=from_side,
            flying=kind == "bees" and chance.random() < (0.6 if scene.airy else 0.25),
            coat=most_visible(coats, ground),
            habits=chance.getrandbits(32),
        )


def plan_positions(chance: Random, size: Point, count: int) -> Iterable[Point]:
    """Spread `count` insects around the middle; a single one sits near it or, now and then, is cut by an edge."""
    reach = chance.uniform(0.26, 0.32) if count > 1 else chance.choices((chance.uniform(0, 0.2), 0.40), (9, 1))[0]
    start = chance.uniform(0, 2 * math.pi)
    for number in range(count):
        angle = start + number * 2 * math.pi / count
        yield size[0] * (0.5 + reach * math.cos(angle)), size[1] * (0.5 + reach * math.sin(angle))


def plan_heading(chance: Random, from_side: bool) -> float:
    return chance.choice((0, math.pi)) + chance.uniform(-0.45, 0.45) if from_side else chance.uniform(0, 2 * math.pi)


def most_visible(coats: Iterable[Coat], ground: Colour) -> Coat:
    # Beyond a clear difference the first one wins, or dark insects would be nearly everywhere.
    return max(coats, key=lambda coat: min(130, sum(abs(a - b) for a, b in zip(coat.rear, ground, strict=True))))


# --- Painting a picture -----------------------------------------------------------------------------------------------
BRIGHTENED = tuple(round(255 * (step / 255) ** 0.8) for step in range(256))
FINER = 2  # Shapes are painted this many times larger and then reduced, which smooths their edges.


def paint(picture: Plan, longest_side: int) -> Image.Image:
    width, height = round(picture.width * longest_side), round(picture.height * longest_side)
    canvas = Canvas(
        sheet=Image.new("RGB", (width * FINER, height * FINER)),
        width=picture.width,
        height=picture.height,
        tones=picture.tones,
        light=picture.light,
        chance=Random(picture.details),
    )
    picture.scene.paint(canvas)
    behind = blurred(canvas.reduced(), picture.light.depth_blur)
    canvas.spread(
        behind if picture.scene.airy else ImageChops.multiply(behind, shadows(canvas, behind.size, picture.insects))
    )
    for insect in picture.insects:
        if picture.scene.airy and not insect.flying:
            twig(canvas, insect)
        draw_insect(canvas.brush(insect.x, insect.y, insect.length, insect.heading), insect)
    if picture.covered:
        cover(canvas, canvas.chance.choice(picture.insects))
    return shine(canvas.reduced(), picture.light, canvas.chance)


def shadows(canvas: Canvas, size: tuple[int, int], insects: Iterable[Insect]) -> Image.Image:
    """White where the light falls; to be multiplied with the ground, which then shows through the shadows."""
    light = canvas.light
    ground = replace(canvas, sheet=Image.new("RGB", size, WHITE))
    for insect in insects:
        height = insect.length * light.shadow_length * (3 if insect.flying else 1)
        x, y = insect.x - height * math.cos(light.towards), insect.y - height * math.sin(light.towards)
        brush = ground.brush(x, y, insect.length, insect.heading)
        draw_insect(replace(brush, only=mix(light.shady, BLACK, 0.5)), insect)
    return ground.sheet.filter(ImageFilter.BoxBlur(light.shadow_blur * max(ground.sheet.size)))


def shine(image: Image.Image, light: Light, chance: Random) -> Image.Image:
    # The gradient is black at its top edge, which is turned to the sun; it is larger than needed and then cropped,
    # so that no empty corner shows.
    slope = Image.linear_gradient("L").resize((364, 364)).rotate(-math.degrees(light.towards) - 90)
    tint = ImageOps.colorize(slope.crop((54, 54, 310, 310)), light.sunny, light.shady)
    edge = Image.radial_gradient("L").point([255 - round(light.vignette * step * step / 255) for step in range(256)])
    tint = ImageChops.multiply(tint, edge.convert("RGB")).resize(image.size)
    image = blurred(ImageChops.multiply(image, tint), light.focus_blur).point(BRIGHTENED * 3)
    image = ImageEnhance.Color(image).enhance(1.25)
    grain = noise(chance, 320, 320).resize(image.size, Image.Resampling.BILINEAR).convert("RGB")
    return Image.blend(image, ImageChops.overlay(image, grain), light.grain)


def blurred(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius * max(image.size)))


# --- Tools: colours, canvas, brush ------------------------------------------------------------------------------------
def colours(names: str) -> tuple[Colour, ...]:
    return tuple(ImageColor.getrgb(name)[:3] for name in names.split())


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def vary(chance: Random, colour: Colour, amount: float = 0.18) -> Colour:
    return mix(colour, chance.choice((BLACK, WHITE)), chance.uniform(0, amount))


def noise(chance: Random, columns: int, rows: int) -> Image.Image:
    return Image.frombytes("L", (columns, rows), chance.randbytes(columns * rows))


@dataclass(frozen=True)
class Canvas:
    """A sheet being painted on and the chance that decides its details."""

    sheet: Image.Image
    width: float
    height: float
    tones: tuple[Colour, ...]
    light: Light
    chance: Random

    def brush(self, x: float, y: float, size: float = 1, heading: float = 0) -> Brush:
        unit = max(self.sheet.size)
        # What heads left is mirrored as well, so that its feet stay below it.
        mirror = -1 if math.cos(heading) < 0 else 1
        pen, glaze = ImageDraw.Draw(self.sheet), ImageDraw.Draw(self.sheet, "RGBA")
        return Brush(pen, glaze, x * unit, y * unit, size * unit, heading, mirror, self.light.towards)

    def anywhere(self, size: float) -> Brush:
        x, y = self.chance.uniform(0, self.width), self.chance.uniform(0, self.height)
        return self.brush(x, y, size, self.chance.uniform(0, 2 * math.pi))

    def reduced(self) -> Image.Image:
        return self.sheet.reduce(FINER)

    def spread(self, image: Image.Image) -> None:
        # Plain repetition of the pixels is quick, and the reduction undoes it exactly.
        self.sheet.paste(image.resize(self.sheet.size, Image.Resampling.NEAREST))

    def mottle(self, *grids: tuple[int, int]) -> None:
        """Fill the sheet with patches of the tones; a grid says how many patches fit across and down."""
        size = self.sheet.width // FINER, self.sheet.height // FINER
        patches = Image.new("L", size, 128)
        for grid in grids:
            patches = Image.blend(patches, noise(self.chance, *grid).resize(size), 0.5)
        dark, middle, bright = self.tones
        self.spread(ImageOps.colorize(ImageOps.autocontrast(patches, cutoff=1), dark, bright, middle))


@dataclass(frozen=True)
class Brush:
    """Paints in the units and along the heading of one figure, whose origin is at (x, y) pixels of the sheet."""

    pen: ImageDraw.ImageDraw
    glaze: ImageDraw.ImageDraw  # blends what is not opaque; for the rest it would be several times slower
    x: float
    y: float
    size: float
    heading: float
    mirror: int
    light: float
    only: Colour | None = None  # a shadow has only this colour

    def moved(self, x: float, y: float, turn: float = 0, size: float = 1) -> Brush:
        """Return the brush of a part whose origin is at (x, y), turned against this figure."""
        ((left, top),) = self.pixels([(x, y)])
        return replace(self, x=left, y=top, size=self.size * size, heading=self.heading + self.mirror * turn)

    def pixels(self, points: Iterable[Point]) -> list[Point]:
        along_x, along_y = self.size * math.cos(self.heading), self.size * math.sin(self.heading)
        across_x, across_y = -self.mirror * along_y, self.mirror * along_x
        left, top = self.x, self.y
        return [(left + x * along_x + y * across_x, top + x * along_y + y * across_y) for x, y in points]

    def fill(self, points: Iterable[Point], colour: Colour, opacity: int = 255) -> None:
        pen = self.pen if opacity == 255 else self.glaze
        pen.polygon(self.pixels(points), fill=(*(self.only or colour), opacity))

    def line(self, points: Iterable[Point], width: float, colour: Colour, opacity: int = 255) -> None:
        pen = self.pen if opacity == 255 else self.glaze
        ink = (*(self.only or colour), opacity)
        pen.line(self.pixels(points), fill=ink, width=max(1, round(width * self.size)))

    def ellipse(self, x: float, y: float, radii: Point, colour: Colour, opacity: int = 255) -> None:
        self.fill([(x + radii[0] * cos, y + radii[1] * sin) for cos, sin in CIRCLE], colour, opacity)

    def teardrop(self, length: float, width: float, colour: Colour, fullness: float = 1, opacity: int = 255) -> None:
        """Paint a leaf, petal or wing from the origin forwards; the fuller it is, the wider towards its tip."""
        edge = [(length * x, width / 2 * math.sin(math.pi * x**fullness)) for x in STEPS]
        self.fill([*edge, *((x, -y) for x, y in reversed(edge))], colour, opacity)

    def ball(self, x: float, y: float, radii: Point, colour: Colour, fur: Random | None = None) -> None:
        """Paint a rounded body with a dark rim, brighter towards the light, and furry if `fur` ruffles it."""
        towards = self.mirror * (self.light - self.heading)
        light_x, light_y = radii[0] * math.cos(towards), radii[1] * math.sin(towards)
        for layer in range(1 if self.only else 9):
            share = layer / 10
            # Each layer is smaller and nearer to the light, but stays inside the one below.
            left, top, shrunk = x + 0.5 * share * light_x, y + 0.5 * share * light_y, 1 - 0.85 * share
            tone = mix(mix(colour, BLACK, 0.36), mix(colour, WHITE, 0.34), share)
            edge = ruffled(fur) if fur else CIRCLE
            self.fill([(left + radii[0] * shrunk * cos, top + radii[1] * shrunk * sin) for cos, sin in edge], tone)


STEPS = tuple(step / 14 for step in range(15))
CIRCLE = tuple((math.cos(step * math.pi / 15), math.sin(step * math.pi / 15)) for step in range(30))


def ruffled(fur: Random) -> Iterable[Point]:
    start = fur.random()
    for hair in range(76):
        reach = fur.uniform(1.0, 1.14) if hair % 2 else fur.uniform(0.90, 0.98)
        angle = (start + hair) * math.pi / 38
        yield reach * math.cos(angle), reach * math.sin(angle)


# --- Insects ----------------------------------------------------------------------------------------------------------
def draw_insect(brush: Brush, insect: Insect) -> None:
    # The same habits every time: an insect and its shadow must agree.
    chance = Random(insect.habits)
    if insect.kind == "ants":
        draw_ant(brush, insect, chance)
    else:
        draw_bee(brush, insect, chance)


def draw_ant(brush: Brush, ant: Insect, chance: Random) -> None:
    coat = ant.coat
    legs(brush, ANT, ant, chance)
    rear = brush.moved(-0.07, 0, chance.uniform(-0.1, 0.3) if ant.from_side else chance.uniform(-0.4, 0.4))
    rear.ball(-0.22, 0, (0.205, chance.uniform(0.125, 0.155)), coat.rear)
    if chance.random() < 0.35:
        stripes(rear, -0.22, (0.20, 0.125), mix(coat.rear, coat.dark, 0.6), (-0.5, 0.0, 0.5))
    brush.ball(-0.045, -0.005, (0.035, 0.035), coat.front)
    brush.ball(0.04, 0, (0.085, 0.055), coat.front)
    brush.ball(0.15, 0, (0.085, 0.072), coat.front)
    head = brush.moved(0.33, 0, chance.uniform(-0.2, 0.35) if ant.from_side else chance.uniform(-0.35, 0.35))
    antennae(head, ANT, ant, chance)
    for side in (-1, 1):
        head.moved(0.08, side * 0.045, -side * 0.25).teardrop(0.11, 0.045, coat.dark, 0.7)
    head.ball(0, 0, (0.125, 0.108), coat.front)
    face(head, ant.from_side)
    if chance.random() < 0.22:
        load(head.moved(0.18, 0), chance)


def load(jaws: Brush, chance: Random) -> None:
    if chance.random() < 0.5:
        jaws.ball(0.04, 0, (0.10, 0.085), chance.choice(CRUMBS))
    else:
        leaf(jaws.moved(-0.02, 0.03, chance.uniform(-1.9, -1.2), 0.5), vary(chance, chance.choice(GREENS)))


def draw_bee(brush: Brush, bee: Insect, chance: Random) -> None:
    coat, fur = bee.coat, Random(bee.habits)
    spread = chance.uniform(1.0, 1.35) if bee.flying else chance.uniform(0.3, 0.95)
    low = 0.02 if bee.from_side else 0
    legs(brush, BEE, bee, chance)
    if bee.from_side:
        wings(brush.moved(0.17, -0.10), spread + 0.45, -1)
    rear = brush.moved(-0.03, low, chance.uniform(-0.3, 0.1) if bee.from_side else chance.uniform(-0.12, 0.12))
    radii = (0.27, chance.uniform(0.175, 0.205))
    rear.moved(-0.45, 0).teardrop(-0.08, 0.05, coat.dark)
    rear.ball(-0.22, 0, radii, coat.rear, fur)
    if chance.random() < 0.8:
        stripes(rear, -0.22, radii, coat.dark, (-0.78, -0.42, -0.04, 0.34))
    head = brush.moved(0.35, low, chance.uniform(-0.2, 0.2))
    antennae(head, BEE, bee, chance)
    head.ball(0, 0, (0.10, 0.125), mix(coat.front, coat.dark, 0.6))
    face(head, bee.from_side)
    brush.ball(0.13, 0, (0.165, 0.165), coat.front, fur)
    for side in (-1,) if bee.from_side else (-1, 1):
        wings(brush.moved(0.12, side * 0.08), spread, side)


def legs(brush: Brush, anatomy: Anatomy, insect: Insect, chance: Random) -> None:
    gait = chance.uniform(-0.05, 0.05)
    for side in (-1, 1):
        # From the side, the far legs come first: a little ahead, higher and paler.
        far = 0.05 if insect.from_side and side < 0 else 0
        upright = 1 if insect.from_side else side
        colour = mix(insect.coat.dark, WHITE, 2 * far)
        for number, joints in enumerate(anatomy.legs_side if insect.from_side else anatomy.legs_above):
            # Insects walk on two tripods in turn: the middle leg swings with the other side's outer two.
            swing = gait * side * (-1 if number == 1 else 1) + chance.uniform(-0.02, 0.02)
            points = [(x + far + swing * step, upright * y - far) for step, (x, y) in enumerate(joints)]
            limb(brush, points, anatomy.limb_width, colour)


def antennae(head: Brush, anatomy: Anatomy, insect: Insect, chance: Random) -> None:
    for side in (-1, 1):
        # From the side both rise above the head, one behind the other.
        rise = chance.uniform(0.75, 1.15) * (-1 if insect.from_side else side)
        ahead = 0.04 * side if insect.from_side else 0
        limb(head, [(x + ahead, rise * y) for x, y in anatomy.antenna], anatomy.limb_width * 0.8, insect.coat.dark)


def limb(brush: Brush, joints: Sequence[Point], width: float, colour: Colour) -> None:
    for number, ends in enumerate(pairwise(joints)):
        brush.line(ends, width * 0.82**number, colour)
        brush.ellipse(*ends[1], (width * 0.45, width * 0.45), colour)


def face(head: Brush, from_side: bool) -> None:
    for side in (1,) if from_side else (-1, 1):
        eye = head.moved(0.035, -0.03) if from_side else head.moved(0.02, side * 0.075)
        eye.ellipse(0, 0, (0.040, 0.044), (240, 234, 222))
        eye.ellipse(0.008, 0, (0.029, 0.033), (26, 22, 26))
        eye.ellipse(0.018, -0.012, (0.010, 0.010), WHITE)
    if from_side:
        head.line([(0.02, 0.045), (0.05, 0.058), (0.085, 0.04)], 0.012, (34, 24, 24))


def stripes(brush: Brush, x: float, radii: Point, colour: Colour, stations: Iterable[float]) -> None:
    for station in stations:
        near, far = (stripe_edge(x, radii, station + offset) for offset in (0, 0.18))
        brush.fill([*near, *reversed(far)], colour, 210)


def stripe_edge(x: float, radii: Point, station: float) -> list[Point]:
    # Around a round body a straight stripe looks like an arc, bulging backwards.
    half_width = radii[1] * math.sqrt(1 - station * station)
    across = [step / 4 - 1 for step in range(9)]
    return [(x + radii[0] * station - 0.22 * half_width * (1 - side * side), half_width * side) for side in across]


def wings(shoulder: Brush, spread: float, side: int) -> None:
    """Paint the hind and the fore wing of one side, opened by `spread` from the line of the body."""
    for opening, length, width in ((spread - 0.35, 0.44, 0.18), (spread, 0.64, 0.23)):
        wing = shoulder.moved(0, 0, side * (math.pi - opening))
        wing.teardrop(length, width, (120, 112, 108), 1.5, 120)
        wing.moved(0.012, 0).teardrop(length - 0.024, width - 0.02, (238, 246, 252), 1.5, 140)
        for bend in (-0.3, 0.0, 0.3):
            vein = [(0.02, 0), (0.5 * length, 0.6 * bend * width), (0.82 * length, bend * width)]
            wing.line(vein, 0.007, (110, 100, 96), 150)


# --- Plants and small things ------------------------------------------------------------------------------------------
def leaf(brush: Brush, colour: Colour) -> None:
    """Paint a leaf of length 1 from the origin forwards."""
    brush.teardrop(1, 0.46, mix(colour, BLACK, 0.3), 0.8)
    brush.moved(0.02, 0).teardrop(0.95, 0.41, colour, 0.8)
    for step in (0.2, 0.35, 0.5, 0.65):
        for side in (-1, 1):
            brush.line([(step, 0), (step + 0.12, side * 0.14 * (1.2 - step))], 0.010, mix(colour, WHITE, 0.3))
    brush.line([(-0.12, 0), (0.92, 0)], 0.018, mix(colour, WHITE, 0.4))


def grass(root: Brush, width: float, bend: float, colour: Colour) -> None:
    """Paint a blade of length 1 from the origin forwards, its tip bent aside."""
    edges = [[(x, bend * x * x + side * width / 2 * (1 - x)) for x in STEPS] for side in (-1, 0, 1)]
    root.fill([*edges[0], *reversed(edges[2])], colour)
    root.line(edges[1][:-2], width * 0.12, mix(colour, WHITE, 0.25))


def petal(brush: Brush, colour: Colour) -> None:
    shade = mix(colour, (120, 60, 80), 0.3)
    brush.teardrop(1, 0.52, shade, 1.7)
    brush.moved(0.02, 0).teardrop(0.96, 0.47, colour, 1.7)
    for side in (-1, 0, 1):
        brush.line([(0.15, 0), (0.75, 0.12 * side)], 0.012, mix(colour, shade, 0.6))


def flower(brush: Brush, petals: int, colour: Colour, heart: float, dots: int, chance: Random) -> None:
    """Paint a flower of radius 1 around the origin."""
    for number in range(2 * petals):
        # Every second turn lays a smaller ring over the first one.
        turn = number * 2 * math.pi / petals + (number >= petals) * math.pi / petals
        petal(brush.moved(0, 0, turn, 0.88 if number >= petals else 1), vary(chance, colour, 0.1))
    middle = chance.choice(((238, 180, 56), (210, 140, 48), (140, 96, 54)))
    brush.ball(0, 0, (heart, heart), middle)
    for number in range(dots):
        # The golden angle fills the circle evenly, as in a real flower head.
        angle, distance = number * 2.4, heart * 0.9 * math.sqrt(number / dots)
        size = (heart * 0.06, heart * 0.06)
        brush.ellipse(distance * math.cos(angle), distance * math.sin(angle), size, vary(chance, middle, 0.4))


def pebble(brush: Brush, colour: Colour) -> None:
    brush.ellipse(0.10, 0.12, (0.52, 0.40), BLACK, 60)
    for shift, tone in ((0.0, mix(colour, BLACK, 0.3)), (-0.05, colour), (-0.1, mix(colour, WHITE, 0.2))):
        brush.ellipse(shift, shift, (0.5 + 3 * shift, 0.38 + 2.4 * shift), tone)


def drop(brush: Brush) -> None:
    brush.ellipse(0, 0, (0.5, 0.5), (40, 70, 40), 70)
    brush.ellipse(0, 0, (0.42, 0.42), (220, 240, 236), 90)
    brush.ellipse(0.15, -0.15, (0.12, 0.12), WHITE, 230)


def twig(canvas: Canvas, insect: Insect) -> None:
    """Paint a stalk below the insect's feet, across the whole picture."""
    brush = canvas.brush(insect.x, insect.y, insect.length, insect.heading)
    stalk = brush.moved(0, 0.33 if insect.from_side else 0.05)
    colour = vary(canvas.chance, canvas.chance.choice((*GREENS, *DRY_LEAVES)), 0.3)
    for y, width, tone in (
        (0, 0.16, mix(colour, BLACK, 0.35)),
        (0, 0.12, colour),
        (-0.03, 0.03, mix(colour, WHITE, 0.3)),
    ):
        stalk.line([(-6, y), (6, y)], width, tone)
    for side in (-1, 1):
        leaf(stalk.moved(0.8 * side, 0, 0.7 * side + 0.2, 0.55), colour)


def cover(canvas: Canvas, insect: Insect) -> None:
    """Paint something in front of the insect that hides a part of it, never the middle of its body."""
    chance = canvas.chance
    around = chance.uniform(0, 2 * math.pi)
    distance = chance.uniform(0.28, 0.5) * insect.length
    x, y = insect.x + distance * math.cos(around), insect.y + distance * math.sin(around)
    plant = canvas.brush(x, y, chance.uniform(0.6, 1.0) * insect.length, around + chance.uniform(-0.6, 0.6))
    colour = vary(chance, chance.choice(GREENS))
    choice = chance.random()
    if choice < 0.4:
        # The roots are below the picture's edge, so they are never seen.
        tuft = canvas.brush(x, canvas.height + 0.1, (canvas.height + 0.1 - y) * 1.3, -math.pi / 2)
        for bend in (-0.35, 0.3, chance.uniform(-0.1, 0.1)):
            grass(tuft.moved(0, 0.1 * bend, 0, 1 - abs(bend)), 0.10, bend, vary(chance, colour, 0.25))
    elif choice < 0.75:
        leaf(plant, colour)
    else:
        petal(plant, chance.choice(PETALS))


# --- Scenes -----------------------------------------------------------------------------------------------------------
def scatter(canvas: Canvas, pebbles: int, largest: float, leaves: int, colour: Colour) -> None:
    """Scatter pebbles or crumbs of one colour and at most so many leaves and petals."""
    chance = canvas.chance
    for _ in range(pebbles):
        pebble(canvas.anywhere(chance.uniform(0.4, 1) ** 2 * largest), vary(chance, colour, 0.3))
    for _ in range(chance.randint(0, leaves)):
        leaf(canvas.anywhere(chance.uniform(0.12, 0.3)), vary(chance, chance.choice((*GREENS, *DRY_LEAVES))))
        if chance.random() < 0.4:
            petal(canvas.anywhere(chance.uniform(0.1, 0.2)), chance.choice(PETALS))


def paint_earth(canvas: Canvas) -> None:
    canvas.mottle((90, 90), (28, 28), (5, 5))
    scatter(canvas, 45, 0.06, 4, canvas.tones[2])


def paint_sand(canvas: Canvas) -> None:
    canvas.mottle((7, 12), (160, 160), (4, 5))
    chance, (dark, _, bright) = canvas.chance, canvas.tones
    slope, height = chance.uniform(-0.15, 0.15), chance.uniform(0, 0.008)
    for number in range(16):
        y = (number - 1) * canvas.height / 12
        ripple = [(x / 20, y + slope * x / 20 + height * math.sin(x + number)) for x in range(-1, 23)]
        canvas.brush(0, 0).line(ripple, 0.012, dark, 70)
        canvas.brush(0, 0.01).line(ripple, 0.009, bright, 110)
    scatter(canvas, 16, 0.05, 2, bright)


def paint_stone(canvas: Canvas) -> None:
    canvas.mottle((120, 120), (30, 30), (6, 6))
    chance, (dark, _, bright) = canvas.chance, canvas.tones
    for _ in range(chance.randint(4, 12)):
        lichen, colour = canvas.anywhere(chance.uniform(0.03, 0.12)), chance.choice(LICHENS)
        for _ in range(9):
            spot = lichen.moved(chance.gauss(0, 0.4), chance.gauss(0, 0.4), chance.uniform(0, 3))
            spot.ellipse(0, 0, (0.35, 0.28), vary(chance, colour), 150)
    for _ in range(chance.randint(1, 3)):
        crack = [(step / 8 - 0.7, chance.gauss(0, 0.02)) for step in range(12)]
        stone = canvas.anywhere(1)
        stone.line(crack, 0.010, mix(dark, BLACK, 0.5))
        stone.moved(0.006, 0.006).line(crack, 0.004, bright)
    scatter(canvas, 0, 0, 2, bright)


def paint_bark(canvas: Canvas) -> None:
    canvas.mottle((60, 9), (140, 40), (14, 3))
    chance, (dark, _, bright) = canvas.chance, canvas.tones
    for _ in range(34):
        x, y = chance.uniform(0, canvas.width), chance.uniform(-0.1, canvas.height)
        furrow = canvas.brush(x, y, chance.uniform(0.15, 0.5), math.pi / 2 + chance.gauss(0, 0.08))
        furrow.teardrop(1, chance.uniform(0.04, 0.10), mix(dark, BLACK, 0.4), 0.9, 200)
        furrow.moved(0.05, 0.035).line([(0, 0), (0.8, 0)], 0.018, bright, 150)
    for _ in range(chance.randint(0, 30)):
        canvas.anywhere(chance.uniform(0.02, 0.06)).ellipse(0, 0, (0.6, 0.4), vary(chance, GREENS[0]), 190)


def paint_leaf(canvas: Canvas) -> None:
    canvas.mottle((50, 50), (9, 9), (4, 4))
    chance, pale = canvas.chance, mix(canvas.tones[2], WHITE, 0.3)
    middle = canvas.brush(canvas.width / 2, canvas.height / 2, 1, chance.uniform(0, 2 * math.pi))
    vein = middle.moved(-0.9, chance.uniform(-0.25, 0.25))
    for number in range(15):
        for side in (-1, 1):
            x = number * 0.13 + 0.03 * side
            vein.line([(x + bow * bow * 0.5 + bow * 0.3, side * bow) for bow in STEPS], 0.009, pale, 170)
    vein.line([(-0.5, 0), (2.5, 0)], 0.030, pale)
    vein.line([(-0.5, 0.018), (2.5, 0.018)], 0.008, canvas.tones[0])
    for _ in range(chance.choice((0, 6, 16))):
        drop(replace(canvas.anywhere(chance.uniform(0.02, 0.07)), heading=0, mirror=1))


def paint_meadow(canvas: Canvas) -> None:
    canvas.mottle((16, 8), (5, 4))
    chance = canvas.chance
    for _ in range(16):
        canvas.anywhere(chance.uniform(0.03, 0.12)).ellipse(0, 0, (1, 1), mix(canvas.tones[2], WHITE, 0.4), 36)
    meadow_grass(canvas, 45, 0.7, canvas.tones)
    for _ in range(chance.randint(3, 10)):
        bloom = canvas.anywhere(chance.uniform(0.03, 0.12))
        flower(bloom, chance.randint(5, 8), chance.choice(PETALS), 0.3, 6, chance)


def meadow_grass(canvas: Canvas, blades: int, tallest: float, greens: Sequence[Colour]) -> None:
    chance = canvas.chance
    for _ in range(blades):
        x, tall = chance.uniform(0, canvas.width), chance.uniform(0.3, 1) * tallest
        root = canvas.brush(x, canvas.height + 0.05, tall, -math.pi / 2)
        colour = vary(chance, chance.choice(greens), 0.25)
        grass(root, chance.uniform(0.04, 0.08), chance.uniform(-0.4, 0.4), colour)


def paint_flower(canvas: Canvas) -> None:
    canvas.mottle((14, 14), (5, 5))
    chance = canvas.chance
    for _ in range(5):
        leaf(canvas.anywhere(chance.uniform(0.3, 0.6)), vary(chance, chance.choice(GREENS)))
    x, y = canvas.width * chance.uniform(0.2, 0.8), canvas.height * chance.uniform(0.3, 0.9)
    bloom = canvas.brush(x, y, chance.uniform(0.5, 0.85), chance.uniform(0, 2 * math.pi))
    flower(bloom, chance.randint(7, 13), chance.choice(PETALS), chance.uniform(0.2, 0.36), 60, chance)


def paint_honeycomb(canvas: Canvas) -> None:
    wax, chance = mix(canvas.tones[2], WHITE, 0.15), canvas.chance
    canvas.sheet.paste(wax, (0, 0, *canvas.sheet.size))
    radius = chance.uniform(0.05, 0.09)
    comb = canvas.brush(canvas.width / 2, canvas.height / 2, radius, chance.uniform(-0.5, 0.5))
    reach = round(0.45 / radius) + 1
    corners = [(math.cos(step * math.pi / 3), math.sin(step * math.pi / 3)) for step in range(6)]
    for column in range(-reach, reach + 1):
        for row in range(-reach, reach + 1):
            cell = comb.moved(1.5 * column, math.sqrt(3) * (row + column % 2 / 2))
            colour = vary(chance, chance.choice(canvas.tones), 0.2)
            for size, shade in ((0.92, 0.45), (0.78, 0.25), (0.62, 0.0)):
                cell.fill([(x * size, y * size) for x, y in corners], mix(colour, (70, 40, 10), shade))
            if chance.random() < 0.6:
                cell.ellipse(-0.2, -0.2, (0.16, 0.10), WHITE, 130)


def paint_cloth(canvas: Canvas) -> None:
    coloured, _, pale = canvas.tones
    replace(canvas, tones=(mix(pale, BLACK, 0.08), pale, WHITE)).mottle((150, 150), (6, 6))
    chance = canvas.chance
    cloth = canvas.brush(canvas.width / 2, canvas.height / 2, 1, chance.uniform(-0.5, 0.5))
    check = chance.uniform(0.06, 0.13)
    for number in range(-9, 10):
        near, far = number * 2 * check, number * 2 * check + check
        cloth.fill([(near, -1), (far, -1), (far, 1), (near, 1)], coloured, 130)
        cloth.fill([(-1, near), (-1, far), (1, far), (1, near)], coloured, 130)
    scatter(canvas, chance.randint(4, 16), 0.05, 1, chance.choice(CRUMBS))


def paint_wood(canvas: Canvas) -> None:
    canvas.mottle((5, 70), (40, 160), (3, 8))
    chance, (dark, middle, bright) = canvas.chance, canvas.tones
    for number in range(chance.randint(1, 4)):
        y = (number + chance.uniform(0.2, 0.8)) * canvas.height / 3
        canvas.brush(0, y).line([(0, 0), (1, 0)], 0.010, mix(dark, BLACK, 0.5))
        canvas.brush(0, y + 0.008).line([(0, 0), (1, 0)], 0.005, bright)
    for _ in range(chance.randint(1, 3)):
        knot = replace(canvas.anywhere(chance.uniform(0.03, 0.06)), heading=0)
        for ring in range(5):
            knot.ellipse(0, 0, (1.5 - ring * 0.27, 1 - ring * 0.18), mix(dark, middle, ring % 2), 160)
    scatter(canvas, chance.randint(0, 10), 0.04, 2, CRUMBS[0])


def paint_sky(canvas: Canvas) -> None:
    high, middle, low = canvas.tones
    canvas.spread(ImageOps.colorize(Image.linear_gradient("L"), high, low, middle))
    chance = canvas.chance
    for _ in range(chance.randint(1, 5)):
        cloud = canvas.brush(chance.uniform(0, canvas.width), chance.uniform(0, canvas.height), 0.1)
        for _ in range(14):
            puff = cloud.moved(chance.gauss(0, 0.9), chance.gauss(0, 0.25))
            puff.ellipse(0, 0, (0.6, 0.42), mix(low, WHITE, 0.7), 80)
    canvas.spread(blurred(canvas.reduced(), 0.012))
    meadow_grass(canvas, chance.choice((0, 25)), 0.4, GREENS)


SCENES = (
    Scene(paint_earth, ("#5c4030 #926c4c #c0986e", "#6e5a4c #a08670 #cebaa0"), ants=3.6, bees=1.1),
    Scene(paint_sand, ("#c4a478 #e4ca9c #f8e8c4", "#beae98 #dcd0bc #f2eade"), ants=2.9, bees=0.9),
    Scene(paint_stone, ("#7a7a7e #a6a6a4 #d0cec8", "#887a6c #b8a692 #dccebc"), ants=2.3, bees=0.9),
    Scene(paint_bark, ("#5c483a #967a60 #c6aa8a", "#706a64 #aaa094 #d6cebf"), ants=2.7, bees=1.3, side_view=0.3),
    Scene(
        paint_leaf,
        ("#447238 #6e9e46 #a4c862", "#727e38 #acb450 #d8d67a", "#38664e #5e9470 #98c096"),
        ants=2.4,
        bees=2.4,
        side_view=0.3,
    ),
    Scene(paint_meadow, ("#406c36 #769e46 #bed470", "#5a7452 #94ae7a #d6deac"), ants=1.1, bees=3.7, side_view=0.6),
    Scene(paint_flower, ("#447238 #6e9e46 #a4c862", "#38664e #5e9470 #98c096"), ants=1.1, bees=3.7, side_view=0.4),
    Scene(paint_honeycomb, ("#c88626 #e8aa3c #fad070", "#aa7032 #d0984c #eec882"), ants=0.6, bees=1.9),
    Scene(
        paint_cloth,
        ("#c43e3c #e2a09c #faf4ec", "#4670aa #a0b8d4 #f4f6fa", "#608e5a #b0c8a8 #f8f6ea"),
        ants=2.5,
        bees=1.0,
    ),
    Scene(paint_wood, ("#8a5e3a #bc8a58 #e0b482", "#847a70 #b2a89c #d8d0c6"), ants=1.9, bees=0.8),
    Scene(
        paint_sky, ("#609ad8 #9ec6ea #e2eef6", "#7072aa #d09ea8 #fcd8a6"), ants=1.0, bees=3.0, side_view=0.8, airy=True
    ),
)
