"""The bottleneck adapter: from an early block of the backbone to an image embedding for the mask decoder."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class BottleneckAdapter(nn.Module):
    """Map early features into the embedding space of SAM's image encoder.

    1x1 to `hidden_dim`, 3x3, 1x1 to `bottleneck_dim`, pre-norm self-attention blocks, 1x1 to `embed_dim`
    (FS-DINO: 768 -> 128 -> attention -> 256; the finer form is inferred from its 1.25 M parameters).
    `norm` is `batch` or, for batches too small for their own statistics, `group`.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        embed_dim: int = 256,
        hidden_dim: int = 256,
        norm: str = "batch",
        bottleneck_dim: int = 128,
        depth: int = 2,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d(in_dim, hidden_dim, 1, bias=False),
            _norm(norm, hidden_dim),
            nn.GELU(),
            nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, bias=False),
            _norm(norm, hidden_dim),
            nn.GELU(),
            nn.Conv2d(hidden_dim, bottleneck_dim, 1),
        )
        self.attention = nn.Sequential(
            *(SelfAttentionBlock(bottleneck_dim, num_heads, mlp_ratio) for _ in range(depth))
        )
        self.expand = nn.Conv2d(bottleneck_dim, embed_dim, 1)

    def forward(self, early: Float[Tensor, "batch in_dim h w"]) -> Float[Tensor, "batch embed_dim h w"]:
        """Return the image embedding on the grid of the early map."""
        reduced = self.reduce(early)
        tokens = self.attention(rearrange(reduced, "b d h w -> b (h w) d"))
        return self.expand(rearrange(tokens, "b (h w) d -> b d h w", h=reduced.shape[-2]))


class SelfAttentionBlock(nn.Module):
    """A pre-norm transformer block: every position of the map may look at every other."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        hidden_dim = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, dim))

    def forward(self, tokens: Float[Tensor, "batch token dim"]) -> Float[Tensor, "batch token dim"]:
        """Attend, then transform each token; both as residuals."""
        heads = rearrange(
            self.qkv(self.norm1(tokens)), "b t (three n d) -> three b n t d", three=3, n=self.num_heads
        )
        attended = F.scaled_dot_product_attention(*heads)
        tokens = tokens + self.proj(rearrange(attended, "b n t d -> b t (n d)"))
        return tokens + self.mlp(self.norm2(tokens))


def _norm(kind: str, dim: int) -> nn.Module:
    return nn.BatchNorm2d(dim) if kind == "batch" else nn.GroupNorm(8, dim)
