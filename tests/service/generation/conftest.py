"""Encodings run to their end."""

from __future__ import annotations

from service.engine.batcher import Encoding, Result


def complete(encoding: Encoding[Result]) -> Result:
    """Run an encoding to its end and return the result."""
    while True:
        try:
            next(encoding)
        except StopIteration as stop:
            result: Result = stop.value
            return result
