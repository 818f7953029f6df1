"""The networks of an experiment: freshly drawn, or as a run left them."""

from __future__ import annotations

from training.adapted import AdaptedClassifier
from training.checkpoint import load_checkpoint
from training.config import Experiment
from training.errors import RunError
from training.initialisers import initialise
from training.networks import RANGES, CoupledDiscriminator, CoupledEncoder, CoupledGenerator
from training.run_folder import RunFolder


def build_generator(experiment: Experiment) -> CoupledGenerator:
    """Build the coupled generator."""
    config, table = experiment.generator, experiment.generator_table
    generator = CoupledGenerator(
        table, _channels(experiment), experiment.latent_dim, config.width, config.shared_of(table)
    )
    initialise(generator, config.initialisation)
    return generator


def build_discriminator(experiment: Experiment) -> CoupledDiscriminator:
    """Build the coupled discriminator."""
    config, table = experiment.discriminator, experiment.discriminator_table
    discriminator = CoupledDiscriminator(
        table,
        _channels(experiment),
        config.width,
        config.shared_of(table),
        config.own_last_layers,
        experiment.classes,
    )
    initialise(discriminator, config.initialisation)
    return discriminator


def build_encoder(experiment: Experiment) -> CoupledEncoder:
    """Build the coupled encoder, images -> latents."""
    config, table = experiment.encoder, experiment.encoder_table
    outputs = {"latent": experiment.latent_dim}
    encoder = CoupledEncoder(
        table,
        _channels(experiment),
        outputs,
        config.width,
        config.shared_of(table),
        config.own_last_layers,
    )
    initialise(encoder, config.initialisation)
    return encoder


def load_average(run: RunFolder) -> tuple[CoupledGenerator, int]:
    """Return the averaged generator of a run's last checkpoint, and its step.

    Raises RunError where there is none.
    """
    generator, state = build_generator(run.experiment()), load_checkpoint(run.checkpoints)
    generator.load_state_dict(state["average"])
    return generator.eval(), state["steps_done"]


def load_adapted(run: RunFolder) -> tuple[dict[str, AdaptedClassifier], int]:
    """Return each domain's way through the teacher of a run's last checkpoint, and its step.

    Raises RunError where there is none.
    """
    experiment = run.experiment()
    teacher, state = build_discriminator(experiment), load_checkpoint(run.checkpoints)
    if "teacher" not in state:
        raise RunError(f"{run.path} has no classifier: its experiment has no lessons")
    teacher.load_state_dict(state["teacher"])
    image_range = RANGES[experiment.generator_table.layers[-1].activation]
    classifiers = {
        domain.name: AdaptedClassifier(teacher, domain.name, image_range, experiment.classes).eval()
        for domain in experiment.domains
    }
    return classifiers, state["steps_done"]


def _channels(experiment: Experiment) -> dict[str, int]:
    return {domain.name: domain.channels for domain in experiment.domains}
