"""Settings whose text has a form of its own, checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator

ORIGIN = re.compile(r"https?://[^/\s,]+")


def _each(is_right: Callable[[str], bool], allowed: str) -> AfterValidator:
    """Make a check of every part of a list between commas; `*` is right, too, and nothing is none."""

    def check(text: str) -> str:
        parts = filter(None, map(str.strip, text.split(",")))
        if wrong := [part for part in parts if part != "*" and not is_right(part)]:
            raise ValueError(f"{wrong[0]!r} is not {allowed}")
        return text

    return AfterValidator(check)


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


Networks = Annotated[str, _each(_is_network, "an address or a network, as 10.0.0.0/8 is")]
Origins = Annotated[
    str, _each(lambda text: ORIGIN.fullmatch(text) is not None, "an origin, as https://example.com is")
]
