"""What a benchmark must answer, whatever its files look like."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

IGNORE = 255

Image = UInt8[np.ndarray, "height width 3"]
Labels = UInt8[np.ndarray, "height width"]


@runtime_checkable
class Benchmark(Protocol):
    """Named images with label maps, and which of them belong to which split and fold.

    A label is class_id + 1; 0 is background, 255 is ignored in loss and metric. Splits: `train` and `val`
    hold base classes (of different images), `test` the novel classes of the fold.
    """

    name: str
    class_names: tuple[str, ...]

    def classes(self, split: str, fold: int) -> tuple[int, ...]:
        """Return the class ids an episode of this split may ask for."""
        ...

    def pool(self, split: str, fold: int) -> dict[int, tuple[str, ...]]:
        """Return, for every class of the split, the names of the images that show it."""
        ...

    def load(self, name: str) -> tuple[Image, Labels]:
        """Return an image (RGB) and its label map. Raises UserError naming the file if it is unusable."""
        ...
