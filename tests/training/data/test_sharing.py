"""Who gets which image."""

from __future__ import annotations

import itertools

import numpy as np

from training.data.sources import join_rows, share_out, share_out_images


def test_shares_are_disjoint_and_equal() -> None:
    """Any count is split into shares that differ by one at most and make up the whole."""
    for count, shares in ((10, 1), (10, 3), (7, 5), (60_000, 2)):
        parts = share_out(count, shares, seed=1)
        assert sorted(np.concatenate(parts).tolist()) == list(range(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_an_image_goes_to_one_of_those_that_want_it() -> None:
    """Each image of any overlap is given exactly once, to a domain that wants it, each overlap equally."""
    wanted = {"all": range(100), "half": range(50), "end": range(40, 120)}
    given = share_out_images(wanted, seed=3)
    images = {name: {wanted[name][row] for row in rows} for name, rows in given.items()}
    assert sorted(itertools.chain(*images.values())) == list(range(120))
    assert {name: len(part & set(range(40))) for name, part in images.items()} == {
        "all": 20,
        "half": 20,
        "end": 0,
    }
    assert {name: len(part & set(range(50, 100))) for name, part in images.items()} == {
        "all": 25,
        "half": 0,
        "end": 25,
    }
    assert images["end"] >= set(range(100, 120))


def test_sharing_follows_from_the_seed() -> None:
    """The same seed gives the same rows in the same order, another one others."""
    wanted = {"one": "abcdefghij", "other": "abcdefghij"}
    assert share_out_images(wanted, 1) == share_out_images(wanted, 1) != share_out_images(wanted, 2)


def test_an_image_in_several_rows_stays_with_its_domain() -> None:
    """Copies of an image go together, so that no copy of it reaches another domain."""
    wanted = {"one": "aabbccdd", "other": "abcd"}
    given = share_out_images(wanted, seed=0)
    one, other = ({wanted[name][row] for row in given[name]} for name in wanted)
    assert len(given["one"]) == 2 * len(one) == 4
    assert one | other == set("abcd")
    assert one & other == set()


def test_the_first_rows_are_a_fair_sample() -> None:
    """However images are shared with others, a tenth of what a domain gets is a tenth of each overlap."""
    given = share_out_images({"all": range(3000), "some": range(2000)}, seed=0)
    first = given["all"][:200]
    assert sum(row < 2000 for row in first) == 100  # of 1000 that it has of the 2000 in both, and 1000 alone
    alone = share_out_images({"one": range(10)}, seed=0)["one"]
    assert alone == share_out(10, 1, seed=0)[0].tolist()


def test_rows_with_a_key_in_common_belong_together() -> None:
    """Keys tie rows of one domain and of several, also by way of others, and rows without any stay alone."""
    wanted = {"one": [["a", "A"], ["b"], ["c", "x"], ["y"]], "other": [["A"], ["B", "b"], ["x", "y"], ["z"]]}
    joined = join_rows(wanted)
    assert joined["one"][0] == joined["other"][0]
    assert joined["one"][1] == joined["other"][1]
    assert joined["one"][2] == joined["one"][3] == joined["other"][2]
    assert len({*joined["one"], *joined["other"]}) == 4
