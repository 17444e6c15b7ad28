"""The evaluator: a trained student and the training-free baselines on the same episodes."""

import lightning as L
from jaxtyping import Bool
from torch import Tensor, nn
from torchmetrics import SumMetric

from fsdino_pl.baselines import Baseline
from fsdino_pl.episode import EpisodeBatch
from fsdino_pl.metrics import FewShotIoU, Scores, ThresholdSearch
from fsdino_pl.segmenter import FewShotSegmenter, resize_logits


class EpisodicEvaluator(L.LightningModule):
    """Calibrate the baselines on base classes (`validate`), then score everything on the test episodes (`test`)."""

    def __init__(
        self,
        segmenter: FewShotSegmenter,
        baselines: dict[str, Baseline],
        *,
        base_classes: tuple[int, ...],
        test_classes: tuple[int, ...],
    ):
        super().__init__()
        self.segmenter = segmenter
        self.baselines = baselines
        self.searches = nn.ModuleDict(
            {name: ThresholdSearch(base_classes, b.low, b.high) for name, b in self.baselines.items()}
        )
        self.metrics = nn.ModuleDict(
            {name: FewShotIoU(test_classes) for name in ("student", *self.baselines)}
        )
        self.counter = SumMetric()
        self.thresholds: dict[str, float] = {}
        self.scores: dict[str, Scores] = {}
        self.evaluated = 0

    def validation_step(self, batch: EpisodeBatch, batch_idx: int) -> None:
        """Count base-class scores for every threshold."""
        features = self.segmenter.features.encode(batch.images, batch.digests)
        for name, baseline in self.baselines.items():
            self.searches[name].update(
                baseline.score(features, batch), batch.query_mask, batch.class_id, batch.query_ignore
            )

    def on_validation_epoch_end(self) -> None:
        """Fix each baseline's threshold."""
        self.thresholds = {name: search.compute() for name, search in self.searches.items()}

    def test_step(self, batch: EpisodeBatch, batch_idx: int) -> dict[str, Bool[Tensor, "batch height width"]]:
        """Add one batch to every metric and return the masks; images are encoded once for all of them."""
        features = self.segmenter.features.encode(batch.images, batch.digests)
        prediction = self.segmenter.student(features, batch)
        masks = {"student": resize_logits(prediction.mask_logits, batch) > 0}
        for name, baseline in self.baselines.items():
            masks[name] = baseline.score(features, batch) >= self.thresholds[name]
        self.counter.update(len(batch.index))
        for name, pred in masks.items():
            self.metrics[name].update(pred, batch.query_mask, batch.class_id, batch.query_ignore)
        return masks

    def on_test_epoch_end(self) -> None:
        """Sum over all processes."""
        self.scores = {name: metric.compute() for name, metric in self.metrics.items()}
        self.evaluated = int(self.counter.compute())
