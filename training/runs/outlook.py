"""What a run is going to do, as it is said before it begins."""

from __future__ import annotations

from lightning_fabric import Fabric
from torch import Tensor

from training.pixels.ranges import Images
from training.steps.trainer import Trainer


def describe(trainer: Trainer, images: Images, fabric: Fabric) -> str:
    """Say in a few lines what a run will do."""
    experiment = trainer.experiment
    sizes = {
        name: sum(weight.numel() for weight in network.parameters()) for name, network in trainer.state.networks.items()
    }
    return "\n".join(
        [
            f"{experiment.name}: {experiment.steps} steps of {experiment.batch_size} images a domain "
            f"on {fabric.device}, precision {trainer.processes.precision}",
            *(f"  {name}: {len(domain)} images, {_shape(domain)}" for name, domain in images.items()),
            *(f"  {name}: {size:,} parameters" for name, size in sizes.items()),
        ]
    )


def _shape(images: Tensor) -> str:
    """Say how large images are, and whether they have colour."""
    _, channels, height, width = images.shape
    return f"{height}x{width} {'grey' if channels == 1 else 'RGB'}"
