import torch

from fsdino_pl.student.mask_decoder import MaskDecoder


def test_sams_own_size_has_sams_parameter_count():
    assert sum(p.numel() for p in MaskDecoder().decoder.parameters()) == 4_058_340


def test_each_image_is_decoded_alone_on_any_grid():
    torch.manual_seed(0)
    decoder = MaskDecoder(embed_dim=32, num_heads=4, mlp_dim=64).eval()
    embedding, sparse, dense = torch.randn(3, 32, 5, 7), torch.randn(3, 2, 32), torch.randn(3, 32, 5, 7)
    together = decoder(embedding, sparse, dense)
    assert together.shape == (3, 20, 28)
    alone = [decoder(embedding[i : i + 1], sparse[i : i + 1], dense[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_positions_follow_sams_formula():
    decoder = MaskDecoder(embed_dim=32, num_heads=4, mlp_dim=64)
    frequencies = decoder.position_encoding.positional_embedding  # (2, 16), x first
    x, y = 2 * (3 + 0.5) / 7 - 1, 2 * (1 + 0.5) / 5 - 1
    angle = 2 * torch.pi * (x * frequencies[0] + y * frequencies[1])
    expected = torch.cat([angle.sin(), angle.cos()])
    torch.testing.assert_close(decoder.encode_positions(5, 7)[0, :, 1, 3], expected, atol=1e-5, rtol=0)


def test_every_trained_parameter_gets_a_gradient():
    decoder = MaskDecoder(embed_dim=32, num_heads=4, mlp_dim=64)
    logits = decoder(torch.randn(1, 32, 3, 3), torch.randn(1, 1, 32), torch.randn(1, 32, 3, 3))
    logits.square().sum().backward()
    missing = [n for n, p in decoder.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
