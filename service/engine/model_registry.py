"""Which models are served now, and why others are not.

A new version takes the old one's place in the batcher at once. What was asked before is still drawn by the
model that it was asked of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from weakref import WeakSet

from service.engine.batching import Batcher
from service.engine.model_repository import Opening, Refused
from service.engine.onnx_model import OnnxModel
from service.errors import FieldError, NotReady, UnknownModel
from service.telemetry.metrics import Metrics

logger = logging.getLogger("cogan.models")


class ModelRegistry:
    """The batchers by name of model. All state belongs to the event loop."""

    def __init__(
        self, make_batcher: Callable[[OnnxModel], Batcher], default: str | None, metrics: Metrics
    ) -> None:
        """`default` names the model of requests that name none; otherwise it is the first by name."""
        self._make_batcher, self._default, self._metrics = make_batcher, default, metrics
        self._batchers: dict[str, Batcher] = {}
        self._all = WeakSet[Batcher]()  # those that were removed and still draw, too
        self._refused: dict[str, tuple[Refused, ...]] = {}
        self.absence = "no model is loaded yet"  # why there is none, where none was refused
        self.changes = 0  # how often what is served has changed

    @property
    def models(self) -> list[OnnxModel]:
        """The served models, by name."""
        return [self._batchers[name].model for name in sorted(self._batchers)]

    @property
    def refused(self) -> list[Refused]:
        """What was refused when it was last looked at, by name."""
        return [one for name in sorted(self._refused) for one in self._refused[name]]

    @property
    def default(self) -> str | None:
        """Name of the model of a request that names none."""
        return self._default or min(self._batchers, default=None)

    @property
    def trouble(self) -> str | None:
        """Why no model can answer; None where one can."""
        if self._batchers:
            return None
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in self.refused)
        return f"every model was refused: {reasons}" if reasons else self.absence

    @property
    def longest_run(self) -> float:
        """The seconds since when the oldest batch of any model is being drawn; 0 where none is."""
        return max((batcher.longest_run for batcher in self._all), default=0.0)

    def model(self, name: str | None, version: str | None = None, place: str = "body") -> OnnxModel:
        """Return the model of this name, or the default one. Raises UnknownModel and NotReady.

        `version` asks for one version alone; `place` is where the request names them.
        """
        name = name if name is not None else self.default
        if name is None or not self._batchers:
            raise NotReady("no model is served; /readyz says why", headers={"Retry-After": "5"})
        if name not in self._batchers:
            raise unknown_model(name, sorted(self._batchers), place)
        model = self._batchers[name].model
        if version not in (None, model.version):
            wrong = FieldError("/version", version, [model.version], place)
            raise UnknownModel(f"model '{name}' is served in version {model.version} alone", [wrong])
        return model

    def batcher(self, name: str) -> Batcher:
        """Return the batcher of a model. Raises UnknownModel where it was unloaded meanwhile."""
        if name not in self._batchers:
            raise unknown_model(name, sorted(self._batchers), "body")
        return self._batchers[name]

    def settle(self, name: str, opening: Opening) -> None:
        """Take over what came of opening a model."""
        self._refused.pop(name, None)
        if opening.refused:
            self._refused[name] = opening.refused
        for one in opening.refused:
            logger.error("model refused: %s: %s", one.path, one.reason)
        self._metrics.models_refused.set(len(self.refused))
        if opening.model is not None:
            self._serve(opening.model, opening.seconds)

    def forget_refusals(self, but_of: Collection[str]) -> None:
        """Tell no longer what was refused of other names, as they are gone."""
        self._refused = {name: refused for name, refused in self._refused.items() if name in but_of}
        self._metrics.models_refused.set(len(self.refused))

    def remove(self, name: str) -> OnnxModel:
        """Serve a model no longer, and return it. Raises UnknownModel."""
        batcher = self._batchers.pop(name, None)
        if batcher is None:
            raise unknown_model(name, sorted(self._batchers), "path")
        self.changes += 1
        self._refused.pop(name, None)
        self.absence = "every model was unloaded"
        self._metrics.models_refused.set(len(self.refused))
        self._metrics.model_info.remove(*_labels(batcher.model))
        self._metrics.model_load.remove(name)
        self._metrics.queue_depth.remove(name)
        return batcher.model

    def _serve(self, model: OnnxModel, seconds: float) -> None:
        """Let a model draw what is asked from now on."""
        batcher = self._batchers.get(model.name)
        if batcher is None:
            self._batchers[model.name] = batcher = self._make_batcher(model)
            self._all.add(batcher)
        elif batcher.model is model:
            return
        else:
            self._metrics.model_info.remove(*_labels(batcher.model))
            batcher.model = model
        self.changes += 1
        self._metrics.model_info.labels(*_labels(model)).set(1)
        self._metrics.model_load.labels(model.name).set(seconds)


def _labels(model: OnnxModel) -> tuple[str, ...]:
    return model.name, model.version, model.digest, model.provider


def unknown_model(name: str, known: list[str], place: str) -> UnknownModel:
    """Make the error for a model that is not among those known; `place` is where the request names it."""
    pointer = "/name" if place == "path" else "/model"
    detail = f"no model {name!r:.80}; there are {', '.join(known) or 'none'}"
    return UnknownModel(detail, [FieldError(pointer, name, known, place)])
