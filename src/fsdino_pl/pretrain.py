"""`fsdino pretrain`: train the tiny encoder embedded in the package, from nothing but procedural images."""

import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32, Float64, UInt8
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from fsdino_pl.data.shapes import SHAPE_CLASSES
from fsdino_pl.data.shapes_rendering import Draws, Look, render
from fsdino_pl.data.shapes_textures import PALETTES, SILHOUETTES, TEXTURES
from fsdino_pl.errors import UserError
from fsdino_pl.student.backbone import IMAGENET_MEAN, IMAGENET_STD

PATCH_SIZE = 8
ENCODER = {
    "hidden_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "mlp_ratio": 2,
    "patch_size": PATCH_SIZE,
}
FACTORS = {"silhouette": tuple(SILHOUETTES), "texture": tuple(TEXTURES), "palette": tuple(PALETTES)}
SIZES = [len(values) + 1 for values in FACTORS.values()]
# The benchmark's own combinations are never shown.
ALLOWED_LOOKS = tuple(
    sorted(
        {Look(*values) for values in itertools.product(*FACTORS.values())}
        - {shape.look for shape in SHAPE_CLASSES}
    )
)
MIDDLE_BLOCK = 3  # supervised too: its features draw outlines, and the deeper ones learn sooner
LEARNING_RATE, WEIGHT_DECAY, WARMUP, CLIP = 1.5e-3, 0.05, 0.05, 1.0
OBJECTS = (3, 4, 5)
HELD_OUT_IMAGES = 128
REPORT = "pretraining.json"
PROGRESS_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("loss {task.fields[loss]:.3f}"),
    TimeRemainingColumn(),
)


class LabelledImages(NamedTuple):
    """Procedural images and, for every patch, which share of it belongs to which value of each factor.

    Values stand one factor after the other; the last value of each is the ground. A factor's shares add up to 1.
    """

    images: UInt8[Tensor, "batch 3 height width"]
    shares: Float[Tensor, "batch token value"]


class FactorModel(nn.Module):
    """The encoder and, on a middle and on the last block, one linear classifier per factor, dropped afterwards."""

    def __init__(self, image_size: int):
        super().__init__()
        self.encoder = Dinov2Model(Dinov2Config(image_size=image_size, **ENCODER))
        dim = self.encoder.config.hidden_size
        self.middle = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, sum(SIZES)))
        self.last = nn.Linear(dim, sum(SIZES))

    def forward(
        self, images: UInt8[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch token value"], Float[Tensor, "batch token value"]]:
        """Return the logits of all factors' values, one factor after the other, from middle and last block."""
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        output = self.encoder((images / 255 - mean) / std, output_hidden_states=True)
        middle, last = output.hidden_states[MIDDLE_BLOCK], output.last_hidden_state
        return self.middle(middle[:, 1:]), self.last(last[:, 1:])


def pretrain(
    output: Path, *, steps: int, batch_size: int, seed: int, image_size: int = 128, progress: bool = True
) -> dict[str, object]:
    """Train a tiny Dinov2Model to name silhouette, texture and palette of every patch, and save it.

    Images come from the benchmark's renderer, but never with one of its 24 combinations.

    Args:
        output: Folder for config.json, model.safetensors and pretraining.json; replaced if it holds those.
        steps: Optimiser steps.
        batch_size: Images a step.
        seed: Of weights and images.
        image_size: Image side in pixels, a multiple of 8.
        progress: Whether to draw a progress bar.

    Returns:
        The content of pretraining.json.

    Raises:
        UserError: if `output` is in the way or an argument is out of range.
    """
    _check(output, steps, batch_size, image_size)
    started = time.monotonic()
    torch.manual_seed(seed)
    model = FactorModel(image_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_share(step, steps))
    with Progress(*PROGRESS_COLUMNS, disable=not progress) as bar:
        task = bar.add_task("pretrain", total=steps, loss=math.nan)
        for step in range(steps):
            numbers = range(step * batch_size, (step + 1) * batch_size)
            keys = [f"pretraining/{seed}/{number}" for number in numbers]
            loss = factor_loss(model, labelled_images(keys, image_size))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            bar.update(task, advance=1, loss=loss.item())
    report = {
        "labels": {factor: [*values, "ground"] for factor, values in FACTORS.items()},
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "image_size": image_size,
        "accuracy": measure_accuracy(model, image_size),
        "seconds": round(time.monotonic() - started),
    }
    _save(model.encoder, report, output)
    return report


def labelled_images(keys: Sequence[str], image_size: int) -> LabelledImages:
    """Draw an image per key: a few objects of allowed looks, and the shares they have of each patch."""
    images, shares = zip(*(_labelled_image(key, image_size) for key in keys), strict=True)
    return LabelledImages(
        rearrange(torch.from_numpy(np.stack(images)), "b h w c -> b c h w").contiguous(),
        torch.from_numpy(np.stack(shares)),
    )


def _labelled_image(
    key: str, image_size: int
) -> tuple[UInt8[np.ndarray, "height width 3"], Float32[np.ndarray, "token value"]]:
    draws = Draws(key)
    looks = [draws.choice(ALLOWED_LOOKS) for _ in range(draws.choice(OBJECTS))]
    image, owner = render(looks, draws, image_size)
    patches = rearrange(owner, "(h p) (w q) -> (h w) (p q)", p=PATCH_SIZE, q=PATCH_SIZE)
    covered = np.stack([(patches == number).mean(axis=1) for number in range(len(looks) + 1)], axis=1)
    shares = [covered @ _values_of(looks, factor) for factor in FACTORS]
    return image, np.concatenate(shares, axis=1).astype(np.float32)


def _values_of(looks: Sequence[Look], factor: str) -> Float64[np.ndarray, "owner value"]:
    """Return, for the ground and then every object, its value of the factor as a row of an identity matrix."""
    values = FACTORS[factor]
    return np.eye(len(values) + 1)[[len(values), *(values.index(getattr(look, factor)) for look in looks)]]


def factor_loss(model: FactorModel, batch: LabelledImages) -> Float[Tensor, ""]:
    """Cross-entropy between the patches' shares and the answers of both blocks, mean over the factors."""
    loss = torch.zeros(())
    for logits in model(batch.images):
        for answer, share in zip(logits.split(SIZES, dim=-1), batch.shares.split(SIZES, dim=-1), strict=True):
            loss = loss - (share * answer.log_softmax(dim=-1)).sum(dim=-1).mean()
    return loss / (2 * len(FACTORS))


@torch.no_grad()
def measure_accuracy(model: FactorModel, image_size: int) -> dict[str, float]:
    """Return how often the last block is right about patches of unseen images, 0..1.

    Of the patches that lie mostly on one object, which value each factor has (`object`: all three at once);
    of all patches, whether they lie mostly on the ground (`ground`).
    """
    model.eval()
    right: dict[str, list[Tensor]] = {name: [] for name in (*FACTORS, "object", "ground")}
    for start in range(0, HELD_OUT_IMAGES, 16):
        batch = labelled_images([f"held out/{start + number}" for number in range(16)], image_size)
        answers = model(batch.images)[1].split(SIZES, dim=-1)
        shares = batch.shares.split(SIZES, dim=-1)
        is_object = shares[0][..., :-1].amax(dim=-1) > 0.5
        hits = [
            a[..., :-1].argmax(-1) == s[..., :-1].argmax(-1) for a, s in zip(answers, shares, strict=True)
        ]
        for factor, hit in zip(FACTORS, hits, strict=True):
            right[factor].append(hit[is_object])
        right["object"].append(torch.stack(hits).all(dim=0)[is_object])
        is_ground = answers[0].softmax(dim=-1)[..., -1] > 0.5
        right["ground"].append((is_ground == (shares[0][..., -1] > 0.5)).flatten())
    return {name: round(torch.cat(hits).double().mean().item(), 3) for name, hits in right.items()}


def _learning_rate_share(step: int, steps: int) -> float:
    warmup = WARMUP * steps
    return min((step + 1) / (warmup + 1), 0.5 * (1 + math.cos(math.pi * step / steps)))


def _check(output: Path, steps: int, batch_size: int, image_size: int) -> None:
    if steps < 1 or batch_size < 1:
        raise UserError(f"steps ({steps}) and batch size ({batch_size}) must be at least 1")
    if image_size % PATCH_SIZE or image_size < 64:
        raise UserError(f"image size {image_size} must be a multiple of {PATCH_SIZE}, at least 64")
    if output.exists() and not (output / REPORT).is_file():
        raise UserError(f"{output} exists and holds no pretrained encoder: choose another folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {output.parent}: {error.strerror}") from error
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"cannot write to {output.parent}: choose another folder")


def _save(encoder: Dinov2Model, report: dict[str, object], output: Path) -> None:
    """Write the folder beside its place, then move it there, in the place of an older one."""
    new, old = (output.with_name(f".{output.name}.{os.getpid()}.{age}") for age in ("new", "old"))
    encoder.save_pretrained(new)
    for file in new.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read
    (new / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    if output.exists():
        output.rename(old)
    new.rename(output)
    shutil.rmtree(old, ignore_errors=True)
