"""The segmentation loss: binary cross-entropy plus Dice, void pixels left out."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class SegmentationLoss(nn.Module):
    """Weighted BCE + Dice between full-size logits and masks, computed in float32 whatever the precision."""

    def __init__(self, bce_weight: float = 1.0, dice_weight: float = 1.0):
        super().__init__()
        self.bce_weight, self.dice_weight = bce_weight, dice_weight

    def forward(
        self,
        mask_logits: Float[Tensor, "batch height width"],
        target: Bool[Tensor, "batch height width"],
        ignore: Bool[Tensor, "batch height width"],
    ) -> Float[Tensor, ""]:
        """Return the loss; ignored pixels neither count nor get a gradient."""
        with torch.autocast(mask_logits.device.type, enabled=False):
            logits, truth, valid = mask_logits.float(), target.float(), (~ignore).float()
            return self.bce_weight * binary_cross_entropy(logits, truth, valid) + (
                self.dice_weight * dice_loss(logits, truth, valid)
            )


def binary_cross_entropy(
    logits: Float[Tensor, "batch height width"],
    truth: Float[Tensor, "batch height width"],
    valid: Float[Tensor, "batch height width"],
) -> Float[Tensor, ""]:
    """Mean over the valid pixels of the batch; 0 where there is none."""
    per_pixel = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (per_pixel * valid).sum() / valid.sum().clamp(min=1)


def dice_loss(
    logits: Float[Tensor, "batch height width"],
    truth: Float[Tensor, "batch height width"],
    valid: Float[Tensor, "batch height width"],
) -> Float[Tensor, ""]:
    """1 - (2 |p.t| + 1) / (|p| + |t| + 1) per image over valid pixels, then the mean over images."""
    probabilities = logits.sigmoid() * valid
    overlap = (probabilities * truth).sum(dim=(1, 2))
    total = probabilities.sum(dim=(1, 2)) + (truth * valid).sum(dim=(1, 2))
    return (1 - (2 * overlap + 1) / (total + 1)).mean()
