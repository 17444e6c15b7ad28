"""The console script `fsdino COMMAND ...`; torch is imported only when a command runs."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from fsdino_pl.errors import UserError

DESCRIPTION = "Few-shot semantic segmentation with FS-DINO."
OVERRIDES = "override any key of the experiment, e.g. data.fold=2 trainer.max_steps=500"


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, like every other complaint."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help shows how)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 2 for bad input (one line on stderr), 1 for a bug."""
    options = build_parser().parse_args(arguments)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        options.command(options)
    except UserError as error:
        if options.debug:
            traceback.print_exc()
        print(f"fsdino: {_one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        if options.debug:
            traceback.print_exc()
        print(f"fsdino: {error.strerror or error}: {error.filename or 'see --debug'}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fsdino: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        print(f"fsdino: a bug, {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)
        return 1
    return 0


def _one_line(error: UserError) -> str:
    """Return the message; of one raised in a data worker, which comes wrapped in a traceback, the last line."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = OneLineParser(prog="fsdino", description=DESCRIPTION)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser(
        "train", parents=[common], help="train on base classes, evaluate on novel ones"
    )
    _add_experiment(command)
    command.add_argument("--print-config", action="store_true", help="print the resolved experiment and stop")
    command.set_defaults(command=_train)

    command = commands.add_parser(
        "folds", parents=[common], help="train and evaluate all folds, print their table"
    )
    _add_experiment(command)
    command.set_defaults(command=_folds)

    command = commands.add_parser("evaluate", parents=[common], help="score a run's chosen checkpoint")
    command.add_argument(
        "run", type=Path, metavar="RUN", help="a run folder, e.g. runs/shapes-fold0-1shot-seed0"
    )
    command.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    command.set_defaults(command=_evaluate)

    command = commands.add_parser("pretrain", parents=[common], help="pretrain the embedded encoder anew")
    command.add_argument(
        "output", type=Path, metavar="FOLDER", help="where config.json and model.safetensors go"
    )
    command.add_argument("--steps", type=int, default=1500)
    command.add_argument("--batch-size", type=int, default=16)
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(command=_pretrain)
    return parser


def _add_experiment(command: argparse.ArgumentParser) -> None:
    command.add_argument("experiment", type=Path, metavar="EXPERIMENT", help="a YAML file of experiments/")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)


def _train(options: argparse.Namespace) -> None:
    from fsdino_pl.config import load_config, to_yaml

    config = load_config(options.experiment, options.overrides)
    if options.print_config:
        print(to_yaml(config), end="")
        return
    _quiet()
    from fsdino_pl.train import train

    train(config)


def _folds(options: argparse.Namespace) -> None:
    from fsdino_pl.config import load_config

    config = load_config(options.experiment, options.overrides)
    _quiet()
    from fsdino_pl.folds import run_folds

    run_folds(config)


def _evaluate(options: argparse.Namespace) -> None:
    _quiet()
    from fsdino_pl.evaluate import evaluate

    evaluate(options.run, options.overrides)


def _pretrain(options: argparse.Namespace) -> None:
    _quiet()
    from fsdino_pl.pretrain import pretrain

    pretrain(options.output, steps=options.steps, batch_size=options.batch_size, seed=options.seed)


def _quiet() -> None:
    from fsdino_pl.console import quiet_dependencies

    quiet_dependencies()


if __name__ == "__main__":
    sys.exit(main())
