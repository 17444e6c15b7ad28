"""Episodes as a pure function of (benchmark, split, fold, shot, seed, index)."""

import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from fsdino_pl.data.benchmark import IGNORE, Benchmark
from fsdino_pl.data.transforms import Transform
from fsdino_pl.episode import Episode
from fsdino_pl.errors import UserError


class EpisodeNames(NamedTuple):
    """An episode before any pixel is read."""

    class_id: int
    query: str
    supports: tuple[str, ...]


class EpisodeDataset(Dataset[Episode]):
    """Few-shot tasks by index; batch size, workers, processes and platform never change them.

    Training draws class and query at random, for ever. Evaluation walks the classes in turn, and each class's
    images in a shuffled order, so that every class counts alike and every image is a query about equally often.
    Supports are distinct and never the query. Shot is no part of the draws: the five supports of a 5-shot
    episode start with the one support of the 1-shot episode of the same index, about the same query.

    A class with fewer than shot + 1 images is an error, but in base-class validation (`val`) it is left out:
    `classes` names those that are asked for.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        *,
        split: str,
        fold: int,
        shot: int,
        seed: int,
        length: int,
        transform: Transform,
    ):
        self.benchmark, self.transform = benchmark, transform
        self.split, self.fold, self.shot, self.seed = split, fold, shot, seed
        self.length = length
        self.pool = benchmark.pool(split, fold)
        small = [c for c in benchmark.classes(split, fold) if len(self.pool[c]) < shot + 1]
        self.classes = tuple(c for c in benchmark.classes(split, fold) if c not in small)
        if small and (split != "val" or not self.classes):
            raise UserError(
                f"{benchmark.name}, fold {fold}, split {split}: class {benchmark.class_names[small[0]]!r} has "
                f"{len(self.pool[small[0]])} images, a {shot}-shot episode needs {shot + 1}: lower data.shot"
            )
        evaluated = {} if split == "train" else self.pool
        self.query_order = {
            c: sorted(names, key=lambda name: self._draw("order", name)) for c, names in evaluated.items()
        }

    def __len__(self) -> int:
        return self.length

    def names(self, index: int) -> EpisodeNames:
        """Return which class, query and supports episode `index` is about."""
        if self.split == "train":
            class_id = self.classes[self._draw(index, "class") % len(self.classes)]
            pool = self.pool[class_id]
            query = pool[self._draw(index, "query") % len(pool)]
        else:
            round_, position = divmod(index, len(self.classes))
            class_id = self.classes[position]
            pool = self.pool[class_id]
            query = self.query_order[class_id][round_ % len(pool)]
        supports: dict[str, None] = {}
        attempt = 0
        while len(supports) < self.shot:
            candidate = pool[self._draw(index, "support", attempt) % len(pool)]
            attempt += 1
            if candidate != query:
                supports[candidate] = None
        return EpisodeNames(class_id, query, tuple(supports))

    def __getitem__(self, index: int) -> Episode:
        class_id, query, supports = self.names(index)
        images, labels = zip(
            *(
                self.transform(*self.benchmark.load(name), key=self._draw(index, "view", position) % 2**32)
                for position, name in enumerate((query, *supports))
            ),
            strict=True,
        )
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        label_maps = torch.from_numpy(np.stack(labels))
        masks = label_maps == class_id + 1
        return Episode(
            query_image=pixels[0],
            query_mask=masks[0],
            query_ignore=label_maps[0] == IGNORE,
            support_images=pixels[1:],
            support_masks=masks[1:],
            class_id=class_id,
            index=index,
            query_name=query,
            support_names=supports,
        )

    def sha256(self) -> str:
        """Fingerprint of the episode list: class, query and supports of every index."""
        return episodes_sha256(self.names(index) for index in range(self.length))

    def _draw(self, *what: object) -> int:
        """Return 64 random bits that depend on the seed and on what is drawn, and on nothing else."""
        key = json.dumps([self.benchmark.name, self.split, self.fold, self.seed, *what])
        return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())


def episodes_sha256(episodes: Iterable[EpisodeNames]) -> str:
    """Return the sha256 of `[[class_id, query, [supports]], ...]` as compact JSON."""
    rows = [[e.class_id, e.query, list(e.supports)] for e in episodes]
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
