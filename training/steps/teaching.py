"""The lessons of one run: what is drawn for them, and what they cost. Axes: B batch, C channels, H, W."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_fabric import Fabric
from torch import Tensor

from training.config.experiment import Experiment
from training.errors import DataError
from training.images.labels import require_labels
from training.objectives.lecture import Lecture
from training.objectives.lessons import LESSONS
from training.pixels.ranges import Images
from training.steps.batches import Batches
from training.steps.running_means import Costs
from training.steps.state import State
from training.steps.views import Augmenter


class Teaching:
    """Has real images of its own, and asks the student and the teacher about them and about pairs."""

    def __init__(self, experiment: Experiment, state: State, batches: Batches, fabric: Fabric) -> None:
        self._experiment, self._batches, self._fabric = experiment, batches, fabric
        self._student, self._teacher = state.learners["discriminator"].forward, state.teacher
        self._augment = Augmenter(experiment.domains, experiment.classifier.augmentations)

    def costs(self, drawn: Images, steps_done: int) -> Costs:
        """Return the weight and the cost of each lesson that has begun, by its name.

        `drawn` are pairs [B, C, H, W] without the generator's graph.
        """
        experiment = self._experiment
        begun = [one for one in experiment.lessons if steps_done >= one.begins * experiment.steps]
        if not begun:
            return {}
        real, labels = self._batches.labelled()
        with self._fabric.autocast():
            lecture = Lecture(
                self._student,
                self._teacher,
                experiment.classifier.confidence,
                real,
                self._augment(real),
                labels,
                drawn,
            )
            return {one.name: (one.weight, LESSONS[one.name].cost(lecture)) for one in begun}


def check_labels(experiment: Experiment, labels: Mapping[str, Tensor | None]) -> Images:
    """Return the labels [N] of the labelled domains. Raises DataError where they are missing or too great."""
    checked = {}
    for domain in [domain for domain in experiment.domains if domain.labelled]:
        found = require_labels(labels[domain.name], domain, "train")
        if int(found.min()) < 0 or int(found.max()) >= experiment.classes:
            raise DataError(
                f"domain {domain.name}: column {domain.label_column!r} of {domain.source!r} holds "
                f"{int(found.min())} to {int(found.max())}; classifier.classes = {experiment.classes} "
                f"allows 0 to {experiment.classes - 1}"
            )
        checked[domain.name] = found
    return checked
