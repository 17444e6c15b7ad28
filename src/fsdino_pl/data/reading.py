"""Read images and label maps from files, or say in one line why a file is unusable."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fsdino_pl.errors import UserError

FORMATS = ("JPEG", "PNG")
MAX_PIXELS = 64_000_000  # refuse decompression bombs before anything is decoded


def read_image(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Return an RGB image as stored: an EXIF rotation is not applied, since masks follow the stored pixels."""
    with _open(path) as image:
        return np.asarray(image.convert("RGB"))


def read_labels(path: Path) -> UInt8[np.ndarray, "height width"]:
    """Return a label map: palette PNGs are read as indices, grey ones as values."""
    with _open(path) as image:
        if image.mode not in ("P", "L", "1"):
            raise UserError(f"{path}: a label map must be a palette or grey PNG, not {image.mode}")
        return np.asarray(image).astype(np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) in pixels from the header alone."""
    with _open(path, decode=False) as image:
        return image.height, image.width


@contextmanager
def _open(path: Path, decode: bool = True) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{path}: {image.width}x{image.height} pixels are more than {MAX_PIXELS}")
            if decode:
                image.load()
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image ({error})") from error
