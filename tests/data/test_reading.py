import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fsdino_pl.data.reading import image_size, read_image, read_labels
from fsdino_pl.errors import UserError


def _chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_000, 20_000])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(b"0"))
        + _chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(UserError, match="bomb.png"):
        read_image(tmp_path / "bomb.png")


def test_palette_grey_and_bilevel_masks_are_read_as_values(tmp_path):
    values = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    palette = Image.fromarray(values, mode="P")
    palette.putpalette([(91 * i) % 256 for i in range(768)])
    palette.save(tmp_path / "p.png")
    Image.fromarray(values).save(tmp_path / "l.png")
    Image.fromarray(values > 1).save(tmp_path / "1.png")
    assert (
        read_labels(tmp_path / "p.png").tolist()
        == read_labels(tmp_path / "l.png").tolist()
        == values.tolist()
    )
    assert read_labels(tmp_path / "1.png").tolist() == [[0, 0], [1, 1]]


def test_images_are_rgb_whatever_their_mode_and_stay_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees when shown": the mask was drawn on the stored pixels
    Image.new("L", (30, 20), 77).save(tmp_path / "grey.jpg", exif=exif)
    assert image_size(tmp_path / "grey.jpg") == (20, 30)
    image = read_image(tmp_path / "grey.jpg")
    assert image.shape == (20, 30, 3)
    assert set(np.unique(image)) <= {76, 77, 78}
