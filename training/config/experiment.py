"""A recipe: frozen dataclasses with a sentence a field, read from TOML files and checked when built."""

from __future__ import annotations

import codecs
import difflib
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from service.metadata import MAX_DIRECTIONS, MAX_LATENT_DIM, Name, Prior, describe_errors
from training.config import STRICT, Positive, Share, listed, one_of
from training.config.data import DomainConfig, check_domains
from training.config.networks import (
    AuxiliaryLossConfig,
    ClassifierConfig,
    CouplingConfig,
    DiscriminatorConfig,
    EncoderConfig,
    GeneratorConfig,
    check_auxiliary_losses,
    check_couplings,
    check_network,
)
from training.errors import ConfigError
from training.losses.adversarial import LOSSES
from training.losses.auxiliary import COUPLINGS
from training.losses.pixels import RANGES
from training.networks.layers import Architecture
from training.zoo import DISCRIMINATORS, ENCODERS, GENERATORS

OF_THE_MACHINE = {"precision"}  # fields of earlier experiments
DirectionName = Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]*)?$", max_length=64)]
RENAMED = {"vgg": "feature_network"}  # fields of their couplings
ARCHITECTURES = {"generator": GENERATORS, "discriminator": DISCRIMINATORS, "encoder": ENCODERS}


@dataclass(frozen=True, config=STRICT)
class Experiment:
    """Everything that a run depends on."""

    name: Name
    """Name of the run folders and of the exported model."""
    domains: Annotated[tuple[DomainConfig, ...], Field(min_length=1)]
    """The image distributions that are coupled."""
    data_license: str
    """Licence of the images, carried into the exported file."""
    purpose: str = ""
    """What the run is for, in a sentence that is kept with it."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """The generator."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    """The discriminator."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The encoder, if a coupling requires one."""
    couplings: tuple[CouplingConfig, ...] = ()
    """What holds pairs together beside shared layers."""
    lessons: tuple[AuxiliaryLossConfig, ...] = ()
    """What the discriminator learns beside judging."""
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    """The classifier on the discriminator's features, where there are lessons."""
    prior: Literal["normal", "uniform"] = "normal"
    """Distribution of the latents."""
    latent_dim: Annotated[int, Field(ge=1, le=MAX_LATENT_DIM)] = 100
    """Values in a latent."""
    direction_names: Annotated[tuple[DirectionName, ...], Field(max_length=MAX_DIRECTIONS)] = ()
    """Names of the exported generator's directions, the first one's first; an empty one leaves a direction unnamed."""
    loss: Annotated[str, one_of(LOSSES), listed(LOSSES)] = "ce"
    """Adversarial loss."""
    pixels: Literal[16, 28, 32, 64, 128, 256] | None = None
    """Height and width of the images; chosen with the architecture if none is named, else the architecture's."""
    batch_size: Annotated[int, Field(ge=1, le=2**16)] = 64
    """Images of each domain in a step."""
    steps: Positive = 25_000
    """Updates of discriminator and generator."""
    warmdown: Share = 0.0
    """Last share of the steps over which the learning rates fall linearly to nothing."""
    halve_every: Positive | None = None
    """Steps after which the learning rates are halved, again and again."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Fixes the weights, the images' order and the latents."""
    log_every: Positive = 100
    """Steps between two lines of metrics."""
    sample_every: Positive = 1000
    """Steps between two sheets of samples."""
    sample_count: Positive = 32
    """Pairs on a sheet of samples, of the same latents every time."""
    checkpoint_every: Positive = 1000
    """Steps between two checkpoints."""
    measure_every: Positive = 2000
    """Steps between two measured snapshots; the best of them is kept."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_domains(self.domains)
        if self.pixels and self.size != (self.pixels, self.pixels):
            raise ValueError(
                f"pixels = {self.pixels}: generator.table = {self.generator.table!r} is for {self.size}; name "
                "another table, or none, so that both are chosen"
            )
        channels = {domain.channels for domain in self.domains}
        for name in self.networks:
            check_network(name, getattr(self, name), ARCHITECTURES[name], self.size, channels, self.batch_size)
        if self.generator.equal_heads and len(channels) > 1:
            raise ValueError(
                "generator.equal_heads = true: own layers of grey and of RGB domains cannot be equal; set channels of "
                "all domains alike, or equal_heads = false"
            )
        if self.discriminator.alone >= self.steps:
            raise ValueError(
                f"discriminator.alone = {self.discriminator.alone}: must be less than steps = {self.steps}, as the "
                "generator waits meanwhile"
            )
        if self.generator.choices >= self.latent_dim:
            raise ValueError(
                f"generator.choices = {self.generator.choices}: must be less than latent_dim = {self.latent_dim}"
            )
        check_couplings(self.couplings, self.generator.own_of(self.architecture("generator")))
        shared_layers = self.discriminator.shared_of(self.architecture("discriminator"))
        check_auxiliary_losses(self.lessons, self.domains, shared_layers, self.discriminator.own_last_layers)
        self.discriminator.check_labels(self.loss)
        if len(set(named := list(filter(None, self.direction_names)))) < len(named):
            raise ValueError(f"direction_names = {self.direction_names}: every name once")
        return self

    @property
    def networks(self) -> list[str]:
        """Names of the networks that are built: an encoder if a coupling requires one."""
        return [name for name in ARCHITECTURES if name != "encoder" or self.requires("encoder")]

    @property
    def classes(self) -> int:
        """Number of classes that the discriminator predicts; 0 without auxiliary losses."""
        return self.classifier.classes if self.lessons else 0

    def requires(self, what: str) -> bool:
        """Return whether a coupling requires it as an input."""
        return any(COUPLINGS[coupling.name].requires == what for coupling in self.couplings)

    def architecture(self, network: Literal["generator", "discriminator", "encoder"]) -> Architecture:
        """Return the architecture of a network."""
        architecture = ARCHITECTURES[network][getattr(self, network).table]
        return architecture.with_first(self.discriminator.first_width) if network == "discriminator" else architecture

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every domain's images, which the architectures fix."""
        return self.architecture("generator").size

    @property
    def image_range(self) -> tuple[float, float]:
        """Least and greatest value of generated images."""
        return RANGES[self.architecture("generator").layers[-1].activation]

    @property
    def latent_prior(self) -> Prior:
        """The prior as an exported file states it."""
        return Prior(distribution=self.prior, latent_dim=self.latent_dim)


EXPERIMENT = TypeAdapter(Experiment)
Values = dict[str, Any]  # of a recipe, as TOML gives them
Complete = Callable[[Path, Values], Values]


def load_experiment(path: Path, complete: Complete | None = None) -> Experiment:
    """Read a recipe and the recipes it builds on. Raises ConfigError, naming file, field and what is allowed.

    `complete` fills the unset fields of the recipe's values, once they are merged.
    """
    return _load(path, (), complete)[1]


def _load(path: Path, children: tuple[Path, ...], complete: Complete | None = None) -> tuple[Values, Experiment]:
    """Return a recipe's values, merged with those of its base, and its experiment; `children` build on it.

    A base is checked before it is merged, so an error names the file in which the wrong field stands.
    """
    with _errors_in(path):
        values = tomllib.loads(_read_text(path))
        for name in OF_THE_MACHINE & values.keys():
            raise ConfigError(f"{name} belongs to the machine: --machine.{name} {values[name]} sets it")
        base = _find_base(values.pop("base", None), (*children, path))
    if base:
        values = _merge_recipes(_load(base, (*children, path), complete)[0], values)
    with _errors_in(path):
        return values, parse_experiment(complete(path, values) if complete else values)


@contextmanager
def _errors_in(path: Path) -> Iterator[None]:
    """Prefix errors with the file's path."""
    try:
        yield
    except (OSError, ValueError, ConfigError) as error:  # ValueError: of TOML, or of a number too long
        raise ConfigError(f"{path}: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path}: lists or tables lie in one another too deeply, and no field needs that") from None


def _find_base(base: object, chain: tuple[Path, ...]) -> Path | None:
    """Return the path of the base that the last recipe of the chain names, or None. Raises ConfigError."""
    if base is None:
        return None
    named, folder = f"base = {base!r:.200}", chain[-1].parent
    if not isinstance(base, str):
        raise ConfigError(f'{named}: must be the path of one recipe, as in base = "digit_edge.toml"')
    path = folder / base
    if not path.is_file():
        raise ConfigError(f"{named}: there is no such file; the path starts at this recipe's folder, {folder}")
    for number, child in enumerate(chain):
        if path.samefile(child):
            cycle = " -> ".join(file.name for file in (*chain[number:], path))
            raise ConfigError(f"{named}: recipes build on each other in a cycle, {cycle}; remove one base")
    return path


def _merge_recipes(base: Values, child: Values) -> Values:
    """Return the values of a recipe that builds on another: tables merge by key, anything else replaces.

    The child's domains, if it lists any, are all domains and their order; one with the name of a domain of the
    base merges with it. The name is never the base's.
    """
    inherited = {name: value for name, value in base.items() if name != "name"}
    if isinstance(domains := child.get("domains"), list):
        child = child | {"domains": [_merge(_domain_like(domain, base), domain) for domain in domains]}
    merged: Values = _merge(inherited, child)
    return merged


def _domain_like(domain: object, base: Values) -> Any:
    """Return the domain of the base that has the same name, or None."""
    name = domain.get("name", "") if isinstance(domain, dict) else ""
    return next((known for known in base["domains"] if known.get("name") == name), None)


def _merge(base: Any, child: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(child, dict)):
        return child
    return base | {name: _merge(base.get(name), value) for name, value in child.items()}


def _read_text(path: Path) -> str:
    """Read UTF-8, with or without a byte order mark. Raises ConfigError for other encodings."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise ConfigError("is UTF-16 or no text, and TOML is UTF-8: save it as UTF-8")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"line {line} is not UTF-8, which TOML is: save it as UTF-8") from error


def parse_kept(values: Mapping[str, object]) -> Experiment:
    """Build an experiment of the values kept by a run or a model, also of an earlier version. Raises ConfigError."""
    kept = {name: value for name, value in values.items() if name not in OF_THE_MACHINE}
    if isinstance(couplings := kept.get("couplings"), list):
        kept["couplings"] = [{RENAMED.get(name, name): value for name, value in one.items()} for one in couplings]
    return parse_experiment(kept)


def parse_experiment(values: object) -> Experiment:
    """Build an experiment of plain values, as TOML and JSON have; none is converted. Raises ConfigError."""
    try:
        return EXPERIMENT.validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError("; ".join([describe_errors(error), *_remedies(error)])) from error


def _remedies(error: ValidationError) -> list[str]:
    """Return what to write instead of fields that there are not, and of what should be a list."""
    remedies = []
    for problem in error.errors():
        *place, name = problem["loc"] or ("",)
        if problem["type"] == "unexpected_keyword_argument" and (known := _fields_at(place)):
            close = difflib.get_close_matches(str(name).lower().replace("-", "_"), known, 1)
            remedies.append(f"did you mean {close[0]}?" if close else f"fields there are {', '.join(known)}")
        elif problem["type"] == "tuple_type":
            named = f"{name} = [...], a list" if isinstance(name, str) else "a list of lists, [[...]]"
            table = ".".join(str(one) for one in (*place, name) if isinstance(one, str))
            remedies.append(
                f"write [[{table}]], a list of tables" if isinstance(problem["input"], dict) else f"write {named}"
            )
    return list(dict.fromkeys(remedies))


def _fields_at(place: Iterable[int | str]) -> list[str]:
    """Return the names of the fields at a place of a recipe; none of what has no fields."""
    found: Any = Experiment
    for step in place:
        if isinstance(step, str):
            found = _dataclass_in(get_type_hints(found).get(step)) if is_dataclass(found) else None
    return [one.name for one in fields(found)] if is_dataclass(found) else []


def _dataclass_in(kind: Any) -> Any:
    """Return the dataclass that a type is, or is a list of."""
    return kind if is_dataclass(kind) else next(filter(None, map(_dataclass_in, get_args(kind))), None)
