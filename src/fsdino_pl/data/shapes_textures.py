"""Silhouettes, textures and palettes: the three factors a procedural class is made of.

Everything here uses only operations that IEEE 754 rounds correctly (+ - * /, square root, floor, minimum,
maximum), never sine, power or a reduction: the last bit of those differs from machine to machine.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

Field = Float64[np.ndarray, "height width"]
Pattern = Callable[[Field, Field], Field]


def _half_planes(x: Field, y: Field, normals: tuple[tuple[float, float], ...], reach: float) -> list[Field]:
    return [reach - nx * x - ny * y for nx, ny in normals]


def _disc(x: Field, y: Field) -> Field:
    return 0.84 - np.sqrt(x * x + y * y)


def _ring(x: Field, y: Field) -> Field:
    return 0.27 - np.abs(np.sqrt(x * x + y * y) - 0.7)


def _crescent(x: Field, y: Field) -> Field:
    bite = np.sqrt((x - 0.55) * (x - 0.55) + y * y) - 0.68
    return np.minimum(0.98 - np.sqrt(x * x + y * y), bite)


def _triangle(x: Field, y: Field) -> Field:
    normals = ((0.0, -1.0), (0.8660254037844386, 0.5), (-0.8660254037844386, 0.5))
    return np.minimum.reduce(_half_planes(x, y, normals, 0.58))


def _star(x: Field, y: Field) -> Field:
    normals = (
        (0.0, -1.0),
        (0.9510565162951535, -0.3090169943749474),
        (0.5877852522924731, 0.8090169943749475),
        (-0.5877852522924731, 0.8090169943749475),
        (-0.9510565162951535, -0.3090169943749474),
    )
    # A pentagram is where at most one of the five half-planes is left.
    return np.partition(np.stack(_half_planes(x, y, normals, 0.4)), 1, axis=0)[1]


def _cross(x: Field, y: Field) -> Field:
    across, along = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(0.3 - across, 0.92 - along), np.minimum(0.92 - across, 0.3 - along))


SILHOUETTES: dict[str, Pattern] = {
    "disc": _disc,
    "ring": _ring,
    "crescent": _crescent,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
}
"""Signed distance to the outline in units of the object's radius, positive inside; x, y in the same units."""
REACH = 1.3  # radii; no outline goes farther from the centre


def _wave(phase: Field) -> Field:
    """Triangle wave of period 1: 1 at whole numbers, -1 half-way."""
    return 4.0 * np.abs(phase - np.floor(phase) - 0.5) - 1.0


def _stripes(x: Field, y: Field) -> Field:
    return _wave(x)


def _zigzag(x: Field, y: Field) -> Field:
    return _wave(x + 0.35 * _wave(0.6 * y))


def _checks(x: Field, y: Field) -> Field:
    return 2.0 * _wave(0.85 * x) * _wave(0.85 * y)


def _dots(x: Field, y: Field) -> Field:
    across, along = x - np.floor(x) - 0.5, y - np.floor(y) - 0.5
    return 4.0 * (0.4 - np.sqrt(across * across + along * along))


def _mesh(x: Field, y: Field) -> Field:
    return np.maximum(_wave(0.8 * x), _wave(0.8 * y)) - 0.4


def _weave(x: Field, y: Field) -> Field:
    upright = (np.floor(0.55 * x) + np.floor(0.55 * y)) * 0.5
    is_upright = upright == np.floor(upright)
    return np.where(is_upright, _wave(1.1 * x), _wave(1.1 * y))


TEXTURES: dict[str, Pattern] = {
    "stripes": _stripes,
    "zigzag": _zigzag,
    "checks": _checks,
    "dots": _dots,
    "mesh": _mesh,
    "weave": _weave,
}
"""Positive where the light colour goes, negative for the dark one; x, y in periods; half light, half dark."""

Colour = tuple[int, int, int]

_CREAM, _SKY, _GOLD = (244, 226, 190), (140, 204, 232), (246, 190, 72)
_NAVY, _PLUM, _PINE = (40, 58, 112), (134, 44, 92), (24, 98, 84)

# Each colour belongs to two palettes, so that a colour alone never tells the palette.
PALETTES: dict[str, tuple[Colour, Colour]] = {
    "cream-navy": (_CREAM, _NAVY),
    "cream-plum": (_CREAM, _PLUM),
    "sky-plum": (_SKY, _PLUM),
    "sky-pine": (_SKY, _PINE),
    "gold-pine": (_GOLD, _PINE),
    "gold-navy": (_GOLD, _NAVY),
}
"""A light and a dark colour, RGB 0..255."""
