"""The networks of an experiment, freshly drawn."""

from __future__ import annotations

from training.config.experiment import Experiment
from training.networks.coupled import CoupledDiscriminator, CoupledEncoder, CoupledGenerator
from training.networks.initialisers import initialise


def build_generator(experiment: Experiment) -> CoupledGenerator:
    """Build the coupled generator."""
    config, table = experiment.generator, experiment.generator_table
    generator = CoupledGenerator(
        table, _channels(experiment), experiment.latent_dim, config.width, config.shared_of(table)
    )
    initialise(generator, config.initialisation, config.initial_bias, config.initial_slope)
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
    initialise(discriminator, config.initialisation, config.initial_bias, config.initial_slope)
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
    initialise(encoder, config.initialisation, config.initial_bias, config.initial_slope)
    return encoder


def _channels(experiment: Experiment) -> dict[str, int]:
    return {domain.name: domain.channels for domain in experiment.domains}
