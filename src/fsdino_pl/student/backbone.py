"""The frozen backbone: any Hugging Face vision model as named feature maps."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import PreTrainedModel

from fsdino_pl.errors import UserError

TOKEN_MODELS = ("dinov2", "dinov2_with_registers", "dinov3_vit")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FeatureMaps(NamedTuple):
    """What the backbone sees in each image: an early map for outlines, deep maps for meaning."""

    early: Float[Tensor, "image early_dim early_h early_w"]
    deep: tuple[Float[Tensor, "image _ h w"], ...]

    def select(self, images: Tensor) -> "FeatureMaps":
        """Return the maps of the images at the given positions."""
        return FeatureMaps(self.early[images], tuple(level[images] for level in self.deep))


class Backbone(nn.Module):
    """A frozen vision model that turns RGB images into feature maps.

    Block b of a token model (DINOv2, with registers, DINOv3) is `hidden_states[b]`: 0 is the patch embedding,
    n the output of the n-th transformer block, without the final norm unless `norm_deep`. Block b of a model
    whose hidden states are maps (MobileNetV2, ResNet, ...) is `hidden_states[b]` as it is. Negative blocks
    count from the last. Token blocks behind the last one asked for are dropped and never run. Deep maps of a
    coarser stride are interpolated (bilinear) to the finest deep grid, so that all can be compared cell by cell.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        early_block: int,
        deep_blocks: Sequence[int],
        norm_deep: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ):
        super().__init__()
        self.is_token_model = model.config.model_type in TOKEN_MODELS
        count = _count_hidden_states(model, self.is_token_model)
        self.early_block = _resolve_block(early_block, count, "student.early_block")
        self.deep_blocks = tuple(_resolve_block(b, count, "student.deep_blocks") for b in deep_blocks)
        self.norm_deep = norm_deep and self.is_token_model
        if self.is_token_model:
            layers = _transformer_blocks(model)
            del layers[max(self.early_block, *self.deep_blocks) :]
            self.num_prefix_tokens = 1 + getattr(model.config, "num_register_tokens", 0)
            self.patch_size = model.config.patch_size
        self.model = model.requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode whatever is asked: the backbone is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: UInt8[Tensor, "image 3 height width"]) -> FeatureMaps:
        """Encode images (RGB, 0..255). Raises UserError when their size does not fit the patch grid."""
        self.check_image_size(images.shape[-2], images.shape[-1])
        pixels = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        hidden_states = self.model(pixels, output_hidden_states=True).hidden_states
        deep = [self._to_map(self._final_norm(hidden_states[b]), images) for b in self.deep_blocks]
        grid = max(tuple(level.shape[-2:]) for level in deep)
        return FeatureMaps(
            early=self._to_map(hidden_states[self.early_block], images),
            deep=tuple(_resize(level, grid) for level in deep),
        )

    def check_image_size(self, height: int, width: int) -> None:
        """Raise UserError when an image of this size (pixels) would lose pixels to the patch grid."""
        if not self.is_token_model or (height % self.patch_size == 0 and width % self.patch_size == 0):
            return
        fitting = [max(1, round(size / self.patch_size)) * self.patch_size for size in (height, width)]
        raise UserError(
            f"image size {height}x{width} is no multiple of the backbone's patch size {self.patch_size}: "
            f"set data.image_size to {fitting[0]}"
        )

    def dims(self, image_size: int) -> tuple[int, tuple[int, ...]]:
        """Return the channels of the early map and of each deep map."""
        maps = self(torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8, device=self.mean.device))
        return maps.early.shape[1], tuple(level.shape[1] for level in maps.deep)

    def _final_norm(self, hidden: Tensor) -> Tensor:
        if not self.norm_deep:
            return hidden
        return self.model.norm(hidden) if hasattr(self.model, "norm") else self.model.layernorm(hidden)

    def _to_map(self, hidden: Tensor, images: Tensor) -> Float[Tensor, "image dim h w"]:
        if not self.is_token_model:
            return hidden.float()
        patches = hidden[:, self.num_prefix_tokens :]
        return rearrange(patches, "b (h w) d -> b d h w", h=images.shape[-2] // self.patch_size).float()


def _resize(level: Tensor, grid: tuple[int, int]) -> Tensor:
    if tuple(level.shape[-2:]) == grid:
        return level
    return F.interpolate(level, size=grid, mode="bilinear", align_corners=False)


def _transformer_blocks(model: PreTrainedModel) -> nn.ModuleList:
    encoder = model.model if model.config.model_type == "dinov3_vit" else model.encoder
    return encoder.layer


def _count_hidden_states(model: PreTrainedModel, is_token_model: bool) -> int:
    if is_token_model:
        return len(_transformer_blocks(model)) + 1
    with torch.no_grad():
        output = model(torch.zeros(1, 3, 64, 64), output_hidden_states=True)
    return len(output.hidden_states)


def _resolve_block(block: int, count: int, key: str) -> int:
    if not -count <= block < count:
        raise UserError(f"{key}: block {block} does not exist, this backbone has blocks 0..{count - 1}")
    return block % count
