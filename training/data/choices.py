"""Choices for a recipe that names no architecture: by the images' size, colour and number, and the device.

Fields of the recipe are kept; each choice fills an unset field, so the same field overrides it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pydantic import ValidationError

from training.config.data import DOMAIN, RESERVED, DomainConfig
from training.config.experiment import Values
from training.data.folders import ImageFolder
from training.data.preprocess import damaged_images, decode, in_mode, read_cells
from training.data.sources import MIN_IMAGES, locate, open_rows
from training.errors import ConfigError, DataError, MissingSplitError
from training.zoo import GENERATORS
from training.zoo.modern import SIDES

SAMPLE = 64  # images of a domain that are inspected
GREY = 24  # greatest difference of two channels of a grey picture that a JPEG has in colour
FEW = 10_000  # images of a domain; with fewer a discriminator memorises them (Zhao et al. 2020)
HELD_OUT = 0.1  # share of the images; more where that is too few to measure against
LONGEST = 64  # characters of a name
OWN_ROWS = {True: 3, False: 2}  # of the generator, next to the image; more from 64x64 on


@dataclass
class Choices:
    """Fills the unset fields of a recipe; `made` lists each choice and its reason, a line each."""

    on_gpu: bool
    pixels: int | None = None
    """Size of the images that the command line asks for; it counts before the recipe's."""
    made: list[str] = field(default_factory=list)

    def __call__(self, path: Path, values: Values) -> Values:
        """Return a recipe's values, completed if it names no architecture. Raises DataError for unreadable images."""
        self.made.clear()  # a base is completed before the recipe that builds on it
        networks = [values.get(name, {}) for name in ("generator", "discriminator")]
        plain = all(isinstance(network, dict) for network in networks)
        if any("table" in network for network in networks if isinstance(network, dict)):
            return values
        values = {**values, "pixels": self.pixels} if self.pixels is not None else {**values}
        self._set(values, "name", _name_of(path.stem), "the recipe's file")
        self._set(values, "data_license", "not stated", "no field says it")
        if not _have_sources(values):
            return values
        values["domains"] = [dict(domain) for domain in values["domains"]]
        self._name(values["domains"])
        if not plain:
            return values
        if "pixels" in values and not (type(values["pixels"]) is int and values["pixels"] in SIDES):
            allowed = ", ".join(map(str, SIDES))
            raise ConfigError(f"pixels = {_written(values['pixels'])}: allowed are {allowed}, or name a table")
        try:
            seen = [self._choose_for(domain) for domain in values["domains"]]
        except ValidationError:  # of a wrong field, which is found by its place when all are parsed
            return values
        side = self._side(values, min(one.side for one in seen))
        self._choose_networks(values, side, min(one.count for one in seen))
        return values

    def _name(self, domains: list[Values]) -> None:
        """Name domains by their folders, with those around these until no name is taken, and else by number."""
        sources = [Path(domain["source"]) for domain in domains]
        taken = set[str]()
        for number, (domain, source) in enumerate(zip(domains, sources, strict=True)):
            others = sources[:number] + sources[number + 1 :]
            lengths = range(1, len(source.parts) + 1)
            free = (name for length in lengths if (name := _own_name(source, length, others)) and name not in taken)
            name = next(free, f"{_name_of(source.name)}_{number}")
            taken.add(name)
            self._set(domain, "name", name, "its folder", f"{source}: ")

    def _choose_for(self, domain: Values) -> _Properties:
        """Choose the fields of one domain, and return the properties of its images."""
        config, where = DOMAIN.validate_python(domain), f"{domain['name']}."
        if not domain.keys() & {"held_out", "test_split"} and not _has_test_images(config):
            held_out = max(HELD_OUT, math.ceil(100 * MIN_IMAGES / len(open_rows(config, "train"))) / 100)
            held_out = held_out if held_out < 1 else HELD_OUT
            self._set(domain, "held_out", held_out, _why_held_out(config), where)
            config = DOMAIN.validate_python(domain)
        seen = _inspect(config)
        self._set(domain, "channels", 3 if seen.colour else 1, "colour" if seen.colour else "grey images", where)
        if not seen.square:
            self._set(domain, "crop", 1.0, "not all images are square: their middle is kept, not squashed", where)
        return seen

    def _side(self, values: Values, smallest: int) -> int:
        """Return the side of the images: the recipe's, or the greatest that is not above theirs."""
        greatest, device = (128, "GPU") if self.on_gpu else (64, "CPU")
        fitting = [side for side in SIDES if side <= min(smallest, greatest) and (side != 28 or smallest == 28)]
        reason = f"the smaller side of half of the images is {smallest} or more; at most {greatest} on a {device}"
        side: int = self._set(values, "pixels", max(fitting, default=min(SIDES)), reason)
        return side

    def _choose_networks(self, values: Values, side: int, count: int) -> None:
        generator = values["generator"] = dict(values.get("generator", {}))
        discriminator = values["discriminator"] = dict(values.get("discriminator", {}))
        width = 1.0 if self.on_gpu else 0.5
        for name, network in (("generator.", generator), ("discriminator.", discriminator)):
            self._set(network, "table", f"modern_{side}", f"no architecture is named, and images have {side}", name)
            self._set(network, "width", width, "as fast as a GPU allows" if self.on_gpu else "for one core", name)
            self._set(network, "learning_rate", 5e-4, "of this architecture", name)
        shared, reason = len(GENERATORS[f"modern_{side}"].layers) - OWN_ROWS[side >= 64], "the last blocks are own"
        self._set(generator, "shared_layers", shared, reason, "generator.")
        self._set(discriminator, "initialisation", "he", "it has no normalisation", "discriminator.")
        self._set(discriminator, "penalty", "r1", "it needs a penalty (Mescheder et al. 2018)", "discriminator.")
        self._set(discriminator, "penalty_every", 16, "as good as every step (Karras et al. 2020)", "discriminator.")
        self._set(discriminator, "augmentations", *_augmentations(count), "discriminator.")
        batch = 64 if self.on_gpu else 16 if side >= 64 else 32
        self._set(values, "batch_size", batch, f"for {side}x{side} on a {'GPU' if self.on_gpu else 'CPU'}")
        self._set(values, "steps", 60_000 if self.on_gpu else 20_000, "a start; more steps are better")
        self._set(values, "warmdown", 0.5, "rates that fall end in better images")

    def _set(self, values: Values, name: str, value: Any, reason: str, where: str = "") -> Any:
        """Set a field if it is unset, and return its value."""
        if name not in values:
            values[name] = value
            self.made.append(f"{where}{name} = {_written(value)}  ({reason})")
        return values[name]


def _have_sources(values: Values) -> bool:
    """Return whether there are domains, each with a source; other errors are found by parsing."""
    domains = values.get("domains")
    if not isinstance(domains, list) or not domains:
        return False
    return all(isinstance(domain, dict) and isinstance(domain.get("source"), str) for domain in domains)


def _own_name(source: Path, length: int, others: list[Path]) -> str:
    """Return the name of so many last parts of a path; empty if it is another one's, too, or has a meaning."""
    name, *theirs = (_name_of("_".join(path.parts[-length:])) for path in (source, *others))
    return "" if name in RESERVED or name in theirs else name


def _name_of(file: str) -> str:
    """Return a name as domains and experiments have it, which begins with a letter: 2023 is images_2023."""
    name = re.sub(r"[^a-z0-9_]+", "_", file.lower())[-LONGEST + len("images_") :].strip("_")
    return name if name[:1].isalpha() else f"images_{name}".strip("_")


def _written(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(list(value) if isinstance(value, tuple) else value)


def _augmentations(count: int) -> tuple[tuple[str, ...], str]:
    if count >= FEW:
        return ("flip",), "mirrored images count, too; a domain's forbidden_augmentations forbid it"
    return (
        ("flip", "color", "translation", "cutout"),
        f"{count} images are few: DiffAugment (Zhao et al. 2020); a domain's forbidden_augmentations forbid some",
    )


@dataclass(frozen=True)
class _Properties:
    """Properties of a domain's images."""

    count: int
    side: int
    """The median of their smaller sides, in pixels."""
    colour: bool
    square: bool


def _has_test_images(config: DomainConfig) -> bool:
    """Return whether a domain has a test split. Raises DataError for one that cannot be read."""
    try:
        open_rows(config, "test")
    except MissingSplitError:
        return False
    except DataError as error:
        open_rows(config, "train")  # if they cannot be read either, theirs is the error to show
        raise DataError(f"domain {config.name!r}, images to measure with: {error}") from error
    return True


def _why_held_out(config: DomainConfig) -> str:
    """Return why images are held out of those to learn from, and which others would do."""
    root = Path(locate(config.source))
    named = ImageFolder(root).split_folders if root.is_dir() else []
    others = [name for name in named if not name.casefold().startswith("train")]
    reason = f"it has no {config.test_split} images to measure with"
    return reason + (f'; test_split = "{others[0]}" would take those' if others else "")


def _inspect(config: DomainConfig) -> _Properties:
    """Inspect some images of a domain. Raises DataError if there are none, or one cannot be read."""
    rows = open_rows(config, "train")
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows)), dtype=int))
    try:
        images = _look_at(rows.select(chosen)[config.image_column], config)
    except DataError:  # about some of the damaged images: all of them are to be named
        _look_at(chain.from_iterable(read_cells(rows, config.image_column)), config)
        raise
    return _Properties(
        config.count or len(rows),
        int(median(min(image.width, image.height) for image in images)),
        any(image.colour for image in images),
        all(image.width == image.height for image in images),
    )


class _Look(NamedTuple):
    """An image's size in pixels, and whether it is in colour."""

    width: int
    height: int
    colour: bool


def _look_at(cells: Iterable[dict[str, Any] | None], config: DomainConfig) -> list[_Look]:
    looks, damaged = list[_Look](), list[tuple[str, DataError]]()
    for cell in cells:
        assert cell  # rows without an image do not count
        try:
            image = decode(cell)
            looks.append(_Look(*image.size, _is_colour(image)))
        except DataError as error:
            damaged.append((cell["path"] or "", error))
    if damaged:
        raise damaged_images(damaged, config)
    return looks


def _is_colour(image: Image.Image) -> bool:
    small = in_mode(image, 3)
    small.thumbnail((64, 64))
    pixels = np.asarray(small, np.int16)
    return bool((pixels.max(2) - pixels.min(2)).max() > GREY)
