"""Draw a procedural scene: textured objects on a textured ground, bit for bit equal on every machine."""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float64, UInt8

from fsdino_pl.data.shapes_textures import PALETTES, REACH, SILHOUETTES, TEXTURES, Colour, Field

REFERENCE_SIZE = 128  # image side in pixels that the lengths below are meant for
RADIUS = (17.0, 27.0)  # pixels at the reference size
PERIOD = (4.6, 6.4)  # of a texture, pixels at the reference size: finer than a patch of 8
MIN_DISTANCE = 0.85  # centres come no closer than this share of the sum of two radii, where there is room
PLACEMENTS = 30  # tries to find such a place
COLOUR_JITTER = 20.0
NOISE = 9.0

# Channels first while drawing: three times faster than channels last.
Canvas = Float64[np.ndarray, "3 height width"]
Vector = tuple[float, float]
Item = TypeVar("Item")


class Look(NamedTuple):
    """What an object looks like: a key each of SILHOUETTES, TEXTURES and PALETTES."""

    silhouette: str
    texture: str
    palette: str


class Sprite(NamedTuple):
    """An object in its place. Lengths in pixels, `axis` a unit vector, colours RGB 0..255."""

    look: Look
    centre: Vector
    radius: float
    axis: Vector
    period: float
    phase: Vector
    light: tuple[float, float, float]
    dark: tuple[float, float, float]


class Draws:
    """Random numbers that depend on a text alone.

    NumPy promises PCG64's raw stream for ever, but not what `Generator` makes of it: so only raw bits are used.
    """

    def __init__(self, key: str):
        self._bits = np.random.PCG64(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest()))

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * (self._bits.random_raw() >> 11) * 2.0**-53

    def choice(self, items: Sequence[Item]) -> Item:
        """Return one of the items."""
        return items[self._bits.random_raw() % len(items)]

    def direction(self) -> Vector:
        """Return a unit vector, uniform over the circle."""
        while True:
            x, y = self.uniform(-1.0, 1.0), self.uniform(-1.0, 1.0)
            length = math.sqrt(x * x + y * y)
            if 0.1 < length <= 1.0:
                return x / length, y / length

    def field(self, height: int, width: int) -> Field:
        """Return independent numbers in [0, 1)."""
        raw = self._bits.random_raw(height * width) >> np.uint64(11)
        return raw.astype(np.float64).reshape(height, width) * 2.0**-53


def render(
    looks: Sequence[Look], draws: Draws, size: int
) -> tuple[UInt8[np.ndarray, "size size 3"], UInt8[np.ndarray, "size size"]]:
    """Draw one object per look at random places, sizes and angles, under random light.

    Later objects lie over earlier ones where there was no room to keep them apart. The ground is made of the
    last look's palette and of a random one, so that no colour of the last object is its own.

    Returns:
        The image (RGB) and, per pixel, 1 + the position in `looks` of the object seen there, 0 for the ground.
    """
    sprites = place(looks, draws, size)
    canvas = draw_ground((looks[-1].palette, draws.choice(tuple(PALETTES))), draws, size)
    owner = np.zeros((size, size), dtype=np.uint8)
    for number, sprite in enumerate(sprites, start=1):
        draw_sprite(canvas, owner, number, sprite)
    return _expose(canvas, draws), owner


def place(looks: Sequence[Look], draws: Draws, size: int) -> list[Sprite]:
    """Give every look a place inside the image, apart from the others where there is room."""
    sprites: list[Sprite] = []
    scale = size / REFERENCE_SIZE
    for look in looks:
        radius = draws.uniform(*RADIUS) * scale
        centre = _find_room(radius, sprites, draws, size)
        light, dark = PALETTES[look.palette]
        sprites.append(
            Sprite(
                look=look,
                centre=centre,
                radius=radius,
                axis=draws.direction(),
                period=draws.uniform(*PERIOD) * scale,
                phase=(draws.uniform(0.0, 1.0), draws.uniform(0.0, 1.0)),
                light=_jitter(light, draws),
                dark=_jitter(dark, draws),
            )
        )
    return sprites


def _find_room(radius: float, sprites: Sequence[Sprite], draws: Draws, size: int) -> Vector:
    """Return the first random centre far enough from the sprites, or the best of a few."""
    best, best_distance = (0.0, 0.0), -math.inf
    for _ in range(PLACEMENTS):
        x, y = (draws.uniform(0.8 * radius, size - 0.8 * radius) for _ in range(2))
        distance = min((_distance((x, y), radius, other) for other in sprites), default=math.inf)
        if distance > best_distance:
            best, best_distance = (x, y), distance
        if distance >= MIN_DISTANCE:
            break
    return best


def _distance(centre: Vector, radius: float, other: Sprite) -> float:
    """Return the distance to another object, as a share of the sum of both radii."""
    dx, dy = centre[0] - other.centre[0], centre[1] - other.centre[1]
    return math.sqrt(dx * dx + dy * dy) / (radius + other.radius)


def draw_sprite(
    canvas: Canvas,
    owner: UInt8[np.ndarray, "height width"],
    number: int,
    sprite: Sprite,
) -> None:
    """Paint an object over the canvas, with a smooth outline, and write its number where it covers."""
    size = len(owner)
    reach = REACH * sprite.radius
    left, top = (max(0, math.floor(middle - reach)) for middle in sprite.centre)
    right, bottom = (min(size, math.ceil(middle + reach) + 1) for middle in sprite.centre)
    dx = (np.arange(left, right) + 0.5 - sprite.centre[0])[None, :]
    dy = (np.arange(top, bottom) + 0.5 - sprite.centre[1])[:, None]
    x = sprite.axis[0] * dx + sprite.axis[1] * dy
    y = sprite.axis[0] * dy - sprite.axis[1] * dx

    distance = SILHOUETTES[sprite.look.silhouette](x / sprite.radius, y / sprite.radius) * sprite.radius
    cover = np.clip(distance + 0.5, 0.0, 1.0)
    pattern = TEXTURES[sprite.look.texture](
        x / sprite.period + sprite.phase[0], y / sprite.period + sprite.phase[1]
    )
    colour = _mix(_column(sprite.dark), _column(sprite.light), np.clip(0.5 + pattern, 0.0, 1.0))

    region = canvas[:, top:bottom, left:right]
    region += cover * (colour - region)
    owner[top:bottom, left:right][distance > 0] = number


def draw_ground(palettes: tuple[str, str], draws: Draws, size: int) -> Canvas:
    """Return a blotchy ground: fine grain between light and dark, drifting from one palette to the other."""
    drift = np.clip(0.5 + 3.0 * (_smooth_noise(draws, size, 3) - 0.5), 0.0, 1.0)
    grain = _smooth_noise(draws, size, 32) - 0.5
    relief = _smooth_noise(draws, size, 9) - 0.5
    lightness = np.clip(0.5 + 1.1 * grain + 0.7 * relief, 0.0, 1.0)
    first, second = (
        [_column(_jitter(colour, draws)) for colour in PALETTES[palette]] for palette in palettes
    )
    light = _mix(first[0], second[0], drift)
    dark = _mix(first[1], second[1], drift)
    return _mix(dark, light, lightness)


def _expose(canvas: Canvas, draws: Draws) -> UInt8[np.ndarray, "size size 3"]:
    """Light the scene (gain, tint, a gradient across the image), add sensor noise and round to 8 bits."""
    size = canvas.shape[-1]
    gain, slope, (across, along) = draws.uniform(0.8, 1.08), draws.uniform(0.0, 0.25), draws.direction()
    steps = (np.arange(size) + 0.5) * (2.0 / size) - 1.0
    shade = gain * (1.0 + slope * (across * steps[None, :] + along * steps[:, None]))
    tint = _column([draws.uniform(0.93, 1.07) for _ in range(3)])
    noise = NOISE * (2.0 * draws.field(size, size) - 1.0)
    lit = canvas * (shade * tint) + noise
    rounded = (np.clip(lit, 0.0, 255.0) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(rounded.transpose(1, 2, 0))


def _smooth_noise(draws: Draws, size: int, cells: int) -> Field:
    """Return value noise in [0, 1): `cells` random values a side, joined smoothly."""
    knots = draws.field(cells + 2, cells + 2)
    position = (np.arange(size) + 0.5) * (cells / size) + draws.uniform(0.0, 1.0)
    index = np.floor(position).astype(np.int64)
    offset = position - index
    weight = offset * offset * (3.0 - 2.0 * offset)
    columns = knots[:, index] + weight * (knots[:, index + 1] - knots[:, index])
    return columns[index] + weight[:, None] * (columns[index + 1] - columns[index])


def _mix(start: Float64[np.ndarray, "3 _ _"], end: Float64[np.ndarray, "3 _ _"], share: Field) -> Canvas:
    return start + share * (end - start)


def _column(colour: Sequence[float]) -> Float64[np.ndarray, "3 1 1"]:
    return np.array(colour, dtype=np.float64)[:, None, None]


def _jitter(colour: Colour, draws: Draws) -> tuple[float, float, float]:
    red, green, blue = (channel + draws.uniform(-COLOUR_JITTER, COLOUR_JITTER) for channel in colour)
    return red, green, blue
