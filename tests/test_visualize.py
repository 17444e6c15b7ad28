import numpy as np
import torch
from PIL import Image

from fsdino_pl.visualize import CELL, GAP, ROW, TRUTH, draw_sheet, overlay, picture_episodes


def test_overlay_tints_the_mask_dims_the_rest_and_draws_the_outline():
    image, mask = np.full((20, 20, 3), 100, dtype=np.uint8), np.zeros((20, 20), dtype=bool)
    mask[5:15, 5:15] = True
    drawn = overlay(image, mask, TRUTH)
    assert drawn[10, 10].tolist() == [int(0.45 * 100 + 0.55 * c) for c in TRUTH]
    assert drawn[0, 0].tolist() == [107, 107, 107]
    assert drawn[5, 10].tolist() == [255, 255, 255]
    assert (image == 100).all()


def test_a_sheet_has_a_row_per_episode_and_the_iou_in_its_caption(make_batch, tmp_path):
    batch = make_batch(batch=3, shot=2, size=32)
    rows = picture_episodes(
        batch, {"FS-DINO": batch.query_mask, "prototype": ~batch.query_mask}, ["ship"], limit=2
    )
    assert [list(row.predictions) for row in rows] == [["FS-DINO 100", "prototype 0"]] * 2
    draw_sheet(rows, tmp_path / "episodes.png")
    with Image.open(tmp_path / "episodes.png") as sheet:
        assert sheet.size == (6 * (CELL + GAP) + GAP, 2 * ROW + GAP)


def test_ignored_pixels_do_not_count_in_the_caption(make_batch):
    batch = make_batch(batch=1, size=8)
    truth = torch.zeros(1, 8, 8, dtype=torch.bool)
    truth[:, :4] = True
    everywhere = torch.ones_like(truth)
    batch = batch._replace(query_mask=truth, query_ignore=~truth)
    (row,) = picture_episodes(batch, {"all": everywhere}, ["x"], limit=5)
    assert list(row.predictions) == ["all 100"]
