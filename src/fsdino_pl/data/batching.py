"""Batches of episodes: which indices go where, and how episodes share their images."""

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from fsdino_pl.episode import Episode, EpisodeBatch


class StepSampler(Sampler[list[int]]):
    """Training batches by step: step n takes the episodes n*B*world .. (n+1)*B*world - 1, shared out by rank.

    Starting at step n is all that resuming needs: there is no state and no epoch. The length counts the steps
    done before `start_step` too, as Lightning's progress does after a resumption.
    """

    def __init__(self, start_step: int, max_steps: int, batch_size: int, rank: int, world_size: int):
        self.start_step, self.max_steps = start_step, max_steps
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start_step, self.max_steps):
            first = (step * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))

    def __len__(self) -> int:
        return self.max_steps


class ShardedSampler(Sampler[int]):
    """Evaluation indices rank, rank + world, ...: every episode once, none padded in to even out the ranks."""

    def __init__(self, length: int, rank: int, world_size: int):
        self.indices = range(rank, length, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def collate_episodes(episodes: Sequence[Episode]) -> EpisodeBatch:
    """Batch episodes of one shot, storing images that are equal pixel by pixel once."""
    positions: dict[str, int] = {}
    unique: list[Tensor] = []

    def place(image: Tensor) -> int:
        digest = hashlib.blake2b(image.numpy().tobytes(), digest_size=16).hexdigest()
        if digest not in positions:
            positions[digest] = len(unique)
            unique.append(image)
        return positions[digest]

    query = [place(episode.query_image) for episode in episodes]
    support = [[place(image) for image in episode.support_images] for episode in episodes]
    return EpisodeBatch(
        images=torch.stack(unique),
        digests=tuple(positions),
        query=torch.tensor(query),
        support=torch.tensor(support),
        query_mask=torch.stack([episode.query_mask for episode in episodes]),
        query_ignore=torch.stack([episode.query_ignore for episode in episodes]),
        support_masks=torch.stack([episode.support_masks for episode in episodes]),
        class_id=torch.tensor([episode.class_id for episode in episodes]),
        index=torch.tensor([episode.index for episode in episodes]),
    )
