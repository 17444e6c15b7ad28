"""Matching by prototypes: what the class looks like on average, and where the query looks like it."""

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor


def masks_to_grid(
    masks: Bool[Tensor, "batch shot height width"], grid: tuple[int, int]
) -> Float[Tensor, "batch shot h w"]:
    """Share of each grid cell that the mask covers, in [0, 1]: thin objects fade but never vanish."""
    return F.interpolate(masks.float(), size=grid, mode="area")


def masked_average_pool(
    features: Float[Tensor, "batch shot dim h w"],
    weights: Float[Tensor, "batch shot h w"],
) -> Float[Tensor, "batch dim"]:
    """Average the support features under their masks: the class prototype.

    Pixels of all shots are pooled together, so a large object outweighs a small one.
    An empty mask gives a zero prototype, never NaN.
    """
    total = einsum(features, weights, "b k d h w, b k h w -> b d")
    area = weights.sum(dim=(1, 2, 3)).clamp(min=1e-6)
    return total / area[:, None]


def cosine_map(
    features: Float[Tensor, "batch dim h w"], prototype: Float[Tensor, "batch dim"]
) -> Float[Tensor, "batch h w"]:
    """Cosine in [-1, 1] between every position and the prototype; 0 where either has no length."""
    return einsum(F.normalize(features, dim=1), F.normalize(prototype, dim=1), "b d h w, b d -> b h w")


def prior_maps(
    query: tuple[Float[Tensor, "batch _ h w"], ...],
    support: tuple[Float[Tensor, "batch shot _ hs ws"], ...],
    foreground: Float[Tensor, "batch shot hs ws"],
    contrast: bool,
) -> Float[Tensor, "batch level h w"]:
    """How much each query position resembles the class prototype: one training-free map per deep level.

    The cosine with the foreground prototype, in [-1, 1]; with `contrast`, minus the cosine with the
    background prototype, in [-2, 2].
    """
    maps = []
    for query_level, support_level in zip(query, support, strict=True):
        similarity = cosine_map(query_level, masked_average_pool(support_level, foreground))
        if contrast:
            similarity = similarity - cosine_map(
                query_level, masked_average_pool(support_level, 1 - foreground)
            )
        maps.append(similarity)
    return torch.stack(maps, dim=1)
