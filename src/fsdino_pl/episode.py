"""The shapes everything else refers to: one episode, a batch of them, and what a student answers."""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor


class Episode(NamedTuple):
    """One few-shot task: K support images with masks of a class, and a query image of the same class.

    Images are RGB, 0..255. Masks are true where the class is; pixels labelled 255 (void) are false in
    every mask and true in `query_ignore`, so that loss and metric can leave them out.
    """

    query_image: UInt8[Tensor, "3 height width"]
    query_mask: Bool[Tensor, "height width"]
    query_ignore: Bool[Tensor, "height width"]
    support_images: UInt8[Tensor, "shot 3 height width"]
    support_masks: Bool[Tensor, "shot height width"]
    class_id: int
    index: int
    query_name: str
    support_names: tuple[str, ...]


class EpisodeBatch(NamedTuple):
    """A batch of episodes whose distinct images are stored once.

    `query` and `support` are positions in `images`; `digests` names each image by its content, so that a
    frozen backbone encodes an image once per batch, or once ever.
    """

    images: UInt8[Tensor, "image 3 height width"]
    digests: tuple[str, ...]
    query: Int64[Tensor, " batch"]
    support: Int64[Tensor, "batch shot"]
    query_mask: Bool[Tensor, "batch height width"]
    query_ignore: Bool[Tensor, "batch height width"]
    support_masks: Bool[Tensor, "batch shot height width"]
    class_id: Int64[Tensor, " batch"]
    index: Int64[Tensor, " batch"]


@dataclass(frozen=True)
class Prediction:
    """What a student answers for a batch: logits at decoder resolution and the prior it started from."""

    mask_logits: Float[Tensor, "batch mask_height mask_width"]
    prior: Float[Tensor, "batch h w"]
