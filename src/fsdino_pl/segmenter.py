"""The Lightning module of episodic training: step, log, optimise."""

import hashlib
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.optim import AdamW

from fsdino_pl.data.feature_cache import FeatureCache
from fsdino_pl.episode import EpisodeBatch, Prediction
from fsdino_pl.errors import UserError
from fsdino_pl.losses import SegmentationLoss
from fsdino_pl.metrics import FewShotIoU
from fsdino_pl.optim import build_adamw, warmup_cosine
from fsdino_pl.student.student import Student


class FewShotSegmenter(L.LightningModule):
    """Train a student on episodes of base classes, on top of a frozen backbone.

    Checkpoints hold the student only: the backbone is frozen and comes from its own file.
    """

    def __init__(
        self,
        features: FeatureCache,
        student: Student,
        loss: SegmentationLoss,
        *,
        base_classes: tuple[int, ...],
        lr: float = 1e-4,
        decoder_lr: float = 2e-5,
        weight_decay: float = 0.01,
        warmup_steps: int = 50,
        max_steps: int = 1000,
        seed: int = 0,
    ):
        super().__init__()
        self.features = features
        self.backbone = features.backbone  # registered, so that it follows the module to its device
        self.student = student
        self.loss = loss
        self.val_iou = FewShotIoU(base_classes)
        self.lr, self.decoder_lr, self.weight_decay = lr, decoder_lr, weight_decay
        self.warmup_steps, self.max_steps = warmup_steps, max_steps
        self.seed = seed

    def forward(self, batch: EpisodeBatch) -> Prediction:
        """Segment the queries of a batch."""
        return self.student(self.features.encode(batch.images, batch.digests), batch)

    def on_train_batch_start(self, batch: EpisodeBatch, batch_idx: int) -> None:
        """Reseed by (seed, step, rank), so that a resumed run draws what the unbroken one drew."""
        key = f"{self.seed}|{self.global_step}|{self.global_rank}".encode()
        torch.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=7).digest()))

    def training_step(self, batch: EpisodeBatch, batch_idx: int) -> Float[Tensor, ""]:
        """Return the loss of one batch of episodes. Raises UserError when it is not finite on any process."""
        logits = resize_logits(self(batch).mask_logits, batch)
        loss = self.loss(logits, batch.query_mask, batch.query_ignore)
        self._stop_unless_finite(loss)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: EpisodeBatch, batch_idx: int) -> Bool[Tensor, "batch height width"]:
        """Score held-out base-class episodes and return their predicted masks, for the pictures."""
        pred = resize_logits(self(batch).mask_logits, batch) > 0
        self.val_iou.update(pred, batch.query_mask, batch.class_id, batch.query_ignore)
        return pred

    def on_validation_epoch_end(self) -> None:
        """Log the scores by which the checkpoint is chosen."""
        scores = self.val_iou.compute()
        self.log("val/miou", scores["miou"], prog_bar=True, sync_dist=True)
        self.log("val/fb_iou", scores["fb_iou"], sync_dist=True)
        self.val_iou.reset()

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with a slower decoder, warm-up and cosine decay by step."""
        optimizer: AdamW = build_adamw(
            [
                (self.student.adapter, self.lr),
                (self.student.prompt_generator, self.lr),
                (self.student.mask_decoder, self.decoder_lr),
            ],
            self.weight_decay,
        )
        schedule = warmup_cosine(optimizer, self.warmup_steps, self.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen backbone out."""
        weights = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in weights.items() if not k.startswith("backbone.")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Fill the backbone's keys from the backbone at hand, so that loading stays strict."""
        for key, value in self.backbone.state_dict(prefix="backbone.").items():
            checkpoint["state_dict"].setdefault(key, value)

    def _stop_unless_finite(self, loss: Tensor) -> None:
        broken = (~torch.isfinite(loss.detach())).float()
        if bool(self.trainer.strategy.reduce(broken, reduce_op="max") > 0):
            raise UserError(
                f"the loss is not finite at step {self.global_step}: lower optim.lr, or train with "
                "trainer.precision=32; the last good checkpoint is kept"
            )


def resize_logits(
    mask_logits: Float[Tensor, "batch mask_height mask_width"], batch: EpisodeBatch
) -> Float[Tensor, "batch height width"]:
    """Return the logits at the size of the masks (bilinear)."""
    size = batch.query_mask.shape[-2:]
    return F.interpolate(mask_logits[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]
