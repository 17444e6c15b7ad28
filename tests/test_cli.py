import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fsdino_pl.cli import main

ROOT = Path(__file__).parent.parent


def test_help_answers_without_torch():
    code = "import sys; from fsdino_pl.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == "False"
    for command in ("train", "folds", "evaluate", "pretrain"):
        assert f"    {command}" in result.stdout


@pytest.mark.parametrize("command", ["train", "folds", "evaluate", "pretrain"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"usage: fsdino {command}" in capsys.readouterr().out


def test_print_config_shows_the_resolved_experiment_and_runs_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(ROOT / "experiments/shapes.yaml"), "data.fold=3", "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["data"]["benchmark"], printed["data"]["fold"]) == ("shapes", 3)
    assert not list(tmp_path.iterdir())


def test_user_errors_exit_2_with_one_line_and_a_traceback_only_on_demand(capsys):
    arguments = ["train", str(ROOT / "experiments/shapes.yaml"), "data.fold=9"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "fsdino: data.fold=9 is out of range: the legal range is 0..3\n"
    assert main([*arguments, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_misspelt_command_is_one_line_too(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["trian", "x.yaml"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "'trian'" in error
    assert error.count("\n") == 1


def test_a_bug_exits_1_with_one_line(monkeypatch, capsys):
    import fsdino_pl.config

    def broken(*arguments):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(fsdino_pl.config, "load_config", broken)
    assert main(["train", "x.yaml"]) == 1
    assert (
        capsys.readouterr().err
        == "fsdino: a bug, ZeroDivisionError: division by zero (--debug shows where)\n"
    )


def test_evaluate_of_no_run_says_so(capsys, tmp_path):
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "is no run folder: it has no config.yaml" in capsys.readouterr().err
