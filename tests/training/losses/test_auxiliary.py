"""Auxiliary losses against values computed by hand, and distributions over labels."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from training.losses.auxiliary import (
    AUXILIARY_LOSSES,
    AuxiliaryInputs,
    label_distribution,
    label_loss,
    label_probability,
    most_probable,
)

Images = dict[str, Tensor]
SURE = math.log(9.0)  # of two classes: nine to one


class TinyDiscriminator:
    """Two pixels are the features, and `scale` times them the logits of two classes."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def features(self, images: Images) -> Images:
        """Return the pixels [B, 2]."""
        return {name: batch.flatten(1) for name, batch in images.items()}

    def classify(self, images: Images) -> Images:
        """Return the scaled pixels [B, 2]."""
        return {name: batch.flatten(1) * self.scale for name, batch in images.items()}


def pixels(*images: tuple[float, float]) -> Tensor:
    """Make images [B, 1, 1, 2]."""
    return torch.tensor(images)[:, None, None]


def loss_of(name: str, **changes: Any) -> float:
    """Return an auxiliary loss; inputs that it must not use are NaN."""
    unknown = {"first": pixels((math.nan, math.nan)), "second": pixels((math.nan, math.nan))}
    asked: dict[str, Any] = {
        "discriminator": TinyDiscriminator(),
        "ema_discriminator": TinyDiscriminator(),
        "confidence": 0.5,
        "labels": {},
    }
    asked |= {"real": unknown, "augmented": unknown, "generated": unknown}
    return float(AUXILIARY_LOSSES[name].loss(AuxiliaryInputs(**(asked | changes))))


def test_labels_cost_their_cross_entropy() -> None:
    """The mean over images of -log of the label's probability, of the discriminator's inputs, summed over domains."""
    augmented = {"first": pixels((SURE, 0.0), (0.0, SURE)), "second": pixels((0.0, 0.0), (0.0, 0.0))}
    labels = {"first": torch.tensor([0, 0])}
    expected = (-math.log(0.9) - math.log(0.1)) / 2
    assert loss_of("labels", augmented=augmented, labels=labels) == pytest.approx(expected)
    both = labels | {"second": torch.tensor([1, 0])}
    assert loss_of("labels", augmented=augmented, labels=both) == pytest.approx(expected + math.log(2))


def test_features_of_two_domains_cost_their_squared_distance() -> None:
    """Summed over the features and averaged over pairs, as the official code does; of one domain nothing."""
    generated = {"first": pixels((1.0, 2.0), (0.0, 0.0)), "second": pixels((4.0, -2.0), (0.0, 1.0))}
    assert loss_of("pair_features", generated=generated) == pytest.approx(((9 + 16) + (0 + 1)) / 2)
    assert loss_of("pair_features", generated={"first": generated["first"]}) == 0.0
    twins = generated | {"third": generated["first"]}
    assert loss_of("pair_features", generated=twins) == pytest.approx(2 * 2 / 3 * ((9 + 16) + (0 + 1)) / 2)


def test_pseudo_labels_are_confident_classes_of_the_ema() -> None:
    """Images that it is not sure of cost nothing but count in the mean; the labelled are left out."""
    real = {"first": pixels((math.nan, math.nan)), "second": pixels((SURE, 0.0), (0.1, 0.0))}
    augmented = {"first": pixels((math.nan, math.nan)), "second": pixels((0.0, SURE), (0.0, SURE))}
    asked = {"real": real, "augmented": augmented, "labels": {"first": torch.tensor([0])}}
    assert loss_of("pseudo_labels", confidence=0.85, **asked) == pytest.approx(-math.log(0.1) / 2)
    assert loss_of("pseudo_labels", confidence=0.95, **asked) == 0.0
    assert loss_of("pseudo_labels", confidence=0.95, ema_discriminator=TinyDiscriminator(2.0), **asked) > 0.0


def test_pair_labels_are_read_in_the_labelled_image_of_a_pair() -> None:
    """The unlabelled image's label is the EMA's class of the labelled one."""
    generated = {"first": pixels((0.0, SURE), (0.0, 0.1)), "second": pixels((SURE, 0.0), (SURE, 0.0))}
    asked = {"generated": generated, "labels": {"first": torch.tensor([0])}}
    assert loss_of("pair_labels", confidence=0.85, **asked) == pytest.approx(-math.log(0.1) / 2)


def test_entropy_is_that_of_the_unlabelled_images() -> None:
    """Two even classes have log 2; a sure one has less."""
    augmented = {"first": pixels((math.nan, math.nan)), "second": pixels((0.0, 0.0), (SURE, 0.0))}
    sure = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    expected = (math.log(2) + sure) / 2
    assert loss_of("entropy", augmented=augmented, labels={"first": torch.tensor([0])}) == pytest.approx(expected)


@pytest.mark.parametrize("name", AUXILIARY_LOSSES)
def test_an_auxiliary_loss_has_gradients_in_the_discriminator_alone(name: str) -> None:
    """Gradients reach the discriminator and not its EMA."""
    scales = [torch.ones((), requires_grad=True) for _ in range(2)]
    discriminator, ema_discriminator = (TinyDiscriminator(scale) for scale in scales)  # type: ignore[arg-type]  # a scalar tensor
    images = {"first": pixels((1.0, 0.0)), "second": pixels((0.0, 2.0))}
    generated = {key: batch.clone().requires_grad_() for key, batch in images.items()}
    labels = {"first": torch.tensor([1])}
    AUXILIARY_LOSSES[name].loss(
        AuxiliaryInputs(discriminator, ema_discriminator, 0.5, images, images, labels, generated)
    ).backward()
    assert scales[1].grad is None
    assert (scales[0].grad if name != "pair_features" else generated["first"].grad) is not None


LOGITS = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))


def test_classes_exclude_one_another() -> None:
    """Their probabilities are a softmax, and what labels cost is its cross entropy."""
    distribution, labels = label_distribution("classes", LOGITS), torch.arange(16) % 5
    torch.testing.assert_close(distribution.probs, LOGITS.softmax(1))
    torch.testing.assert_close(label_loss(distribution, labels), cross_entropy(LOGITS, labels))
    assert torch.equal(most_probable(distribution), LOGITS.argmax(1))
    torch.testing.assert_close(label_probability(distribution), LOGITS.softmax(1).amax(1))


def test_attributes_do_not() -> None:
    """Each has a sigmoid of its own and costs a binary cross entropy; all of them together are less sure."""
    distribution, labels = label_distribution("attributes", LOGITS), torch.arange(80).reshape(16, 5) % 2
    torch.testing.assert_close(distribution.probs, LOGITS.sigmoid())
    torch.testing.assert_close(
        label_loss(distribution, labels), binary_cross_entropy_with_logits(LOGITS, labels.float())
    )
    assert torch.equal(most_probable(distribution), (LOGITS > 0).long())
    torch.testing.assert_close(label_probability(distribution), LOGITS.abs().sigmoid().prod(1))


@pytest.mark.parametrize("labelling", ["classes", "attributes"])
def test_what_is_undecided_is_the_first_value(labelling: str) -> None:
    """Equal probabilities give class 0, and no attribute."""
    assert not most_probable(label_distribution(labelling, torch.zeros(2, 5))).any()


@pytest.mark.parametrize("labelling", ["classes", "attributes"])
def test_few_bits_are_no_matter(labelling: str) -> None:
    """Probabilities of bfloat16 logits are computed in full precision."""
    assert label_distribution(labelling, LOGITS.bfloat16()).probs.dtype == torch.float32
