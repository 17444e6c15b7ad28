"""PASCAL-5i as users have it on disk: JPEGImages, SegmentationClassAug and HSNet-style lists."""

from functools import cached_property
from pathlib import Path

from fsdino_pl.data.benchmark import Image, Labels
from fsdino_pl.data.reading import image_size, read_image, read_labels
from fsdino_pl.errors import UserError

PASCAL_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle",
    "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
FOLDS = 4
CLASSES_PER_FOLD = 5


class Pascal5i:
    """PASCAL-5i: 20 classes, fold f holds class ids 5f .. 5f+4.

    `root` holds `JPEGImages/<name>.jpg` and `SegmentationClassAug/<name>.png`; `lists` holds
    `{trn,val}/fold{0..3}.txt` with lines `<name>__<class>`, class 1..20, list X naming the classes of fold X
    (default: `root/splits`). Training takes the trn lists of the other three folds, test the val list of the
    fold. Base-class validation takes the val lists of the other three folds less every image of the test
    list, so that no test image is seen before the test.
    """

    name = "pascal5i"
    class_names = PASCAL_CLASSES

    def __init__(self, root: str | None, lists: str | None = None):
        if root is None:
            raise UserError(
                "data.root is not set: give the folder that holds JPEGImages/ and SegmentationClassAug/ "
                "(data.root=/path/to/VOC2012)"
            )
        self.root = Path(root)
        self._checked: set[str] = set()
        self.lists = Path(lists) if lists is not None else self.root / "splits"
        for folder in (self.root, self.root / "JPEGImages", self.root / "SegmentationClassAug"):
            if not folder.is_dir():
                raise UserError(f"folder {folder} does not exist: set data.root to a PASCAL VOC tree")
        if not self.lists.is_dir():
            raise UserError(
                f"folder {self.lists} does not exist: set data.lists to a folder with trn/foldX.txt and val/foldX.txt"
            )

    def classes(self, split: str, fold: int) -> tuple[int, ...]:
        """Return the fold's five classes for `test`, the other fifteen for `train` and `val`."""
        novel = range(fold * CLASSES_PER_FOLD, (fold + 1) * CLASSES_PER_FOLD)
        if split == "test":
            return tuple(novel)
        return tuple(c for c in range(len(PASCAL_CLASSES)) if c not in novel)

    def pool(self, split: str, fold: int) -> dict[int, tuple[str, ...]]:
        """Return the images of each class, in list order, each checked to be there with a mask of its size."""
        others = [f for f in range(FOLDS) if f != fold]
        if split == "test":
            pairs = self._pairs["val", fold]
        elif split == "train":
            pairs = [pair for f in others for pair in self._pairs["trn", f]]
        else:
            unseen = {name for name, _ in self._pairs["val", fold]}
            pairs = [pair for f in others for pair in self._pairs["val", f] if pair[0] not in unseen]
        for name in {name: None for name, _ in pairs if name not in self._checked}:
            self._check_files(name)
            self._checked.add(name)
        return {c: tuple(name for name, label in pairs if label == c) for c in self.classes(split, fold)}

    def load(self, name: str) -> tuple[Image, Labels]:
        """Return an image and its label map."""
        return read_image(self._image_path(name)), read_labels(self._mask_path(name))

    def _image_path(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def _mask_path(self, name: str) -> Path:
        return self.root / "SegmentationClassAug" / f"{name}.png"

    def _check_files(self, name: str) -> None:
        image, mask = self._image_path(name), self._mask_path(name)
        image_shape, mask_shape = image_size(image), image_size(mask)
        if image_shape != mask_shape:
            raise UserError(
                f"{mask} is {mask_shape[1]}x{mask_shape[0]} pixels but {image.name} is "
                f"{image_shape[1]}x{image_shape[0]}: every mask must have its image's size"
            )

    @cached_property
    def _pairs(self) -> dict[tuple[str, int], list[tuple[str, int]]]:
        return {
            (part, fold): _read_list(self.lists / part / f"fold{fold}.txt", fold)
            for part in ("trn", "val")
            for fold in range(FOLDS)
        }


def _read_list(path: Path, fold: int) -> list[tuple[str, int]]:
    """Return (image name, class id) per line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} cannot be read: {error.__class__.__name__}") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition("__")
        class_id = int(label) - 1 if label.isdigit() else -1
        if not name or class_id // CLASSES_PER_FOLD != fold or "/" in name or "\\" in name:
            first = fold * CLASSES_PER_FOLD + 1
            raise UserError(
                f"{path}, line {number}: {line.strip()!r} is not <name>__<class> with a class in "
                f"{first}..{first + CLASSES_PER_FOLD - 1}"
            )
        pairs.append((name, class_id))
    return pairs
