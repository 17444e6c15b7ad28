"""Checks against real photographs and published goldens: FSDINO_DATA names the folder that holds them.

FSDINO_DATA=/path/to/folder python -m pytest -m data
"""

import json
import os
from pathlib import Path

import pytest
import torch

from fsdino_pl.data.episodes import EpisodeDataset
from fsdino_pl.data.pascal5i import Pascal5i
from fsdino_pl.data.transforms import JointTransform
from fsdino_pl.metrics import FewShotIoU

DATA = Path(os.environ.get("FSDINO_DATA", "/nonexistent"))
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA.is_dir(), reason="FSDINO_DATA is not set")]


def test_scores_equal_hsnets_evaluator():
    golden = json.loads((DATA / "splits/golden_metric_hsnet.json").read_text())
    metric = FewShotIoU(range(5))
    for episode in golden["episodes"]:
        pred, target, ignore = (
            torch.tensor(episode[key], dtype=torch.bool).view(1, golden["h"], golden["w"])
            for key in ("pred", "gt", "ignore")
        )
        metric.update(pred, target, torch.tensor([episode["cls"]]), ignore)
    scores = metric.compute()
    assert 100 * scores["miou"] == pytest.approx(golden["miou"], abs=1e-4)
    assert 100 * scores["fb_iou"] == pytest.approx(golden["fb_iou"], abs=1e-4)


def test_published_list_counts_are_read_in_full():
    # protocol: training pairs of a fold are those of the other three lists, test pairs those of its val list.
    lists = Pascal5i.__new__(Pascal5i)
    lists.lists = DATA / "splits/hsnet/pascal"
    sizes = {key: len(pairs) for key, pairs in lists._pairs.items()}
    assert [sizes["trn", fold] for fold in range(4)] == [2286, 3425, 5883, 2086]
    assert [sizes["val", fold] for fold in range(4)] == [346, 451, 725, 346]


@pytest.mark.parametrize("fold", range(4))
def test_episodes_of_real_photographs_show_the_class_they_ask_for(fold):
    pascal = Pascal5i(str(DATA / "data/pascal5i_subset"))
    for split in ("train", "val", "test"):
        episodes = EpisodeDataset(
            pascal, split=split, fold=fold, shot=1, seed=0, length=10, transform=JointTransform(320)
        )
        for episode in (episodes[i] for i in range(10)):
            assert episode.query_mask.any()
            assert episode.support_masks.any()
            assert episode.class_id in pascal.classes(split, fold)
