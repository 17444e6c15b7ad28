"""Parameter groups and the learning-rate schedule."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def build_adamw(groups: Iterable[tuple[nn.Module, float]], weight_decay: float) -> AdamW:
    """AdamW over (module, learning rate) groups; norms, biases and embeddings are not decayed."""
    parameters = []
    for module, lr in groups:
        trained = [p for p in module.parameters() if p.requires_grad]
        decayed = [p for p in trained if p.ndim >= 2]
        others = [p for p in trained if p.ndim < 2]
        parameters += [
            {"params": decayed, "lr": lr, "weight_decay": weight_decay},
            {"params": others, "lr": lr, "weight_decay": 0.0},
        ]
    return AdamW([group for group in parameters if group["params"]])


def warmup_cosine(optimizer: AdamW, warmup_steps: int, max_steps: int) -> LambdaLR:
    """Rise linearly for `warmup_steps`, then fall along a half cosine to 0 at `max_steps`."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return LambdaLR(optimizer, factor)
