"""Draw pairs of a run's averaged generator, or of an exported model, into files.

    python -m training.sample runs/00003_digit_edge --seed 7 --count 16 --formats grid png npz hdf5
    python -m training.sample models/digit_edge --walk 1 2 3 --loop
    python -m training.sample runs/00003_digit_edge --translate my_digits/ --domain digit

Seeds are the service's: seed 7 draws the pairs that /generate draws of it. `--walk` makes an animation through the
latents of seeds, all domains side by side. `--translate` finds the latent of each given image by gradient descent
(Liu & Tuzel 2016, section 5), and draws it in every domain.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import h5py
import numpy as np
import onnxruntime
import torch
from pydantic import Field
from torch import Tensor

from service.latents import MAX_SEED, MIN_TRUNCATION, default_method, draw_latent, interpolate
from service.metadata import LATENT, Prior
from training.cli import parse, verb
from training.config import Positive
from training.data.listing import Listing, list_images, reasons, report
from training.data.preprocess import decode, fit
from training.engine.machine import Machine
from training.errors import ConfigError, DataError, RunError
from training.files import make_folder, write_json, write_whole
from training.losses.pixels import Images, from_bytes
from training.networks.coupled import CoupledGenerator, Inverted, generate, invert
from training.pretrained.exported import model_file, read_metadata
from training.runs.figures import enlarge, save_animation, save_sheet, sheet
from training.runs.folder import RunFolder, load_average

FRAME = 100  # ms of a walk
BATCH = 64  # latents of an exported model at a time
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


@dataclass(frozen=True)
class SampleOptions:
    """Pairs to generate, and files to write."""

    to: Path = Path("samples")
    """Folder of the files; those of the same names are replaced."""
    formats: tuple[Literal["grid", "png", "npz", "hdf5"], ...] = ()
    """Of the pairs: one sheet, an image a file, arrays; a grid if neither formats, a walk nor images are given."""
    seed: Seed = 0
    """Seed of the pairs."""
    count: Positive = 64
    """Number of pairs, of index 0, 1, 2, ... of the seed."""
    truncation: Annotated[float, Field(ge=MIN_TRUNCATION)] | None = None
    """Greatest absolute value within a latent: less variety, fewer failures; unlimited if unset."""
    columns: Positive = 4
    """Pairs beside one another on the grid."""
    scale: Annotated[int, Field(ge=1, le=64)] = 1
    """Times that pixels of grid and walk are enlarged."""
    walk: tuple[Seed, ...] = ()
    """Seeds whose latents an animation passes through, two or more."""
    walk_format: Literal["gif", "webp"] = "gif"
    """File format of the walk; webp is lossless in colour, too."""
    steps: Annotated[int, Field(ge=2)] = 24
    """Frames from one seed to the next, both counted."""
    loop: bool = False
    """Whether the walk returns to its first seed."""
    translate: tuple[Path, ...] = ()
    """Images, or folders of images, of one domain to be drawn in all others."""
    domain: str | None = None
    """Domain of these images; the first if unset."""
    restarts: Annotated[int, Field(ge=1, le=64)] = 4
    """Latents from which the descent starts, for each image; the best counts."""
    descent: Positive = 300
    """Steps of the descent."""
    machine: Machine = field(default_factory=Machine.from_environment)


@dataclass(frozen=True)
class Source:
    """A generator as a function of latents [N, Z] to images uint8 [N, C, H, W] by domain, and its prior."""

    draw: Callable[[Tensor], Images]
    prior: Prior
    run: RunFolder | None = None
    generator: CoupledGenerator | None = None


@verb
def main(target: Path, arguments: list[str]) -> None:
    """Generate pairs by a run folder or an exported model."""
    options = parse(SampleOptions(), arguments)
    for file in sample(open_source(target, options.machine), options):
        print(file)


def sample(source: Source, options: SampleOptions) -> list[Path]:
    """Write all outputs of the options, and return the files and folders. Raises ConfigError, DataError, RunError."""
    walks = len(options.walk)
    if walks == 1:
        raise ConfigError(f"walk = {options.walk}: name two seeds or more")
    given = list(read_images(options.translate))
    make_folder(options.to)
    formats = options.formats or (() if walks or given else ("grid",))
    files = save_pairs(source, options, formats) if formats else []
    if walks:
        files.append(save_walk(source, options))
    if given:
        files += save_translations(source, given, options)
    return files


def open_source(target: Path, machine: Machine) -> Source:
    """Open a run folder, an exported model's file or its folder. Raises RunError if it is neither."""
    if RunFolder.is_at(target):
        run = RunFolder.open(target)
        generator = load_average(run)[0].to(machine.device("drawing"))
        return Source(lambda latents: generate(generator, latents), run.experiment().latent_prior, run, generator)
    file = model_file(target)
    metadata = read_metadata(file)
    if metadata.prior is None or metadata.kind != "generator":
        raise RunError(f"{file} is a {metadata.kind}, and only generators draw")
    session = open_session(file, machine)
    names = [output.name for output in session.get_outputs()]

    def draw(latents: Tensor) -> Images:
        parts = [session.run(names, {LATENT: part.numpy()}) for part in latents.split(BATCH)]
        arrays = (np.concatenate(column) for column in zip(*parts, strict=True))
        return {name: torch.from_numpy(array).movedim(-1, 1) for name, array in zip(names, arrays, strict=True)}

    return Source(draw, metadata.prior)


def open_session(file: Path, machine: Machine) -> onnxruntime.InferenceSession:
    """Open a model's file on the CPU, with as many threads as the machine is given."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = machine.threads
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def latents_of_seed(prior: Prior, seed: int, count: int, truncation: float | None = None) -> Tensor:
    """Return the latents of indices 0, 1, 2, ... of a seed, as the service does: float32 [count, Z]."""
    return torch.from_numpy(np.stack([draw_latent(prior, seed, index, truncation) for index in range(count)]))


def save_pairs(source: Source, options: SampleOptions, formats: Sequence[str]) -> list[Path]:
    """Write the pairs of a seed in each of some formats, and return the files."""
    latents = latents_of_seed(source.prior, options.seed, options.count, options.truncation)
    pairs = source.draw(latents)
    arrays = {name: images.movedim(1, -1).contiguous().numpy() for name, images in pairs.items()}
    arrays[LATENT] = latents.numpy()
    files = []
    for form in dict.fromkeys(formats):
        if form == "grid":
            files.append(options.to / "grid.png")
            save_sheet(pairs, files[-1], options.columns, options.scale)
        elif form == "png":
            files += save_images(pairs, options.to, [f"{options.seed}-{index}" for index in range(options.count)])
        else:
            name, write = ARRAYS[form]
            files.append(options.to / name)
            write_whole(files[-1], partial(write, arrays=arrays))
    return files


def save_images(images: Images, folder: Path, names: Sequence[str]) -> list[Path]:
    """Write single PNGs, in a folder for each domain, and return the folders."""
    for domain, column in images.items():
        (folder / domain).mkdir(parents=True, exist_ok=True)
        for name, image in zip(names, column.split(1), strict=True):
            save_sheet({domain: image}, folder / domain / f"{name}.png")
    return [folder / domain for domain in images]


def _write_npz(file: Path, arrays: dict[str, Any]) -> None:
    with file.open("wb") as handle:
        np.savez(handle, **arrays)


def _write_hdf5(file: Path, arrays: dict[str, Any]) -> None:
    with h5py.File(file, "w") as archive:
        for name, array in arrays.items():
            archive.create_dataset(name, data=array, compression="gzip")


ARRAYS = {"npz": ("pairs.npz", _write_npz), "hdf5": ("pairs.h5", _write_hdf5)}


def save_walk(source: Source, options: SampleOptions) -> Path:
    """Write an animation through the latents of seeds, all domains side by side, and return its file."""
    frames = source.draw(walk(source.prior, options.walk, options.steps, options.loop, options.truncation))
    pairs = zip(*(images.split(1) for images in frames.values()), strict=True)
    first, *others = (enlarge(sheet(dict(zip(frames, pair, strict=True))), options.scale) for pair in pairs)
    file = options.to / f"walk.{options.walk_format}"
    save_animation(first, others, file, FRAME, lossless=True)
    return file


def walk(prior: Prior, seeds: Sequence[int], steps: int, loop: bool, truncation: float | None = None) -> Tensor:
    """Return the latents of a path through those of seeds, `steps` from one to the next, as /interpolate does."""
    keys = [draw_latent(prior, seed, 0, truncation) for seed in seeds]
    method, shares = default_method(prior), [step / (steps - 1) for step in range(steps - 1)]
    legs = itertools.pairwise([*keys, keys[0]] if loop else keys)
    path = [interpolate(start, end, share, method) for start, end in legs for share in shares]
    return torch.from_numpy(np.stack(path if loop else [*path, keys[-1]]))


def read_images(paths: Sequence[Path]) -> list[Path]:
    """Return the files of images that are named, or in named folders. Raises DataError if there are none."""
    files = []
    for path in paths:
        listing = list_images(path) if path.is_dir() else Listing(images={path: path.stat()} if path.exists() else {})
        if not listing.images:
            no_image = f"there is no image that can be read{reasons(listing)}: name files, or folders of them"
            raise DataError(f"translate = {path}: {no_image}")
        report(path, listing)
        files += sorted(listing.images)
    return files


def save_translations(source: Source, files: Sequence[Path], options: SampleOptions) -> list[Path]:
    """Write the pair of each given image, and how far its own domain's image is from it; return the files.

    Raises ConfigError for an exported model, which has no gradient, and for an unknown domain; DataError.
    """
    if source.run is None or source.generator is None:
        raise ConfigError("translate needs gradients, which an exported model lacks: name the run folder")
    experiment, device = source.run.experiment(), next(source.generator.parameters()).device
    domains = {domain.name: domain for domain in experiment.domains}
    name = options.domain or next(iter(domains))
    if name not in domains:
        raise ConfigError(f"domain = {name!r}: must be one of {', '.join(domains)}")
    given = []
    for file in files:
        try:
            given.append(fit(decode({"path": file, "bytes": None}), experiment.size, domains[name]))
        except DataError as error:
            raise DataError(f"image {file} {error}") from error
    images = torch.from_numpy(np.stack(given)).movedim(-1, 1)
    targets = from_bytes(images, experiment.image_range).to(device)
    found = invert(source.generator, name, targets, source.prior, options.restarts, options.descent)
    return _write_translations(files, images, source.draw(found.latents.cpu()), name, found, options.to)


def _write_translations(
    files: Sequence[Path], given: Tensor, pairs: Images, domain: str, found: Inverted, folder: Path
) -> list[Path]:
    folder /= "translations"
    folder.mkdir(exist_ok=True)
    sheet, report, mean = folder / "given_and_pairs.png", folder / "distances.json", float(found.distances.mean())
    save_sheet({"given": given, **pairs}, sheet)
    written = save_images(pairs, folder, [f"{number}-{file.stem}" for number, file in enumerate(files)])
    each = [
        {"file": str(file), "distance": distance, "nearest_candidate": start, "latent": latent}
        for file, latent, distance, start in zip(files, *(values.tolist() for values in found), strict=True)
    ]
    write_json(report, {"domain": domain, "mean_distance": mean, "images": each})
    print(f"mean distance from the given images: {mean:.4f} (0 for equal ones, 1 for black and white)")
    return [sheet, *written, report]


if __name__ == "__main__":
    main()
