"""Distributions over labels, against formulas of their own."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from training.losses.auxiliary import cost, most_probable, say, sureness

LOGITS = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))


def test_classes_exclude_one_another() -> None:
    """Their probabilities are a softmax, and what labels cost is its cross entropy."""
    said, labels = say("classes", LOGITS), torch.arange(16) % 5
    torch.testing.assert_close(said.probs, LOGITS.softmax(1))
    torch.testing.assert_close(cost(said, labels), cross_entropy(LOGITS, labels))
    assert torch.equal(most_probable(said), LOGITS.argmax(1))
    torch.testing.assert_close(sureness(said), LOGITS.softmax(1).amax(1))


def test_attributes_do_not() -> None:
    """Each has a sigmoid of its own and costs a binary cross entropy; all of them together are less sure."""
    said, labels = say("attributes", LOGITS), torch.arange(80).reshape(16, 5) % 2
    torch.testing.assert_close(said.probs, LOGITS.sigmoid())
    torch.testing.assert_close(cost(said, labels), binary_cross_entropy_with_logits(LOGITS, labels.float()))
    assert torch.equal(most_probable(said), (LOGITS > 0).long())
    torch.testing.assert_close(sureness(said), LOGITS.abs().sigmoid().prod(1))


@pytest.mark.parametrize("labelling", ["classes", "attributes"])
def test_what_is_undecided_is_the_first_value(labelling: str) -> None:
    """Equal probabilities give class 0, and no attribute."""
    assert not most_probable(say(labelling, torch.zeros(2, 5))).any()


@pytest.mark.parametrize("labelling", ["classes", "attributes"])
def test_few_bits_are_no_matter(labelling: str) -> None:
    """Probabilities of bfloat16 logits are computed in full precision."""
    assert say(labelling, LOGITS.bfloat16()).probs.dtype == torch.float32
