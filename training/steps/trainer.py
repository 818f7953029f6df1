"""The two updates of a coupled GAN and the state that they change.

One forward of the generator serves both updates: its images, cut from the graph, teach the discriminator,
and the same graph then carries the generator's gradient. Axes: B batch, Z latent, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from training.compute.processes import Processes
from training.config.experiment import Experiment
from training.networks.averages import Average, is_finite
from training.objectives.couplings import Drawn
from training.objectives.losses import LOSSES, AdversarialLoss
from training.objectives.penalties import PENALTIES, PLACES
from training.pixels.ranges import Images
from training.pretrained.couplers import Coupler, Couplers
from training.steps.batches import draw_latents, draw_real
from training.steps.construction import build_discriminator, build_encoder, build_generator
from training.steps.learners import Learner, clip_weights
from training.steps.pairing import Pairing
from training.steps.randomness import StepRandomness
from training.steps.running_means import RunningMeans
from training.steps.teaching import Teaching
from training.steps.views import View


class Trainer:
    """Networks and optimisers of one run; `step` is the whole algorithm."""

    def __init__(
        self,
        experiment: Experiment,
        images: Images,
        fabric: Fabric,
        couplers: Couplers | None = None,
        labels: Images | None = None,
    ) -> None:
        """Draw the networks anew.

        `images`: what each domain learns from, uint8 [N, C, H, W]. `couplers`: the networks that each
        coupling asks, by its name and domain. `labels`: the classes [N] of the labelled domains' images.
        """
        self.experiment = experiment
        self.steps_done = 0
        self.means = RunningMeans()
        self.processes = Processes(fabric)
        self.processes.check(experiment.batch_size)
        self._randomness = StepRandomness(experiment.seed, self.processes.rank, fabric.device)
        fabric.seed_everything(experiment.seed, verbose=False)
        self.generator = build_generator(experiment)
        self.discriminator = build_discriminator(experiment)
        self._g = Learner(self.generator, experiment.generator, fabric)
        self._d = Learner(self.discriminator, experiment.discriminator, fabric)
        self._learners = {"generator": self._g, "discriminator": self._d}
        if experiment.asks("encoder"):
            self._learners["encoder"] = Learner(build_encoder(experiment), experiment.encoder, fabric)
        self._with_generator = [learner for learner in self._learners.values() if learner is not self._d]
        average = Average(self.generator, experiment.generator.ema)
        teacher = Average(self.discriminator, experiment.classifier.ema)
        self._averages = {"average": average} | ({"teacher": teacher} if experiment.lessons else {})
        self.average, self._teacher = average.network, teacher.network
        self._images = {name: fabric.to_device(domain) for name, domain in images.items()}
        self._fabric = fabric
        self._loss = _adversarial_loss(experiment)
        self._view = View(experiment)
        self._pairing = self._couple(couplers or {})
        self._teaching = self._teach(labels or {})

    def step(self) -> None:
        """Update the discriminator, then the generator, each as often as it asks, on a batch of each domain.

        The generator's first update goes on with what the discriminator's last was taught on.
        """
        self._randomness.begin(self.steps_done)
        self._set_learning_rates()
        for turns_left in reversed(range(self.experiment.discriminator.updates)):
            real = self._draw_real()
            shown = self._view(real, self.steps_done)
            drawn = self._draw(with_graph=not turns_left)
            fake = {name: batch.detach() for name, batch in drawn.images.items()}
            self._update_discriminator(shown, fake)
        self._update_generator(shown, replace(drawn, real=real))
        for _ in range(self.experiment.generator.updates - 1):
            self._update_generator(shown, replace(self._draw(), real=real))
        self.steps_done += 1
        for average in self._averages.values():
            average.update(self.steps_done)

    def _update_discriminator(self, shown: Images, fake: Images) -> None:
        loss = self._judging_loss(shown, self._view(fake, self.steps_done))
        lessons = self._teaching.costs(fake, self.generator.image_range, self.steps_done)
        for name, (weight, cost) in lessons.items():
            self.means.add(**{name: cost})
            loss = loss + weight * cost
        self._d.optimiser.zero_grad()
        self._fabric.backward(loss)
        self._d.update()
        if (limit := self.experiment.discriminator.clip_weights) is not None:
            clip_weights(self.discriminator, limit)

    def _judging_loss(self, real: Images, fake: Images) -> Tensor:
        penalties = self.experiment.discriminator.all_penalties
        due = [penalty for penalty in penalties if self.steps_done % penalty.every == 0]
        penalised = {PENALTIES[penalty.name].place for penalty in due}
        places = dict.fromkeys(("real", "fake", *sorted(penalised)))
        images = {place: PLACES[place](real, fake) for place in places}
        logits = {place: self._judge(images[place], place in penalised) for place in places}
        real_logits, fake_logits = _flat(logits["real"]), _flat(logits["fake"])
        loss = self._loss.discriminator(real_logits, fake_logits)
        self.means.add(discriminator_loss=loss, real_logit=real_logits.mean(), fake_logit=fake_logits.mean())
        for asked in due:
            penalty = PENALTIES[asked.name]
            cost = penalty.cost(images[penalty.place], logits[penalty.place])
            self.means.add(**{asked.name: cost})
            loss = loss + asked.weight * asked.every * cost
        return loss

    def _judge(self, images: Images, penalised: bool) -> Images:
        if not penalised:
            judged: Images = self._d.forward(images)
            return judged
        # a gradient's gradient wants full precision, which the bare network has
        exact: Images = self.discriminator({name: batch.requires_grad_() for name, batch in images.items()})
        return exact

    def _update_generator(self, real: Images, drawn: Drawn) -> None:
        self.discriminator.requires_grad_(False)
        with torch.no_grad():
            real_logits = _flat(self._d.forward(real)) if self._loss.needs_real else torch.empty(0)
        fake_logits = _flat(self._d.forward(self._view(drawn.images, self.steps_done)))
        loss = self._loss.generator(real_logits, fake_logits)
        self.means.add(generator_loss=loss)
        done = self.steps_done / self.experiment.steps
        for name, (weight, apart) in self._pairing.apart(drawn, done).items():
            self.means.add(**{name: apart})
            loss = loss + weight * apart
        for learner in self._with_generator:
            learner.optimiser.zero_grad()
        self._fabric.backward(loss)
        for learner in self._with_generator:
            learner.update()
        self.discriminator.requires_grad_(True)

    def _couple(self, couplers: Couplers) -> Pairing:
        def asked(coupler: Coupler) -> Callable[[Tensor], Any]:
            self._fabric.to_device(coupler.requires_grad_(False))
            return coupler.of_range(self.generator.image_range)

        consult = {
            coupling: {name: asked(coupler) for name, coupler in by_domain.items()}
            for coupling, by_domain in couplers.items()
        }
        encoder = self._learners.get("encoder")
        encode = encoder.forward if encoder else None
        return Pairing(self.experiment.couplings, self.generator, consult, encode)

    def _teach(self, labels: Images) -> Teaching:
        on_device = {name: self._fabric.to_device(classes) for name, classes in labels.items()}
        student = self._d.forward
        for method in ("classify", "features"):
            student.mark_forward_method(method)
        return Teaching(
            self.experiment, self._images, on_device, student, self._teacher, self._fabric, self._randomness
        )

    def _draw_real(self) -> Images:
        size, image_range = self.experiment.batch_size, self.generator.image_range
        real = draw_real(self._images, size, image_range, self._randomness.batch)
        return self.processes.share_each(real)

    def _draw(self, with_graph: bool = True) -> Drawn:
        prior, size = self.experiment.latent_prior, self.experiment.batch_size
        latents = draw_latents(prior, size, self._fabric.device, self._randomness.batch)
        latents = self.processes.share(latents)
        with torch.set_grad_enabled(with_graph):
            return self._pairing.drawn(latents, self._g.forward(latents))

    def _set_learning_rates(self) -> None:
        experiment = self.experiment
        falling = experiment.warmdown * experiment.steps  # steps
        factor = min(1.0, (experiment.steps - self.steps_done) / falling) if falling else 1.0
        for learner in self._learners.values():
            learner.set_rate(factor)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that learn, by name."""
        return {name: learner.network for name, learner in self._learners.items()}

    def not_finite(self) -> list[str]:
        """Name the mean losses, over all processes, and the networks that are no longer finite numbers."""
        self.means.agree(self.processes.mean)
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
        optimisers = {f"{name}_optimiser": learner.optimiser for name, learner in self._learners.items()}
        averages = {name: average.network for name, average in self._averages.items()}
        return {**self.networks, **averages, **optimisers, "means": self.means}


def _adversarial_loss(experiment: Experiment) -> AdversarialLoss:
    loss, config = LOSSES[experiment.loss], experiment.discriminator
    return loss.smoothed(config.real_label, config.fake_label) if loss.smoothed else loss


def _flat(logits: Images) -> Tensor:
    return torch.cat(list(logits.values()))
