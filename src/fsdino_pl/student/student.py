"""The student: adapter, prompt generator and mask decoder on top of frozen feature maps."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from fsdino_pl.episode import EpisodeBatch, Prediction
from fsdino_pl.student.adapter import BottleneckAdapter
from fsdino_pl.student.backbone import FeatureMaps
from fsdino_pl.student.mask_decoder import MaskDecoder
from fsdino_pl.student.matching import masks_to_grid
from fsdino_pl.student.prompt_generator import PromptGenerator


class Student(nn.Module):
    """FS-DINO without its backbone: everything that is trained on episodes.

    The backbone stays outside, because its features are computed once per distinct image and may come from
    a cache.
    """

    def __init__(
        self, adapter: BottleneckAdapter, prompt_generator: PromptGenerator, mask_decoder: MaskDecoder
    ):
        super().__init__()
        self.adapter = adapter
        self.prompt_generator = prompt_generator
        self.mask_decoder = mask_decoder

    def forward(self, features: FeatureMaps, episodes: EpisodeBatch) -> Prediction:
        """Segment the queries of a batch, given the feature maps of its distinct images."""
        # Look up what the backbone saw in each query and in its supports.
        query = features.select(episodes.query)
        shot = episodes.support.shape[1]
        support_images = rearrange(episodes.support, "b k -> (b k)")
        support = tuple(
            rearrange(level[support_images], "(b k) d h w -> b k d h w", k=shot) for level in features.deep
        )
        foreground = masks_to_grid(episodes.support_masks, tuple(support[0].shape[-2:]))

        # Turn the comparison of support and query into prompts.
        prompts = self.prompt_generator(query, support, foreground)

        # Embed the query for the decoder, on the grid of the prompts.
        image_embedding = self.embed(query.early, tuple(prompts.dense.shape[-2:]))

        # Draw the mask.
        mask_logits = self.mask_decoder(image_embedding, prompts.sparse, prompts.dense)
        return Prediction(mask_logits, prompts.prior)

    def embed(
        self, early: Float[Tensor, "batch in_dim early_h early_w"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch dim h w"]:
        """Return the adapter's image embedding, early maps of a finer stride averaged down to `grid`."""
        if tuple(early.shape[-2:]) != grid:
            early = F.interpolate(early, size=grid, mode="area")
        return self.adapter(early)
