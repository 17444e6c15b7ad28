import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


# What an outer `make test` hands down would change what an inner make prints.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS")}


def make(*arguments):
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def last_line(*arguments):
    return make("-n", *arguments).stdout.strip().splitlines()[-1]


def test_train_prints_one_command_a_person_could_type():
    assert (
        last_line("train", "FOLD=2", "SHOT=5")
        == "fsdino train experiments/shapes.yaml data.fold=2 data.shot=5"
    )


def test_every_variable_reaches_its_key():
    variables = {
        "DATA=pascal5i ROOT=/voc LISTS=/lists": "data.root=/voc data.lists=/lists",
        "BACKBONE=/dino STEPS=9": "student.backbone=/dino trainer.max_steps=9",
        "SEED=4 DEVICES=2": "data.seed=4 trainer.devices=2",
        "PRECISION=bf16 NAME=mine": "trainer.precision=bf16 run.name=mine",
    }
    for given, promised in variables.items():
        assert last_line("train", *given.split()).endswith(promised)
    assert last_line("train", "ARGS=optim.lr=1 data.flip=false").endswith("optim.lr=1 data.flip=false")


@pytest.mark.parametrize(
    ("variable", "legal"),
    [
        ("FOLD=4", "the legal range is 0..3"),
        ("FOLD=x", "the legal range is 0..3"),
        ("SHOT=0", "the legal range is 1, 2, 3"),
        ("SHOT=-1", "the legal range is 1, 2, 3"),
        ("SHOT=five", "the legal range is 1, 2, 3"),
        ("DATA=imagenet", "choose shapes or pascal5i"),
    ],
)
def test_a_bad_variable_says_what_is_legal(variable, legal):
    result = make("-n", "train", variable)
    assert result.returncode == 2
    assert f"{variable} is" in result.stderr
    assert legal in result.stderr


def test_folds_and_eval_are_commands_too():
    assert last_line("folds", "SHOT=5") == "fsdino folds experiments/shapes.yaml data.shot=5"
    assert last_line("eval", "RUN=runs/x") == "fsdino evaluate runs/x"


def test_every_target_makes_sure_of_the_environment():
    for target in ("train", "eval", "folds", "test", "lint"):
        commands = make("-n", "VENV=/nowhere/venv", target).stdout
        assert "pip install" in commands.split("\n", 1)[1]


def test_help_lists_every_target():
    listed = make("help").stdout
    for target in ("help", "train", "eval", "folds", "test", "lint", "clean"):
        assert f"make {target}" in listed
