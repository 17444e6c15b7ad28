"""Whole runs on a tiny PASCAL tree with a tiny real-format backbone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from fsdino_pl.cli import main

KEYS = {
    "benchmark", "split", "fold", "shot", "seed", "episodes", "episodes_sha256", "miou", "fb_iou", "per_class",
    "baselines", "seconds_train", "seconds_eval", "steps", "parameters", "backbone", "checkpoint_sha256",
}  # fmt: skip


@pytest.fixture
def experiment(pascal_tree, tiny_dinov2_folder, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "run": {"folder": str(tmp_path / "runs")},
                "data": {
                    "benchmark": "pascal5i", "root": str(pascal_tree), "image_size": 70, "workers": 0,
                    "cache": "memory",
                },
                "student": {
                    "backbone": str(tiny_dinov2_folder), "early_block": 1, "deep_blocks": [3, 4], "embed_dim": 32,
                    "adapter": {"bottleneck_dim": 16, "num_heads": 2}, "decoder": {"num_heads": 4, "mlp_dim": 64},
                    "reader_widths": [4, 8], "reader_strides": [2, 1],
                },
                "optim": {"lr": 1e-3, "decoder_lr": 1e-3, "warmup_steps": 2},
                "trainer": {
                    "max_steps": 8, "batch_size": 2, "val_every": 4, "val_episodes": 15, "checkpoint_every": 3,
                    "log_every": 1, "progress": False, "accelerator": "cpu",
                },
                "evaluate": {"episodes": 11, "batch_size": 4, "calibration_episodes": 15},
            }
        )
    )  # fmt: skip
    return path


def weights(folder, name):
    state = torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]
    return {key: value.clone() for key, value in state.items()}


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_everything_it_promises(experiment, tmp_path, capsys):
    assert main(["train", str(experiment), "data.fold=1"]) == 0
    folder = tmp_path / "runs" / "pascal5i-fold1-1shot-seed0"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.keys() >= KEYS
    assert (summary["episodes"], summary["steps"], summary["fold"]) == (11, 8, 1)
    assert list(summary["per_class"]) == ["bus", "car", "cat", "chair", "cow"]
    assert set(summary["baselines"]) == {"prototype", "colour_histogram", "all_foreground"}
    assert 0 < summary["parameters"]["trainable"] < summary["parameters"]["total"]
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "episodes.png"):
        assert (folder / name).stat().st_size > 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"mIoU {100 * summary['miou']:.1f}  FB-IoU {100 * summary['fb_iou']:.1f}")
    assert "prototype" in last
    assert last.endswith(str(folder))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 9))
    assert [row["step"] for row in rows if "val/miou" in row] == [4, 8]
    saved = weights(folder, "best.ckpt")
    assert {key.split(".")[0] for key in saved} == {"student"}, "the frozen backbone is in no checkpoint"


@pytest.mark.parametrize("every", [3, 4], ids=["between validations", "at a validation"])
def test_resuming_gives_the_same_bits(experiment, tmp_path, every):
    often = f"trainer.checkpoint_every={every}"
    assert main(["train", str(experiment), "run.name=whole", often]) == 0
    assert main(["train", str(experiment), "run.name=cut", often]) == 0
    whole, cut = tmp_path / "runs/whole", tmp_path / "runs/cut"
    expected, lines = weights(whole, "step=0000008.ckpt"), (whole / "metrics.jsonl").read_text()
    for damage in (b"damaged", b""):  # twice: a resumed run is resumed again, from step 6 or 4
        (cut / "checkpoints/step=0000008.ckpt").write_bytes(damage)
        with open(cut / "metrics.jsonl", "a") as stream:
            stream.write('{"step": 8, "train/loss": 1.0}\n{"half')
        assert main(["train", str(experiment), "run.name=cut", "resume=auto", often]) == 0
        assert same_weights(weights(cut, "step=0000008.ckpt"), expected)
        assert same_weights(weights(cut, "best.ckpt"), weights(whole, "best.ckpt"))
        assert (cut / "metrics.jsonl").read_text() == lines
    a, b = (json.loads((f / "summary.json").read_text()) for f in (whole, cut))
    assert (a["miou"], a["per_class"], a["episodes_sha256"]) == (
        b["miou"],
        b["per_class"],
        b["episodes_sha256"],
    )


def test_resuming_a_finished_run_trains_no_further(experiment, tmp_path, capsys):
    assert main(["train", str(experiment), "run.name=x"]) == 0
    folder = tmp_path / "runs/x"
    before = weights(folder, "step=0000008.ckpt")
    (folder / "summary.json").unlink()
    assert main(["train", str(experiment), "run.name=x", "resume=auto"]) == 0
    assert same_weights(weights(folder, "step=0000008.ckpt"), before)
    assert json.loads((folder / "summary.json").read_text())["steps"] == 8
    assert main(["train", str(experiment), "run.name=x", "resume=auto", "optim.lr=1"]) == 2
    assert "x was made with optim.lr=0.001, not 1.0" in capsys.readouterr().err


def test_bf16_trains_and_the_loss_stays_near_that_of_float32(experiment, tmp_path):
    losses = []
    for precision in ("32", "bf16"):
        name = f"run.name=p{precision}"
        assert (
            main(["train", str(experiment), name, f"trainer.precision={precision}", "trainer.max_steps=2"])
            == 0
        )
        lines = (tmp_path / "runs" / f"p{precision}" / "metrics.jsonl").read_text().splitlines()
        losses.append(json.loads(lines[0])["train/loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert losses[1] != losses[0]


def test_kill_9_and_resume_gives_the_same_bits(experiment, tmp_path):
    def start(name, *more):
        command = [sys.executable, "-m", "fsdino_pl.cli", "train", str(experiment), f"run.name={name}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*command, "trainer.max_steps=30", *more], env=environment)

    assert start("whole").wait() == 0
    killed = start("killed")
    metrics = tmp_path / "runs/killed/metrics.jsonl"
    while killed.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 14):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert start("killed", "resume=auto").wait() == 0
    for name in ("step=0000030.ckpt", "best.ckpt"):
        assert same_weights(weights(tmp_path / "runs/whole", name), weights(tmp_path / "runs/killed", name))
    assert (tmp_path / "runs/whole/metrics.jsonl").read_text() == metrics.read_text()


def test_evaluating_again_gives_the_same_scores_and_overrides_go_elsewhere(experiment, tmp_path):
    assert main(["train", str(experiment), "run.name=x"]) == 0
    folder = tmp_path / "runs/x"
    before = json.loads((folder / "summary.json").read_text())
    assert main(["evaluate", str(folder), "evaluate.batch_size=3"]) == 0
    (other,) = (folder / "evaluations").iterdir()
    again = json.loads((other / "summary.json").read_text())
    for key in ("miou", "fb_iou", "per_class", "baselines", "episodes_sha256", "checkpoint_sha256", "steps"):
        assert again[key] == before[key]
    assert main(["evaluate", str(folder), "data.shot=2"]) == 0
    assert json.loads((folder / "summary.json").read_text()) == before


def test_names_never_overwrite_a_run(experiment, tmp_path, capsys):
    for _ in range(2):
        assert main(["train", str(experiment), "trainer.max_steps=1"]) == 0
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert names == {"pascal5i-fold0-1shot-seed0", "pascal5i-fold0-1shot-seed0-2"}
    assert main(["train", str(experiment), "run.name=pascal5i-fold0-1shot-seed0"]) == 2
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.root=/nowhere", "folder /nowhere does not exist"),
        ("student.backbone=/nowhere", "student.backbone=/nowhere: no such folder"),
        (
            "data.image_size=75",
            "75x75 is no multiple of the backbone's patch size 14: set data.image_size to 70",
        ),
        ("data.shot=9", "a 9-shot episode needs 10"),
        ("student.deep_blocks=[3,12]", "block 12 does not exist"),
        ("student.reader_widths=[4]", "one entry per block"),
        ("run.name=../x", "run.name='../x'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2_before_anything_is_written(
    experiment, tmp_path, capsys, override, message
):
    assert main(["train", str(experiment), override]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photograph_that_breaks_off_is_named_also_from_a_worker(
    experiment, pascal_tree, tmp_path, capsys, workers
):
    tree = shutil.copytree(pascal_tree, tmp_path / "broken")
    for path in (tree / "JPEGImages").glob("trn_*.jpg"):
        path.write_bytes(path.read_bytes()[:900])  # the header is whole, so the size can be checked
    assert main(["train", str(experiment), f"data.root={tree}", f"data.workers={workers}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fsdino: {tree}/JPEGImages/trn_")
    assert "cannot be read as an image" in error
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named(experiment, capsys):
    assert main(["train", str(experiment), "run.folder=/proc/nowhere"]) == 2
    error = capsys.readouterr().err
    assert "/proc/nowhere" in error
    assert error.count("\n") == 1


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(
    experiment, tmp_path, capsys, monkeypatch
):
    from fsdino_pl.losses import SegmentationLoss

    right, calls = SegmentationLoss.forward, []

    def broken(self, *arguments):
        calls.append(1)
        loss = right(self, *arguments)
        return loss * float("nan") if len(calls) == 5 else loss

    monkeypatch.setattr(SegmentationLoss, "forward", broken)
    assert main(["train", str(experiment), "run.name=x"]) == 2
    assert "the loss is not finite at step 4" in capsys.readouterr().err
    for path in (tmp_path / "runs/x/checkpoints").glob("*.ckpt"):
        assert all(torch.isfinite(value).all() for value in weights(tmp_path / "runs/x", path.name).values())


def test_two_processes_score_what_one_scores_to_the_integer(experiment, tmp_path):
    def run(name, *more):
        command = [sys.executable, "-m", "fsdino_pl.cli", "train", str(experiment), f"run.name={name}", *more]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
        return json.loads((tmp_path / "runs" / name / "summary.json").read_text())

    run("two", "trainer.devices=2", "trainer.max_steps=2", "trainer.batch_size=1")
    one = main(["evaluate", str(tmp_path / "runs/two"), "trainer.devices=1"])
    assert one == 0
    together = json.loads((tmp_path / "runs/two/summary.json").read_text())
    (alone,) = (tmp_path / "runs/two/evaluations").iterdir()
    alone = json.loads((alone / "summary.json").read_text())
    for key in ("miou", "fb_iou", "per_class", "baselines", "episodes", "episodes_sha256"):
        assert together[key] == alone[key]
