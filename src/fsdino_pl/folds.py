"""`fsdino folds`: one run per fold, then the table the field prints."""

import copy
import json
from pathlib import Path

from fsdino_pl.build import build_features
from fsdino_pl.config import Config
from fsdino_pl.evaluate import Summary
from fsdino_pl.files import write_text
from fsdino_pl.run_folder import check_same_experiment
from fsdino_pl.train import train

FOLDS = range(4)


def run_folds(config: Config) -> str:
    """Train and evaluate folds 0..3 under one name; a fold with a summary is not run again.

    Runs go to `<folder>/<name>-fold<f>`; the table to `<folder>/<name>-folds.md` and stdout.
    """
    data = config.data
    name = config.run.name or f"{data.benchmark}-{data.shot}shot-seed{data.seed}"
    parent = Path(config.run.folder)
    features = build_features(config)
    summaries = []
    for fold in FOLDS:
        one = copy.deepcopy(config)
        one.data.fold, one.run.name, one.resume = fold, f"{name}-fold{fold}", "auto"
        check_same_experiment(parent / one.run.name, one)
        finished = parent / one.run.name / "summary.json"
        summaries.append(json.loads(finished.read_text()) if finished.is_file() else train(one, features))
    table = folds_table(summaries)
    write_text(parent / f"{name}-folds.md", table)
    print(table, end="")
    return table


def folds_table(summaries: list[Summary]) -> str:
    """Return a markdown table: one row per fold and the mean, mIoU and FB-IoU in percent."""
    baselines = list(summaries[0]["baselines"])
    header = ["fold", "mIoU", "FB-IoU", *(f"{name} mIoU" for name in baselines), "train min"]
    rows = [
        [
            100 * summary["miou"],
            100 * summary["fb_iou"],
            *(100 * summary["baselines"][name]["miou"] for name in baselines),
            summary["seconds_train"] / 60,
        ]
        for summary in summaries
    ]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    labels = [str(summary["fold"]) for summary in summaries] + ["mean"]
    lines = [_line(header), _line(["---"] * len(header))]
    lines += [
        _line([label, *(f"{value:.1f}" for value in values)])
        for label, values in zip(labels, [*rows, means], strict=True)
    ]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
