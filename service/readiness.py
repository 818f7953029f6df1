"""Whether the service should be sent requests, or begun anew, and why."""

from __future__ import annotations

from collections.abc import Callable

from service.metrics import Metrics


class Readiness:
    """Ready while a model answers and the service is not on its way out; alive while no batch hangs."""

    def __init__(
        self,
        trouble: Callable[[], str | None],
        longest_run: Callable[[], float],
        stuck_after_s: float,
        metrics: Metrics,
    ) -> None:
        """`trouble` says why no model answers, None while one does; `longest_run` how long a batch takes."""
        self._trouble, self._longest_run, self._stuck_after_s = trouble, longest_run, stuck_after_s
        self.draining = False
        metrics.ready.set_function(lambda: float(self.trouble is None))

    @property
    def trouble(self) -> str | None:
        """Why the service is not ready; None where it is."""
        return "the service is on its way out" if self.draining else self._trouble()

    @property
    def hang(self) -> str | None:
        """Why only a new process would help; None where this one is well."""
        seconds = self._longest_run()
        return f"a batch has been drawn for {seconds:.1f} s" if seconds > self._stuck_after_s else None
