"""Coupling and auxiliary losses against values computed by hand, and distributions over labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from training.losses.auxiliary import (
    AUXILIARY_LOSSES,
    COUPLINGS,
    AuxiliaryInputs,
    CouplingInputs,
    GeneratedBatch,
    classes,
    content,
    cycle,
    features,
    label_distribution,
    label_loss,
    label_probability,
    most_probable,
    reconstruction,
    semantic,
    style,
    weights,
)


def _certain(images: Tensor) -> Tensor:
    """Call an image the class of its first pixel, with certainty."""
    return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 10).float()


def _of_class(classes: list[int]) -> Tensor:
    return torch.tensor(classes, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def semantic_loss(images: dict[str, Tensor], classifier: Callable[[Tensor], Tensor] = _certain) -> Tensor:
    """Ask one classifier about all domains."""
    return semantic(GeneratedBatch(images), CouplingInputs(classify=dict.fromkeys(images, classifier)))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_pairs_of_one_class_cost_nothing(count: int) -> None:
    """However many domains there are, images that are called alike have a semantic loss of 0."""
    assert semantic_loss({f"d{i}": _of_class([1, 2, 3]) for i in range(count)}) == 0.0


def test_pairs_of_two_classes_cost_what_the_formula_says() -> None:
    """Two of ten probabilities differ by 1, and the loss is the mean squared difference: 2 / 10."""
    images = {"left": _of_class([1]), "right": _of_class([2])}
    torch.testing.assert_close(semantic_loss(images), torch.tensor(0.2))


def test_the_gradient_brings_the_classes_together() -> None:
    """A step against the gradient makes the loss smaller, through both domains."""
    torch.manual_seed(0)
    images = {name: torch.randn(4, 1, 4, 4, requires_grad=True) for name in ("left", "right")}
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 10), nn.Softmax(1))
    loss = semantic_loss(images, network)
    loss.backward()
    moved = {name: batch - 10.0 * batch.grad for name, batch in images.items() if batch.grad is not None}
    assert list(moved) == list(images)
    assert semantic_loss(moved, network) < loss


@pytest.mark.parametrize(("layers", "expected"), [(1, 1.0), (2, 1.0 + 4.0 + 16.0)])
def test_the_weights_of_the_first_layers_are_compared(layers: int, expected: float) -> None:
    """Each tensor of each row adds the mean squared difference between the two domains."""
    rows = [[torch.zeros(3, 2)], [torch.ones(4), torch.zeros(2, 2)]]
    others = [[torch.ones(3, 2)], [torch.ones(4) * 3, torch.ones(2, 2) * 4]]
    inputs = CouplingInputs(layers=layers, weights={"left": rows, "right": others})
    assert weights(GeneratedBatch({}), inputs).item() == pytest.approx(expected)


@pytest.mark.parametrize(("layers", "expected"), [(1, 4.0), (2, 4.0 + 4.0)])
def test_the_features_of_the_first_layers_are_compared(layers: int, expected: float) -> None:
    """Each layer adds the mean squared difference between the two domains' outputs."""
    ones = torch.ones(2, 4, 3, 3)
    generated = GeneratedBatch({}, features={"left": [0 * ones, ones], "right": [2 * ones, 3 * ones]})
    assert features(generated, CouplingInputs(layers=layers)).item() == pytest.approx(expected)


def test_a_cycle_ends_where_it_began() -> None:
    """The cost is the mean absolute distance between the latents and the encoder's, summed over domains."""
    latents = torch.zeros(5, 8)
    found = {"left": latents + 1.0, "right": latents - 3.0}
    generated = GeneratedBatch({name: torch.zeros(5, 1, 4, 4) for name in found}, latents)
    assert cycle(generated, CouplingInputs(encode=lambda _: found)).item() == pytest.approx(4.0)


def test_content_is_the_last_of_the_features() -> None:
    """It costs the mean squared difference between domains, whatever the other features are."""
    images = {"left": torch.zeros(2, 1, 4, 4), "right": torch.full((2, 1, 4, 4), 6.0)}
    image_features = dict.fromkeys(images, lambda batch: [batch * 100, batch])
    assert content(GeneratedBatch(images), CouplingInputs(image_features=image_features)).item() == pytest.approx(36.0)


def test_style_is_how_channels_go_together() -> None:
    """A feature's Gram matrix is its mean over places; generated and real ones are compared image by image."""
    real = {"left": torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])}  # two channels of two places
    generated = {"left": torch.tensor([[[[3.0, 1.0]], [[0.0, 2.0]]]])}  # the places change, the style does not
    image_features = {"left": lambda batch: [batch, 2 * batch, batch + 1000.0]}
    assert style(GeneratedBatch(generated, real=real), CouplingInputs(image_features=image_features)) == 0.0
    generated["left"] = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])  # products 5, 3, 2 where 5, 1, 2 are real
    expected = (2 * 2.0**2 / 4 + 2 * 8.0**2 / 4) / 2
    assert style(
        GeneratedBatch(generated, real=real), CouplingInputs(image_features=image_features)
    ).item() == pytest.approx(expected)


def test_reconstruction_is_the_huber_loss() -> None:
    """Half a square up to a distance of 1, then linear, summed over domains."""
    real = {name: torch.zeros(2, 1, 2, 2) for name in ("left", "right")}
    generated = {"left": real["left"] + 0.5, "right": real["right"] - 3.0}
    expected = 0.5**2 / 2 + (3.0 - 0.5)
    assert reconstruction(GeneratedBatch(generated, real=real), CouplingInputs()).item() == pytest.approx(expected)


def test_pixels_cost_their_distance_from_the_median_of_a_pair() -> None:
    """The one of three domains that differs is pulled, the others are where they were; grey counts in each channel."""
    odd = torch.full((2, 3, 4, 4), -1.0, requires_grad=True)
    others = {name: torch.full((2, 1, 4, 4), 0.5) for name in ("plain", "grey")}
    loss = COUPLINGS["pixels"].loss(GeneratedBatch({**others, "odd": odd}), CouplingInputs())
    assert loss.item() == pytest.approx(1.5)
    (gradient,) = torch.autograd.grad(loss, odd)
    assert (gradient < 0).all()


def test_pixels_of_two_domains_cost_their_difference() -> None:
    """The mean absolute difference, whichever is lighter, and each is pulled as much as the other."""
    left = torch.zeros(1, 1, 2, 2, requires_grad=True)
    right = torch.tensor([[[[1.0, -1.0], [0.5, 0.25]]]], requires_grad=True)
    loss = COUPLINGS["pixels"].loss(GeneratedBatch({"left": left, "right": right}), CouplingInputs())
    assert loss.item() == pytest.approx(2.75 / 4)
    to_left, to_right = torch.autograd.grad(loss, (left, right))
    torch.testing.assert_close(to_left, -to_right)


def test_an_image_costs_what_its_choice_is_improbable() -> None:
    """A half of a probability costs log 2, in each domain; only the greatest of the choices' values counts."""
    latents = torch.tensor([[0.1, 2.0, -1.0, 9.0], [3.0, 0.0, 1.0, -9.0]])
    read = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.2, 0.3]]).log()
    images = {name: torch.zeros(2, 1, 4, 4) for name in ("left", "right")}
    loss = classes(GeneratedBatch(images, latents), CouplingInputs(read_choices=dict.fromkeys(images, lambda _: read)))
    torch.testing.assert_close(loss, torch.tensor(2 * math.log(2)))


@pytest.mark.parametrize("name", ["semantic", "weights", "features", "content"])
def test_a_domain_as_far_from_the_mean_has_the_same_gradient(name: str) -> None:
    """However many domains there are, with the same distance from their mean."""
    gradients = []
    for count in (2, 6):
        values = {f"d{i}": torch.full((3, 1, 4, 4), (-1.0) ** i).requires_grad_() for i in range(count)}
        inputs = CouplingInputs(
            weights={name: [[value]] for name, value in values.items()},
            classify=dict.fromkeys(values, lambda batch: batch.flatten(1)),
            image_features=dict.fromkeys(values, lambda batch: [batch]),
        )
        generated = GeneratedBatch(values, features={name: [value] for name, value in values.items()})
        (gradient,) = torch.autograd.grad(COUPLINGS[name].loss(generated, inputs), values["d0"])
        gradients.append(gradient)
    torch.testing.assert_close(*gradients)


def test_every_coupling_says_what_it_does() -> None:
    """Each registered coupling has a sentence for those who choose it."""
    assert all(coupling.about for coupling in COUPLINGS.values())


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
