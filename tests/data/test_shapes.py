import hashlib
import math

import numpy as np
import pytest

from fsdino_pl.data.shapes import SHAPE_CLASSES, ShapesBenchmark
from fsdino_pl.data.shapes_rendering import Draws, Look, Sprite, draw_sprite, render
from fsdino_pl.data.shapes_textures import PALETTES, SILHOUETTES, TEXTURES
from fsdino_pl.errors import UserError

FOLDS = range(4)


@pytest.fixture(scope="module")
def shapes() -> ShapesBenchmark:
    return ShapesBenchmark()


def sprite(silhouette: str, *, texture: str = "stripes", axis=(1.0, 0.0), radius: float = 40.0) -> Sprite:
    return Sprite(
        look=Look(silhouette, texture, "cream-navy"),
        centre=(64.0, 64.0),
        radius=radius,
        axis=axis,
        period=6.0,
        phase=(0.0, 0.0),
        light=(200.0, 200.0, 200.0),
        dark=(100.0, 100.0, 100.0),
    )


def drawn(one: Sprite) -> tuple[np.ndarray, np.ndarray]:
    canvas, owner = np.zeros((3, 128, 128)), np.zeros((128, 128), dtype=np.uint8)
    draw_sprite(canvas, owner, 1, one)
    return canvas, owner


def test_images_are_the_same_bytes_everywhere(shapes):
    digest = hashlib.sha256()
    for name in ("fold0/train/00000", "fold1/val/00017", "fold2/test/00042", "fold3/test/00599"):
        for array in shapes.load(name):
            digest.update(array.tobytes())
    assert digest.hexdigest() == "aa89248003cd1c57a59a8b242a9cdff75936867b87af9b9845bfbd0461c6dd31"


def test_folds_partition_the_classes(shapes):
    novel = [shapes.classes("test", fold) for fold in FOLDS]
    assert sorted(c for classes in novel for c in classes) == list(range(24))
    for fold in FOLDS:
        assert shapes.classes("train", fold) == shapes.classes("val", fold)
        assert set(shapes.classes("train", fold)) == set(range(24)) - set(novel[fold])


def test_classes_are_distinct_combinations():
    assert len({shape.look for shape in SHAPE_CLASSES}) == 24
    assert len({shape.name for shape in SHAPE_CLASSES}) == 24


@pytest.mark.parametrize("fold", FOLDS)
def test_every_factor_value_of_novel_classes_is_seen_among_base_classes(shapes, fold):
    base = [SHAPE_CLASSES[c] for c in shapes.classes("train", fold)]
    assert {shape.silhouette for shape in base} == set(SILHOUETTES)
    assert {shape.texture for shape in base} == set(TEXTURES)
    assert {shape.palette for shape in base} == set(PALETTES)


def test_classes_of_a_palette_differ_in_silhouette_and_texture():
    for palette in PALETTES:
        shapes = [shape for shape in SHAPE_CLASSES if shape.palette == palette]
        assert len({shape.silhouette for shape in shapes}) == len({shape.texture for shape in shapes}) == 4


def test_an_image_shows_its_class_and_a_distractor_of_the_same_palette(shapes):
    for split in ("train", "test"):
        for class_id, names in shapes.pool(split, 1).items():
            for name in names[:2]:
                shown = set(np.unique(shapes.load(name)[1])) - {0}
                assert (shapes.load(name)[1] == class_id + 1).sum() > 250
                palette = SHAPE_CLASSES[class_id].palette
                assert any(SHAPE_CLASSES[c - 1].palette == palette for c in shown - {class_id + 1}), name


def test_base_images_never_show_a_novel_class(shapes):
    novel = {c + 1 for c in shapes.classes("test", 2)}
    for split in ("train", "val"):
        for number in range(25):
            assert not novel & set(np.unique(shapes.load(f"fold2/{split}/{number:05d}")[1]))


def test_pools_are_disjoint_and_named_after_their_split(shapes):
    names = [
        name for split in ("train", "val", "test") for pool in shapes.pool(split, 3).values() for name in pool
    ]
    assert len(set(names)) == len(names) == 2016 + 432 + 600
    assert {len(pool) for pool in shapes.pool("test", 3).values()} == {100}


def test_an_image_does_not_depend_on_what_was_drawn_before_and_is_the_callers_own(shapes):
    image, labels = shapes.load("fold0/val/00003")
    before = image.copy()
    image[:], labels[:] = 0, 0
    shapes.load("fold0/val/00004")
    assert np.array_equal(shapes.load("fold0/val/00003")[0], before)


def test_another_image_size_shows_the_same_scene(shapes):
    large = ShapesBenchmark(256).load("fold0/test/00005")[1]
    small = shapes.load("fold0/test/00005")[1]
    assert (large[::2, ::2] == small).mean() > 0.97


@pytest.mark.parametrize("name", ["fold4/train/00000", "fold0/all/00000", "fold0/train/x", "00000"])
def test_an_unknown_name_is_an_error_that_shows_a_good_one(shapes, name):
    with pytest.raises(UserError, match="fold2/train/00042"):
        shapes.load(name)


@pytest.mark.parametrize(
    ("silhouette", "area"),
    [
        ("disc", math.pi * 0.84**2),
        ("ring", math.pi * (0.97**2 - 0.43**2)),
        ("triangle", 3 * math.sqrt(3) * 0.58**2),
        (
            "star",
            10
            * math.tan(math.pi / 10)
            / (3 - math.tan(math.pi / 10) ** 2)
            * (0.4 / math.cos(0.4 * math.pi)) ** 2,
        ),
        ("cross", 4 * 0.3 * (2 * 0.92 - 0.3)),
    ],
)
def test_silhouettes_have_the_area_geometry_says(silhouette, area):
    assert drawn(sprite(silhouette))[1].sum() / 40.0**2 == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("silhouette", SILHOUETTES)
def test_rotation_keeps_the_area(silhouette):
    upright, turned = (drawn(sprite(silhouette, axis=axis))[1].mean() for axis in ((1.0, 0.0), (0.6, 0.8)))
    assert turned == pytest.approx(upright, rel=0.03)


@pytest.mark.parametrize("texture", TEXTURES)
def test_textures_are_half_light_half_dark(texture):
    canvas, owner = drawn(sprite("disc", texture=texture, radius=60.0))
    inside = canvas[0][owner == 1]
    assert inside.mean() == pytest.approx(150.0, abs=6.0)


def test_draws_are_equal_for_equal_keys_alone():
    first, same, other = Draws("a"), Draws("a"), Draws("b")
    values = [first.uniform(0.0, 1.0) for _ in range(3)]
    assert values == [same.uniform(0.0, 1.0) for _ in range(3)]
    assert values != [other.uniform(0.0, 1.0) for _ in range(3)]
    x, y = first.direction()
    assert math.hypot(x, y) == pytest.approx(1.0)


def test_owner_map_names_the_looks_by_position():
    looks = [Look("disc", "dots", "sky-pine"), Look("cross", "mesh", "gold-navy")]
    image, owner = render(looks, Draws("two"), 128)
    assert set(np.unique(owner)) == {0, 1, 2}
    assert image.shape == (128, 128, 3)
