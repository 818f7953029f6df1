"""Whether the service should be sent requests, or begun anew, and why."""

from __future__ import annotations

from service.engine.model_registry import ModelRegistry
from service.errors import NotReady, Stuck
from service.processes.siblings import Siblings
from service.telemetry.metrics import Metrics


class Readiness:
    """Ready while a model answers and the service is not on its way out; alive while no batch hangs."""

    def __init__(
        self, models: ModelRegistry, stuck_after_s: float, metrics: Metrics, siblings: Siblings
    ) -> None:
        self._models, self._stuck_after_s = models, stuck_after_s
        self.draining, self._siblings = False, siblings
        siblings.on("hang", self._tell_hang)
        metrics.ready.set_function(lambda: float(self.trouble is None))

    @property
    def trouble(self) -> str | None:
        """Why the service is not ready; None where it is."""
        return "the service is on its way out" if self.draining else self._models.trouble

    async def check_ready(self) -> None:
        """Raise NotReady where the service is not ready."""
        if self.trouble is not None:
            raise NotReady(self.trouble, headers={"Retry-After": "5"})

    async def check_alive(self) -> None:
        """Raise Stuck where only a new service would help, as a process of it hangs."""
        try:
            hangs = await self._siblings.gather("hang", silence_s=self._stuck_after_s)
        except NotReady:  # a process has ended, and with it the service
            return
        for hang in filter(None, hangs):
            raise Stuck(hang)

    async def _tell_hang(self, _: None) -> str | None:
        seconds = self._models.longest_run
        return f"a batch has been drawn for {seconds:.1f} s" if seconds > self._stuck_after_s else None
