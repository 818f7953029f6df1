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


def _channels(side: int) -> int:
    """Return the channels of a map of that side: fewer, by powers of two, the larger it is."""
    return min(512, max(64, 2048 >> (side - 1).bit_length()))


def _sides(side: int) -> list[int]:
    """Return the sides of all maps, from the image's on: halved while that is even and the result at least 4."""
    sides = [side]
    while sides[-1] % 2 == 0 and sides[-1] > 7:
        sides.append(sides[-1] // 2)
    return sides


def _generator(side: int) -> Architecture:
    *others, first = _sides(side)
    return Architecture(
        f"blocks with skips that double the sides from {first}x{first} to {side}x{side}",
        (side, side),
        (
            _leaky("linear", _channels(first), first, norm="batch"),
            *(_up(_channels(other)) for other in reversed(others)),
            Layer("conv", "image", 3, 1, 1, activation="tanh"),
        ),
    )


def _discriminator(side: int) -> Architecture:
    _, half, *others = _sides(side)
    return Architecture(
        f"blocks with skips that halve the sides from {side}x{side}, without normalisation: fit for R1",
        (side, side),
        (
            _leaky("conv", _channels(half), 4, 2, 1),
            *(_down(_channels(other)) for other in others),
            _leaky("linear", 512),
            Layer("linear", "logit"),
        ),
    )


GENERATORS = {f"modern_{side}": _generator(side) for side in SIDES}
DISCRIMINATORS = {f"modern_{side}": _discriminator(side) for side in SIDES}
