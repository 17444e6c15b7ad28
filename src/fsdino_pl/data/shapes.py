"""The embedded procedural benchmark: 24 classes, 4 folds, no files, no download."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fsdino_pl.data.benchmark import Image, Labels
from fsdino_pl.data.shapes_rendering import Draws, Look, render
from fsdino_pl.data.shapes_textures import PALETTES, SILHOUETTES, TEXTURES
from fsdino_pl.errors import UserError

FOLDS = 4
CACHED_IMAGES = 2048  # 64 KiB each at 128 pixels


class ShapeClass(NamedTuple):
    """A class is a combination: the same silhouette, texture or palette alone belongs to several classes."""

    name: str
    silhouette: str
    texture: str
    palette: str

    @property
    def look(self) -> Look:
        """Return what its objects look like."""
        return Look(self.silhouette, self.texture, self.palette)


def _all_classes() -> tuple[ShapeClass, ...]:
    """Return fold after fold; within a fold every silhouette, texture and palette occurs exactly once.

    Classes of one palette differ in silhouette and in texture.
    """
    classes = []
    for fold in range(FOLDS):
        for position, palette in enumerate(PALETTES):
            silhouette = tuple(SILHOUETTES)[(position + fold) % len(SILHOUETTES)]
            texture = tuple(TEXTURES)[(position - fold) % len(TEXTURES)]
            classes.append(ShapeClass(f"{palette} {texture} {silhouette}", silhouette, texture, palette))
    return tuple(classes)


SHAPE_CLASSES = _all_classes()
CLASSES_PER_FOLD = len(SHAPE_CLASSES) // FOLDS


class ShapesBenchmark:
    """Procedural images, each a pure function of its name, e.g. `fold2/train/00042`, and of the image size.

    An image is about one class, shown once or twice, beside a distractor of the same palette (other silhouette,
    other texture) and one or two more objects, on a ground that shares its colours. `train` and `val` images
    show base classes of the fold alone; `test` images are about its novel classes and may show any other.
    """

    name = "shapes"
    class_names = tuple(shape.name for shape in SHAPE_CLASSES)

    def __init__(self, image_size: int = 128, *, train: int = 2016, val: int = 432, test: int = 600):
        """Set the image side in pixels and the number of images per fold of each split."""
        self.image_size = image_size
        self.images = {"train": train, "val": val, "test": test}

    def classes(self, split: str, fold: int) -> tuple[int, ...]:
        """Return the novel classes of the fold for `test`, the base classes for `train` and `val`."""
        return _split_classes(split, fold)

    def pool(self, split: str, fold: int) -> dict[int, tuple[str, ...]]:
        """Return the images about each class; an image is in one class's pool alone."""
        classes = self.classes(split, fold)
        names = [f"fold{fold}/{split}/{number:05d}" for number in range(self.images[split])]
        return {c: tuple(names[position :: len(classes)]) for position, c in enumerate(classes)}

    def load(self, name: str) -> tuple[Image, Labels]:
        """Draw an image (RGB) and its label map: class_id + 1, 0 for the ground.

        Raises:
            UserError: if no image has this name.
        """
        image, labels = _draw(name, self.image_size)
        return image.copy(), labels.copy()


@lru_cache(maxsize=CACHED_IMAGES)
def _draw(name: str, image_size: int) -> tuple[Image, Labels]:
    draws = Draws(f"shapes/{name}")
    shown = _choose_classes(name, draws)
    image, owner = render([SHAPE_CLASSES[c].look for c in shown], draws, image_size)
    labels = np.array([0, *(c + 1 for c in shown)], dtype=np.uint8)
    return image, labels[owner]


def _choose_classes(name: str, draws: Draws) -> list[int]:
    """Return the classes of the image's objects; the one the image is about comes last, so on top."""
    split, fold, number = _parse(name)
    candidates = _split_classes(split, fold)
    subject = candidates[number % len(candidates)]
    present = range(len(SHAPE_CLASSES)) if split == "test" else candidates
    others = [c for c in present if c != subject]
    twins = [c for c in others if SHAPE_CLASSES[c].palette == SHAPE_CLASSES[subject].palette]
    shown = [draws.choice(twins), draws.choice(others)]
    if draws.uniform(0.0, 1.0) < 0.5:
        shown.append(draws.choice(others))
    if draws.uniform(0.0, 1.0) < 0.3:
        shown.append(subject)
    return [*shown, subject]


def _split_classes(split: str, fold: int) -> tuple[int, ...]:
    novel = range(fold * CLASSES_PER_FOLD, (fold + 1) * CLASSES_PER_FOLD)
    return tuple(c for c in range(len(SHAPE_CLASSES)) if (c in novel) == (split == "test"))


def _parse(name: str) -> tuple[str, int, int]:
    match name.split("/"):
        case [fold, ("train" | "val" | "test") as split, number] if (
            fold in ("fold0", "fold1", "fold2", "fold3") and number.isdecimal()
        ):
            return split, int(fold[-1]), int(number)
    raise UserError(f"shapes has no image {name!r}: names look like fold2/train/00042")
