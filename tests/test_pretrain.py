import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Model

import fsdino_pl
from fsdino_pl.data.shapes import SHAPE_CLASSES, ShapesBenchmark
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
from fsdino_pl.student.backbone import IMAGENET_MEAN, IMAGENET_STD

EMBEDDED = Path(fsdino_pl.__file__).parent / "encoders" / "shapes"


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


def test_pretrain_writes_an_encoder_that_loads_and_says_how_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr("fsdino_pl.pretrain.HELD_OUT_IMAGES", 16)
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


def test_the_embedded_encoder_is_small_and_says_how_it_was_made():
    report = json.loads((EMBEDDED / "pretraining.json").read_text())
    assert report["labels"] == {factor: [*values, "ground"] for factor, values in FACTORS.items()}
    assert report["accuracy"]["palette"] > 0.9
    assert report["accuracy"]["texture"] > 0.6
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir()) < 4e6


@torch.no_grad()
def test_the_embedded_encoder_tells_a_novel_class_from_a_distractor_of_the_same_palette():
    shapes, encoder = ShapesBenchmark(), Dinov2Model.from_pretrained(EMBEDDED, local_files_only=True).eval()
    wins = []
    for class_id, names in shapes.pool("test", 0).items():
        pairs = [_class_features(shapes, encoder, name) for name in names[:4]]
        prototype = pairs[0][class_id]
        for means in pairs[1:]:
            palette = SHAPE_CLASSES[class_id].palette
            twins = [c for c in means if c != class_id and SHAPE_CLASSES[c].palette == palette]
            own = torch.cosine_similarity(prototype, means[class_id], dim=0)
            wins += [own > torch.cosine_similarity(prototype, means[c], dim=0) for c in twins]
    assert len(wins) >= 18
    assert torch.stack(wins).float().mean() > 0.85


def _class_features(shapes, encoder, name):
    """Return, for every class in the image, the mean feature of the patches that lie inside its objects."""
    image, labels = shapes.load(name)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    tokens = encoder((pixels - mean) / std).last_hidden_state[0, 1:]
    inside = {c: np.float32(labels == c + 1).reshape(16, 8, 16, 8).mean((1, 3)) > 0.6 for c in range(24)}
    return {
        c: tokens[torch.from_numpy(cells).flatten()].mean(dim=0) for c, cells in inside.items() if cells.any()
    }


def test_pretrain_never_replaces_a_folder_that_is_no_encoder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="choose another folder"):
        pretrain(tmp_path, steps=1, batch_size=1, seed=0, image_size=64)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_pretrain_says_at_once_that_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create"):
        pretrain(tmp_path / "file" / "folder" / "encoder", steps=1, batch_size=1, seed=0, image_size=64)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": 0}, {"image_size": 100}])
def test_pretrain_refuses_arguments_out_of_range(tmp_path, wrong):
    with pytest.raises(UserError):
        pretrain(tmp_path / "encoder", **({"steps": 1, "batch_size": 1, "seed": 0, "image_size": 64} | wrong))
    assert not (tmp_path / "encoder").exists()
