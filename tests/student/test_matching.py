import torch

from fsdino_pl.student.matching import cosine_map, masked_average_pool, masks_to_grid, prior_maps


def test_prototype_by_hand_pools_the_pixels_of_all_shots_together():
    features = torch.tensor([[[[[1.0, 3.0]]], [[[5.0, 100.0]]]]])  # one dim, 1x2 grid, two shots
    weights = torch.tensor([[[[1.0, 1.0]], [[1.0, 0.0]]]])
    assert masked_average_pool(features, weights).tolist() == [[3.0]]


def test_empty_mask_gives_a_zero_prototype_and_a_zero_map():
    prototype = masked_average_pool(torch.randn(1, 1, 4, 2, 2), torch.zeros(1, 1, 2, 2))
    assert prototype.eq(0).all()
    assert cosine_map(torch.randn(1, 4, 2, 2), prototype).eq(0).all()


def test_masks_become_shares_of_grid_cells():
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0, :3] = True
    assert masks_to_grid(mask, (2, 2)).tolist() == [[[[0.5, 0.25], [0.0, 0.0]]]]


def test_prior_separates_the_two_sides_and_ignores_feature_scale():
    # Left half of the support looks like axis 0 and is foreground, right half like axis 1.
    support = torch.zeros(1, 1, 2, 2, 2)
    support[0, 0, 0, :, 0], support[0, 0, 1, :, 1] = 1.0, 1.0
    foreground = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    query = support[:, 0]
    prior = prior_maps((query,), (support,), foreground, contrast=True)
    assert prior[0, 0].tolist() == [[1.0, -1.0], [1.0, -1.0]]
    scaled = prior_maps((7 * query,), (0.1 * support,), foreground, contrast=True)
    torch.testing.assert_close(scaled, prior)
    assert prior_maps((query,), (support,), foreground, contrast=False)[0, 0].tolist() == [[1.0, 0.0]] * 2


def test_shot_order_is_irrelevant_and_identical_shots_count_once():
    query, support, weights = torch.randn(2, 6, 3, 3), torch.randn(2, 3, 6, 3, 3), torch.rand(2, 3, 3, 3)
    prior = prior_maps((query,), (support,), weights, contrast=True)
    order = [2, 0, 1]
    torch.testing.assert_close(prior_maps((query,), (support[:, order],), weights[:, order], True), prior)
    once = prior_maps((query,), (support[:, :1],), weights[:, :1], True)
    repeated = prior_maps((query,), (support[:, [0, 0, 0]],), weights[:, [0, 0, 0]], True)
    torch.testing.assert_close(repeated, once)
