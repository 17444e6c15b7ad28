"""Shared fixtures: tiny models in real formats and tiny trees in real layouts. No network, one thread."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "")

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from fsdino_pl.data.pascal5i import PASCAL_CLASSES
from fsdino_pl.episode import EpisodeBatch

torch.set_num_threads(1)


@pytest.fixture
def tiny_dinov2() -> Dinov2Model:
    torch.manual_seed(0)
    return Dinov2Model(
        Dinov2Config(
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            mlp_ratio=2,
            patch_size=14,
            image_size=70,
        )
    ).eval()


@pytest.fixture
def tiny_dinov2_folder(tiny_dinov2, tmp_path) -> Path:
    tiny_dinov2.save_pretrained(tmp_path / "dinov2")
    return tmp_path / "dinov2"


@pytest.fixture(scope="session")
def pascal_tree(tmp_path_factory) -> Path:
    """A VOC tree in miniature: every class in four trn and four val images, void outlines, palette masks."""
    root = tmp_path_factory.mktemp("VOC2012")
    for folder in ("JPEGImages", "SegmentationClassAug", "splits/trn", "splits/val"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("trn", "val"):
        for fold in range(4):
            lines = []
            for class_id in range(5 * fold, 5 * fold + 5):
                for copy in range(4):
                    name = f"{part}_{PASCAL_CLASSES[class_id]}_{copy}"
                    _write_photo(root, name, class_id, rng)
                    lines.append(f"{name}__{class_id + 1:02d}")
            (root / "splits" / part / f"fold{fold}.txt").write_text("\n".join(lines) + "\n")
    return root


def _write_photo(root: Path, name: str, class_id: int, rng: np.random.Generator) -> None:
    image = rng.integers(0, 90, (48, 64, 3)).astype(np.uint8)
    labels = np.zeros((48, 64), dtype=np.uint8)
    top, left = rng.integers(4, 16), rng.integers(4, 24)
    labels[top - 2 : top + 26, left - 2 : left + 30] = 255
    labels[top : top + 24, left : left + 28] = class_id + 1
    image[labels == class_id + 1] += np.uint8([(37 * class_id) % 160, (91 * class_id) % 160, 120])
    Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
    palette = Image.fromarray(labels, mode="P")
    palette.putpalette([(53 * i) % 256 for i in range(768)])
    palette.save(root / "SegmentationClassAug" / f"{name}.png")


@pytest.fixture
def make_batch():
    """Return a batch of random episodes over `images` distinct images."""

    def make(batch: int = 2, shot: int = 1, images: int = 6, size: int = 70, seed: int = 0) -> EpisodeBatch:
        generator = torch.Generator().manual_seed(seed)
        masks = torch.rand(batch, shot + 1, size, size, generator=generator) > 0.6
        order = torch.stack([torch.randperm(images, generator=generator)[: shot + 1] for _ in range(batch)])
        return EpisodeBatch(
            images=torch.randint(0, 256, (images, 3, size, size), generator=generator, dtype=torch.uint8),
            digests=tuple(f"{seed}-{i}" for i in range(images)),
            query=order[:, 0],
            support=order[:, 1:],
            query_mask=masks[:, 0],
            query_ignore=torch.zeros(batch, size, size, dtype=torch.bool),
            support_masks=masks[:, 1:],
            class_id=torch.zeros(batch, dtype=torch.int64),
            index=torch.arange(batch),
        )

    return make
