import json
import math

import pytest
import torch
from transformers import Dinov2Model

from fsdino_pl.data.shapes import SHAPE_CLASSES
from fsdino_pl.data.shapes_rendering import Look
from fsdino_pl.errors import UserError
from fsdino_pl.pretrain import (
    ALLOWED_LOOKS,
    FACTORS,
    SIZES,
    FactorModel,
    LabelledImages,
    _labelled_image,
    factor_loss,
    labelled_images,
    pretrain,
)


def test_the_benchmarks_combinations_are_never_shown():
    assert len(set(ALLOWED_LOOKS)) == 6 * 6 * 6 - 24
    assert not set(ALLOWED_LOOKS) & {shape.look for shape in SHAPE_CLASSES}


def test_shares_of_a_patch_add_up_to_one_for_each_factor():
    shares = labelled_images(["a", "b"], 64).shares
    for factor in shares.split(SIZES, dim=-1):
        torch.testing.assert_close(factor.sum(dim=-1), torch.ones(2, 64))


def test_shares_count_pixels_by_factor(monkeypatch):
    looks = [Look("disc", "dots", "sky-pine"), Look("star", "dots", "gold-navy")]
    owner = torch.zeros(64, 64, dtype=torch.uint8)
    owner[:4, :8], owner[4:6, :8] = 1, 2
    monkeypatch.setattr(
        "fsdino_pl.pretrain.render", lambda *_: (torch.zeros(64, 64, 3).byte().numpy(), owner.numpy())
    )
    monkeypatch.setattr("fsdino_pl.pretrain.Draws", lambda key: FirstLooks(looks))
    silhouettes, textures, palettes = torch.from_numpy(_labelled_image("any", 64)[1]).split(SIZES, dim=-1)
    assert silhouettes[0].tolist() == [0.5, 0, 0, 0, 0.25, 0, 0.25]
    assert textures[0].tolist() == [0, 0, 0, 0.75, 0, 0, 0.25]
    assert palettes[0].tolist() == [0, 0, 0, 0.5, 0, 0.25, 0.25]
    assert silhouettes[1].tolist() == [0, 0, 0, 0, 0, 0, 1]


class FirstLooks:
    """Answers `choice` with the number of looks, then with one look after the other."""

    def __init__(self, looks):
        self.answers = iter([len(looks), *looks])

    def choice(self, items):
        return next(self.answers)


def test_loss_of_undecided_heads_is_log_of_the_number_of_values():
    model = FactorModel(64)
    for head in (model.middle[1], model.last):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    batch = LabelledImages(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), labelled_images(["a"], 64).shares)
    assert factor_loss(model, batch).item() == pytest.approx(math.log(7))


def test_pretrain_writes_an_encoder_that_loads_and_says_how_it_was_made(tmp_path):
    report = pretrain(tmp_path / "encoder", steps=2, batch_size=2, seed=3, image_size=64, progress=False)
    assert json.loads((tmp_path / "encoder" / "pretraining.json").read_text()) == report
    assert report["steps"] == 2
    assert report["seed"] == 3
    assert set(report["accuracy"]) == {*FACTORS, "object", "ground"}
    model = Dinov2Model.from_pretrained(tmp_path / "encoder", local_files_only=True)
    assert model.config.image_size == 64
    assert model.dtype == torch.float32
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]

    # The same call gives the same weights, in the place of the old ones.
    before = model.state_dict()
    pretrain(tmp_path / "encoder", steps=2, batch_size=2, seed=3, image_size=64, progress=False)
    after = Dinov2Model.from_pretrained(tmp_path / "encoder", local_files_only=True).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_pretrain_never_replaces_a_folder_that_is_no_encoder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="choose another folder"):
        pretrain(tmp_path, steps=1, batch_size=1, seed=0, image_size=64)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": 0}, {"image_size": 100}])
def test_pretrain_refuses_arguments_out_of_range(tmp_path, wrong):
    with pytest.raises(UserError):
        pretrain(tmp_path / "encoder", **({"steps": 1, "batch_size": 1, "seed": 0, "image_size": 64} | wrong))
    assert not (tmp_path / "encoder").exists()
