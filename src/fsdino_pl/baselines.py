"""Training-free baselines, scored on the same episodes as the student, so that a score is never seen alone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fsdino_pl.episode import EpisodeBatch
from fsdino_pl.student.backbone import FeatureMaps
from fsdino_pl.student.matching import masks_to_grid, prior_maps

LEVELS = 8  # colour levels per channel of the histogram


class PrototypeBaseline:
    """Cosine to the foreground prototype minus cosine to the background prototype, mean over deep levels.

    The score map is upsampled bilinearly; levels and threshold are chosen on base classes.
    """

    low, high = -2.0, 2.0

    def __init__(self, levels: Sequence[int]):
        self.levels = tuple(levels)

    def score(self, features: FeatureMaps, batch: EpisodeBatch) -> Float[Tensor, "batch height width"]:
        """Return the score map of every query."""
        shot = batch.support.shape[1]
        positions = rearrange(batch.support, "b k -> (b k)")
        compared = [features.deep[level] for level in self.levels]
        query = tuple(level[batch.query] for level in compared)
        support = tuple(rearrange(level[positions], "(b k) d h w -> b k d h w", k=shot) for level in compared)
        foreground = masks_to_grid(batch.support_masks, tuple(support[0].shape[-2:]))
        prior = prior_maps(query, support, foreground, contrast=True).mean(dim=1, keepdim=True)
        size = batch.query_mask.shape[-2:]
        return F.interpolate(prior, size=size, mode="bilinear", align_corners=False)[:, 0]


class ColourHistogramBaseline:
    """How much likelier a pixel's colour is in the support's foreground than in its background.

    Colours are counted in 8 levels per channel over all supports. The score is the share of the foreground,
    p_fg / (p_fg + p_bg), 0.5 for a colour never seen; the threshold is chosen on base classes.
    """

    low, high = 0.0, 1.0

    def score(self, features: FeatureMaps, batch: EpisodeBatch) -> Float[Tensor, "batch height width"]:
        """Return the score map of every query."""
        cells = colour_cells(batch.images)
        maps = []
        for query, support, masks in zip(batch.query, batch.support, batch.support_masks, strict=True):
            seen = cells[support]
            foreground = torch.bincount(seen[masks], minlength=LEVELS**3).double()
            background = torch.bincount(seen[~masks], minlength=LEVELS**3).double()
            foreground = foreground / foreground.sum().clamp(min=1)
            background = background / background.sum().clamp(min=1)
            total = foreground + background
            share = torch.where(total > 0, foreground / total.clamp(min=1e-12), 0.5)
            maps.append(share[cells[query]])
        return torch.stack(maps).float()


class AllForegroundBaseline:
    """Call every pixel foreground: what a score is worth before anything is known."""

    low, high = 0.0, 1.0

    def score(self, features: FeatureMaps, batch: EpisodeBatch) -> Float[Tensor, "batch height width"]:
        """Return a map of ones, above any threshold."""
        return torch.ones(batch.query_mask.shape, device=batch.query_mask.device)


def colour_cells(images: UInt8[Tensor, "image 3 height width"]) -> Int64[Tensor, "image height width"]:
    """Return the histogram cell of every pixel's colour."""
    levels = images.long() * LEVELS // 256
    return (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]


Baseline = PrototypeBaseline | ColourHistogramBaseline | AllForegroundBaseline


def all_baselines(prototype_levels: Sequence[int]) -> dict[str, Baseline]:
    """Return the baselines every summary carries, by name; `prototype_levels` are positions among deep maps."""
    return {
        "prototype": PrototypeBaseline(prototype_levels),
        "colour_histogram": ColourHistogramBaseline(),
        "all_foreground": AllForegroundBaseline(),
    }
