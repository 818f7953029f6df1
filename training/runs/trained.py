"""The networks of an experiment, as a run left them."""

from __future__ import annotations

from training.errors import RunError
from training.networks.adapted import AdaptedClassifier
from training.networks.coupled import CoupledGenerator
from training.runs.checkpoint import load_checkpoint
from training.runs.folder import RunFolder
from training.steps.construction import build_discriminator, build_generator


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
    classifiers = {
        domain.name: AdaptedClassifier(teacher, domain.name, experiment.image_range, experiment.classes).eval()
        for domain in experiment.domains
    }
    return classifiers, state["steps_done"]
