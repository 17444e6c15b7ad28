"""The field's metrics: mIoU and FB-IoU from integer counts, and thresholds chosen by them."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor
from torchmetrics import Metric


class Scores(TypedDict):
    """mIoU, FB-IoU and the IoU of each class id, all in [0, 1]."""

    miou: float
    fb_iou: float
    per_class: dict[int, float]


class FewShotIoU(Metric):
    """mIoU and FB-IoU as HSNet defines them, from int64 counts per class.

    mIoU is the mean over `class_ids` of (sum of intersections) / (sum of unions) over all episodes of a class,
    not a mean over episodes; a class never sampled counts as 0. FB-IoU is the mean of the foreground's and
    the background's IoU, each pooled over all classes. Counts are sums of integers: they are the same for any
    batch size, order and number of processes.
    """

    full_state_update = False
    counts: Int64[Tensor, "class_index ground overlap"]

    def __init__(self, class_ids: Sequence[int]):
        super().__init__()
        if not class_ids or len(set(class_ids)) != len(class_ids):
            raise ValueError(f"class_ids must be distinct and not empty, not {list(class_ids)}")
        self.class_ids = tuple(int(c) for c in class_ids)
        # [class, background | foreground, intersection | union]
        zeros = torch.zeros(len(self.class_ids), 2, 2, dtype=torch.int64)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(
        self,
        pred: Bool[Tensor, "batch height width"],
        target: Bool[Tensor, "batch height width"],
        class_id: Int[Tensor, " batch"],
        ignore: Bool[Tensor, "batch height width"] | None = None,
    ) -> None:
        """Add a batch of binary masks, each with its own class id; `ignore` marks pixels that do not count.

        Raises:
            ValueError: for a class id that is not among `class_ids`.
        """
        valid = torch.ones_like(target) if ignore is None else ~ignore
        known = torch.tensor(self.class_ids, device=class_id.device)
        matches = class_id[:, None] == known
        if not bool(matches.any(dim=1).all()):
            unknown = class_id[~matches.any(dim=1)].tolist()
            raise ValueError(f"class ids {unknown} are not among {list(self.class_ids)}")
        per_episode = torch.stack(
            [
                torch.stack([(p & t & valid).sum(dim=(1, 2)), ((p | t) & valid).sum(dim=(1, 2))], dim=-1)
                for p, t in ((~pred, ~target), (pred, target))
            ],
            dim=1,
        )
        self.counts.index_add_(0, matches.int().argmax(dim=1), per_episode)

    def compute(self) -> Scores:
        """Return the scores of everything added so far, on all processes together."""
        intersection, union = self.counts.double().unbind(dim=-1)
        per_class = intersection[:, 1] / union[:, 1].clamp(min=1)
        pooled = intersection.sum(dim=0) / union.sum(dim=0).clamp(min=1)
        return {
            "miou": per_class.mean().item(),
            "fb_iou": pooled.mean().item(),
            "per_class": dict(zip(self.class_ids, per_class.tolist(), strict=True)),
        }


class ThresholdSearch(Metric):
    """Find the threshold on a score map that gives the best mIoU: how a baseline is calibrated.

    Scores are counted in `bins` equal steps over [low, high]; every step is tried at once.
    """

    full_state_update = False
    histogram: Int64[Tensor, "class_index truth bins"]

    def __init__(self, class_ids: Sequence[int], low: float, high: float, bins: int = 400):
        super().__init__()
        self.class_ids = tuple(int(c) for c in class_ids)
        self.low, self.high, self.bins = low, high, bins
        zeros = torch.zeros(len(self.class_ids) * 2 * bins, dtype=torch.int64)
        self.add_state("histogram", zeros, dist_reduce_fx="sum")

    def update(
        self,
        scores: Float[Tensor, "batch height width"],
        target: Bool[Tensor, "batch height width"],
        class_id: Int[Tensor, " batch"],
        ignore: Bool[Tensor, "batch height width"],
    ) -> None:
        """Add a batch of score maps with their true masks."""
        step = (scores.double() - self.low) / (self.high - self.low) * self.bins
        bins = step.long().clamp(0, self.bins - 1)
        known = torch.tensor(self.class_ids, device=class_id.device)
        index = (class_id[:, None] == known).int().argmax(dim=1)
        cell = (index[:, None, None] * 2 + target.long()) * self.bins + bins
        self.histogram += torch.bincount(cell[~ignore], minlength=self.histogram.numel())

    def compute(self) -> float:
        """Return the best threshold: foreground is `score >= threshold`."""
        counts = self.histogram.view(len(self.class_ids), 2, self.bins)
        above = counts.flip(-1).cumsum(dim=-1).flip(-1).double()
        union = above[:, 0] + counts[:, 1].sum(dim=-1, keepdim=True)
        miou = (above[:, 1] / union.clamp(min=1)).mean(dim=0)
        return self.low + (self.high - self.low) * int(miou.argmax()) / self.bins
