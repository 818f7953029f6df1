"""`Accept` is read as RFC 9110 has it."""

from __future__ import annotations

import pytest

from service.errors import NotAcceptable
from service.generation.encoding import PAIR_FORMATS
from service.routes.negotiation import choose_format


@pytest.mark.parametrize(
    ("asked", "accept", "chosen"),
    [
        (None, None, "json"),
        (None, "*/*", "json"),
        (None, "image/*", "png"),
        (None, "image/*, image/png;q=0", "webp"),
        (None, "IMAGE/WebP", "webp"),
        (None, "application/json;q=0.5, image/png", "png"),
        (None, "image/png;q=0.5, */*;q=0.1", "png"),
        (None, "image/tiff, */*;q=0.1", "json"),
        (None, "image/png;q=high, application/zip", "zip"),
        (None, "text/html,application/xhtml+xml,image/avif,image/webp,*/*;q=0.8", "webp"),
        ("npz", "image/png", "npz"),
    ],
)
def test_best_format_is_chosen(asked: str | None, accept: str | None, chosen: str) -> None:
    """The name wins; else the greatest weight, by the most specific range; else the first of equals."""
    assert choose_format(asked, accept, PAIR_FORMATS) == chosen


@pytest.mark.parametrize("accept", ["image/tiff", "*/*;q=0", ";", "application/json;q=0"])
def test_nothing_acceptable_is_an_error(accept: str) -> None:
    """A client that accepts nothing that there is, is not sent it anyway."""
    with pytest.raises(NotAcceptable, match="application/json"):
        choose_format(None, accept, PAIR_FORMATS)
