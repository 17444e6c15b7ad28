from pathlib import Path

import pytest

from fsdino_pl.config import load_config

EXPERIMENTS = sorted((Path(__file__).parent.parent / "experiments").rglob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_loads(path):
    load_config(path)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_says_how_to_run_it(path):
    if path.stem != "base":
        header = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert any(
            f"fsdino train {path.relative_to(path.parents[path.parts[::-1].index('experiments')])}" in line
            or f"fsdino folds {path.relative_to(path.parents[path.parts[::-1].index('experiments')])}" in line
            for line in header
        )
