"""What runs beside a training or an evaluation: pictures and the progress bar."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

from fsdino_pl.episode import EpisodeBatch
from fsdino_pl.visualize import EpisodePicture, draw_sheet, picture_episodes


class EpisodePictures(L.Callback):
    """Draw the first episodes of every validation, and of the test, to one PNG."""

    def __init__(self, path: Path, class_names: Sequence[str], count: int = 6):
        self.path, self.class_names, self.count = path, class_names, count
        self.rows: list[EpisodePicture] = []

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: EpisodeBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first episodes; a step that predicts nothing has no picture."""
        if isinstance(outputs, Tensor):
            self._keep(trainer, batch, {"prediction": outputs})

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: EpisodeBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first episodes, the prototype baseline beside the student."""
        self._keep(trainer, batch, {"FS-DINO": outputs["student"], "prototype": outputs["prototype"]})

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw."""
        self._draw()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw."""
        self._draw()

    def _keep(self, trainer: L.Trainer, batch: EpisodeBatch, predictions: Mapping[str, Tensor]) -> None:
        missing = self.count - len(self.rows)
        if trainer.is_global_zero and missing > 0:
            self.rows += picture_episodes(batch, predictions, self.class_names, missing)

    def _draw(self) -> None:
        if self.rows:
            draw_sheet(self.rows, self.path)
        self.rows = []


class ProgressBar(RichProgressBar):
    """Steps, loss, validation mIoU and time left."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"  # one endless epoch has no number worth showing

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return the numbers beside the bar."""
        numbers = super().get_metrics(trainer, pl_module)
        numbers.pop("v_num", None)
        return {name: float(v) if isinstance(v, torch.Tensor) else v for name, v in numbers.items()}
