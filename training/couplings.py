"""What holds the images of a pair together beside shared layers: siblings of one signature, by name.

Each takes the drawn images of every domain, [B, C, H, W], and what tells the classes of each domain's images,
images -> logits [B, K], and returns a scalar for the generator to minimise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Images = Mapping[str, Tensor]
Coupling = Callable[[Images, Mapping[str, Callable[[Tensor], Tensor]]], Tensor]


def semantic(images: Images, classify: Mapping[str, Callable[[Tensor], Tensor]]) -> Tensor:
    """Return the mean squared difference between each domain's class probabilities and their mean.

    The semantic loss of Soft-CoGAN, for any number of domains: classes are asked of classifiers trained on
    the real images of each domain alone, so nothing paired is needed, but labels are.
    """
    probabilities = torch.stack([classify[name](batch).softmax(1) for name, batch in images.items()])
    return (probabilities - probabilities.mean(0)).square().mean()


COUPLINGS: dict[str, Coupling] = {"semantic": semantic}
