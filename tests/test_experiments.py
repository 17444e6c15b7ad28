from pathlib import Path

import pytest

from fsdino_pl.config import load_config

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_loads(path):
    load_config(path)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_says_how_to_run_it(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    name = path.relative_to(ROOT).as_posix()
    assert path.stem == "base" or any(
        f"fsdino {c} {name}" in line for line in header for c in ("train", "folds")
    )
