"""Whether the service should be sent requests, and if not, why."""

from __future__ import annotations

from collections.abc import Callable

from service.metrics import Metrics


class Readiness:
    """Ready while a model answers and the service is not on its way out."""

    def __init__(self, trouble: Callable[[], str | None], metrics: Metrics) -> None:
        """`trouble` says why no model answers; None while one does."""
        self._trouble = trouble
        self.draining = False
        metrics.ready.set_function(lambda: float(self.trouble is None))

    @property
    def trouble(self) -> str | None:
        """Why the service is not ready; None where it is."""
        return "the service is on its way out" if self.draining else self._trouble()
