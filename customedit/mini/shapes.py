"""The things of the small world as parametric surfaces: bodies of revolution, handles and spouts.

World axes: X to the right, Y up, Z towards the viewer; the table is the plane Y = 0 and every thing
stands with its axis on X = Z = 0. Lengths are in units of the thing's own size (about 1 high or
wide). Surfaces are sampled densely enough that each pixel of the picture meets at least one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
_Floats = NDArray[np.floating[Any]]

BODY, INNER, PART = 0, 1, 2
"""What a sample belongs to: the patterned outside, the inside of a vessel, a handle or spout."""


@dataclass(frozen=True)
class Samples:
    """Points of one surface, flat arrays of equal length n.

    position, normal: [3, n]; angle: [n] in radians; height: [n], arc length from the foot along
    the profile; kind: BODY, INNER or PART; occlusion: [n] in [0, 1], 1 where light comes in freely.
    """

    position: Array
    normal: Array
    angle: Array
    height: Array
    kind: int
    occlusion: Array


@dataclass(frozen=True)
class Shape:
    """A class of thing: outer profile (radius, height) points from foot to top, and its parts."""

    outer: Array  # [n, 2]
    inner: Array | None = None  # [m, 2], from the rim down into the vessel
    plain: tuple[Array, ...] = ()  # further profiles that carry no pattern (lid, foot, stem)
    tubes: tuple[tuple[Array, Array], ...] = ()  # (path [n, 2] of (reach, height), radius [n])
    extent: tuple[float, float] = (1.0, 1.0)  # overall half width and height


def _smooth(points: list[tuple[float, float]], n: int = 96) -> Array:
    """A smooth curve through control points: uniform cubic B-spline with its ends held fast."""
    p = np.asarray(points, np.float64)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    spans = len(p) - 3
    t = np.linspace(0, spans, n)
    i = np.minimum(t.astype(int), spans - 1)
    f = (t - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    curve = (
        a * (1 - f) ** 3
        + b * (3 * f**3 - 6 * f**2 + 4)
        + c * (-3 * f**3 + 3 * f**2 + 3 * f + 1)
        + d * f**3
    ) / 6
    return curve.astype(np.float32)


def _line(*points: tuple[float, float], n: int = 48) -> Array:
    """A curve of straight pieces through ``points``, corners kept."""
    p = np.asarray(points, np.float64)
    t = np.linspace(0, len(p) - 1, n)
    knots = np.arange(len(p))
    return np.stack([np.interp(t, knots, p[:, k]) for k in (0, 1)], 1).astype(np.float32)


def _inside(outer: Array, thickness: float, depth: float) -> Array:
    """The inside of a vessel: the outer profile moved inwards, from the rim down to ``depth``."""
    rim = float(outer[-1, 1])
    body = outer[outer[:, 1] >= rim - depth]
    inner = body[::-1].copy()
    inner[1:, 0] = np.maximum(inner[1:, 0] - thickness, 0.0)
    floor = np.array([[0.0, inner[-1, 1]]], np.float32)
    return np.concatenate([inner, floor])


def _arc(
    centre: tuple[float, float], radii: tuple[float, float], start: float, stop: float
) -> Array:
    t = np.radians(np.linspace(start, stop, 40))
    return np.stack([centre[0] + radii[0] * np.cos(t), centre[1] + radii[1] * np.sin(t)], 1).astype(
        np.float32
    )


def _even(path: Array, radius: float) -> tuple[Array, Array]:
    return path, np.full(len(path), radius, np.float32)


def _vase(k: Callable[[float, float], float]) -> Shape:
    belly, neck, lip = k(0.30, 0.40), k(0.11, 0.15), k(0.18, 0.25)
    outer = _smooth(
        [(0.0, 0.0), (0.19, 0.0), (0.26, 0.10), (belly, 0.32), (belly * 0.92, 0.55),
         (neck, 0.78), (neck, 0.88), (lip, 1.0)]
    )  # fmt: skip
    return Shape(outer, _inside(outer, 0.025, 0.14), extent=(belly, 1.0))


def _cup(k: Callable[[float, float], float]) -> Shape:
    foot, rim, h = k(0.26, 0.34), k(0.38, 0.44), k(0.72, 0.84)
    outer = _smooth([(0.0, 0.0), (foot, 0.0), (foot + 0.06, 0.12), (rim, 0.5 * h), (rim, h)])
    reach = k(0.20, 0.26)
    handle = _even(_arc((rim - 0.03, 0.52 * h), (reach, 0.29 * h), 100, -100), 0.052)
    return Shape(outer, _inside(outer, 0.035, 0.6 * h), tubes=(handle,), extent=(rim + 0.12, h))


def _bowl(k: Callable[[float, float], float]) -> Shape:
    rim, h, foot = k(0.50, 0.56), k(0.40, 0.48), k(0.18, 0.23)
    outer = _smooth([(0.0, 0.0), (foot, 0.0), (foot, 0.05), (0.78 * rim, 0.36 * h), (rim, h)])
    return Shape(outer, _inside(outer, 0.03, 0.85 * h), extent=(rim, h))


def _bottle(k: Callable[[float, float], float]) -> Shape:
    body, neck, shoulder = k(0.19, 0.25), k(0.065, 0.085), k(0.56, 0.66)
    outer = _smooth(
        [(0.0, 0.0), (body, 0.0), (body, 0.06), (body, 0.3), (body, shoulder - 0.04),
         (neck, shoulder + 0.12), (neck, 0.9), (neck, 0.95), (neck * 1.35, 0.96),
         (neck * 1.35, 1.0)]
    )  # fmt: skip
    return Shape(outer, _inside(outer, 0.02, 0.06), extent=(body, 1.0))


def _teapot(k: Callable[[float, float], float]) -> Shape:
    r, h = k(0.37, 0.42), k(0.52, 0.60)
    outer = _smooth(
        [(0.0, 0.0), (0.24, 0.0), (0.85 * r, 0.10), (r, 0.45 * h), (0.86 * r, 0.85 * h),
         (0.52 * r, h)]
    )  # fmt: skip
    lid = _smooth([(0.52 * r, h), (0.40 * r, h + 0.07), (0.07, h + 0.10), (0.045, h + 0.12),
                   (0.085, h + 0.17), (0.06, h + 0.22), (0.0, h + 0.23)], 64)  # fmt: skip
    handle = _even(_arc((-r + 0.05, 0.52 * h), (0.25, 0.36 * h), 80, 280), 0.045)
    spout_path = _smooth([(r - 0.10, 0.30 * h), (r + 0.10, 0.40 * h), (r + 0.17, 0.72 * h),
                          (r + 0.30, 0.98 * h)], 40)  # fmt: skip
    spout = (spout_path, np.linspace(0.105, 0.045, 40).astype(np.float32))
    return Shape(outer, plain=(lid,), tubes=(handle, spout), extent=(r + 0.25, h + 0.23))


def _jar(k: Callable[[float, float], float]) -> Shape:
    r, h = k(0.30, 0.37), k(0.66, 0.74)
    outer = _smooth([(0.0, 0.0), (0.9 * r, 0.0), (r, 0.08), (r, 0.4 * h), (r, 0.8 * h),
                     (0.82 * r, 0.95 * h), (0.80 * r, h)])  # fmt: skip
    lid = _line((0.80 * r, h), (0.98 * r, h + 0.005), (0.98 * r, h + 0.07), (0.90 * r, h + 0.11),
                (0.10, h + 0.13), (0.07, h + 0.15), (0.11, h + 0.20), (0.09, h + 0.24),
                (0.0, h + 0.25), n=90)  # fmt: skip
    return Shape(outer, plain=(lid,), extent=(r, h + 0.25))


def _jug(k: Callable[[float, float], float]) -> Shape:
    belly, neck, lip = k(0.29, 0.34), k(0.17, 0.21), k(0.22, 0.26)
    outer = _smooth([(0.0, 0.0), (0.22, 0.0), (belly, 0.14), (belly, 0.38), (neck + 0.02, 0.68),
                     (neck, 0.8), (lip, 1.0)])  # fmt: skip
    handle = _even(
        _smooth([(-neck, 0.88), (-neck - 0.18, 0.92), (-belly - 0.17, 0.66),
                 (-belly - 0.06, 0.36), (-belly + 0.02, 0.30)], 48),
        0.042,
    )  # fmt: skip
    lip_path = _line((lip - 0.09, 0.90), (lip + 0.10, 0.985), n=16)
    pour = (lip_path, np.linspace(0.10, 0.035, 16).astype(np.float32))
    return Shape(
        outer, _inside(outer, 0.025, 0.16), tubes=(handle, pour), extent=(belly + 0.15, 1.0)
    )


def _plate(k: Callable[[float, float], float]) -> Shape:
    rim, well = k(0.60, 0.66), k(0.34, 0.40)
    outer = _line((0.0, 0.0), (well, 0.0), (rim, 0.085), n=40)
    inner = _line((rim, 0.085), (well, 0.022), (0.0, 0.02), n=60)
    return Shape(outer, inner, extent=(rim, 0.15))


def _ball(k: Callable[[float, float], float]) -> Shape:
    r = k(0.38, 0.42)
    t = np.linspace(-np.pi / 2, np.pi / 2, 90)
    outer = np.stack([r * np.cos(t), r + r * np.sin(t)], 1).astype(np.float32)
    return Shape(outer, extent=(r, 2 * r))


def _lamp(k: Callable[[float, float], float]) -> Shape:
    low, high, bottom = k(0.36, 0.42), k(0.17, 0.22), k(0.52, 0.58)
    shade = _line((low, bottom), (high, 1.0), n=40)
    inner = _line((high, 1.0), (high - 0.014, 0.998), (low - 0.014, bottom), n=40)
    base = _smooth([(0.0, 0.0), (0.20, 0.0), (0.21, 0.05), (0.10, 0.10), (0.045, 0.16),
                    (0.035, 0.3), (0.035, bottom + 0.2)], 64)  # fmt: skip
    return Shape(shade, inner, plain=(base,), extent=(low, 1.0))


_BUILDERS: Final[dict[str, Callable[[Callable[[float, float], float]], Shape]]] = {
    "vase": _vase, "cup": _cup, "bowl": _bowl, "bottle": _bottle, "teapot": _teapot,
    "jar": _jar, "jug": _jug, "plate": _plate, "ball": _ball, "lamp": _lamp,
}  # fmt: skip


def build(name: str, rng: np.random.Generator) -> Shape:
    """A random member of the class ``name``: proportions drawn from ``rng``."""
    return _BUILDERS[name](lambda low, high: float(rng.uniform(low, high)))


def _resample(curve: Array, step: float) -> tuple[Array, Array]:
    """The curve at even arc length, at most ``step`` apart; and the arc length at each point."""
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    n = max(int(np.ceil(lengths[-1] / step)), 2)
    at = np.linspace(0, lengths[-1], n, dtype=np.float32)
    points = np.stack([np.interp(at, lengths, curve[:, k]) for k in (0, 1)], 1)
    return points.astype(np.float32), at


def revolve(profile: Array, step: float, kind: int) -> Samples:
    """The surface of revolution of ``profile`` about the Y axis, samples at most ``step`` apart.

    The profile runs so that its outside lies to the right of its direction of travel (foot to rim
    outside, rim to floor inside), which gives the normals their sign.
    """
    points, arc = _resample(profile, step)
    tangent = np.gradient(points, axis=0)
    tangent /= np.maximum(np.hypot(tangent[:, 0], tangent[:, 1])[:, None], 1e-9)
    out_r, out_y = tangent[:, 1], -tangent[:, 0]
    n = max(int(np.ceil(2 * np.pi * float(points[:, 0].max()) / step)), 8)
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False, dtype=np.float32)
    cos, sin = np.cos(angle), np.sin(angle)

    def flat(row: _Floats, column: _Floats) -> Array:
        return (row[:, None] * column).ravel().astype(np.float32, copy=False)

    one = np.ones_like(cos)
    position = np.stack([flat(points[:, 0], cos), flat(points[:, 1], one), flat(points[:, 0], sin)])
    normal = np.stack([flat(out_r, cos), flat(out_y, one), flat(out_r, sin)])
    if kind == INNER:  # the deeper into the vessel, the less light
        depth = (points[0, 1] - points[:, 1]) / max(float(points[0, 0]), 1e-6)
        free = 1.0 / (1.0 + 0.9 * np.maximum(depth, 0))
    else:
        free = np.ones(len(points))
    return Samples(
        position,
        normal,
        np.tile(angle, len(points)),
        np.repeat(arc, n),
        kind,
        np.repeat(free.astype(np.float32), n),
    )


def tube(path: Array, radius: Array, yaw: float, step: float) -> Samples:
    """A tube along ``path``, [n, 2] of (reach from the axis, height), in the plane at ``yaw``."""
    points, arc = _resample(path, step)
    knots = np.linspace(0, 1, len(radius))
    r = np.interp(np.linspace(0, 1, len(points)), knots, radius).astype(np.float32)
    tangent = np.gradient(points, axis=0)
    tangent /= np.maximum(np.hypot(tangent[:, 0], tangent[:, 1])[:, None], 1e-9)
    n = max(int(np.ceil(2 * np.pi * float(r.max()) / step)), 8)
    phi = np.linspace(0, 2 * np.pi, n, endpoint=False, dtype=np.float32)
    cos, sin = np.cos(phi), np.sin(phi)
    # normal = cos * (in-plane perpendicular) + sin * (perpendicular to the plane)
    in_reach, in_y = tangent[:, 1], -tangent[:, 0]
    n_reach = in_reach[:, None] * cos
    n_y = in_y[:, None] * cos
    n_side = np.broadcast_to(sin, n_reach.shape)
    reach = points[:, :1] + r[:, None] * n_reach
    y = points[:, 1:] + r[:, None] * n_y
    side = r[:, None] * n_side
    c, s = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))

    def turned(reach: _Floats, side: _Floats) -> tuple[_Floats, _Floats]:
        return reach * c - side * s, reach * s + side * c

    (px, pz), (nx, nz) = turned(reach, side), turned(n_reach, n_side)
    position = np.stack([px.ravel(), y.ravel(), pz.ravel()]).astype(np.float32)
    normal = np.stack([nx.ravel(), n_y.ravel(), nz.ravel()]).astype(np.float32)
    return Samples(
        position,
        normal,
        np.tile(phi, len(points)),
        np.repeat(arc, n),
        PART,
        np.ones(position.shape[1], np.float32),
    )


def surfaces(shape: Shape, yaw: float, step: float) -> list[Samples]:
    """All surfaces of ``shape``, its handle turned to ``yaw`` radians, samples ``step`` apart."""
    found = [revolve(shape.outer, step, BODY)]
    if shape.inner is not None:
        found.append(revolve(shape.inner, step, INNER))
    found += [revolve(profile, step, PART) for profile in shape.plain]
    found += [tube(path, radius, yaw, step) for path, radius in shape.tubes]
    return found
