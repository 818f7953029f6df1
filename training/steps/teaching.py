"""The lessons of one run: what is drawn for them, and what they cost. Axes: B batch, C channels, H, W."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_fabric import Fabric
from torch import Tensor

from training.compute.processes import Processes
from training.config.experiment import Experiment
from training.errors import DataError
from training.objectives.lessons import LESSONS, Lecture, Reader
from training.pixels.ranges import Images
from training.steps.batches import draw_labelled
from training.steps.randomness import StepRandomness
from training.steps.views import Augmenter


class Teaching:
    """Draws real images of its own, and asks the student and the teacher about them and about pairs."""

    def __init__(
        self,
        experiment: Experiment,
        images: Images,
        labels: Images,
        student: Reader,
        teacher: Reader,
        fabric: Fabric,
        randomness: StepRandomness,
    ) -> None:
        """Take uint8 `images` [N, C, H, W] by domain, and the `labels` [N] of the labelled ones.

        Raises ConfigError where the processes cannot share a batch out evenly.
        """
        self._experiment, self._fabric, self._randomness = experiment, fabric, randomness
        self._images, self._labels = images, labels
        self._student, self._teacher = student, teacher
        self._augment = Augmenter(experiment.domains, experiment.classifier.augmentations)
        self._batch_size = experiment.classifier.batch_size or experiment.batch_size
        self._processes = Processes(fabric)
        if experiment.lessons:
            self._processes.check(self._batch_size, "classifier.batch_size")

    def costs(
        self, drawn: Images, image_range: tuple[float, float], steps_done: int
    ) -> dict[str, tuple[float, Tensor]]:
        """Return the weight and the cost of each lesson that has begun, by its name.

        `drawn` are pairs [B, C, H, W] without the generator's graph.
        """
        experiment = self._experiment
        begun = [one for one in experiment.lessons if steps_done >= one.begins * experiment.steps]
        if not begun:
            return {}
        real, labels = self._draw(image_range)
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

    def _draw(self, image_range: tuple[float, float]) -> tuple[Images, Images]:
        """Draw this process's share of a batch of real images, and its labels."""
        real, labels = draw_labelled(
            self._images, self._labels, self._batch_size, image_range, self._randomness.batch
        )
        return self._processes.share_each(real), self._processes.share_each(labels)


def check_labels(experiment: Experiment, labels: Mapping[str, Tensor | None]) -> Images:
    """Return the labels [N] of the labelled domains. Raises DataError where they are missing or too great."""
    checked = {}
    for domain in [domain for domain in experiment.domains if domain.labelled]:
        found = labels[domain.name]
        if found is None:
            raise DataError(
                f"domain {domain.name}: labelled, but {domain.source!r} has no column "
                f"{domain.label_column!r} of classes"
            )
        if int(found.min()) < 0 or int(found.max()) >= experiment.classes:
            raise DataError(
                f"domain {domain.name}: column {domain.label_column!r} of {domain.source!r} holds "
                f"{int(found.min())} to {int(found.max())}; classifier.classes = {experiment.classes} "
                f"allows 0 to {experiment.classes - 1}"
            )
        checked[domain.name] = found
    return checked
