import numpy as np
import pytest
import torch

from fsdino_pl.data.batching import ShardedSampler, StepSampler, collate_episodes
from fsdino_pl.data.episodes import EpisodeDataset, episodes_sha256
from fsdino_pl.data.pascal5i import Pascal5i
from fsdino_pl.data.transforms import JointTransform
from fsdino_pl.errors import UserError


@pytest.fixture
def make_set(pascal_tree):
    def make(split="test", shot=1, seed=0, fold=1, length=40, **augment):
        return EpisodeDataset(
            Pascal5i(str(pascal_tree)),
            split=split,
            fold=fold,
            shot=shot,
            seed=seed,
            length=length,
            transform=JointTransform(32, **augment),
        )

    return make


def same(a, b):
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True)
    )


def test_an_episode_is_the_same_whoever_asks_and_in_whatever_order(make_set):
    one, other = make_set("train", shot=2, flip=True), make_set("train", shot=2, flip=True)
    forwards = [one[i] for i in range(6)]
    backwards = [other[i] for i in reversed(range(6))][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_batch_size_change_nothing(make_set, workers):
    episodes = make_set("train", shot=2, flip=True, scale_jitter=0.2)
    for batch_size in (1, 3):
        loader = torch.utils.data.DataLoader(
            episodes,
            batch_sampler=StepSampler(0, 6 // batch_size, batch_size, 0, 1),
            collate_fn=collate_episodes,
            num_workers=workers,
        )
        masks = torch.cat([batch.query_mask for batch in loader])
        assert torch.equal(masks, torch.stack([episodes[i].query_mask for i in range(6)]))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_supports_are_distinct_never_the_query_and_of_the_class(make_set, split):
    episodes = make_set(split, shot=3)
    for index in range(40):
        class_id, query, supports = episodes.names(index)
        assert len({query, *supports}) == 4
        assert {query, *supports} <= set(episodes.pool[class_id])


def test_a_five_shot_episode_extends_the_one_shot_episode(make_set):
    one, three = make_set(shot=1), make_set(shot=3)
    for index in range(20):
        assert three.names(index)._replace(supports=three.names(index).supports[:1]) == one.names(index)


def test_evaluation_asks_every_class_and_every_query_equally_often(make_set):
    names = [make_set(length=40).names(i) for i in range(40)]
    classes = [n.class_id for n in names]
    assert sorted(set(classes)) == [5, 6, 7, 8, 9]
    assert {classes.count(c) for c in set(classes)} == {8}
    queries = [n.query for n in names]
    assert {queries.count(q) for q in set(queries)} == {2}


def test_seed_and_fold_change_the_list_and_the_fingerprint_is_of_the_list(make_set):
    base = make_set()
    assert base.sha256() == make_set().sha256() == episodes_sha256(base.names(i) for i in range(40))
    assert len({base.sha256(), make_set(seed=1).sha256(), make_set(fold=2).sha256()}) == 3


def test_masks_hold_the_class_alone_and_void_is_ignored(make_set, pascal_tree):
    episode = make_set()[0]
    _, labels = Pascal5i(str(pascal_tree)).load(episode.query_name)
    assert episode.query_ignore.any()
    assert not (episode.query_mask & episode.query_ignore).any()
    assert episode.query_mask.float().mean().item() == pytest.approx(
        (labels == episode.class_id + 1).mean(), abs=0.03
    )
    assert episode.query_ignore.float().mean().item() == pytest.approx((labels == 255).mean(), abs=0.03)


def test_a_class_with_too_few_images_is_named_before_anything_runs(make_set):
    with pytest.raises(UserError, match="class 'bus' has 4 images, a 4-shot episode needs 5"):
        make_set(shot=4)


def test_step_sampler_shares_out_consecutive_episodes_and_resumes_where_it_stopped():
    ranks = [list(StepSampler(0, 3, 2, rank, 2)) for rank in (0, 1)]
    assert ranks == [[[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7], [10, 11]]]
    assert list(StepSampler(2, 3, 2, 1, 2)) == [[10, 11]]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_evaluation_shards_cover_every_episode_once_without_padding(world):
    seen = [i for rank in range(world) for i in ShardedSampler(21, rank, world)]
    assert sorted(seen) == list(range(21))


def test_images_that_are_equal_are_stored_once(make_set):
    episodes = make_set(shot=3, length=40)
    batch = collate_episodes([episodes[0], episodes[5], episodes[0]])
    names = {name for i in (0, 5) for name in (episodes[i].query_name, *episodes[i].support_names)}
    assert len(batch.images) == len(batch.digests) == len(names)
    for i, index in enumerate((0, 5, 0)):
        assert torch.equal(batch.images[batch.query[i]], episodes[index].query_image)
        assert torch.equal(batch.images[batch.support[i]], episodes[index].support_images)


def test_augmentation_moves_image_and_labels_together():
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    image[5:20, 3:15] = 200
    labels = (image[..., 0] > 100).astype(np.uint8)
    transform = JointTransform(40, flip=True, scale_jitter=0.3)
    views = set()
    for key in range(12):
        moved, moved_labels = transform(image, labels, key)
        inside = moved_labels == 1
        assert (moved[inside].mean() > 170) & (moved[moved_labels == 0].mean() < 20)
        views.add(moved_labels.tobytes())
    assert len(views) > 8, "every key gives its own view"
    again = transform(image, labels, 3)
    transform(image, labels, 4)
    assert all(np.array_equal(a, b) for a, b in zip(again, transform(image, labels, 3), strict=True))
