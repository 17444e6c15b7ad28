import pytest
import torch

from fsdino_pl.data.feature_cache import FeatureCache
from fsdino_pl.student.backbone import Backbone


class CountingBackbone(Backbone):
    encoded = 0

    def forward(self, images):
        self.encoded += len(images)
        return super().forward(images)


@pytest.fixture
def backbone(tiny_dinov2):
    return CountingBackbone(tiny_dinov2, early_block=1, deep_blocks=(2, 3))


IMAGES = torch.randint(0, 256, (4, 3, 70, 70), dtype=torch.uint8)
DIGESTS = ("a", "b", "c", "d")


def test_cached_maps_equal_fresh_ones_and_each_image_is_encoded_once(backbone):
    cache = FeatureCache(backbone, budget_bytes=10**9)
    first = cache.encode(IMAGES, DIGESTS)
    second = cache.encode(IMAGES[[3, 0]], ("d", "a"))
    assert backbone.encoded == 4
    fresh = backbone(IMAGES)
    torch.testing.assert_close(first.early, fresh.early)
    assert torch.equal(second.deep[1], first.deep[1][[3, 0]])


def test_a_map_does_not_depend_on_what_was_missing_with_it(backbone):
    together = FeatureCache(backbone, 10**9).encode(IMAGES, DIGESTS)
    cache = FeatureCache(backbone, 10**9)
    cache.encode(IMAGES[1:2], ("b",))
    assert torch.equal(cache.encode(IMAGES, DIGESTS).early, together.early)


def test_the_budget_holds_and_the_least_recently_used_leave_first(backbone):
    cache = FeatureCache(backbone, 10**9)
    cache.encode(IMAGES[:1], ("a",))
    size = cache.used_bytes
    assert size == 3 * 32 * 5 * 5 * 4
    cache = FeatureCache(backbone, budget_bytes=2 * size)
    cache.encode(IMAGES[:2], ("a", "b"))
    cache.encode(IMAGES[:1], ("a",))
    cache.encode(IMAGES[2:3], ("c",))
    assert list(cache.maps) == ["a", "c"]
    assert cache.used_bytes == 2 * size


def test_without_a_budget_nothing_is_kept(backbone):
    cache = FeatureCache(backbone, 0)
    cache.encode(IMAGES, DIGESTS)
    assert backbone.encoded == 4
    assert not cache.maps
