"""The run folder: runs/<name>/ with everything a run was made from and everything it found."""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from fsdino_pl.config import Config, load_config, to_plain, to_yaml
from fsdino_pl.errors import UserError
from fsdino_pl.files import write_text

PACKAGES = ("torch", "lightning", "torchmetrics", "transformers", "albumentations", "numpy", "fsdino-pl")
# What may differ when a run is taken up again: where and how it runs, not what it computes.
FREE_TO_CHANGE = (
    "resume", "run.", "data.workers", "data.cache", "trainer.devices", "trainer.nodes", "trainer.accelerator",
    "trainer.progress", "trainer.checkpoint_every", "evaluate.batch_size",
)  # fmt: skip
FOLDER_VARIABLE = (
    "FSDINO_RUN_FOLDER"  # tells the other processes of a distributed run where the first one went
)


def choose_run_folder(config: Config) -> Path:
    """Return the folder of this run.

    An unnamed run is called after its benchmark, fold, shot and seed, with -2, -3, ... if that is taken; to
    resume one means to resume the newest of them.

    Raises:
        UserError: for a named run that exists already, unless it is to be resumed.
    """
    is_first = rank_zero_only.rank == 0
    if not is_first and FOLDER_VARIABLE in os.environ:
        return Path(os.environ[FOLDER_VARIABLE])
    parent = Path(config.run.folder)
    if config.run.name is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("run.name is not set: processes started by torchrun or SLURM need one name to share")
    if config.run.name is not None:
        _check_name(config.run.name)
        folder = parent / config.run.name
        if is_first and _holds_run(folder) and config.resume == "never":
            raise UserError(
                f"{folder} holds a run already: continue it with resume=auto, or choose another run.name"
            )
    else:
        data = config.data
        stem = f"{data.benchmark}-fold{data.fold}-{data.shot}shot-seed{data.seed}"
        number, folder = 1, parent / stem
        while _holds_run(following := folder if number == 1 else parent / f"{stem}-{number}"):
            folder, number = following, number + 1
        folder = folder if config.resume == "auto" else following
    os.environ[FOLDER_VARIABLE] = str(folder)
    return folder


def check_same_experiment(folder: Path, config: Config) -> None:
    """Raise UserError when a run to be taken up again was made from another experiment, naming what differs."""
    if not _holds_run(folder):
        return
    before, now = _flatten(to_plain(load_config(folder / "config.yaml"))), _flatten(to_plain(config))
    changed = [key for key in now if before[key] != now[key] and not key.startswith(FREE_TO_CHANGE)]
    if changed:
        key = changed[0]
        raise UserError(
            f"{folder} was made with {key}={before[key]}, not {now[key]}: choose another run.name, or ask for the same"
        )


def prepare_run_folder(folder: Path, config: Config) -> None:
    """Write config.yaml and environment.json before anything runs."""
    write_text(folder / "config.yaml", to_yaml(config))
    write_text(folder / "environment.json", json.dumps(describe_environment(), indent=2) + "\n")


def describe_environment() -> dict[str, Any]:
    """Return the command line, code revision, versions and platform of this process."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "command": sys.argv,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": versions,
    }


def existing_run(folder: Path) -> Path:
    """Return a run folder that holds a config, or raise UserError."""
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is no run folder: it has no config.yaml")
    return folder


def _flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in section.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
        raise UserError(f"run.name={name!r}: use letters, digits, '-', '_', '=' and '.', not a path")


def _holds_run(folder: Path) -> bool:
    return (folder / "config.yaml").exists()


def _git_revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
