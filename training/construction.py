"""The networks of an experiment, with freshly drawn weights."""

from __future__ import annotations

from training.architectures import Table
from training.config import Experiment, NetworkConfig
from training.networks import CoupledDiscriminator, CoupledGenerator, initialise


def build_generator(experiment: Experiment) -> CoupledGenerator:
    """Build the coupled generator."""
    config, table = experiment.generator, experiment.generator_table
    shared = _shared_layers(config, table)
    generator = CoupledGenerator(table, _channels(experiment), experiment.latent_dim, config.width, shared)
    initialise(generator, config.initialisation)
    return generator


def build_discriminator(experiment: Experiment) -> CoupledDiscriminator:
    """Build the coupled discriminator."""
    config, table = experiment.discriminator, experiment.discriminator_table
    shared = _shared_layers(config, table)
    discriminator = CoupledDiscriminator(table, _channels(experiment), config.width, shared)
    initialise(discriminator, config.initialisation)
    return discriminator


def _shared_layers(config: NetworkConfig, table: Table) -> int:
    return len(table.layers) - 1 if config.shared_layers is None else config.shared_layers


def _channels(experiment: Experiment) -> dict[str, int]:
    return {domain.name: domain.channels for domain in experiment.domains}
