"""Make a run folder of an exported generator whose own run is gone, for what needs its network in PyTorch.

    python -m training.restore models/digit_edge/8/model.onnx

`sample`, `evaluate`, `train_encoder` and `export --encoder-of` then work as on the run that made the model. It cannot
be trained further, as a model has no discriminator: `generator.start` of a recipe begins a new run with its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.cli import parse, verb
from training.config.experiment import parse_kept
from training.engine.state import build_generator
from training.errors import ConfigError
from training.files import write_json
from training.onnx_export import make_graph, prove
from training.pretrained.exported import load_exported, model_file, read_metadata
from training.runs.folder import RESTORED_FROM, RunFolder, save_checkpoint


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
    """Make a run folder of an exported generator, of its file or its folder; return it and the result of the proof.

    Raises RunError if the file is no exported model or its weights do not fit its experiment, ConfigError if it is no
    generator or its experiment cannot be read, ExportError if the restored network computes something else.
    """
    metadata = read_metadata(file := model_file(file))
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


if __name__ == "__main__":
    main()
