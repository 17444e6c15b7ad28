"""`fsdino evaluate`: score a run's chosen checkpoint, and the baselines, on the same episodes."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch
from lightning.pytorch.utilities import rank_zero_only

from fsdino_pl.build import (
    build_benchmark,
    build_data,
    build_evaluator,
    build_features,
    build_segmenter,
    build_trainer,
)
from fsdino_pl.checkpoints import BEST, is_good, manifest_path
from fsdino_pl.config import Config, load_config
from fsdino_pl.data.data_module import EpisodeDataModule
from fsdino_pl.errors import UserError
from fsdino_pl.evaluator import EpisodicEvaluator
from fsdino_pl.files import write_text
from fsdino_pl.run_folder import existing_run
from fsdino_pl.segmenter import FewShotSegmenter

MAX_NAME = 100


class Summary(TypedDict):
    """summary.json: scores in [0, 1], times in seconds."""

    benchmark: str
    split: str
    fold: int
    shot: int
    seed: int
    episodes: int
    episodes_sha256: str
    miou: float
    fb_iou: float
    per_class: dict[str, float]
    baselines: dict[str, dict[str, float]]
    seconds_train: float
    seconds_eval: float
    steps: int
    parameters: dict[str, int]
    backbone: str
    checkpoint_sha256: str


def evaluate(run: Path, overrides: Sequence[str] = ()) -> Summary:
    """Evaluate a run again; with overrides the result goes to RUN/evaluations/<overrides>/.

    Raises:
        UserError: when the folder holds no run, no good checkpoint, or the overrides cannot work.
    """
    folder = existing_run(run)
    config = load_config(folder / "config.yaml", overrides)
    before = _read_summary(folder / "summary.json")
    data = build_data(config, build_benchmark(config))
    data.setup("validate")
    return evaluate_best(
        config,
        build_segmenter(config, build_features(config), data.val_set.classes),
        data,
        run=folder,
        output=folder / "evaluations" / _name_of(overrides) if overrides else folder,
        seconds_train=before.get("seconds_train", 0.0),
        steps=before.get("steps", 0),
    )


def evaluate_best(
    config: Config,
    segmenter: FewShotSegmenter,
    data: EpisodeDataModule,
    *,
    run: Path,
    output: Path,
    seconds_train: float,
    steps: int,
) -> Summary:
    """Load RUN/checkpoints/best.ckpt into the segmenter, evaluate it, write summary.json and episodes.png."""
    started = time.monotonic()
    checkpoint = run / "checkpoints" / BEST
    if not is_good(checkpoint):
        raise UserError(
            f"{checkpoint} is missing or damaged: train the run first, or resume it with resume=auto"
        )
    _load_student(segmenter, checkpoint)
    data.val_episodes = config.evaluate.calibration_episodes
    data.setup("validate")
    data.setup("test")
    evaluator = build_evaluator(config, segmenter, data)

    class_names = data.benchmark.class_names
    trainer = build_trainer(config, output, class_names)
    trainer.validate(evaluator, datamodule=data, verbose=False)
    trainer.test(evaluator, datamodule=data, verbose=False)
    if evaluator.evaluated != len(data.test_set):
        raise RuntimeError(f"{evaluator.evaluated} episodes were evaluated, not {len(data.test_set)}")

    summary = _summarise(
        config,
        evaluator,
        class_names,
        data.test_set.sha256(),
        seconds_train=seconds_train,
        seconds_eval=time.monotonic() - started,
        steps=steps,
        checkpoint=checkpoint,
    )
    _report(summary, output)
    return summary


def _load_student(segmenter: FewShotSegmenter, checkpoint: Path) -> None:
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    student = {k.removeprefix("student."): v for k, v in weights.items() if k.startswith("student.")}
    try:
        segmenter.student.load_state_dict(student)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{checkpoint} does not fit this experiment's student: {reason}") from error


def _summarise(
    config: Config,
    evaluator: EpisodicEvaluator,
    class_names: Sequence[str],
    episodes_sha256: str,
    *,
    seconds_train: float,
    seconds_eval: float,
    steps: int,
    checkpoint: Path,
) -> Summary:
    scores = evaluator.scores
    student = scores["student"]
    parameters = list(evaluator.segmenter.parameters())
    return {
        "benchmark": config.data.benchmark,
        "split": config.data.split,
        "fold": config.data.fold,
        "shot": config.data.shot,
        "seed": config.data.seed,
        "episodes": evaluator.evaluated,
        "episodes_sha256": episodes_sha256,
        "miou": student["miou"],
        "fb_iou": student["fb_iou"],
        "per_class": {class_names[c]: iou for c, iou in student["per_class"].items()},
        "baselines": {
            name: {
                "miou": scores[name]["miou"],
                "fb_iou": scores[name]["fb_iou"],
                "threshold": evaluator.thresholds[name],
            }
            for name in evaluator.baselines
        },
        "seconds_train": round(seconds_train, 2),
        "seconds_eval": round(seconds_eval, 2),
        "steps": steps,
        "parameters": {
            "total": sum(p.numel() for p in parameters),
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        },
        "backbone": config.student.backbone,
        "checkpoint_sha256": json.loads(manifest_path(checkpoint).read_text())["sha256"],
    }


@rank_zero_only
def _report(summary: Summary, output: Path) -> None:
    write_text(output / "summary.json", json.dumps(summary, indent=2) + "\n")
    prototype = summary["baselines"]["prototype"]["miou"]
    print(
        f"mIoU {100 * summary['miou']:.1f}  FB-IoU {100 * summary['fb_iou']:.1f}  "
        f"prototype baseline mIoU {100 * prototype:.1f}  {output}"
    )


def _name_of(overrides: Sequence[str]) -> str:
    """Return a folder name that tells evaluations apart; a long one is cut and ends in a hash."""
    name = ",".join(overrides).replace("/", "_")
    if len(name) <= MAX_NAME:
        return name
    return f"{name[:MAX_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _read_summary(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
