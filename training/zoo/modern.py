"""Networks of today for images of any common size: blocks with skips, and no normalisation in the discriminator.

Halving and doubling residual blocks as in Miyato et al. 2018 (SNGAN, figure 9) and Liu et al. 2021 (FastGAN,
section 3.3): few channels where images are large, so that every block costs about the same. At a width of
0.5 a core of a CPU trains 64x64; a GPU takes 1 or more.
"""

from __future__ import annotations

from functools import partial

from training.networks.layers import Architecture, Layer

SIDES = (16, 28, 32, 64, 128, 256)
_leaky = partial(Layer, activation="leaky_relu")
_up = partial(_leaky, "deconv", kernel=4, stride=2, padding=1, norm="batch", skip=True)
_down = partial(_leaky, "conv", kernel=4, stride=2, padding=1, skip=True)


def _start(side: int) -> int:
    """Return the side of the smallest map: the image's, halved while it is even and the result at least 4."""
    while side % 2 == 0 and side > 7:
        side //= 2
    return side


def _channels(side: int) -> int:
    """Return the channels of a map of that side: fewer, by powers of two, the larger it is."""
    return min(512, max(64, 2048 >> (side - 1).bit_length()))


def _sides(side: int) -> list[int]:
    """Return the sides of all maps, from the smallest to the image's."""
    sides = [_start(side)]
    while sides[-1] < side:
        sides.append(2 * sides[-1])
    return sides


def _generator(side: int) -> tuple[Layer, ...]:
    first, *others = _sides(side)
    return (
        _leaky("linear", _channels(first), first, norm="batch"),
        *(_up(_channels(other)) for other in others),
        Layer("conv", "image", 3, 1, 1, activation="tanh"),
    )


def _discriminator(side: int) -> tuple[Layer, ...]:
    *others, half, _ = _sides(side)
    return (
        _leaky("conv", _channels(half), 4, 2, 1),
        *(_down(_channels(other)) for other in reversed(others)),
        _leaky("linear", 512),
        Layer("linear", "logit"),
    )


GENERATORS = {
    f"modern_{side}": Architecture(
        f"blocks with skips that double the sides from {_start(side)}x{_start(side)} to {side}x{side}",
        (side, side),
        _generator(side),
    )
    for side in SIDES
}

DISCRIMINATORS = {
    f"modern_{side}": Architecture(
        f"blocks with skips that halve the sides from {side}x{side}, without normalisation: fit for R1",
        (side, side),
        _discriminator(side),
    )
    for side in SIDES
}
