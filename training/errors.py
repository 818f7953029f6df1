"""Errors of a recipe, its data or its run, each one line for a person to read.

TrainingError
├── ConfigError      a field of the experiment
├── DataError        a source of images
├── RunError         a run folder or checkpoint
├── DivergedError    losses or weights that are no longer finite
└── ExportError      a file that does not compute what its network computes
"""

from __future__ import annotations


class TrainingError(Exception):
    """The base of all errors that a user can fix; the message says how."""


class ConfigError(TrainingError):
    """An experiment that cannot be run: names the field, its value and what is allowed."""


class DataError(TrainingError):
    """Images that cannot be used: names the source and what is wrong with it."""


class MissingSplitError(DataError):
    """A source that has no split of that name."""


class RunError(TrainingError):
    """A run folder, checkpoint or classifier that is missing, damaged or does not fit."""


class DivergedError(TrainingError):
    """A loss or a weight became infinite or not a number."""


class ExportError(TrainingError):
    """An exported file that does not compute what its network computes."""


def describe_causes(error: BaseException) -> str:
    """Return the message of an error, and those of the errors that caused it, without repetition.

    The chain ends at a TrainingError, whose message is complete.
    """
    messages: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        text = " ".join(str(cause).split()) or type(cause).__name__
        if not any(text in message for message in messages):
            messages.append(text)
        if isinstance(cause, TrainingError):
            break
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return ": ".join(messages)
