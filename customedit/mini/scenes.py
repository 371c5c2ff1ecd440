"""The small world: one thing on a table before a wall, rendered with its masks and its words.

``sample_scene(seed)`` draws what is there, ``render(scene)`` paints it, ``captions.describe`` words
it. The same scene gives the same bytes on every run. No file is read, nothing is downloaded.

The picture is an orthographic view from slightly above. Surfaces are splatted as dense points into
a depth buffer at twice the size (a point carries its surface coordinates, so patterns bend with the
body), shaded once per pixel, and averaged down.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customedit.mini import patterns, random_patterns, shapes
from customedit.mini.vocabulary import ANY_PATTERN, CLASSES, COLOURS, MATERIALS, PATTERNS

Array = NDArray[np.float32]

SIZE = 128
"""Side of a rendered picture in pixels, unless another is asked for."""

HELD_OUT_SHARE = 10
"""One combination of (class, colour, pattern) in this many is kept out of training."""

PATTERNED_SHARE: Final = 1 / 3
"""Share of the training scenes that wear a random pattern."""

COLOUR_COUNTS: Final = (0.5, 0.33, 0.17)
"""How many random patterns have two, three and four colours."""

FRAMED_SHARE: Final = 0.08
"""Share of the training scenes that are shown far away or close up, half and half."""

FRAMINGS: Final = ("far", "close")

_OVER = 2  # supersampling per axis
_SHADOW = 72  # cells per side of the shadow map


@dataclass(frozen=True)
class Scene:
    """All that decides a picture. Colours are words of ``vocabulary.COLOURS``.

    x, foot: the thing's axis and foot line in [0, 1] of the picture's width and height (from the
    left, from the top); scale: pixels per unit length as a share of the side; elevation, yaw, sun
    in radians; horizon in [0, 1] from the top, where the table ends; ``second`` is the pattern's
    other colour, None for a plain thing; ``third`` and ``fourth`` are further colours of a random
    pattern (``vocabulary.ANY_PATTERN``), the first covering most; ``framing`` is one of FRAMINGS or
    empty (see :func:`frame`); ``seed`` decides proportions, grain, jitter and the random pattern.
    """

    noun: str
    colour: str
    pattern: str
    second: str | None
    material: str
    wall: str
    table: str
    x: float
    foot: float
    scale: float
    elevation: float
    yaw: float
    sun: float
    horizon: float
    seed: int
    third: str | None = None
    fourth: str | None = None
    framing: str = ""

    @property
    def colours(self) -> tuple[str, ...]:
        """The thing's colours, the one that covers most first."""
        return tuple(c for c in (self.colour, self.second, self.third, self.fourth) if c)

    def as_dict(self) -> dict[str, Any]:
        """The scene as plain data, without what it has not; ``Scene(**data)`` is it again."""
        optional = ("third", "fourth", "framing")
        return {k: v for k, v in dataclasses.asdict(self).items() if v or k not in optional}


@dataclass(frozen=True)
class Picture:
    """A rendered scene. image: uint8 [side, side, 3]; mask: bool [side, side], the thing's pixels.

    ``alpha`` is the share of each pixel that the thing covers, float32 in [0, 1].
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    alpha: Array


def is_held_out(noun: str, colour: str, pattern: str) -> bool:
    """Whether training never shows this combination (fixed for ever, about one in ten)."""
    number = (
        CLASSES.index(noun) * 37 + list(COLOURS).index(colour) * 101 + PATTERNS.index(pattern) * 53
    )
    return number % HELD_OUT_SHARE == 0


def sample_scene(seed: int, *, held_out: bool = False, **fixed: Any) -> Scene:
    """Draw a scene; fields given by name are kept as given.

    With ``held_out`` false (training) no held-out combination comes; with true, only such come.
    Combinations are redrawn until they fit, so fixing noun, colour and pattern to one that doesn't
    raises ValueError.
    """
    rng = np.random.default_rng([seed, 0x5CE7E])

    def pick(options: Sequence[str]) -> str:
        return str(options[int(rng.integers(len(options)))])

    colours = list(COLOURS)
    for _ in range(1000):
        noun = fixed.get("noun") or pick(CLASSES)
        pattern = fixed.get("pattern") or ("plain" if rng.random() < 0.25 else pick(PATTERNS[1:]))
        colour = fixed.get("colour") or pick(colours)
        if pattern not in PATTERNS or is_held_out(noun, colour, pattern) == held_out:
            break
    else:
        raise ValueError(
            f"{colour} {pattern} {noun} is "
            f"{'not ' if held_out else ''}a held-out combination; free one of the three"
        )
    second = None if pattern == "plain" else pick([c for c in colours if c != colour])
    if pattern == "plain" and noun != "ball" and rng.random() < 0.15:
        material = "wooden"
    else:
        material = pick([m for m in MATERIALS if m != "wooden"])
    table = "wooden" if (u := rng.random()) < 0.22 else "marble" if u < 0.30 else pick(colours)
    wall = "brick" if rng.random() < 0.07 else pick(colours)
    reach = {"teapot": 0.06, "bowl": 0.08, "plate": 0.08}.get(noun, 0.14)
    scale = 0.64 * float(rng.uniform(0.78, 1.12))
    scene = Scene(
        noun=noun,
        colour=colour,
        pattern=pattern,
        second=second,
        material=material,
        wall=wall,
        table=table,
        x=0.5 + float(rng.uniform(-reach, reach)),
        foot=float(rng.uniform(0.76, 0.88)) - (0.06 if noun == "plate" else 0.0),
        scale=scale,
        elevation=float(np.radians(rng.uniform(18, 30))) + (0.12 if noun == "plate" else 0.0),
        yaw=float(rng.uniform(-0.7, 0.7) + (np.pi if rng.random() < 0.5 else 0.0)),
        sun=float(rng.uniform(-1.0, 1.0)),
        horizon=float(rng.uniform(0.44, 0.60)),
        seed=int(rng.integers(2**31)),
    )
    return dataclasses.replace(scene, **fixed)


def patterned_scene(seed: int) -> Scene:
    """Draw a scene whose thing wears a random pattern of two to four colours."""
    rng = np.random.default_rng([seed, 0xC0105])
    scene = sample_scene(seed, pattern=ANY_PATTERN)
    count = int(rng.choice((2, 3, 4), p=COLOUR_COUNTS))
    others = rng.permutation([c for c in COLOURS if c not in scene.colours])
    third, fourth = (str(others[k]) if count > 2 + k else None for k in range(2))
    return dataclasses.replace(scene, third=third, fourth=fourth)


def training_scene(seed: int) -> Scene:
    """Draw a scene to train on: a third wear a random pattern, some are far away or close up."""
    rng = np.random.default_rng([seed, 0x7EA1])
    scene = patterned_scene(seed) if rng.random() < PATTERNED_SHARE else sample_scene(seed)
    if rng.random() < FRAMED_SHARE:
        scene = dataclasses.replace(scene, framing=str(rng.choice(FRAMINGS)))
    return scene


def _colour(name: str, rng: np.random.Generator, jitter: float = 0.025) -> Array:
    base = np.asarray(COLOURS[name], np.float32)
    return np.clip(base + rng.uniform(-jitter, jitter, 3), 0.02, 1).astype(np.float32)


class _View:
    """Where the world's points fall in the (supersampled) picture."""

    def __init__(self, scene: Scene, side: int) -> None:
        self.side = side * _OVER
        self.scale = scene.scale * self.side
        self.cos = np.float32(np.cos(scene.elevation))
        self.sin = np.float32(np.sin(scene.elevation))
        self.x0, self.y0 = scene.x * self.side, scene.foot * self.side
        away = np.array([0.75 * np.sin(scene.sun), 0.95, 0.75 * np.cos(scene.sun)])
        self.light = (away / np.linalg.norm(away)).astype(np.float32)

    def project(self, p: Array) -> tuple[Array, Array, Array]:
        """World [3, n] -> column, row (in supersampled pixels), and nearness to the viewer."""
        column = self.x0 + self.scale * p[0]
        row = self.y0 - self.scale * (p[1] * self.cos - p[2] * self.sin)
        return column, row, p[1] * self.sin + p[2] * self.cos


def _background(scene: Scene, view: _View, rng: np.random.Generator) -> tuple[Array, Array]:
    """Wall and table without the thing: colour [side, side, 3], and table depth Z [side, 1]."""
    n = view.side
    columns = (np.arange(n, dtype=np.float32)[None, :] - view.x0) / view.scale
    rows = np.arange(n, dtype=np.float32)[:, None]
    edge = scene.horizon * n
    z = (rows - view.y0) / (view.scale * view.sin)  # on the table
    height = (edge - rows) / view.scale  # on the wall, above the table's end
    x = np.broadcast_to(columns, (n, n))
    out = np.empty((n, n, 3), np.float32)
    cut = round(edge)

    base = (
        _colour(scene.wall, rng)
        if scene.wall != "brick"
        else np.array([0.62, 0.28, 0.20], np.float32)
    )
    wall = np.broadcast_to(0.92 * base + 0.05, (cut, n, 3))
    if scene.wall == "brick":
        y = np.broadcast_to(height[:cut], (cut, n))
        wall = patterns.brick(x[:cut].ravel(), y.ravel(), rng, base).reshape(cut, n, 3)
    side_light = 1.0 - 0.10 * np.sin(scene.sun) * (2 * np.arange(n, dtype=np.float32) / n - 1)
    out[:cut] = wall * side_light[None, :, None] * (0.88 + 0.10 * rows[:cut, :, None] / max(cut, 1))

    if scene.table in ("wooden", "marble"):
        zz = np.broadcast_to(z[cut:], (n - cut, n)).ravel()
        kind = patterns.wood if scene.table == "wooden" else patterns.marble
        stone = [0.72, 0.50, 0.29] if scene.table == "wooden" else [0.90, 0.89, 0.87]
        ground = np.array(stone, np.float32)
        table = kind(x[cut:].ravel(), zz, rng, ground).reshape(n - cut, n, 3)
    else:
        table = np.broadcast_to(0.95 * _colour(scene.table, rng) + 0.02, (n - cut, n, 3))
    fade = 0.90 + 0.12 * (rows[cut:] - cut) / max(n - cut, 1)
    out[cut:] = table * fade[..., None] * side_light[None, :, None]
    out[cut : cut + round(n / SIZE)] *= 0.80  # the gap between table and wall
    return out, z


def _shadow(view: _View, parts: list[shapes.Samples], z: Array, cut: int) -> Array:
    """Light left on the table, [side - cut, side] in [0, 1]: the thing's points cast by the sun."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    grid = np.zeros((_SHADOW, _SHADOW), np.float32)
    reach = 1.6
    for part in parts:
        p = part.position[:, ::3]
        drop = p[1] / view.light[1]
        gx = (p[0] - view.light[0] * drop + reach) / (2 * reach) * _SHADOW
        gz = (p[2] - view.light[2] * drop + reach) / (2 * reach) * _SHADOW
        ok = (gx >= 0) & (gx < _SHADOW) & (gz >= 0) & (gz < _SHADOW)
        grid[gz[ok].astype(np.intp), gx[ok].astype(np.intp)] = 1
    grid = gaussian_filter(np.maximum(grid, gaussian_filter(grid, 0.8)), 1.6)
    columns = (np.arange(view.side, dtype=np.float32) - view.x0) / view.scale
    at_x = (columns + reach) / (2 * reach) * _SHADOW - 0.5
    at_z = (z[cut:, 0] + reach) / (2 * reach) * _SHADOW - 0.5
    where = np.broadcast_arrays(at_z[:, None], at_x[None, :])
    dark = map_coordinates(grid, np.stack(where), order=1, mode="constant")
    return (1 - 0.55 * np.clip(dark, 0, 1)).astype(np.float32)


def _paint(
    scene: Scene, part: shapes.Samples, chosen: NDArray[np.intp], around: float, seed: int
) -> Array:
    """Reflectance [n, 3] of the chosen samples of one surface."""
    rng = np.random.default_rng([seed, 7])
    first = _colour(scene.colour, rng)
    second = _colour(scene.second, rng) if scene.second else first
    if scene.material == "wooden":
        tint = first if scene.colour != "brown" else np.array([0.55, 0.35, 0.19], np.float32)
        s = part.angle[chosen] / np.float32(2 * np.pi)
        return patterns.wood(part.height[chosen] * 2, np.sin(2 * np.pi * s) * 0.5, rng, tint)
    inside_too = scene.noun in ("bowl", "plate")
    if part.kind == shapes.BODY or (part.kind == shapes.INNER and inside_too):
        s = part.angle[chosen] / np.float32(2 * np.pi)
        t = part.height[chosen] / np.float32(around)
        if scene.pattern == ANY_PATTERN:
            more = [_colour(name, rng) for name in scene.colours[2:]]
            return random_patterns.paint(s, t, rng, np.stack([first, second, *more]))
        return patterns.PAINTS[scene.pattern](s, t, rng, first, second)
    return np.broadcast_to(first, (len(chosen), 3))


def _shade(scene: Scene, view: _View, albedo: Array, normal: Array, free: Array) -> Array:
    """Lambert with a soft wrap, sky light from above, and the material's highlight. [n, 3]."""
    facing = view.light @ normal
    diffuse = np.clip(0.35 + 0.65 * facing, 0, None)
    sky = 0.5 + 0.5 * normal[1]
    light = (0.30 + 0.56 * diffuse + 0.16 * sky) * (0.25 + 0.75 * free)
    towards = np.array([0, view.sin, view.cos], np.float32)
    half = view.light + towards
    half /= np.linalg.norm(half)
    gleam = np.clip(half @ normal, 0, 1)
    if scene.material == "metal":
        mirror = normal[0] * 2.2 + normal[1] * 1.2
        band = 0.5 + 0.5 * np.cos(3.0 * mirror)
        light = light * (0.62 + 0.50 * band)
        shine = 0.55 * gleam**24 + 0.10 * band
    else:
        strength, power = {
            "glossy": (0.75, 60), "ceramic": (0.28, 22), "matte": (0.0, 1), "wooden": (0.05, 8)
        }[scene.material]  # fmt: skip
        shine = strength * gleam**power
    return albedo * light[:, None] + (shine * free)[:, None]


def _shrink(big: Array) -> Array:
    """Average [side * _OVER, side * _OVER, ...] down to [side, side, channels]."""
    side = len(big) // _OVER
    return big.reshape(side, _OVER, side, _OVER, -1).mean((1, 3))


def render(scene: Scene, side: int = SIZE) -> Picture:
    """Paint ``scene``, ``side`` pixels wide and high. Equal scenes give equal bytes."""
    rng = np.random.default_rng([scene.seed, 1])
    view = _View(scene, side)
    n = view.side
    shape = shapes.build(scene.noun, rng)
    parts = shapes.surfaces(shape, scene.yaw, step=0.8 / view.scale)
    canvas, z = _background(scene, view, rng)
    cut = round(scene.horizon * n)
    canvas[cut:] *= _shadow(view, parts, z, cut)[..., None]

    nearest = np.full(n * n, -1, np.int64)
    offset = 0
    for part in parts:
        column, row, near = view.project(part.position)
        facing = part.normal[1] * view.sin + part.normal[2] * view.cos > 0
        keep = np.flatnonzero(facing & (column >= 0) & (column < n) & (row >= 0) & (row < n))
        pixel = row[keep].astype(np.int64) * n + column[keep].astype(np.int64)
        # nearness in the high bits decides; the sample's number rides in the low 24
        depth = ((near[keep] + 4) * (1 << 18)).astype(np.int64)
        np.maximum.at(nearest, pixel, (depth << 24) | (keep + offset))
        offset += part.position.shape[1]

    around = float(2 * np.pi * shape.outer[:, 0].max())
    covered = np.flatnonzero(nearest >= 0)
    sample = nearest[covered] & ((1 << 24) - 1)
    flat = canvas.reshape(-1, 3)
    offset = 0
    for part in parts:
        mine = (sample >= offset) & (sample < offset + part.position.shape[1])
        chosen = (sample[mine] - offset).astype(np.intp)
        if len(chosen):
            albedo = _paint(scene, part, chosen, around, scene.seed)
            flat[covered[mine]] = _shade(
                scene, view, albedo, part.normal[:, chosen], part.occlusion[chosen]
            )
        offset += part.position.shape[1]

    image = np.clip(_shrink(canvas) * 255 + 0.5, 0, 255).astype(np.uint8)
    alpha = _shrink((nearest >= 0).astype(np.float32).reshape(n, n))[..., 0]
    picture = Picture(image, alpha >= 0.5, alpha)
    return frame(picture, scene) if scene.framing else picture


def frame(picture: Picture, scene: Scene) -> Picture:
    """``picture`` as crop augmentation shows it (:mod:`customedit.concepts.dataset`).

    "far": made smaller by a factor of 1/3 to 0.6 and put anywhere on mid-grey; "close": a random
    part, 1.2 to 1.4 times as large.
    """
    rng = np.random.default_rng([scene.seed, 3])
    far, whole = scene.framing == "far", len(picture.image)
    side = round(whole * float(rng.uniform(1 / 3, 0.6) if far else rng.uniform(1.2, 1.4)))
    top, left = rng.integers(0, abs(whole - side) + 1, 2)
    scaled = np.asarray(
        Image.fromarray(picture.image).resize((side, side), Image.Resampling.LANCZOS)
    )
    alpha = np.asarray(
        Image.fromarray(picture.alpha).resize((side, side), Image.Resampling.BOX), np.float32
    )
    if far:
        image = np.full((whole, whole, 3), 128, np.uint8)
        cover = np.zeros((whole, whole), np.float32)
        image[top : top + side, left : left + side] = scaled
        cover[top : top + side, left : left + side] = alpha
    else:
        image = scaled[top : top + whole, left : left + whole].copy()
        cover = alpha[top : top + whole, left : left + whole].copy()
    return Picture(image, cover >= 0.5, cover)
