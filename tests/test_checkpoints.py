import json
import os

import pytest
import torch

from fsdino_pl.checkpoints import AtomicCheckpointIO, is_good, newest_good
from fsdino_pl.errors import UserError


@pytest.fixture
def saved(tmp_path):
    for step in (100, 200):
        checkpoint = {"global_step": step, "state_dict": {"w": torch.full((4,), float(step))}}
        AtomicCheckpointIO().save_checkpoint(checkpoint, tmp_path / f"step={step:07d}.ckpt")
    return tmp_path


def test_a_checkpoint_reads_back_with_its_manifest(saved):
    newest = newest_good(saved)
    assert newest.name == "step=0000200.ckpt"
    assert AtomicCheckpointIO().load_checkpoint(newest)["state_dict"]["w"].tolist() == [200.0] * 4
    assert json.loads(newest.with_suffix(".json").read_text())["step"] == 200


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        _flip_a_bit,
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
    ],
)
def test_a_damaged_newest_is_refused_and_the_one_before_is_used(saved, damage, capsys):
    newest = saved / "step=0000200.ckpt"
    damage(newest)
    assert newest_good(saved).name == "step=0000100.ckpt"
    assert "step=0000200.ckpt is damaged" in capsys.readouterr().out
    with pytest.raises(UserError, match="missing, cut short or damaged"):
        AtomicCheckpointIO().load_checkpoint(newest)


def test_a_writer_killed_in_the_middle_leaves_the_old_file_and_no_orphan(saved, monkeypatch):
    target = saved / "step=0000200.ckpt"

    def die(checkpoint, stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"global_step": 300}, saved / "step=0000300.ckpt")
    (saved / ".step=0000300.ckpt.123.tmp").write_bytes(b"half")  # what a kill -9 leaves
    assert newest_good(saved) == target
    assert sorted(p.suffix for p in saved.iterdir()) == [".ckpt", ".ckpt", ".json", ".json"]


def test_code_in_a_checkpoint_is_never_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "step=0000001.ckpt"
    AtomicCheckpointIO().save_checkpoint({"global_step": 1, "x": Payload()}, path)
    assert is_good(path)
    with pytest.raises(Exception, match="Weights only load failed"):
        AtomicCheckpointIO().load_checkpoint(path)
    assert not (tmp_path / "ran").exists()
