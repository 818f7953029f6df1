"""Networks that learn from pairs, and copies among images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training.config.experiment import Experiment
from training.data.dataset import load_split
from training.losses.pixels import transform
from training.metrics.quality import counterpart_distance
from training.metrics.translation import (
    Examples,
    Translator,
    compare,
    fit_translator,
    join_prints,
    measure_copies,
    nearest_distance,
    take_prints,
)

CPU = torch.device("cpu")


def noise(count: int, seed: int) -> Tensor:
    """Make images of noise, uint8 [N, 1, 28, 28]."""
    return torch.randint(256, (count, 1, 28, 28), generator=torch.Generator().manual_seed(seed)).byte()


def test_a_translator_learns_what_pairs_have_in_common(make_experiment: Callable[..., Experiment]) -> None:
    """Digits become their negatives, much nearer than a copy is; the same seed gives the same network."""
    (domain,) = make_experiment(("digit",)).domains
    training, test = (load_split(domain, use, (28, 28)).images for use in ("train", "test"))
    pairs = training, transform(training, "negative")
    found, expected = fit_translator(pairs, 8, 0, CPU).translate(test), transform(test, "negative")
    floor = counterpart_distance(test, expected)["distance"]
    assert counterpart_distance(found, expected)["distance"] < floor / 3
    few = training[:8], pairs[1][:8]
    one, again, other = (fit_translator(few, 1, seed, CPU).translate(test[:4]) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_translator_learns_where_most_is_black(make_experiment: Callable[..., Experiment]) -> None:
    """Edges, of which nearly all is black, are drawn, and not left out: much nearer than a black image is."""
    (domain,) = make_experiment(("digit",)).domains
    training, test = (load_split(domain, use, (28, 28)).images for use in ("train", "test"))
    found = fit_translator((training, transform(training, "edge")), 24, 0, CPU).translate(test)
    expected = transform(test, "edge")
    black = counterpart_distance(torch.zeros_like(expected), expected)["distance"]
    assert counterpart_distance(found, expected)["distance"] < black / 2


@pytest.mark.parametrize("size", [(28, 28), (9, 7), (64, 50)])
def test_a_translator_takes_any_size_and_colour(size: tuple[int, int]) -> None:
    """Odd sides and other channels come out as they should, in bytes."""
    images = torch.zeros(2, 3, *size, dtype=torch.uint8)
    found = Translator(3, 1).translate(images)
    assert (found.shape, found.dtype) == ((2, 1, *size), torch.uint8)


@pytest.mark.parametrize(
    ("generated", "real", "worst", "falls", "reached"),
    [
        (0.2, 0.1, 0.25, True, pytest.approx(0.05 / 0.15)),
        (0.2, 0.3, 0.25, True, None),
        (0.5, 0.2, 0.25, False, None),
        (0.5, 0.0, 0.0, False, None),
    ],
)
def test_nothing_is_reached_where_real_examples_are_not_better(
    generated: float, real: float, worst: float, falls: bool, reached: float | None
) -> None:
    """A share is of a way from the worst figure to a better one, whether better ones are less or more."""
    figures, one = iter([generated, real]), torch.arange(3)
    compared = compare(lambda *_: next(figures), (one, one), (one, one), (0,), worst, falls)
    assert compared["reached"] == reached


@pytest.mark.parametrize(("real", "distinct"), [(50, 10), (4, 4)])
def test_real_examples_are_as_many(real: int, distinct: int) -> None:
    """As many are taken of more, others with another seed, and of fewer all, again and again, pairs staying pairs."""
    seen: list[Examples] = []

    def train(examples: Examples, seed: int) -> float:
        seen.append(examples)
        return 0.5 + seed / 10 if len(seen) <= 2 else 0.9

    numbers = torch.arange(real)
    compared = compare(train, (torch.arange(10), torch.arange(10)), (numbers, -numbers), (0, 1), worst=0.1)
    assert compared["images"] == {"generated": 10, "real": distinct}
    assert (compared["generated"], compared["real"]) == ([0.5, 0.6], [0.9, 0.9])
    assert compared["reached"] == pytest.approx(0.45 / 0.8)
    first, second = seen[2:]
    for images, labels in (first, second):
        assert (len(images), len(images.unique())) == (10, distinct)
        assert torch.equal(images, -labels)
    assert not torch.equal(first[0], second[0])


def test_the_nearest_distance_is_that_of_all_distances() -> None:
    """As one matrix of distances gives it, also where the image itself is among the others."""
    images, others = torch.rand(300, 5), torch.rand(40, 5)
    torch.testing.assert_close(nearest_distance(images, others), torch.cdist(images, others).min(1).values)
    apart = torch.cdist(images, images).fill_diagonal_(torch.inf).min(1).values
    torch.testing.assert_close(nearest_distance(images), apart, atol=1e-4, rtol=1e-3)


def test_a_thumbnail_measures_levels() -> None:
    """Black and white are 1 apart, and levels by their difference, in grey and in colour; parts join in order."""
    for channels in (1, 3):
        levels = torch.tensor([0, 255, 51], dtype=torch.uint8)[:, None, None, None].expand(3, channels, 28, 28)
        prints = take_prints(levels)
        distances = torch.cdist(prints.thumbnails, prints.thumbnails)
        assert distances[0].tolist() == pytest.approx([0, 1, 0.2], abs=1e-6)
        joined = join_prints([take_prints(part) for part in levels.split(2)])
        assert joined.digests == prints.digests
        assert torch.equal(joined.thumbnails, prints.thumbnails)


def test_copies_are_found() -> None:
    """A copy of a training image is equal and near to it, a slightly changed one near; other noise is neither."""
    training, test, generated = noise(200, 0), noise(100, 1), noise(100, 2)
    honest = measure_copies(*map(take_prints, (generated, training, test)))
    assert honest["images"] == {"training": 200, "generated": 100, "test": 100}
    assert honest["equal_to_training"] == {"generated": 0, "test": 0}
    assert honest["near_training"]["test"] == pytest.approx(0.01)
    assert honest["near_training"]["generated"] <= 0.05
    assert honest["near_another"]["generated"] <= 0.05
    generated[:30], generated[30:50] = training[:30], (training[30:50].int() + 1).clamp(max=255).byte()
    generated[99] = generated[98]
    found = measure_copies(*map(take_prints, (generated, training, test)))
    assert found["equal_to_training"] == {"generated": 30, "test": 0}
    assert 0.5 <= found["near_training"]["generated"] <= 0.55
    assert 0.02 <= found["near_another"]["generated"] <= 0.07
    assert found["distance_to_training"]["generated"] < found["distance_to_training"]["test"]
