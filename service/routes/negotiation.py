"""Which format an answer has: the one asked for by name, or the one that `Accept` prefers."""

from __future__ import annotations

from collections.abc import Mapping

from service.errors import FieldError, NotAcceptable
from service.generation.encoding import Format


def choose_format(asked: str | None, accept: str | None, formats: Mapping[str, Format]) -> str:
    """Return the name of a format; `asked` wins over the header. Raises NotAcceptable."""
    if asked is not None:
        return asked
    if not accept or accept == "*/*":
        return next(iter(formats))
    ranges = _parse(accept)
    quality = {name: _quality(form.media_type, ranges) for name, form in formats.items()}
    best = max(quality, key=lambda name: quality[name])  # the first of equals
    if quality[best] <= 0:
        offered = [form.media_type for form in formats.values()]
        raise NotAcceptable(
            f"there is {', '.join(offered)}", [FieldError("/accept", accept, offered, place="header")]
        )
    return best


def _parse(accept: str) -> dict[str, float]:
    ranges = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            ranges[media_range] = float(weight)
        except ValueError:
            ranges[media_range] = 0.0
    return ranges


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """Return the weight of the most specific range that covers a media type."""
    family = media_type.split("/")[0] + "/*"
    return next((ranges[key] for key in (media_type, family, "*/*") if key in ranges), 0.0)
