import torch

from fsdino_pl.student.adapter import BottleneckAdapter


def test_published_size_is_about_a_million_and_a_quarter():
    parameters = sum(p.numel() for p in BottleneckAdapter(768).parameters())
    assert round(parameters / 1e6, 2) == 1.25


def test_grid_and_batch_do_not_mix():
    torch.manual_seed(0)
    adapter = BottleneckAdapter(12, embed_dim=16, bottleneck_dim=8, num_heads=2).eval()
    early = torch.randn(3, 12, 4, 5)
    together = adapter(early)
    assert together.shape == (3, 16, 4, 5)
    torch.testing.assert_close(together, torch.cat([adapter(image[None]) for image in early]))
    # A block of attention without its residuals' inputs is the identity on the reduced map.
    for block in adapter.attention:
        for last in (block.proj, block.mlp[-1]):
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
    torch.testing.assert_close(adapter(early), adapter.expand(adapter.reduce(early)))
