"""Metrics of a run as JSON lines and as TensorBoard events, with pictures in the latter."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from training.files import writing


class MetricsLog:
    """Writes each line of metrics twice: as JSON and as TensorBoard events."""

    def __init__(self, file: Path, events: Path, step: int) -> None:
        self._file, self._folder = file, events
        self._hook = threading.excepthook
        threading.excepthook = self._pass_over
        with writing(file):
            self._lines = file.open("a", buffering=1, encoding="utf-8")
        with writing(events):
            self._events = SummaryWriter(events, purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add the values at `step`. Raises RunError if the disk fails."""
        with writing(self._file):
            self._lines.write(json.dumps({"step": step, **values}) + "\n")
        with writing(self._folder):
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def write_picture(self, step: int, picture: Image.Image) -> None:
        """Add a sheet of samples at `step` to the events. Raises RunError if the disk fails."""
        with writing(self._folder):
            self._events.add_image("samples", np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close both files. Raises RunError if the disk fails."""
        try:
            with writing(self._file):
                self._lines.close()
            with writing(self._folder):
                self._events.close()
        finally:
            threading.excepthook = self._hook

    def _pass_over(self, failed: threading.ExceptHookArgs) -> None:
        """Print no traceback of TensorBoard's thread if the disk fails: its next call raises the error."""
        if not isinstance(failed.exc_value, OSError):
            self._hook(failed)
