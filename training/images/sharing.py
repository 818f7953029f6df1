"""Who gets which image: domains stay unpaired because no image goes to two of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray


def share_out(count: int, shares: int, seed: int) -> list[NDArray[np.int64]]:
    """Split 0 .. count - 1 at random into disjoint, equal shares."""
    order = np.random.default_rng(seed).permutation(count)
    return np.array_split(order, shares)


def share_out_images(wanted: Mapping[str, Sequence[Hashable]], seed: int) -> dict[str, list[int]]:
    """Give each image to one of the domains that want it, and return the rows that each domain gets.

    `wanted` has a fingerprint for each row of a domain. Images that the same domains want are shared out
    equally among them, at random; an image that a domain has in several rows stays in all of them. The rows
    come in an order whose every beginning is a fair sample of them all.
    """
    rows: dict[Hashable, dict[str, list[int]]] = {}
    for name, fingerprints in wanted.items():
        for row, image in enumerate(fingerprints):
            rows.setdefault(image, {}).setdefault(name, []).append(row)
    alike: dict[tuple[str, ...], list[dict[str, list[int]]]] = {}
    for places in rows.values():
        alike.setdefault(tuple(places), []).append(places)
    given: dict[str, list[tuple[float, int]]] = {name: [] for name in wanted}
    for names, images in alike.items():
        for name, share in zip(names, share_out(len(images), len(names), seed), strict=True):
            for i, image in enumerate(share):
                given[name] += [(i / len(share), row) for row in images[image][name]]
    return {name: [row for _, row in sorted(ranked, key=itemgetter(0))] for name, ranked in given.items()}


def join_rows(wanted: Mapping[str, Sequence[Sequence[Hashable]]]) -> dict[str, list[Hashable]]:
    """Return what each row of each domain belongs to: rows with a key in common belong together.

    Keys are fingerprints of the images of a row, in whatever column, and the row's group.
    """
    parents: dict[Hashable, Hashable] = {}

    def root(key: Hashable) -> Hashable:
        while (parent := parents.setdefault(key, key)) != key:
            parents[key] = key = parents.setdefault(parent, parent)
        return key

    for rows in wanted.values():
        for first, *others in rows:
            for key in others:
                parents[root(key)] = root(first)
    return {name: [root(keys[0]) for keys in rows] for name, rows in wanted.items()}
