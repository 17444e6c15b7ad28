"""Checkpoints that are whole or absent: atomic writes, a manifest each, the newest good one on resume."""

import json
import re
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO

from fsdino_pl.errors import UserError
from fsdino_pl.files import sha256_of, sweep_temporaries, write_atomically, write_text

BEST = "best.ckpt"
LAST_PATTERN = re.compile(r"step=(\d+)\.ckpt")


class AtomicCheckpointIO(CheckpointIO):
    """Save through a temporary name with a manifest {size, sha256, step}; load plain tensors only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write the checkpoint, then its manifest: without a manifest a file counts as unfinished."""
        path = Path(path)
        manifest = manifest_path(path)
        manifest.unlink(missing_ok=True)
        write_atomically(path, lambda stream: torch.save(checkpoint, stream))
        entry = {
            "size": path.stat().st_size,
            "sha256": sha256_of(path),
            "step": int(checkpoint.get("global_step", 0)),
        }
        write_text(manifest, json.dumps(entry) + "\n")

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a verified checkpoint; code in a pickle is refused whatever the environment says."""
        path = Path(path)
        if not is_good(path):
            raise UserError(f"checkpoint {path} is missing, cut short or damaged")
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint, manifest first."""
        manifest_path(Path(path)).unlink(missing_ok=True)
        Path(path).unlink(missing_ok=True)


def manifest_path(checkpoint: Path) -> Path:
    """Return where a checkpoint's manifest lies."""
    return checkpoint.with_suffix(".json")


def is_good(checkpoint: Path) -> bool:
    """Say whether a checkpoint is whole: its size and sha256 are those of its manifest."""
    try:
        entry = json.loads(manifest_path(checkpoint).read_text())
        return checkpoint.stat().st_size == entry["size"] and sha256_of(checkpoint) == entry["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def newest_good(folder: Path) -> Path | None:
    """Return the good checkpoint with the highest step, sweeping away what a killed writer left."""
    sweep_temporaries(folder)
    steps = {
        int(match[1]): path
        for path in folder.glob("step=*.ckpt")
        if (match := LAST_PATTERN.fullmatch(path.name))
    }
    for step in sorted(steps, reverse=True):
        if is_good(steps[step]):
            return steps[step]
        print(f"warning: {steps[step]} is damaged and is not used")
    return None


class RunCheckpoints(L.Callback):
    """Keep `best.ckpt` by base-class validation mIoU, and the last two states to resume from.

    A state is saved before its step runs, so after every validation due by then: resuming from it repeats
    nothing and skips nothing.
    """

    def __init__(self, folder: Path, every: int, keep: int = 2):
        self.folder, self.every, self.keep = folder, every, keep
        self.best_miou = -1.0
        self.seconds_before = 0.0
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Training time so far, over all resumptions (s)."""
        return self.seconds_before + time.monotonic() - self.started

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {"best_miou": self.best_miou, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over from the run that was resumed; a best that is lost is looked for again."""
        self.seconds_before = state_dict["seconds"]
        if is_good(self.folder / BEST):
            self.best_miou = state_dict["best_miou"]

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Record a state between two steps, validation done, whatever hook it is saved from.

        Lightning's own counts depend on the hook and make a resumed run validate and log at shifted steps.
        """
        step = trainer.global_step
        epoch_loop = checkpoint["loops"]["fit_loop"]
        # Resumed where a validation was due, Lightning goes once through its loop, counting, to skip it.
        skipped_validation = step % trainer.val_check_batch == 0
        epoch_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step - skipped_validation
        for counts in ("total", "current"):
            progress = epoch_loop["epoch_loop.batch_progress"][counts]
            progress.update(dict.fromkeys(progress, step))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save every `every` steps."""
        if trainer.global_step and trainer.global_step % self.every == 0:
            self._save_last(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the best so far; the earliest of equals."""
        miou = float(trainer.callback_metrics["val/miou"])
        if miou > self.best_miou:
            self.best_miou = miou
            trainer.save_checkpoint(self.folder / BEST)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the final state."""
        self._save_last(trainer)

    def _save_last(self, trainer: L.Trainer) -> None:
        path = self.folder / f"step={trainer.global_step:07d}.ckpt"
        if is_good(path):
            return
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            for old in sorted(self.folder.glob("step=*.ckpt"))[: -self.keep]:
                trainer.strategy.remove_checkpoint(old)
