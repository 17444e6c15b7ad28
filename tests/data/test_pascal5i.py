import shutil

import numpy as np
import pytest
from PIL import Image

from fsdino_pl.data.pascal5i import PASCAL_CLASSES, Pascal5i
from fsdino_pl.errors import UserError


@pytest.fixture
def tree(pascal_tree, tmp_path):
    return shutil.copytree(pascal_tree, tmp_path / "VOC2012")


def test_folds_are_contiguous_and_base_and_novel_share_nothing(pascal_tree):
    pascal = Pascal5i(str(pascal_tree))
    assert len(PASCAL_CLASSES) == 20
    assert pascal.classes("test", 2) == (10, 11, 12, 13, 14)
    assert pascal.classes("train", 2) == pascal.classes("val", 2) == (*range(10), *range(15, 20))


def test_pools_come_from_the_right_lists(pascal_tree):
    pascal = Pascal5i(str(pascal_tree))
    assert pascal.pool("test", 0)[3] == tuple(f"val_boat_{i}" for i in range(4))
    assert pascal.pool("train", 0)[5] == tuple(f"trn_bus_{i}" for i in range(4))
    assert pascal.pool("val", 0)[5] == tuple(f"val_bus_{i}" for i in range(4))


def test_validation_never_shows_an_image_of_the_test(tree):
    with open(tree / "splits/val/fold1.txt", "a") as stream:
        stream.write("val_boat_0__06\n")  # shows a boat (fold 0) and a bus (fold 1)
    pascal = Pascal5i(str(tree))
    assert "val_boat_0" in pascal.pool("test", 0)[3]
    assert "val_boat_0" not in pascal.pool("val", 0)[5]
    assert "val_boat_0" in pascal.pool("val", 2)[5]


def test_palette_masks_are_read_as_ids(pascal_tree):
    _, labels = Pascal5i(str(pascal_tree)).load("val_tvmonitor_0")
    assert set(np.unique(labels)) == {0, 20, 255}


def _remove(path):
    path.unlink()


def _truncate(path):
    path.write_bytes(path.read_bytes()[:10])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: _remove(t / "JPEGImages/val_boat_1.jpg"), "val_boat_1.jpg does not exist"),
        (lambda t: _remove(t / "SegmentationClassAug/val_boat_1.png"), "val_boat_1.png does not exist"),
        (lambda t: _truncate(t / "JPEGImages/val_boat_1.jpg"), "val_boat_1.jpg cannot be read as an image"),
        (
            lambda t: Image.new("L", (63, 48)).save(t / "SegmentationClassAug/val_boat_1.png"),
            "val_boat_1.png is 63x48 pixels but val_boat_1.jpg is 64x48",
        ),
        (
            lambda t: shutil.rmtree(t / "SegmentationClassAug"),
            "SegmentationClassAug does not exist: set data.root",
        ),
        (lambda t: shutil.rmtree(t / "splits"), "splits does not exist: set data.lists"),
        (lambda t: _remove(t / "splits/val/fold0.txt"), "fold0.txt cannot be read: FileNotFoundError"),
        (
            lambda t: (t / "splits/val/fold0.txt").write_text("val_boat_1__07\n"),
            r"fold0.txt, line 1: 'val_boat_1__07' is not <name>__<class> with a class in 1\.\.5",
        ),
        (
            lambda t: (t / "splits/val/fold0.txt").write_text("../../etc/passwd__01\n"),
            "line 1: '../../etc/passwd__01' is not",
        ),
    ],
)
def test_bad_trees_are_named_before_training(tree, spoil, message):
    spoil(tree)
    with pytest.raises(UserError, match=message):
        Pascal5i(str(tree)).pool("test", 0)


def test_a_colour_mask_is_refused_not_guessed_at(tree):
    Image.new("RGB", (64, 48)).save(tree / "SegmentationClassAug/val_boat_1.png")
    with pytest.raises(UserError, match="must be a palette or grey PNG, not RGB"):
        Pascal5i(str(tree)).load("val_boat_1")


def test_no_root_says_which_key_to_set():
    with pytest.raises(UserError, match="data.root is not set"):
        Pascal5i(None)
