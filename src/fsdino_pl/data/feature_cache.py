"""Feature maps of a frozen backbone, remembered by image content."""

from collections import OrderedDict

import torch
from jaxtyping import UInt8
from torch import Tensor

from fsdino_pl.student.backbone import Backbone, FeatureMaps


class FeatureCache:
    """Encode the images of a batch, each image once ever while it stays within the byte budget.

    Images are encoded one at a time, so that a feature never depends on which other images were missing with
    it: a run that was killed and resumed sees the same bits. The least recently used maps leave first. With a
    budget of 0 nothing is kept and the whole batch is encoded at once.
    """

    def __init__(self, backbone: Backbone, budget_bytes: int = 0):
        self.backbone = backbone
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self.maps: OrderedDict[str, list[Tensor]] = OrderedDict()

    def encode(self, images: UInt8[Tensor, "image 3 height width"], digests: tuple[str, ...]) -> FeatureMaps:
        """Return the feature maps of distinct images whose content `digests` name."""
        if self.budget_bytes == 0:
            return self.backbone(images)
        wanted = [self._look_up(digest, images[i : i + 1]) for i, digest in enumerate(digests)]
        early, *deep = (
            torch.cat(level).to(images.device, non_blocking=True) for level in zip(*wanted, strict=True)
        )
        return FeatureMaps(early, tuple(deep))

    def _look_up(self, digest: str, image: Tensor) -> list[Tensor]:
        if digest in self.maps:
            self.maps.move_to_end(digest)
            return self.maps[digest]
        maps = self.backbone(image)
        entry = [level.cpu() for level in (maps.early, *maps.deep)]
        self.maps[digest] = entry
        self.used_bytes += _size(entry)
        while self.used_bytes > self.budget_bytes and len(self.maps) > 1:
            _, dropped = self.maps.popitem(last=False)
            self.used_bytes -= _size(dropped)
        return entry


def _size(entry: list[Tensor]) -> int:
    return sum(level.nbytes for level in entry)
