"""Joint resizing and augmentation of an image and its label map; the only file that knows albumentations."""

import os
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8

from fsdino_pl.data.benchmark import IGNORE, Image, Labels

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer version
import albumentations as A

Square = UInt8[np.ndarray, "size size 3"]
SquareLabels = UInt8[np.ndarray, "size size"]


@runtime_checkable
class Transform(Protocol):
    """Anything that maps an image and its labels to the network's size, a pure function of its key."""

    def __call__(self, image: Image, labels: Labels, key: int) -> tuple[Square, SquareLabels]:
        """Return both at the network's size; the same key gives the same result in any process."""
        ...


class JointTransform:
    """Squash to a square (aspect ratio lost, as HSNet does), then flip and jitter the scale if asked.

    Labels are never interpolated. What a smaller scale leaves uncovered is black and ignored (255).
    """

    def __init__(self, image_size: int, *, flip: bool = False, scale_jitter: float = 0.0):
        steps: list[A.BasicTransform] = [
            A.Resize(
                image_size,
                image_size,
                interpolation=cv2.INTER_LINEAR_EXACT,
                mask_interpolation=cv2.INTER_NEAREST_EXACT,
            )
        ]
        if scale_jitter > 0:
            steps.append(
                A.Affine(
                    scale=(1 - scale_jitter, 1 + scale_jitter),
                    keep_ratio=True,
                    fill=0,
                    fill_mask=IGNORE,
                    p=1.0,
                )
            )
        if flip:
            steps.append(A.HorizontalFlip(p=0.5))
        self.compose = A.Compose(steps)

    def __call__(self, image: Image, labels: Labels, key: int) -> tuple[Square, SquareLabels]:
        """Transform both alike. `key` decides every random choice (0 <= key < 2**32)."""
        self.compose.set_random_seed(key)
        result = self.compose(image=image, mask=labels)
        return np.ascontiguousarray(result["image"]), np.ascontiguousarray(result["mask"])
