"""A step of a coupled GAN: the two updates, and what they share.

One forward of the generator serves both updates: its images, cut from the graph, teach the discriminator,
and the same graph then carries the generator's gradient.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from lightning_fabric import Fabric

from training.compute.processes import Processes
from training.config.experiment import Experiment
from training.objectives.couplings import Drawn
from training.pixels.ranges import Images
from training.pretrained.couplers import Couplers
from training.steps.batches import Batches
from training.steps.discriminator import DiscriminatorUpdate
from training.steps.generator import GeneratorUpdate
from training.steps.pairing import Pairing
from training.steps.state import State
from training.steps.teaching import Teaching
from training.steps.views import View


class Trainer:
    """The state of one run, and the parts of its steps; `step` is the whole algorithm."""

    def __init__(
        self,
        experiment: Experiment,
        images: Images,
        fabric: Fabric,
        couplers: Couplers | None = None,
        labels: Images | None = None,
    ) -> None:
        """Draw the networks anew. Raises ConfigError where processes cannot share a batch out evenly.

        `images`: what each domain learns from, uint8 [N, C, H, W]. `couplers`: the networks that each
        coupling asks, by its name and domain. `labels`: the classes [N] of the labelled domains' images.
        """
        self.experiment = experiment
        self.processes = Processes(fabric)
        self._batches = Batches(experiment, images, labels or {}, fabric)
        self.state = state = State(experiment, fabric)
        self._view = View(experiment)
        self._pairing = Pairing(experiment.couplings, state, couplers or {}, fabric)
        teaching = Teaching(experiment, state, self._batches, fabric)
        self._teach_discriminator = DiscriminatorUpdate(experiment, state, self._view, teaching, fabric)
        self._teach_generator = GeneratorUpdate(experiment, state, self._view, self._pairing, fabric)

    def step(self) -> None:
        """Update the discriminator, then the generator, each as often as it asks, on a batch of each domain.

        The generator's first update goes on with what the discriminator's last was taught on.
        """
        self._batches.begin(self.state.steps_done)
        self.state.begin_step()
        for turns_left in reversed(range(self.experiment.discriminator.updates)):
            real = self._batches.real()
            shown = self._view(real, self.state.steps_done)
            drawn = self._draw(with_graph=not turns_left)
            self._teach_discriminator(shown, {name: batch.detach() for name, batch in drawn.images.items()})
        self._teach_generator(shown, replace(drawn, real=real))
        for _ in range(self.experiment.generator.updates - 1):
            self._teach_generator(shown, replace(self._draw(), real=real))
        self.state.end_step()

    def _draw(self, with_graph: bool = True) -> Drawn:
        latents = self._batches.latents()
        with torch.set_grad_enabled(with_graph):
            return self._pairing.drawn(latents, self.state.learners["generator"].forward(latents))
