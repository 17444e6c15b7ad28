"""The data module: train, val and test episodes of one benchmark, fold and shot."""

import cv2
import lightning as L
import torch
from torch.utils.data import DataLoader

from fsdino_pl.data.batching import ShardedSampler, StepSampler, collate_episodes
from fsdino_pl.data.benchmark import Benchmark
from fsdino_pl.data.episodes import EpisodeDataset
from fsdino_pl.data.transforms import Transform
from fsdino_pl.episode import EpisodeBatch


class EpisodeDataModule(L.LightningDataModule):
    """Serve episodes of base classes to train and validate on, and of `split` to evaluate on.

    Every data set is built, and so checked, in `setup`: before the first step.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        *,
        fold: int,
        shot: int,
        seed: int,
        train_transform: Transform,
        eval_transform: Transform,
        split: str,
        max_steps: int,
        batch_size: int,
        val_episodes: int,
        episodes: int,
        eval_batch_size: int,
        workers: int,
    ):
        super().__init__()
        self.benchmark = benchmark
        self.fold, self.shot, self.seed, self.split = fold, shot, seed, split
        self.train_transform, self.eval_transform = train_transform, eval_transform
        self.max_steps, self.batch_size = max_steps, batch_size
        self.val_episodes, self.episodes, self.eval_batch_size = val_episodes, episodes, eval_batch_size
        self.workers = workers

    def setup(self, stage: str) -> None:
        """Build the data sets a stage needs. Raises UserError naming the file or class that is unusable."""
        if stage == "fit":
            self.train_set = self.episode_set("train", length=2**62)
        if stage in ("fit", "validate"):
            self.val_set = self.episode_set("val", length=self.val_episodes)
        if stage in ("fit", "test"):
            self.test_set = self.episode_set(self.split, length=self.episodes)

    def episode_set(self, split: str, length: int) -> EpisodeDataset:
        """Return the episodes of a split; augmented only for training."""
        return EpisodeDataset(
            self.benchmark,
            split=split,
            fold=self.fold,
            shot=self.shot,
            seed=self.seed,
            length=length,
            transform=self.train_transform if split == "train" else self.eval_transform,
        )

    def train_dataloader(self) -> DataLoader[EpisodeBatch]:
        """Serve the steps that are left: from the trainer's step to the last."""
        assert self.trainer is not None
        sampler = StepSampler(
            self.trainer.global_step,
            self.max_steps,
            self.batch_size,
            self.trainer.global_rank,
            self.trainer.world_size,
        )
        return self._loader(self.train_set, batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader[EpisodeBatch]:
        """Serve this process's share of the base-class validation episodes."""
        return self._eval_loader(self.val_set)

    def test_dataloader(self) -> DataLoader[EpisodeBatch]:
        """Serve this process's share of the evaluation episodes."""
        return self._eval_loader(self.test_set)

    def _eval_loader(self, episodes: EpisodeDataset) -> DataLoader[EpisodeBatch]:
        assert self.trainer is not None
        sampler = ShardedSampler(len(episodes), self.trainer.global_rank, self.trainer.world_size)
        return self._loader(episodes, sampler=sampler, batch_size=self.eval_batch_size)

    def _loader(self, episodes: EpisodeDataset, **how: object) -> DataLoader[EpisodeBatch]:
        return DataLoader(
            episodes,
            collate_fn=collate_episodes,
            num_workers=self.workers,
            worker_init_fn=_use_one_thread,
            pin_memory=torch.cuda.is_available(),
            **how,
        )


def _use_one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
