import pytest
import torch
from torch.nn import functional as F

from fsdino_pl.student.correlation import (
    CenterPivotConv4d,
    CP4DReader,
    PeakReader,
    contrastive_weights,
    support_query_correlation,
)


def test_correlation_equals_a_loop_over_positions():
    query, support = torch.randn(2, 5, 3, 4), torch.randn(2, 2, 5, 4, 3)
    weights = contrastive_weights(torch.rand(2, 2, 4, 3), contrast=True)
    volume = support_query_correlation(query, support, weights)
    for b in range(2):
        for k in range(2):
            for y in range(3):
                for x in range(4):
                    for i in range(4):
                        for j in range(3):
                            cosine = F.cosine_similarity(query[b, :, y, x], support[b, k, :, i, j], dim=0)
                            expected = cosine * weights[b, k, i, j]
                            assert volume[b, k, y, x, i, j].item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("size", [4, 5])
def test_fused_pooling_equals_pooling_the_full_volume(size):
    query, support = torch.randn(1, 5, 3, 3), torch.randn(1, 1, 5, size, size)
    weights = torch.rand(1, 1, size, size)
    full = support_query_correlation(query, support, weights)
    pooled = F.avg_pool2d(full.flatten(0, 3), 2, ceil_mode=True, count_include_pad=False)
    fused = support_query_correlation(query, support, weights, support_stride=2)
    torch.testing.assert_close(fused.flatten(0, 3), pooled)


def test_contrast_is_foreground_minus_background():
    query, support, mask = torch.randn(1, 5, 3, 3), torch.randn(1, 1, 5, 4, 4), torch.rand(1, 1, 4, 4)
    foreground = support_query_correlation(query, support, mask)
    background = support_query_correlation(query, support, 1 - mask)
    signed = support_query_correlation(query, support, contrastive_weights(mask, contrast=True))
    torch.testing.assert_close(signed, foreground - background)
    assert contrastive_weights(mask, contrast=False) is mask


@pytest.mark.parametrize("stride", [1, 2])
def test_cp4d_equals_a_loop_over_kernel_entries(stride):
    conv = CenterPivotConv4d(2, 3, support_stride=stride)
    volume = torch.randn(1, 2, 4, 3, 5, 4)
    out = conv(volume)
    over_query, over_support = conv.over_query.weight[..., 0], conv.over_support.weight[:, :, 0]
    padded = F.pad(volume, (1, 1, 1, 1, 1, 1, 1, 1))
    expected = torch.zeros_like(out)
    for y in range(4):
        for x in range(3):
            for i in range(0, 5, stride):
                for j in range(0, 4, stride):
                    around_query = padded[0, :, y : y + 3, x : x + 3, i + 1, j + 1]
                    around_support = padded[0, :, y + 1, x + 1, i : i + 3, j : j + 3]
                    expected[0, :, y, x, i // stride, j // stride] = (
                        (over_query * around_query).sum(dim=(1, 2, 3))
                        + (over_support * around_support).sum(dim=(1, 2, 3))
                        + conv.over_support.bias
                    )
    torch.testing.assert_close(out, expected)


def test_shots_are_averaged_in_any_order_and_a_repeated_shot_changes_nothing():
    torch.manual_seed(0)
    reader = CP4DReader(2, widths=(4, 8), support_strides=(2, 1))
    volume = torch.randn(2, 3, 2, 4, 4, 5, 5)
    torch.testing.assert_close(reader(volume), reader(volume[:, [2, 0, 1]]))
    torch.testing.assert_close(reader(volume[:, :1].expand(-1, 3, *[-1] * 5)), reader(volume[:, :1]))
    each = torch.stack([reader(volume[:, k : k + 1]) for k in range(3)]).mean(dim=0)
    torch.testing.assert_close(reader(volume), each)


def test_peak_reader_sees_mean_best_foreground_and_best_background_match():
    reader = PeakReader(1, hidden_dim=8)
    reader.mix = torch.nn.Identity()
    volume = torch.tensor([0.5, -0.75, 0.25, 0.1]).view(1, 2, 1, 1, 1, 1, 2)
    torch.testing.assert_close(reader(volume).flatten(), torch.tensor([0.025, 0.5, -0.75]))
