"""Means of the losses between two lines of metrics."""

from __future__ import annotations

import torch

from training.engine.state import RunningMeans


def test_means_are_those_since_the_last_reset() -> None:
    """Each name counts its own values, and what is not finite is named."""
    means = RunningMeans()
    means.add(loss=torch.tensor(1.0), penalty=torch.tensor(4.0))
    means.add(loss=torch.tensor(2.0))
    assert means.means() == {"loss": 1.5, "penalty": 4.0}
    assert means.not_finite() == []
    means.add(loss=torch.tensor(float("nan")), penalty=torch.tensor(float("inf")))
    assert means.not_finite() == ["loss", "penalty"]
    means.reset()
    assert means.means() == {}
