"""How much faster a training step is than the plain way of writing it, at equal architecture and batch.

    python tests/benchmarks/training_speed.py training/experiments/digit_negative.toml --repeats 5

The plain way, that of the earlier systems: every generator and every discriminator runs by itself, so the
shared layers run once a domain; the generator is run again for its own update; 32-bit floats, contiguous.
Ours: the shared layers run once, one forward of the generator serves both updates, channels last, and
bfloat16 where the machine is good at it. Both update the same networks by the same losses without a
penalty, in turns in one process; the medians of all turns are compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from training.config import Experiment, load_experiment
from training.construction import build_discriminator, build_generator
from training.losses import LOSSES
from training.samples import from_bytes
from training.trainer import Trainer


class PlainTrainer:
    """The straightforward loop, on the same architecture."""

    def __init__(self, experiment: Experiment, images: dict[str, Tensor]) -> None:
        self.experiment, self.images, self.loss = experiment, images, LOSSES[experiment.loss]
        self.generator, self.discriminator = build_generator(experiment), build_discriminator(experiment)
        config = experiment.generator
        self.g_optimiser = torch.optim.Adam(self.generator.parameters(), config.learning_rate, config.betas)
        config_d = experiment.discriminator
        self.d_optimiser = torch.optim.Adam(
            self.discriminator.parameters(), config_d.learning_rate, config_d.betas
        )

    def draw(self, name: str, latent: Tensor) -> Tensor:
        """Run one domain's generator by itself."""
        images: Tensor = self.generator.heads[name](self.generator.trunk(latent[:, :, None, None]))
        return images

    def step(self) -> None:
        """Update the discriminators, then the generators, on one batch of each domain."""
        batch = self.experiment.batch_size
        latent = torch.randn(batch, self.experiment.latent_dim)
        losses = []
        for name, images in self.images.items():
            real = from_bytes(images[torch.randint(len(images), (batch,))], self.generator.image_range)
            fake = self.draw(name, latent).detach()
            real_logits, fake_logits = (self.discriminator({name: x})[name] for x in (real, fake))
            losses.append(self.loss.discriminator(real_logits, fake_logits))
        self.d_optimiser.zero_grad()
        torch.stack(losses).mean().backward()
        self.d_optimiser.step()
        latent = torch.randn(batch, self.experiment.latent_dim)
        logits = [self.discriminator({name: self.draw(name, latent)})[name] for name in self.images]
        self.g_optimiser.zero_grad()
        torch.stack([self.loss.generator(logit, logit) for logit in logits]).mean().backward()
        self.g_optimiser.step()


def measure(arms: dict[str, Callable[[], None]], repeats: int, steps: int) -> dict[str, list[float]]:
    """Time `steps` calls of each arm in turns; return the seconds of a call, a value a turn."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(repeats + 1):
        for name, step in arms.items():
            begun = time.perf_counter()
            for _ in range(steps):
                step()
            if turn:  # the first warms up
                seconds[name].append((time.perf_counter() - begun) / steps)
    return seconds


def main() -> None:
    """Print a table of images per second and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    loaded = load_experiment(options.experiment)
    experiment = dataclasses.replace(
        loaded, discriminator=dataclasses.replace(loaded.discriminator, penalty="none")
    )
    images = {
        d.name: torch.randint(256, (1000, d.channels, *experiment.size), dtype=torch.uint8)
        for d in experiment.domains
    }
    trainers = {
        precision: Trainer(experiment, images, Fabric(accelerator="cpu", devices=1, precision=precision))
        for precision in ("32-true", "bf16-mixed")
    }
    arms = {"plain": PlainTrainer(experiment, images).step} | {
        f"ours, {precision}": trainer.step for precision, trainer in trainers.items()
    }
    seconds = measure(arms, options.repeats, options.steps)
    images_a_step = experiment.batch_size * len(experiment.domains)
    plain = statistics.median(seconds["plain"])
    print(
        f"{experiment.name}: {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"
    )
    for name, values in seconds.items():
        median = statistics.median(values)
        spread = (max(values) - min(values)) / median
        print(
            f"{name:18} {images_a_step / median:8.0f} images/s  x {plain / median:.2f}  spread {spread:.0%}"
        )


if __name__ == "__main__":
    main()
