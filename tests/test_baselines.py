import torch

from fsdino_pl.baselines import AllForegroundBaseline, ColourHistogramBaseline, PrototypeBaseline
from fsdino_pl.student.backbone import FeatureMaps
from fsdino_pl.student.matching import masks_to_grid, prior_maps

NO_FEATURES = FeatureMaps(torch.zeros(0, 1, 1, 1), ())


def test_colour_histogram_scores_a_colour_by_its_share_of_the_foreground(make_batch):
    batch = make_batch(batch=1, images=2, size=4)
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    red, blue, green = torch.tensor([[200, 0, 0], [0, 0, 200], [0, 200, 0]], dtype=torch.uint8)
    support, query = batch.support[0, 0], batch.query[0]
    for image, rows in ((support, [red, blue, blue, blue]), (query, [red, blue, green, green])):
        images[image] = torch.stack(rows, dim=1)[:, :, None]
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., :2, :] = True  # the foreground is half red, half blue; the background all blue
    batch = batch._replace(images=images, support_masks=mask)
    score = ColourHistogramBaseline().score(NO_FEATURES, batch)[0]
    expected = torch.tensor([1.0, 0.5 / (0.5 + 1.0), 0.5, 0.5])[:, None].expand(4, 4)
    torch.testing.assert_close(score, expected)


def test_prototype_is_the_upsampled_contrastive_prior_of_its_levels(make_batch):
    batch = make_batch(batch=2, shot=2, images=6, size=16)
    features = FeatureMaps(torch.randn(6, 3, 4, 4), (torch.randn(6, 5, 4, 4), torch.randn(6, 7, 4, 4)))
    score = PrototypeBaseline([1]).score(features, batch)
    level = features.deep[1]
    foreground = masks_to_grid(batch.support_masks, (4, 4))
    prior = prior_maps((level[batch.query],), (level[batch.support],), foreground, contrast=True)
    expected = torch.nn.functional.interpolate(prior, size=(16, 16), mode="bilinear")[:, 0]
    torch.testing.assert_close(score, expected)


def test_all_foreground_is_above_every_threshold(make_batch):
    baseline = AllForegroundBaseline()
    assert (baseline.score(NO_FEATURES, make_batch()) >= baseline.high).all()
