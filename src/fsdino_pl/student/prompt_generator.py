"""The meta-visual prompt generator: support images and masks become prompts for the mask decoder."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.sam.configuration_sam import SamPromptEncoderConfig
from transformers.models.sam.modeling_sam import SamMaskEmbedding

from fsdino_pl.student.backbone import FeatureMaps
from fsdino_pl.student.correlation import (
    CP4DReader,
    PeakReader,
    contrastive_weights,
    support_query_correlation,
)
from fsdino_pl.student.matching import masked_average_pool, prior_maps

# SAM's mask prompts are logits; cosines as they are would drown in the biases of its first layer norm.
PRIOR_TO_LOGITS = 10.0


class Prompts(NamedTuple):
    """What the mask decoder is told: where to look (dense), what for (sparse), and the prior it came from."""

    sparse: Float[Tensor, "batch token dim"] | None
    dense: Float[Tensor, "batch dim h w"]
    prior: Float[Tensor, "batch h w"]


class PromptGenerator(nn.Module):
    """Compare deep features of support and query; answer with sparse and dense prompts.

    Sparse: the class prototype, projected (semantic-aware visual prompt), and the background's beside it with
    `background_token` [ours]. Dense, compact: the prior through SAM's mask downscaling (prototype cosine
    similarity); `prior_levels` gives it one channel per deep level instead of their mean [ours]. Dense, full:
    the 4D correlation, read by a reader, through a zero-initialised 1x1 convolution. The dense prompt starts
    from SAM's `no_mask_embed`.
    """

    def __init__(
        self,
        deep_dims: Sequence[int],
        *,
        embed_dim: int = 256,
        sparse_prompt: bool = True,
        background_token: bool = False,
        sparse_hidden_dim: int = 64,
        dense_prompt: bool = True,
        prior_levels: bool = False,
        reader: CP4DReader | PeakReader | None = None,
        contrast: bool = True,
        support_stride: int = 2,
    ):
        super().__init__()
        self.contrast = contrast
        self.prior_levels = prior_levels
        self.support_stride = support_stride
        self.no_mask_embed = nn.Parameter(torch.zeros(embed_dim))
        tokens = (1 + background_token) * sparse_prompt
        self.to_sparse = nn.ModuleList(
            _projection(sum(deep_dims), sparse_hidden_dim, embed_dim) for _ in range(tokens)
        )
        self.mask_downscaling = (
            _mask_downscaling(len(deep_dims) if prior_levels else 1, embed_dim) if dense_prompt else None
        )
        self.reader, self.read_out = reader, None
        if self.reader is not None:
            self.read_out = nn.Conv2d(self.reader.out_dim, embed_dim, 1)
            nn.init.zeros_(self.read_out.weight)
            nn.init.zeros_(self.read_out.bias)

    def forward(
        self,
        query: FeatureMaps,
        support: tuple[Float[Tensor, "batch shot _ hs ws"], ...],
        foreground: Float[Tensor, "batch shot hs ws"],
    ) -> Prompts:
        """Compare the query with the support images whose cells are covered by `foreground` (share, 0..1)."""
        levels = prior_maps(query.deep, support, foreground, contrast=self.contrast)
        batch, _, h, w = levels.shape
        prior = levels.mean(dim=1)
        dense = self.no_mask_embed.view(1, -1, 1, 1).expand(batch, -1, h, w)
        if self.mask_downscaling is not None:
            logits = PRIOR_TO_LOGITS * (levels if self.prior_levels else prior[:, None])
            fine = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
            dense = dense + self.mask_downscaling(fine)
        if self.reader is not None:
            dense = dense + self.read_out(self.reader(self._volume(query, support, foreground)))
        return Prompts(self._sparse(support, foreground), dense, prior)

    def _sparse(
        self,
        support: tuple[Float[Tensor, "batch shot _ hs ws"], ...],
        foreground: Float[Tensor, "batch shot hs ws"],
    ) -> Float[Tensor, "batch token dim"] | None:
        if not self.to_sparse:
            return None
        tokens = []
        for weights, project in zip((foreground, 1 - foreground), self.to_sparse, strict=False):
            prototypes = [F.normalize(masked_average_pool(level, weights), dim=1) for level in support]
            tokens.append(project(torch.cat(prototypes, dim=1)))
        return torch.stack(tokens, dim=1)

    def _volume(
        self,
        query: FeatureMaps,
        support: tuple[Float[Tensor, "batch shot _ hs ws"], ...],
        foreground: Float[Tensor, "batch shot hs ws"],
    ) -> Float[Tensor, "batch shot level h w pooled_hs pooled_ws"]:
        weights = contrastive_weights(foreground, self.contrast)
        levels = [
            support_query_correlation(query_level, support_level, weights, self.support_stride)
            for query_level, support_level in zip(query.deep, support, strict=True)
        ]
        return torch.stack(levels, dim=2)


def _mask_downscaling(channels: int, embed_dim: int) -> SamMaskEmbedding:
    """Return SAM's mask downscaling; with more than one channel its first convolution is ours."""
    module = SamMaskEmbedding(SamPromptEncoderConfig(hidden_size=embed_dim))
    if channels > 1:
        module.conv1 = nn.Conv2d(channels, module.conv1.out_channels, kernel_size=2, stride=2)
    return module


def _projection(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(in_dim), nn.Linear(in_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, out_dim)
    )
