"""The metrics of a run as they come."""

from __future__ import annotations

import json
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class MetricsLog:
    """Writes each line of metrics twice: as JSON and as TensorBoard events."""

    def __init__(self, file: Path, events: Path, step: int) -> None:
        self._lines = file.open("a", buffering=1)
        self._events = SummaryWriter(events, purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add the values at `step`."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close both files."""
        self._lines.close()
        self._events.close()
