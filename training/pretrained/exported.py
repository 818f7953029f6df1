"""Exported files, read again: their metadata, and the weights of a generator. Axes: B batch, Z latent, C, H, W."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from onnx.numpy_helper import to_array
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from service.metadata import ModelMetadata, parse_metadata
from training.config.experiment import Experiment, parse_kept
from training.errors import ConfigError, RunError
from training.files import expecting
from training.networks.coupled import CoupledGenerator
from training.onnx_rewrite import (
    LINEAR,
    PHASES,
    Rewrite,
    doubling_weights,
    phase_weights,
    read_halves,
    tile_weights,
    undo,
)

NORM = "BatchNormalization"
OPERATIONS = {*LINEAR, NORM, "PRelu"}  # of the graph
WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, _BatchNorm, nn.PReLU)  # of the network


def model_file(target: Path) -> Path:
    """Return the file of a model, of its version's folder, or of its folder with versions. Raises RunError."""
    versions = [path for path in target.glob("[0-9]*") if path.name.isdecimal()]
    versions.sort(key=lambda path: int(path.name), reverse=True)
    for file in (target, *(path / "model.onnx" for path in (target, *versions))):
        if file.is_file():
            return file
    raise RunError(f"{target} is neither a run folder nor an exported model: name runs/00000_name or models/name")


def read_metadata(file: Path) -> ModelMetadata:
    """Read the metadata of an exported model. Raises RunError if the file holds none of this version."""
    with expecting("an exported model", file):
        model = onnx.load(file, load_external_data=False)
        return parse_metadata({entry.key: entry.value for entry in model.metadata_props})


def check_start(experiment: Experiment, file: Path) -> Experiment:
    """Check that a recipe's generator can start from a file's weights; return the experiment that made the file.

    It may share fewer layers: each domain then starts from the shared ones that become its own.
    Raises ConfigError, naming each field that is not the model's, RunError if the file is no exported model.
    """
    named = f"generator.start = {str(file)!r}"
    if not file.is_file():
        raise ConfigError(f"{named}: there is no such file, seen from {Path.cwd()}")
    if (metadata := read_metadata(file)).kind != "generator":
        raise ConfigError(f"{named} is a {metadata.kind}: name the file of a generator")
    theirs = _layers(made := parse_kept(metadata.provenance.experiment))
    differ = {name: value for name, value in _layers(experiment).items() if value != theirs[name]}
    shared, its_shared = (one.generator.shared_of(one.architecture("generator")) for one in (experiment, made))
    if shared > its_shared:
        differ["generator.shared_layers"], theirs["generator.shared_layers"] = shared, its_shared
    names, its_names = ([domain.name for domain in one.domains] for one in (experiment, made))
    if names != its_names and sorted(names) == sorted(its_names):
        differ, theirs = {"domains": names}, {"domains": its_names}
    if differ:
        found = "; ".join(f"{name} = {value!r}, and the model has {theirs[name]!r}" for name, value in differ.items())
        raise ConfigError(f"{named}: {found}; a recipe that starts from it must say the same, or share fewer layers")
    return made


def _layers(experiment: Experiment) -> dict[str, object]:
    """Return all that the weights of an experiment's generator depend on, by the names of fields."""
    generator = experiment.generator
    return {
        "generator.table": generator.table,
        "generator.width": generator.width,
        "generator.choices": generator.choices,
        "latent_dim": experiment.latent_dim,
        "prior": experiment.prior,
        "channels of domains": [domain.channels for domain in experiment.domains],
    }


@torch.no_grad()
def load_exported(generator: CoupledGenerator, file: Path) -> None:
    """Load the weights of an exported generator, whose operations are in the order of its modules.

    What export rewrote is undone: a normalisation that was folded into the operation before it adds a bias alone.
    Raises RunError if the file has other operations, or weights of other shapes.
    """
    with expecting("the weights of its experiment", file):
        model, bias = onnx.load(file), torch.zeros(1)
        read_halves(model)
        stored = {value.name: torch.tensor(to_array(value)) for value in model.graph.initializer}
        nodes = deque(_operations(model.graph))
        for module in (module for module in generator.modules() if isinstance(module, WEIGHTED)):
            if isinstance(module, _BatchNorm) and not (nodes and nodes[0].op_type == NORM):
                _fill(module, [torch.ones(1), torch.zeros(1), -bias, torch.ones(1) - module.eps])
                continue
            values = _values(module, nodes, stored)
            if not isinstance(module, _BatchNorm | nn.PReLU) and module.bias is None:
                bias = values.pop() if len(values) > 1 else torch.zeros(1)
            _fill(module, values)
        if nodes:
            raise ValueError(f"{len(nodes)} operations are left over")


def _operations(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the operations that have weights; of a convolution that export joined, those that it was joined of."""
    joined = {node.output[0]: node.input for node in graph.node if node.op_type == "Concat"}
    for node in graph.node:
        if node.op_type not in OPERATIONS:
            continue
        if node.input[1] not in joined:
            yield node
            continue
        for names in zip(*(joined[name] for name in node.input[1:]), strict=True):
            yield helper.make_node(node.op_type, [node.input[0], *names], [])


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


@torch.no_grad()
def settle_norms(generator: CoupledGenerator, latents: Tensor) -> None:
    """Set each normalisation's statistics to those of its input over latents [B, Z], without changing what it computes.

    A file that holds normalisations folded into other operations has no statistics of its own: loaded, they are right
    where a network computes, and wrong where it learns, which normalises over the batch.
    """

    def settle(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        others = [axis for axis in range(inputs[0].ndim) if axis != 1]
        variance, mean = torch.var_mean(inputs[0], others, correction=0)
        if norm.affine:
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            norm.bias.add_(scale * (mean - norm.running_mean))
            norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    hooks = [norm.register_forward_pre_hook(settle) for norm in generator.modules() if isinstance(norm, _BatchNorm)]
    was_training = generator.training
    generator.eval()(latents)
    generator.train(was_training)
    for hook in hooks:
        hook.remove()
