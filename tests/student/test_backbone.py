import pytest
import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    MobileNetV2Config,
    MobileNetV2Model,
)

from fsdino_pl.errors import UserError
from fsdino_pl.student.backbone import Backbone

SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
TOKEN_FAMILIES = {
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SIZES, patch_size=14, image_size=56)),
    "registers": lambda: Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(**SIZES, patch_size=14, image_size=56, num_register_tokens=4)
    ),
    "dinov3": lambda: DINOv3ViTModel(
        DINOv3ViTConfig(**SIZES, intermediate_size=64, patch_size=14, image_size=56, num_register_tokens=4)
    ),
}
PIXELS = torch.randint(0, 256, (2, 3, 56, 70), dtype=torch.uint8)
ONES = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.mark.parametrize("family", TOKEN_FAMILIES)
def test_token_maps_are_the_patch_tokens_of_the_asked_blocks(family):
    torch.manual_seed(0)
    whole = TOKEN_FAMILIES[family]().eval()
    torch.manual_seed(0)
    backbone = Backbone(TOKEN_FAMILIES[family](), early_block=1, deep_blocks=(2, 3), **ONES)
    with torch.no_grad():
        states = whole(PIXELS / 255, output_hidden_states=True).hidden_states
    prefix = 1 if family == "dinov2" else 5
    maps = backbone(PIXELS)
    for block, level in zip((1, 2, 3), (maps.early, *maps.deep), strict=True):
        assert level.shape == (2, 32, 4, 5)
        # Position (row 2, column 3) of the grid is patch 2 * 5 + 3.
        torch.testing.assert_close(level[:, :, 2, 3], states[block][:, prefix + 13])


def test_last_block_with_final_norm_is_the_last_hidden_state():
    model = TOKEN_FAMILIES["dinov2"]().eval()
    with torch.no_grad():
        expected = model(PIXELS / 255).last_hidden_state[:, 1:]
    backbone = Backbone(model, early_block=0, deep_blocks=(-1,), norm_deep=True, **ONES)
    torch.testing.assert_close(backbone(PIXELS).deep[0].flatten(2).transpose(1, 2), expected)


def test_blocks_behind_the_last_one_asked_for_are_dropped():
    backbone = Backbone(TOKEN_FAMILIES["dinov2"](), early_block=1, deep_blocks=(2,))
    assert len(backbone.model.encoder.layer) == 2


def test_map_models_keep_their_maps_and_coarser_deep_ones_are_brought_to_the_finest_grid():
    model = MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.25, finegrained_output=False)).eval()
    with torch.no_grad():
        states = model(PIXELS[..., :56] / 255, output_hidden_states=True).hidden_states
    backbone = Backbone(model, early_block=3, deep_blocks=(11, 14), norm_deep=True, **ONES)
    maps = backbone(PIXELS[..., :56])
    torch.testing.assert_close(maps.early, states[3])
    torch.testing.assert_close(maps.deep[0], states[11])
    assert maps.deep[1].shape[-2:] == states[11].shape[-2:] != states[14].shape[-2:]
    torch.testing.assert_close(maps.deep[1].mean(dim=(2, 3)), states[14].mean(dim=(2, 3)))


def test_pixels_are_normalised_with_the_given_constants():
    model = TOKEN_FAMILIES["dinov2"]().eval()
    plain = Backbone(model, early_block=1, deep_blocks=(2,), **ONES)
    with torch.no_grad():
        expected = model((PIXELS / 255 - 0.5) / 0.25, output_hidden_states=True).hidden_states[1][:, 1]
    shifted = Backbone(model, early_block=1, deep_blocks=(2,), mean=(0.5,) * 3, std=(0.25,) * 3)
    torch.testing.assert_close(shifted(PIXELS).early[:, :, 0, 0], expected)
    assert not torch.allclose(plain(PIXELS).early[:, :, 0, 0], expected)


def test_a_size_off_the_patch_grid_names_the_size_to_use():
    backbone = Backbone(TOKEN_FAMILIES["dinov2"](), early_block=1, deep_blocks=(2,))
    with pytest.raises(UserError, match="130x130 is no multiple of the backbone's patch size 14.*126"):
        backbone(torch.zeros(1, 3, 130, 130, dtype=torch.uint8))


def test_a_missing_block_is_named():
    with pytest.raises(UserError, match=r"student.deep_blocks: block 9 does not exist.*0\.\.4"):
        Backbone(TOKEN_FAMILIES["dinov2"](), early_block=1, deep_blocks=(9,))


def test_it_is_frozen_stays_in_eval_and_its_maps_can_be_trained_on():
    backbone = Backbone(TOKEN_FAMILIES["dinov2"](), early_block=1, deep_blocks=(2,))
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    assert not any(p.requires_grad for p in backbone.parameters())
    maps = backbone(PIXELS)
    assert not maps.early.is_inference()
    assert not maps.early.requires_grad
