"""What can be wrong with an experiment, its data or its run, each as one line for a person to read.

TrainingError
├── ConfigError      a field of the experiment
├── DataError        a source of images
├── RunError         a run folder or checkpoint
├── DivergedError    losses or weights that are no longer finite
└── ExportError      a file that does not say what the network says
"""

from __future__ import annotations


class TrainingError(Exception):
    """The base of all errors that are the user's to mend; their text says how."""


class ConfigError(TrainingError):
    """An experiment that cannot be run: names the field, its value and what is allowed."""


class DataError(TrainingError):
    """Images that cannot be used: names the source and what is wrong with it."""


class RunError(TrainingError):
    """A run folder, checkpoint or classifier that is missing, damaged or does not fit."""


class DivergedError(TrainingError):
    """A loss or a weight became infinite or not a number."""


class ExportError(TrainingError):
    """An exported file that does not draw what its network draws."""


def describe_causes(error: BaseException) -> str:
    """Return what an error says, and what each error that caused it says beyond that.

    What one of ours says is whole.
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
