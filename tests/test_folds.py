import json
from pathlib import Path

from fsdino_pl.folds import folds_table

ROOT = Path(__file__).parent.parent


def summary(fold, miou, baseline):
    return {
        "fold": fold,
        "miou": miou,
        "fb_iou": miou + 0.2,
        "baselines": {"prototype": {"miou": baseline, "fb_iou": 0.5}},
        "seconds_train": 120.0,
    }


def test_the_table_has_a_row_per_fold_and_their_mean():
    table = folds_table(
        [summary(0, 0.5, 0.4), summary(1, 0.6, 0.45), summary(2, 0.4, 0.3), summary(3, 0.5, 0.41)]
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[0] == ["fold", "mIoU", "FB-IoU", "prototype mIoU", "train min"]
    assert rows[2] == ["0", "50.0", "70.0", "40.0", "2.0"]
    assert rows[-1] == ["mean", "50.0", "70.0", "39.0", "2.0"]


def test_folds_run_once_and_a_changed_experiment_is_refused(monkeypatch, tmp_path, capsys):
    from fsdino_pl import folds
    from fsdino_pl.cli import main
    from fsdino_pl.run_folder import prepare_run_folder

    trained = []

    def fake_train(config, features):
        folder = tmp_path / config.run.name
        prepare_run_folder(folder, config)
        result = summary(config.data.fold, 0.5, 0.4)
        (folder / "summary.json").write_text(json.dumps(result))
        trained.append(config.run.name)
        return result

    monkeypatch.setattr(folds, "train", fake_train)
    monkeypatch.setattr(folds, "build_features", lambda config: None)
    arguments = ["folds", str(ROOT / "experiments/shapes.yaml"), f"run.folder={tmp_path}", "run.name=x"]
    assert main(arguments) == 0
    assert trained == [f"x-fold{f}" for f in range(4)]
    assert (tmp_path / "x-folds.md").read_text() in capsys.readouterr().out
    (tmp_path / "x-fold2/summary.json").unlink()
    assert main([*arguments, "data.workers=0"]) == 0
    assert trained[4:] == ["x-fold2"]
    assert main([*arguments, "data.shot=5"]) == 2
    assert "x-fold0 was made with data.shot=1, not 5" in capsys.readouterr().err
