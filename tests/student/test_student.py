import pytest
import torch

from fsdino_pl.student.adapter import BottleneckAdapter
from fsdino_pl.student.backbone import Backbone
from fsdino_pl.student.correlation import CP4DReader, PeakReader
from fsdino_pl.student.mask_decoder import MaskDecoder
from fsdino_pl.student.prompt_generator import PromptGenerator
from fsdino_pl.student.student import Student


@pytest.fixture
def backbone(tiny_dinov2):
    return Backbone(tiny_dinov2, early_block=2, deep_blocks=(3, 4))


@pytest.fixture
def make_student():
    def make(reader="cp4d", **parts):
        torch.manual_seed(0)
        readers = {
            "cp4d": lambda: CP4DReader(2, (4, 8), (2, 1)),
            "peak": lambda: PeakReader(2, 8),
            "none": lambda: None,
        }
        student = Student(
            BottleneckAdapter(32, embed_dim=32, bottleneck_dim=16, num_heads=2),
            PromptGenerator((32, 32), embed_dim=32, reader=readers[reader](), **parts),
            MaskDecoder(embed_dim=32, num_heads=4, mlp_dim=64),
        ).eval()
        if student.prompt_generator.read_out is not None:  # past its zero initialisation
            torch.nn.init.normal_(student.prompt_generator.read_out.weight)
        return student

    return make


def test_batch_of_many_equals_each_episode_alone(backbone, make_student, make_batch):
    student, batch = make_student(), make_batch(batch=3, shot=2)
    together = student(backbone(batch.images), batch).mask_logits
    for i in range(3):
        one = batch._replace(
            **{
                name: getattr(batch, name)[i : i + 1]
                for name in (
                    "query",
                    "support",
                    "query_mask",
                    "query_ignore",
                    "support_masks",
                    "class_id",
                    "index",
                )
            }
        )
        alone = student(backbone(one.images), one).mask_logits
        torch.testing.assert_close(alone[0], together[i], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("reader", ["cp4d", "peak", "none"])
def test_shot_order_is_irrelevant_and_identical_shots_count_once(backbone, make_student, make_batch, reader):
    student, batch = make_student(reader), make_batch(batch=2, shot=3)
    features = backbone(batch.images)

    def logits(shots):
        return student(
            features,
            batch._replace(support=batch.support[:, shots], support_masks=batch.support_masks[:, shots]),
        ).mask_logits

    torch.testing.assert_close(logits([2, 0, 1]), logits([0, 1, 2]), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(logits([0, 0, 0]), logits([0]), atol=2e-5, rtol=1e-4)


def test_dense_branch_is_silent_at_its_zero_initialisation(backbone, make_student, make_batch):
    with_reader, without = make_student(), make_student(reader="none")
    torch.nn.init.zeros_(with_reader.prompt_generator.read_out.weight)
    shared = {k: v for k, v in with_reader.state_dict().items() if k in without.state_dict()}
    without.load_state_dict(shared)
    batch = make_batch()
    features = backbone(batch.images)
    assert torch.equal(with_reader(features, batch).mask_logits, without(features, batch).mask_logits)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"sparse_prompt": False},
        {"dense_prompt": False},
        {"reader": "none"},
        {"reader": "peak"},
        {"contrast": False},
        {"background_token": True, "prior_levels": True},
        {"sparse_prompt": False, "reader": "none"},
    ],
)
def test_every_part_can_be_switched_and_what_remains_is_trained(backbone, make_student, make_batch, parts):
    student, batch = make_student(**parts), make_batch()
    student.train()(backbone(batch.images), batch).mask_logits.square().sum().backward()
    missing = [n for n, p in student.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_the_support_mask_decides_what_is_segmented(backbone, make_student, make_batch):
    student, batch = make_student(), make_batch()
    features = backbone(batch.images)
    swapped = batch._replace(support_masks=~batch.support_masks)
    difference = student(features, batch).mask_logits - student(features, swapped).mask_logits
    assert difference.abs().max() > 1e-3
    torch.testing.assert_close(student(features, batch).prior, -student(features, swapped).prior)
