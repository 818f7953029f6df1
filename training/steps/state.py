"""What steps change, and so all that the next one depends on."""

from __future__ import annotations

from typing import Any

from lightning_fabric import Fabric
from torch import nn

from training.compute.processes import Processes
from training.config.experiment import Experiment
from training.networks.averages import Average, is_finite
from training.steps.construction import build_discriminator, build_encoder, build_generator
from training.steps.learners import Learner
from training.steps.running_means import RunningMeans


class State:
    """Networks, their optimisers and averages, the means of the losses, and how many steps are done."""

    def __init__(self, experiment: Experiment, fabric: Fabric) -> None:
        """Draw the networks anew, by the experiment's seed."""
        fabric.seed_everything(experiment.seed, verbose=False)
        self.steps_done = 0
        self.means = RunningMeans()
        self.generator = build_generator(experiment)
        self.discriminator = build_discriminator(experiment)
        self.learners = {
            "generator": Learner(self.generator, experiment.generator, fabric),
            "discriminator": Learner(self.discriminator, experiment.discriminator, fabric, ("classify", "features")),
        }
        if experiment.asks("encoder"):
            self.learners["encoder"] = Learner(build_encoder(experiment), experiment.encoder, fabric)
        average = Average(self.generator, experiment.generator.ema)
        teacher = Average(self.discriminator, experiment.classifier.ema)
        self._averages = {"average": average} | ({"teacher": teacher} if experiment.lessons else {})
        self.average, self.teacher = average.network, teacher.network
        self._steps, self._falling = experiment.steps, experiment.warmdown * experiment.steps
        self._halve_every = experiment.halve_every
        self._processes = Processes(fabric)

    def begin_step(self) -> None:
        """Set the learning rates, which are halved every so many steps, and fall linearly over the last."""
        halvings = self.steps_done // self._halve_every if self._halve_every else 0
        share = min(1.0, (self._steps - self.steps_done) / self._falling) if self._falling else 1.0
        for learner in self.learners.values():
            learner.set_rate(share * 0.5**halvings)

    def end_step(self) -> None:
        """Count the step, and have the averages follow."""
        self.steps_done += 1
        for average in self._averages.values():
            average.update(self.steps_done)

    @property
    def share_done(self) -> float:
        """The share of the steps that are done."""
        return self.steps_done / self._steps

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that learn, by name."""
        return {name: learner.network for name, learner in self.learners.items()}

    def not_finite(self) -> list[str]:
        """Name the mean losses, over all processes, and the networks that are no longer finite numbers."""
        self.means.agree(self._processes.mean)
        broken = [name for name, network in self.networks.items() if not is_finite(network)]
        return self.means.not_finite() + broken

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {
            "steps_done": self.steps_done,
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where the run that gave `state` stood."""
        self.steps_done = state["steps_done"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        optimisers = {f"{name}_optimiser": learner.optimiser for name, learner in self.learners.items()}
        averages = {name: average.network for name, average in self._averages.items()}
        return {**self.networks, **averages, **optimisers, "means": self.means}
