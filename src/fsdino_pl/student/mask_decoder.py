"""The mask decoder: SAM's topology, batched over images, any grid, one mask."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamVisionConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPositionalEmbedding

SAM_LAYER_NORM_EPS = 1e-5  # the official decoder's two-way blocks; the Hugging Face default is 1e-6


class MaskDecoder(nn.Module):
    """SAM's two-way transformer, upscaling and hypernetwork, drawing the mask of mask token 0.

    At `embed_dim` 256 and `mlp_dim` 2048 it has SAM's 4,058,340 parameters and takes its weights. The parts
    SAM uses for several masks and for their quality are kept for that, but frozen: nothing here reads them.
    """

    def __init__(self, *, embed_dim: int = 256, depth: int = 2, num_heads: int = 8, mlp_dim: int = 2048):
        super().__init__()
        self.decoder = SamMaskDecoder(
            SamMaskDecoderConfig(
                hidden_size=embed_dim,
                num_hidden_layers=depth,
                num_attention_heads=num_heads,
                mlp_dim=mlp_dim,
                layer_norm_eps=SAM_LAYER_NORM_EPS,
                attn_implementation="sdpa",
            )
        )
        self.position_encoding = SamPositionalEmbedding(SamVisionConfig(num_pos_feats=embed_dim // 2))
        # SAM draws its frequencies from N(0, 1); the Hugging Face module would scale them by half its encoder's width.
        nn.init.normal_(self.position_encoding.positional_embedding)
        self.position_encoding.requires_grad_(False)
        self.decoder.iou_prediction_head.requires_grad_(False)
        self.decoder.output_hypernetworks_mlps[1:].requires_grad_(False)

    def forward(
        self,
        image_embedding: Float[Tensor, "batch dim h w"],
        sparse_prompts: Float[Tensor, "batch token dim"] | None,
        dense_prompt: Float[Tensor, "batch dim h w"],
    ) -> Float[Tensor, "batch mask_height mask_width"]:
        """Return mask logits at four times the grid: one image, one set of prompts, one mask each."""
        batch, _, h, w = image_embedding.shape
        position = self.encode_positions(h, w).expand(batch, -1, -1, -1)
        masks, _ = self.decoder(
            image_embeddings=image_embedding,
            image_positional_embeddings=position,
            sparse_prompt_embeddings=None if sparse_prompts is None else sparse_prompts[:, None],
            dense_prompt_embeddings=dense_prompt,
            multimask_output=False,
        )
        return rearrange(masks, "b 1 1 h w -> b h w")

    def encode_positions(self, h: int, w: int) -> Float[Tensor, "1 dim h w"]:
        """SAM's random Fourier features of the cell centres; continuous, so that any grid will do."""
        device = self.position_encoding.positional_embedding.device
        y = (torch.arange(h, device=device) + 0.5) / h
        x = (torch.arange(w, device=device) + 0.5) / w
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        coordinates = torch.stack([grid_x, grid_y], dim=-1)[None]
        return rearrange(self.position_encoding(coordinates), "1 h w d -> 1 d h w")
