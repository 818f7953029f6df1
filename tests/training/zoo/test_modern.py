"""The modern architectures: any common size, and what each is made of."""

from __future__ import annotations

import pytest
import torch

from training.networks.coupled import CoupledDiscriminator, CoupledGenerator
from training.networks.layers import Block
from training.zoo import DISCRIMINATORS, GENERATORS
from training.zoo.modern import SIDES


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("domains", [1, 2, 3])
def test_every_number_of_shared_blocks_draws_and_judges(side: int, domains: int) -> None:
    """From none to all but the last layer, images have the table's size, and each a logit."""
    tables = GENERATORS[f"modern_{side}"], DISCRIMINATORS[f"modern_{side}"]
    channels = {f"domain_{number}": 1 + number for number in range(domains)}
    shared = [range(len(table.layers)) for table in tables]
    with torch.device("meta"):
        for first, last in [(shared[0][0], shared[1][0]), (shared[0][-1], shared[1][-1])]:
            images = CoupledGenerator(tables[0], channels, 16, 1 / 16, first)(torch.empty(2, 16))
            assert {name: (2, count, side, side) for name, count in channels.items()} == {
                name: tuple(batch.shape) for name, batch in images.items()
            }
            logits = CoupledDiscriminator(tables[1], channels, 1 / 16, last)(images)
            assert [tuple(batch.shape) for batch in logits.values()] == [(2,)] * domains


@pytest.mark.parametrize("side", SIDES)
def test_gradients_reach_the_latent_and_the_pixels(side: int) -> None:
    """A tenth of a standard deviation in a latent shows in the image, and every pixel moves the logit."""
    generator = CoupledGenerator(GENERATORS[f"modern_{side}"], {"a": 3}, 16, 1 / 16, 1)
    latents = torch.randn(4, 16, requires_grad=True)
    images = generator(latents)["a"]
    (gradient,) = torch.autograd.grad(images.square().sum(), latents)
    assert (gradient != 0).all()
    pixels = torch.randn(1, 3, side, side, requires_grad=True)
    discriminator = CoupledDiscriminator(DISCRIMINATORS[f"modern_{side}"], {"a": 3}, 1 / 16, 1)
    (gradient,) = torch.autograd.grad(discriminator({"a": pixels})["a"].sum(), pixels, create_graph=True)
    assert (gradient != 0).any(1).all()
    gradient.square().sum().backward()  # as R1 takes it
    weights = [weight for name, weight in discriminator.named_parameters() if name.endswith("weight")]
    assert all(weight.grad is not None and weight.grad.any() for weight in weights)


def test_a_wide_first_layer_is_all_that_is_wider() -> None:
    """The layer next to the images has three times the channels, and each behind it as many as before."""
    table = DISCRIMINATORS["modern_64"]
    plain, wide = (CoupledDiscriminator(one, {"a": 3}, 1 / 4, 4) for one in (table, table.with_first(3.0)))
    convolutions = [[m.out_channels for m in d.modules() if isinstance(m, torch.nn.Conv2d)] for d in (plain, wide)]
    assert convolutions[1] == [3 * convolutions[0][0], *convolutions[0][1:]]
    assert wide({"a": torch.zeros(2, 3, 64, 64)})["a"].shape == (2,)


def test_no_discriminator_normalises() -> None:
    """So a gradient penalty is that of each image, and all images of an update are judged together."""
    for side in SIDES:
        assert {layer.norm for layer in DISCRIMINATORS[f"modern_{side}"].layers} == {"none"}


def test_a_block_adds_its_shortcut() -> None:
    """The sum of both paths, scaled to the variance of one."""
    one = torch.nn.Identity()
    values = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(Block(one, one)(values), 2**0.5 * values)
