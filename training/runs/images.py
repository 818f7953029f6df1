"""Record of the images that each domain of a run learns from, so that a resumed run learns from the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from training.data.dataset import ImageSet, digest, load_training_sets
from training.data.listing import some
from training.errors import RunError
from training.files import expecting, write_lines
from training.pretrained.classifier import prune
from training.runs.folder import RunFolder


class DomainImages(BaseModel):
    """What is kept of the images of a domain."""

    images: list[tuple[str, str]]
    """Name and fingerprint of each."""
    pixels: str
    """Digest of all pixels."""
    labels: str | None = ""
    """Digest of all labels, if there are any; empty if an earlier version has not kept it."""
    fields: dict[str, Any] | None = None
    """Fields of the domain that the pixels depend on; None if an earlier version has not kept them."""


RECORD = TypeAdapter(dict[str, DomainImages])


def write_images(run: RunFolder, sets: Mapping[str, ImageSet]) -> None:
    """Write each domain's images into the run: fingerprints, names, a digest of pixels and of labels, fields."""
    fields = _fields(run)
    record = {
        name: DomainImages(
            images=[(origin.name, origin.fingerprint) for origin in images.origins],
            pixels=digest(images.images),
            labels=_labels(images),
            fields=fields[name],
        )
        for name, images in sets.items()
    }
    write_lines(run.images_file, [RECORD.dump_json(record).decode()])


def check_images(run: RunFolder, sets: Mapping[str, ImageSet], wanted: str = "go on") -> str:
    """Compare each domain's images with the run's record; return a warning, or an empty text.

    Raises RunError, naming what the run cannot do and the images, if a domain has others to learn from. A run of an
    earlier version, without a record, is not checked.
    """
    if not run.images_file.is_file():
        return ""
    record = _read(run)
    if changes := _image_changes(record, sets):
        raise RunError(
            f"{run.path} cannot {wanted}: its images have changed, and a domain would learn from others than it "
            f"began with ({'. '.join(changes)}); restore them, or begin a new run"
        )
    if any(record[name].pixels != digest(images.images) for name, images in sets.items()):
        _check_fields(run, record, wanted)
        return "the images are the same, but in another order, or decoded or fitted otherwise than before"
    if relabelled := [name for name, images in sets.items() if record[name].labels not in ("", _labels(images))]:
        return f"the images are the same, but those of {', '.join(relabelled)} have other labels than before"
    return ""


def _check_fields(run: RunFolder, record: Mapping[str, DomainImages], wanted: str) -> None:
    """Raise RunError, naming the field, if a domain makes other pixels of the same images."""
    for name, fields in _fields(run).items():
        before = record[name].fields
        changed = [] if before is None else [one for one in fields | before if fields.get(one) != before.get(one)]
        if changed:
            raise RunError(
                f"{run.path} cannot {wanted}: domain {name} began with another {changed[0]}, and would learn from "
                "other pixels: restore experiment.json, or begin a new run"
            )


def check_held_out(run: RunFolder, wanted: str) -> None:
    """Raise RunError if a run would be compared with images that it learned from.

    Where images were added or removed since it began, others are held out now.
    """
    experiment = run.experiment()
    if run.images_file.is_file() and any(domain.held_out for domain in experiment.domains):
        check_images(run, prune(experiment, load_training_sets(experiment)), wanted)


def _fields(run: RunFolder) -> dict[str, dict[str, Any]]:
    return {domain.name: domain.image_fields("source") for domain in run.experiment().domains}


def _read(run: RunFolder) -> dict[str, DomainImages]:
    """Return the record. Raises RunError if it is damaged, or is of other domains."""
    with expecting("the images of a run", run.images_file, "restore it, or begin a new run"):
        record = RECORD.validate_json(run.images_file.read_bytes())
        if missing := _fields(run).keys() - record.keys():
            raise ValueError(f"it has none of domain {', '.join(sorted(missing))}")
    return record


def _labels(images: ImageSet) -> str | None:
    """Return a digest of the labels of images; None if they have none."""
    return None if images.labels is None else digest(images.labels)


def _image_changes(record: Mapping[str, DomainImages], sets: Mapping[str, ImageSet]) -> list[str]:
    """Return the added and missing images of each domain, compared with the run's record."""
    known = {name: {mark: file for file, mark in domain.images} for name, domain in record.items()}
    owners = {mark: name for name, images in known.items() for mark in images}
    changes = []
    for name, images in sets.items():
        now = {origin.fingerprint: origin.name for origin in images.origins}
        counts = Counter(origin.fingerprint for origin in images.origins)
        before = Counter(mark for _, mark in record[name].images)
        taken = [now[mark] for mark in now if owners.get(mark, name) != name]
        added = [now[mark] for mark in counts - before if mark not in owners or owners[mark] == name]
        gone = [known[name][mark] for mark in before - counts]
        parts = [
            f"{len(files)} {what}: {some(files)}"
            for what, files in (("were another domain's", taken), ("are new", added), ("are gone", gone))
            if files
        ]
        changes += [f"domain {name}: {'; '.join(parts)}"] if parts else []
    return changes
