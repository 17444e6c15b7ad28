"""metrics.jsonl: one JSON object per logged step, the same for an unbroken and a resumed run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from fsdino_pl.files import write_text


class JsonLinesLogger(Logger):
    """Append `{"step": n, "train/loss": ...}` lines; `step` counts finished optimiser steps."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "jsonl"

    @property
    def version(self) -> str:
        """One log per run."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one line."""
        assert step is not None
        # Lightning names the step just finished by its index; a count is what people read.
        row: dict[str, Any] = {"step": step + 1}
        row |= {key: float(value) for key, value in metrics.items() if key != "epoch"}
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The experiment is in config.yaml already."""


def cut_metrics_after(path: Path, step: int) -> None:
    """Drop the lines a killed run wrote after the state it is resumed from, and a half-written last one."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= step:
            kept.append(line + "\n")
    write_text(path, "".join(kept))
