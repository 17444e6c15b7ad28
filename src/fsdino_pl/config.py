"""The schema of an experiment, and how one is loaded: schema <- YAML following `base:` <- key=value."""

import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fsdino_pl.errors import UserError


def choice(default: str, *others: str) -> Any:
    """Declare a field that takes one of a few words."""
    return field(default=default, metadata={"choices": (default, *others)})


def within(default: int | float, low: int | float, high: int | float | None = None) -> Any:
    """Declare a number in [low, high]; no upper end when `high` is None."""
    return field(default=default, metadata={"low": low, "high": high})


def numbers(*default: int | float) -> Any:
    """Declare a list of numbers."""
    return field(default_factory=lambda: list(default))


@dataclass
class RunConfig:
    """Where a run lives: `folder/name`."""

    name: str | None = None
    folder: str = "runs"


@dataclass
class DataConfig:
    """Which episodes: (benchmark, split, fold, shot, seed, index) names one; the rest is how it is read."""

    benchmark: str = choice("shapes", "pascal5i")
    root: str | None = None
    lists: str | None = None
    split: str = choice("test", "val")
    fold: int = within(0, 0, 3)
    shot: int = within(1, 1)
    seed: int = within(0, 0)
    image_size: int = within(128, 32, 4096)
    flip: bool = True
    scale_jitter: float = within(0.0, 0.0, 0.5)
    workers: int = within(1, 0)
    cache: str = choice("off", "memory")
    cache_gb: float = within(4.0, 0.0)


@dataclass
class AdapterConfig:
    """The bottleneck adapter."""

    hidden_dim: int = within(256, 8)
    bottleneck_dim: int = within(128, 8)
    norm: str = choice("batch", "group")
    depth: int = within(2, 0)
    num_heads: int = within(8, 1)


@dataclass
class DecoderConfig:
    """The mask decoder; SAM's own is depth 2, 8 heads, mlp_dim 2048 at student.embed_dim 256."""

    depth: int = within(2, 1)
    num_heads: int = within(8, 1)
    mlp_dim: int = within(2048, 8)
    frozen: bool = False


@dataclass
class StudentConfig:
    """The student: backbone (`embedded`, a folder or a hub id), its blocks, and every part behind it."""

    backbone: str = "embedded"
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    early_block: int = 3
    deep_blocks: list[int] = numbers(-4, -3, -2, -1)
    norm_deep: bool = True
    embed_dim: int = within(256, 16)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    sparse_prompt: bool = True
    background_token: bool = False
    dense_prompt: bool = True
    prior_levels: bool = False
    reader: str = choice("cp4d", "peak", "none")
    reader_widths: list[int] = numbers(16, 32, 64)
    reader_strides: list[int] = numbers(2, 2, 1)
    contrast: bool = True
    support_stride: int = within(2, 1)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


@dataclass
class OptimConfig:
    """AdamW with warm-up and cosine decay; BCE + Dice."""

    lr: float = within(1e-4, 0.0)
    decoder_lr: float = within(2e-5, 0.0)
    weight_decay: float = within(0.01, 0.0)
    warmup_steps: int = within(50, 0)
    gradient_clip: float = within(1.0, 0.0)
    bce_weight: float = within(1.0, 0.0)
    dice_weight: float = within(1.0, 0.0)


@dataclass
class TrainerConfig:
    """How long, how large, on what. Steps count optimiser steps; `batch_size` is per device."""

    max_steps: int = within(1000, 1)
    batch_size: int = within(8, 1)
    val_every: int = within(250, 1)
    val_episodes: int = within(100, 1)
    checkpoint_every: int = within(100, 1)
    log_every: int = within(10, 1)
    accelerator: str = choice("auto", "cpu", "gpu")
    devices: int = within(1, 1)
    nodes: int = within(1, 1)
    precision: str = choice("32", "bf16", "16")
    progress: bool = True


@dataclass
class EvaluateConfig:
    """The evaluation on `data.split`, and the training-free baselines on the same episodes.

    `prototype_blocks` are those of student.deep_blocks the prototype baseline compares (all when not set).
    """

    episodes: int = within(1000, 1)
    batch_size: int = within(8, 1)
    calibration_episodes: int = within(200, 1)
    prototype_blocks: list[int] | None = None


@dataclass
class Config:
    """One experiment."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    resume: str = choice("never", "auto")


def load_config(experiment: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Resolve an experiment file and `key=value` overrides.

    Raises:
        UserError: naming the file or key, for a missing or malformed file, an unknown key, a value of the
            wrong type or out of its range.
    """
    config = OmegaConf.structured(Config)
    for path, delta in _follow_bases(Path(experiment)):
        config = _merge(config, delta, str(path))
    for override in overrides:
        if "=" not in override or override.startswith("="):
            raise UserError(f"override {override!r} is not of the form key=value")
        try:
            delta = OmegaConf.from_dotlist([override])
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise UserError(f"override {override!r} cannot be read: {_first_line(error)}") from error
        config = _merge(config, delta, "command line")
    try:
        resolved = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{experiment}: {_first_line(error)}") from error
    assert isinstance(resolved, Config)
    check_ranges(resolved)
    return resolved


def to_plain(config: Config) -> dict[str, Any]:
    """Return the experiment as nested dicts of plain types, fit for YAML and checkpoints."""
    return dataclasses.asdict(config)


def to_yaml(config: Config) -> str:
    """Return the experiment as YAML that `load_config` reads back."""
    return yaml.safe_dump(to_plain(config), sort_keys=False)


def check_ranges(section: Any, prefix: str = "") -> None:
    """Raise UserError naming the first key whose value lies outside its range or choices."""
    for spec in dataclasses.fields(section):
        key, value = prefix + spec.name, getattr(section, spec.name)
        if dataclasses.is_dataclass(value):
            check_ranges(value, key + ".")
        elif "choices" in spec.metadata and value not in spec.metadata["choices"]:
            raise UserError(f"{key}={value}: choose one of {', '.join(spec.metadata['choices'])}")
        elif "low" in spec.metadata and value is not None:
            low, high = spec.metadata["low"], spec.metadata["high"]
            if not (value >= low and (high is None or value <= high) and math.isfinite(value)):
                legal = f"{low} or more" if high is None else f"{low}..{high}"
                raise UserError(f"{key}={value} is out of range: the legal range is {legal}")


def all_keys(section: Any = Config, prefix: str = "") -> list[str]:
    """Return every dotted key of the schema."""
    keys = []
    for spec in dataclasses.fields(section):
        if dataclasses.is_dataclass(spec.type):
            keys += all_keys(spec.type, f"{prefix}{spec.name}.")
        else:
            keys.append(prefix + spec.name)
    return keys


def _follow_bases(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[Path, DictConfig]]:
    """Return the YAML files from the outermost `base:` to `path` itself."""
    if path.resolve() in seen:
        raise UserError(f"{path}: its `base:` chain comes back to itself")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"experiment file {path} does not exist{_nearby(path)}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"experiment file {path} cannot be read: {_first_line(error)}") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"experiment file {path} must hold `key: value` lines")
    base = content.pop("base", None)
    chain = _follow_bases(path.parent / str(base), (*seen, path.resolve())) if base else []
    return [*chain, (path, OmegaConf.create(content))]


def _merge(config: DictConfig, delta: DictConfig, source: str) -> DictConfig:
    try:
        return OmegaConf.merge(config, delta)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or getattr(error, "key", None)
        if not key:
            sections = ", ".join(f"{k}=" for k in delta)
            raise UserError(f"{sections} ({source}) names a whole section: give one of its keys") from error
        if str(key) not in all_keys() and "not in" in str(error):
            close = difflib.get_close_matches(str(key), all_keys(), n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]}?" if close else "; see --print-config for all keys"
            raise UserError(f"unknown key {key} ({source}){hint}") from error
        raise UserError(f"{key} ({source}): {_first_line(error)}") from error


def _nearby(path: Path) -> str:
    names = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.3)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
