"""The 4D branch: support-query correlation with contrastive enhancement, and the readers of its volume."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn


def contrastive_weights(
    foreground: Float[Tensor, "batch shot hs ws"], contrast: bool
) -> Float[Tensor, "batch shot hs ws"]:
    """Sign of each support position: 2m - 1 with contrastive enhancement, m (foreground only) without.

    The closed form of "foreground minus background correlation" (FS-DINO, contrastive enhancement).
    """
    return 2 * foreground - 1 if contrast else foreground


def support_query_correlation(
    query: Float[Tensor, "batch dim h w"],
    support: Float[Tensor, "batch shot dim hs ws"],
    weights: Float[Tensor, "batch shot hs ws"],
    support_stride: int = 1,
) -> Float[Tensor, "batch shot h w pooled_hs pooled_ws"]:
    """Weighted cosine of every query position with every support position, averaged over support windows.

    Averaging cosines over a window equals one product with the averaged unit vectors, so the full volume is
    never stored. Values lie in [-1, 1] for weights in [-1, 1].
    """
    unit_query = F.normalize(query, dim=1)
    signed = F.normalize(support, dim=2) * weights[:, :, None]
    if support_stride > 1:
        shots = rearrange(signed, "b k d hs ws -> (b k) d hs ws")
        pooled = F.avg_pool2d(shots, support_stride, ceil_mode=True, count_include_pad=False)
        signed = rearrange(pooled, "(b k) d hs ws -> b k d hs ws", k=signed.shape[1])
    return einsum(unit_query, signed, "b d h w, b k d hs ws -> b k h w hs ws")


class CenterPivotConv4d(nn.Module):
    """A 4D convolution whose kernel keeps only the entries pivoted on a centre (CP4D, after HSNet).

    Conv2d over the query dimensions plus conv2d over the support dimensions. The stride acts on the support
    alone, so the query keeps its resolution.
    """

    def __init__(self, in_dim: int, out_dim: int, kernel_size: int = 3, support_stride: int = 1):
        super().__init__()
        pad = kernel_size // 2
        self.support_stride = support_stride
        self.over_query = nn.Conv3d(
            in_dim, out_dim, (kernel_size, kernel_size, 1), padding=(pad, pad, 0), bias=False
        )
        self.over_support = nn.Conv3d(
            in_dim,
            out_dim,
            (1, kernel_size, kernel_size),
            stride=(1, support_stride, support_stride),
            padding=(0, pad, pad),
        )

    def forward(
        self, volume: Float[Tensor, "batch dim h w hs ws"]
    ) -> Float[Tensor, "batch out_dim h w strided_hs strided_ws"]:
        """Convolve; the support shrinks to ceil(size / stride)."""
        h, w = volume.shape[2:4]
        stride = self.support_stride
        pivots = volume[..., ::stride, ::stride]
        hs, ws = pivots.shape[-2:]
        query_half = self.over_query(rearrange(pivots, "b c h w hs ws -> b c h w (hs ws)"))
        support_half = self.over_support(rearrange(volume, "b c h w hs ws -> b c (h w) hs ws"))
        return rearrange(query_half, "b c h w (hs ws) -> b c h w hs ws", hs=hs, ws=ws) + rearrange(
            support_half, "b c (h w) hs ws -> b c h w hs ws", h=h, w=w
        )


class CP4DReader(nn.Module):
    """Squeeze a correlation volume to a map over the query: CP4D, GroupNorm, ReLU; then a mean over the support.

    Each shot is read alone and the shots are averaged, so their order is irrelevant, a repeated shot changes
    nothing, and no kernel reaches across the border between two support images.
    """

    def __init__(
        self,
        levels: int,
        widths: Sequence[int] = (16, 32, 64),
        support_strides: Sequence[int] = (2, 2, 1),
        norm_groups: int = 4,
    ):
        super().__init__()
        blocks, in_dim = [], levels
        for out_dim, stride in zip(widths, support_strides, strict=True):
            blocks += [
                CenterPivotConv4d(in_dim, out_dim, support_stride=stride),
                nn.GroupNorm(norm_groups, out_dim),
                nn.ReLU(),
            ]
            in_dim = out_dim
        self.blocks = nn.Sequential(*blocks)
        self.out_dim = in_dim

    def forward(
        self, volume: Float[Tensor, "batch shot level h w hs ws"]
    ) -> Float[Tensor, "batch out_dim h w"]:
        """Return one feature vector per query position."""
        shots = rearrange(volume, "b k l h w hs ws -> (b k) l h w hs ws")
        read = self.blocks(shots)
        return reduce(read, "(b k) d h w hs ws -> b d h w", "mean", b=volume.shape[0])


class PeakReader(nn.Module):
    """Read a volume by three statistics per level: mean, maximum and minimum over all support positions.

    With contrastive enhancement the maximum is the best match in the foreground and the minimum the best match
    in the background. [ours]: a volume read without any 4D kernel. Shots join as more support positions.
    """

    def __init__(self, levels: int, hidden_dim: int = 64, norm_groups: int = 8):
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(3 * levels, hidden_dim, 1),
            nn.GroupNorm(norm_groups, hidden_dim),
            nn.GELU(),
            nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1),
            nn.GroupNorm(norm_groups, hidden_dim),
            nn.GELU(),
        )
        self.out_dim = hidden_dim

    def forward(
        self, volume: Float[Tensor, "batch shot level h w hs ws"]
    ) -> Float[Tensor, "batch out_dim h w"]:
        """Return one feature vector per query position."""
        matches = rearrange(volume, "b k l h w hs ws -> b l h w (k hs ws)")
        statistics = [matches.mean(dim=-1), matches.amax(dim=-1), matches.amin(dim=-1)]
        return self.mix(torch.cat(statistics, dim=1))
