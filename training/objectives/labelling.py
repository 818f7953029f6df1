"""What a classifier says of images: a distribution over their labels, and what true labels make of it.

Labels of one column are classes, which exclude one another; those of several are attributes, which do not.
Axes: B batch, K classes or attributes. Labels are int64: classes [B], attributes [B, K] of 1 and 0.
"""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution

DISTRIBUTIONS: dict[str, type[Categorical | Bernoulli]] = {"classes": Categorical, "attributes": Bernoulli}


def say(labelling: str, logits: Tensor) -> Categorical | Bernoulli:
    """Return the distribution that logits [B, K] stand for; its `probs` are [B, K]."""
    return DISTRIBUTIONS[labelling](logits=logits.float(), validate_args=False)


def cost(said: Distribution, labels: Tensor) -> Tensor:
    """Return the mean cross entropy of the labels: of all images, and of all their attributes."""
    return -said.log_prob(labels.float()).mean()


def most_probable(said: Distribution) -> Tensor:
    """Return the most probable labels; an attribute as probable as not is 0."""
    return said.mode.nan_to_num().long()


def sureness(said: Distribution) -> Tensor:
    """Return the probability [B] of the most probable labels, of all attributes together."""
    likelihood = said.log_prob(most_probable(said).float())
    return likelihood.reshape(len(likelihood), -1).sum(1).exp()
