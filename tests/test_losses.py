import pytest
import torch

from fsdino_pl.losses import SegmentationLoss, binary_cross_entropy, dice_loss

NOTHING = torch.zeros(1, 2, 2, dtype=torch.bool)


def test_a_certain_and_right_answer_costs_nothing():
    target = torch.tensor([[[True, False], [False, True]]])
    logits = torch.where(target, 40.0, -40.0)
    assert SegmentationLoss()(logits, target, NOTHING).item() == pytest.approx(0, abs=1e-6)


def test_values_by_hand():
    logits, ones = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    truth = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    assert binary_cross_entropy(logits, truth, ones).item() == pytest.approx(0.693147, abs=1e-6)
    # p = 0.5 everywhere: overlap 0.5, total 2 + 1: 1 - (1 + 1) / (3 + 1)
    assert dice_loss(logits, truth, ones).item() == pytest.approx(0.5)


def test_ignored_pixels_have_no_gradient_and_no_weight():
    logits = torch.randn(1, 2, 2, requires_grad=True)
    ignore = torch.tensor([[[True, False], [False, False]]])
    target = torch.tensor([[[True, True], [False, False]]])
    loss = SegmentationLoss()(logits, target, ignore)
    loss.backward()
    assert logits.grad[0, 0, 0] == 0
    assert (logits.grad[0, 1] != 0).all()
    flipped = target.clone()
    flipped[0, 0, 0] = False
    assert SegmentationLoss()(logits, flipped, ignore).item() == loss.item()


def test_everything_ignored_is_zero_not_nan():
    loss = SegmentationLoss()(torch.randn(1, 2, 2), ~NOTHING, ~NOTHING)
    assert loss.item() == 0


def test_half_precision_logits_are_scored_in_float32():
    logits = torch.randn(1, 2, 2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = SegmentationLoss()(logits, NOTHING, NOTHING)
    assert loss.dtype == torch.float32
    assert loss.item() == SegmentationLoss()(logits.float(), NOTHING, NOTHING).item()
