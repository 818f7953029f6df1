"""Make a run folder of an exported generator whose own run is gone, for what needs its network in PyTorch.

    python -m training.restore models/digit_edge/6/model.onnx

`sample`, `evaluate`, `train_encoder` and `export --encoder-of` then work as on the run that made the model. It cannot
be trained further, as a model has no discriminator.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from onnx.numpy_helper import to_array
from torch import Tensor, nn

from training.cli import parse, verb
from training.config.experiment import parse_kept
from training.engine.state import build_generator
from training.errors import ConfigError
from training.files import expecting, write_json
from training.networks.coupled import CoupledGenerator
from training.onnx_export import LINEAR, make_graph, prove, read_metadata
from training.onnx_rewrite import PHASES, Rewrite, doubling_weights, phase_weights, tile_weights, undo
from training.runs.folder import RESTORED_FROM, RunFolder, save_checkpoint

NORM = "BatchNormalization"
OPERATIONS = {*LINEAR, NORM, "PRelu"}  # of the graph
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, *NORMS, nn.PReLU)  # of the network


@dataclass(frozen=True)
class RestoreOptions:
    """The folder of runs."""

    runs: Path = Path("runs")
    """Folder that the numbered run folder is made in."""


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Restore a generator, and print the folder and the proof."""
    options = parse(RestoreOptions(), arguments)
    run, report = restore(target, options.runs)
    print(f"{run.path}: {report}")


def restore(file: Path, runs: Path) -> tuple[RunFolder, str]:
    """Make a run folder of an exported generator; return it and the result of the proof.

    Raises RunError if the file is no exported model or its weights do not fit its experiment, ConfigError if it is no
    generator or its experiment cannot be read, ExportError if the restored network computes something else.
    """
    metadata = read_metadata(file)
    if metadata.kind != "generator":
        raise ConfigError(f"{file} is a {metadata.kind}: only a generator is restored")
    made = metadata.provenance
    experiment = parse_kept(made.experiment)
    generator = build_generator(experiment).eval()
    load_exported(generator, file)
    report = prove(make_graph(generator, metadata), file)
    description = {"commit": made.commit, "versions": made.versions, RESTORED_FROM: str(file)}
    run = RunFolder.create(runs, experiment, {"experiment": made.experiment, **description})
    save_checkpoint(run.checkpoints, made.steps, {"steps_done": made.steps, "average": generator.state_dict()})
    write_json(run.quality_file, metadata.quality)
    return run, report


@torch.no_grad()
def load_exported(generator: CoupledGenerator, file: Path) -> None:
    """Load the weights of an exported generator, whose operations are in the order of its modules.

    What export rewrote is undone: a normalisation that was folded into the operation before it adds a bias alone.
    Raises RunError if the file has other operations, or weights of other shapes.
    """
    with expecting("the weights of its experiment", file):
        graph, bias = onnx.load(file).graph, torch.zeros(1)
        stored = {entry.name: torch.tensor(to_array(entry)) for entry in graph.initializer}
        nodes = deque(node for node in graph.node if node.op_type in OPERATIONS)
        for module in (module for module in generator.modules() if isinstance(module, WEIGHTED)):
            if isinstance(module, NORMS) and not (nodes and nodes[0].op_type == NORM):
                _fill(module, [torch.ones(1), torch.zeros(1), -bias, torch.ones(1) - module.eps])
                continue
            values = _values(module, nodes, stored)
            if not isinstance(module, (*NORMS, nn.PReLU)) and module.bias is None:
                bias = values.pop() if len(values) > 1 else torch.zeros(1)
            _fill(module, values)


def _values(module: nn.Module, nodes: deque[onnx.NodeProto], stored: Mapping[str, Tensor]) -> list[Tensor]:
    """Take the nodes of a module; return its weights and the rest, as they were before the graph was rewritten."""
    node = nodes.popleft()
    weights, *rest = (stored[name] for name in node.input[1:])
    if isinstance(module, nn.ConvTranspose2d) and node.op_type == "Conv":
        phases = [weights, *(stored[nodes.popleft().input[1]] for _ in PHASES[1:])]
        return [_undo(doubling_weights, torch.stack(phases), module), *rest]
    if isinstance(module, nn.Conv2d) and weights.shape != module.weight.shape:
        tile = len(weights) // module.out_channels
        side, pad = math.isqrt(tile), module.kernel_size[0] // 2

        def made(plain: NDArray[Any]) -> NDArray[Any]:
            tiled = tile_weights(plain, side)
            return phase_weights(tiled, pad) if weights.shape[1] > module.in_channels else tiled

        return [_undo(made, weights, module), *(one[::tile] for one in rest)]
    return [weights, *rest]


def _undo(made: Rewrite, values: Tensor, module: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    return torch.from_numpy(undo(made, values.numpy(), tuple(module.weight.shape)))


def _fill(module: nn.Module, values: list[Tensor]) -> None:
    """Set weight and bias of a module, and a normalisation's mean and variance; one value stands for all."""
    names = ("weight", "bias", "running_mean", "running_var")
    own = [getattr(module, name, None) for name in names]
    for weights, stored in zip(own, values, strict=False):
        if weights is not None:  # as of a normalisation without weights
            weights.copy_(stored.flatten().expand(weights.numel()).reshape(weights.shape))


if __name__ == "__main__":
    main()
