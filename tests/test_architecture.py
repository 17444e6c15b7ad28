"""The import rule: commands -> build -> segmenter, evaluator, data -> student, losses, metrics -> episode."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "fsdino_pl"
LAYERS = [
    {"errors", "episode", "files"},
    {"student", "losses", "metrics", "optim", "console"},
    {"data", "baselines", "segmenter", "evaluator", "visualize", "callbacks", "checkpoints", "metrics_log"},
    {"config", "build", "run_folder"},
    {"train", "evaluate", "folds", "pretrain", "cli"},
]
SEES_CONFIG = {"config", "build", "run_folder", "train", "evaluate", "folds", "cli"}
OUTSIDE_THE_STUDENT = {"lightning", "omegaconf", "wandb"}


def imports():
    """Yield (room, file, imported module) for every import statement of the package."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                yield parts[0], path.name, node.module
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield parts[0], path.name, alias.name


def test_every_room_is_on_the_plan():
    rooms = {path.stem for path in SOURCE.glob("*.py")} | {
        p.parent.name for p in SOURCE.glob("*/__init__.py")
    }
    assert rooms - {"__init__"} == set().union(*LAYERS)


def test_no_room_imports_from_above():
    level = {room: height for height, layer in enumerate(LAYERS) for room in layer}
    for room, file, module in imports():
        if module.startswith("fsdino_pl."):
            assert level[module.split(".")[1]] <= level[room], f"{file} imports {module}"


def test_config_stays_in_the_commands_and_the_composition_root():
    for room, file, module in imports():
        if module == "fsdino_pl.config":
            assert room in SEES_CONFIG, f"{file} imports the config"


def test_the_student_knows_no_framework_and_nothing_knows_torchvision():
    for room, file, module in imports():
        package = module.split(".")[0]
        assert package != "torchvision", file
        assert room != "student" or package not in OUTSIDE_THE_STUDENT, f"{file} imports {module}"
