import numpy as np
import pytest
import torch

from fsdino_pl.metrics import FewShotIoU, ThresholdSearch


def reference(class_ids, episodes):
    """Plain NumPy: sums of I and U per class and per ground, in Python integers."""
    counts = {c: np.zeros((2, 2), dtype=object) for c in class_ids}
    for pred, target, class_id, ignore in episodes:
        for ground in (0, 1):
            p, t = (pred == ground) & ~ignore, (target == ground) & ~ignore
            counts[class_id][ground, 0] += int(np.sum(p & t))
            counts[class_id][ground, 1] += int(np.sum(p | t))
    per_class = [counts[c][1, 0] / max(counts[c][1, 1], 1) for c in class_ids]
    total = sum(counts.values())
    return np.mean(per_class), np.mean([total[g, 0] / max(total[g, 1], 1) for g in (0, 1)]), per_class


def random_episodes(count, seed=0):
    rng = np.random.default_rng(seed)
    episodes = []
    for i in range(count):
        target = rng.random((9, 11)) < rng.choice([0.0, 0.3, 1.0])
        pred = rng.random((9, 11)) < rng.choice([0.0, 0.4, 1.0])
        episodes.append((pred, target, [7, 3, 12][i % 3], rng.random((9, 11)) < rng.choice([0.0, 0.2, 1.0])))
    return episodes


def add(metric, episodes):
    pred, target, class_id, ignore = zip(*episodes, strict=True)
    metric.update(
        torch.from_numpy(np.stack(pred)),
        torch.from_numpy(np.stack(target)),
        torch.tensor(class_id),
        torch.from_numpy(np.stack(ignore)),
    )


@pytest.mark.parametrize("batch", [1, 4, 60])
def test_scores_equal_the_numpy_reference_for_any_batch_size(batch):
    episodes = random_episodes(60)
    metric = FewShotIoU([3, 7, 12, 9])
    for start in range(0, 60, batch):
        add(metric, episodes[start : start + batch])
    miou, fb_iou, per_class = reference([3, 7, 12, 9], episodes)
    scores = metric.compute()
    assert scores["miou"] == pytest.approx(miou, abs=1e-12)
    assert scores["fb_iou"] == pytest.approx(fb_iou, abs=1e-12)
    assert scores["per_class"] == pytest.approx(dict(zip([3, 7, 12, 9], per_class, strict=True)))
    assert scores["per_class"][9] == 0, "a class never sampled counts as 0"


def test_miou_sums_before_it_divides():
    # One big object found (90 of 100), one small object missed (0 of 10), one class: 90 / 110, not 0.45.
    pred, target = torch.zeros(2, 10, 20, dtype=torch.bool), torch.zeros(2, 10, 20, dtype=torch.bool)
    target[0, :, :10] = True
    pred[0, :, :9] = True
    target[1, 0, :10] = True
    metric = FewShotIoU([0])
    metric.update(pred, target, torch.tensor([0, 0]))
    assert metric.compute()["miou"] == pytest.approx(90 / 110)


def test_ignored_pixels_do_not_count_and_inputs_are_untouched():
    target = torch.tensor([[[True, False], [False, False]]])
    pred = torch.tensor([[[True, True], [False, False]]])
    ignore = torch.tensor([[[False, True], [False, False]]])
    before = [t.clone() for t in (pred, target, ignore)]
    metric = FewShotIoU([4])
    metric.update(pred, target, torch.tensor([4]), ignore)
    assert metric.compute() == {"miou": 1.0, "fb_iou": 1.0, "per_class": {4: 1.0}}
    assert all(torch.equal(a, b) for a, b in zip(before, (pred, target, ignore), strict=True))


def test_an_unknown_class_is_an_error():
    masks = torch.zeros(1, 2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\[5\] are not among \[1, 2\]"):
        FewShotIoU([1, 2]).update(masks, masks, torch.tensor([5]))


def _count_on_rank(rank, world, port, episodes, results):
    import os

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    metric = FewShotIoU([3, 7, 12, 9])
    add(metric, episodes[rank::world])
    metric.sync()
    results[rank] = metric.counts.tolist()
    torch.distributed.destroy_process_group()


def test_two_gloo_processes_count_what_one_counts_to_the_integer():
    episodes = random_episodes(21)
    alone = FewShotIoU([3, 7, 12, 9])
    add(alone, episodes)
    context = torch.multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(_count_on_rank, (2, _free_port(), episodes, results), nprocs=2)
        assert dict(results) == {0: alone.counts.tolist(), 1: alone.counts.tolist()}


def _free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_threshold_search_finds_the_best_of_all_thresholds():
    rng = np.random.default_rng(1)
    target = rng.random((12, 8, 8)) < 0.3
    scores = np.clip(rng.normal(0.2 + 0.3 * target, 0.2), 0, 0.999)
    class_id = np.arange(12) % 2
    ignore = rng.random((12, 8, 8)) < 0.1
    search = ThresholdSearch([0, 1], 0.0, 1.0, bins=50)
    search.update(*map(torch.from_numpy, (scores, target, class_id, ignore)))
    tried = {
        t / 50: reference([0, 1], zip(scores >= t / 50, target, class_id, ignore, strict=True))[0]
        for t in range(50)
    }
    assert search.compute() == pytest.approx(max(tried, key=tried.get))
