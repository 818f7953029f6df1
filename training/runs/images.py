"""Which images each domain of a run learns from, kept so that a resumed run learns from the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from training.data.dataset import ImageSet, digest
from training.errors import RunError
from training.files import read_json, write_lines
from training.runs.folder import RunFolder

MAX_NAMED = 5


def write_images(run: RunFolder, sets: Mapping[str, ImageSet]) -> None:
    """Write each domain's images into the run: fingerprints and names, and a digest of all pixels and of all labels."""
    record = {
        name: {
            "pixels": digest(images.images),
            "labels": _labels(images),
            "images": [list(origin) for origin in images.origins],
        }
        for name, images in sets.items()
    }
    write_lines(run.images_file, [json.dumps(record)])


def check_images(run: RunFolder, sets: Mapping[str, ImageSet]) -> str:
    """Compare what domains learn from now with what they learned from; return a warning, or nothing.

    Raises RunError, naming the images, if a domain would learn from others than those it began with. A run
    without a record, of an earlier version, is not checked.
    """
    if not run.images_file.is_file():
        return ""
    record: dict[str, Any] = read_json(run.images_file)
    if changes := _image_changes(record, sets):
        raise RunError(
            f"{run.path} cannot go on: its images have changed, and a domain would learn from others than it "
            f"began with ({'. '.join(changes)}); restore them, or begin a new run"
        )
    if any(record[name]["pixels"] != digest(images.images) for name, images in sets.items()):
        return "the images are the same, but in another order, or decoded or fitted otherwise than before"
    if relabelled := [
        name for name, images in sets.items() if record[name].get("labels", "") not in ("", _labels(images))
    ]:
        return f"the images are the same, but those of {', '.join(relabelled)} have other labels than before"
    return ""


def _labels(images: ImageSet) -> str | None:
    """Return a digest of the labels of images; None if they have none."""
    return None if images.labels is None else digest(images.labels)


def _image_changes(record: Mapping[str, Any], sets: Mapping[str, ImageSet]) -> list[str]:
    """Return for each domain the images that it had not, or has no longer, by the run's record."""
    known = {name: {mark: file for file, mark in domain["images"]} for name, domain in record.items()}
    owners = {mark: name for name, images in known.items() for mark in images}
    changes = []
    for name, images in sets.items():
        now = {origin.fingerprint: origin.name for origin in images.origins}
        counts = Counter(origin.fingerprint for origin in images.origins)
        before = Counter(mark for _, mark in record.get(name, {"images": []})["images"])
        taken = [now[mark] for mark in now if owners.get(mark, name) != name]
        added = [now[mark] for mark in counts - before if mark not in owners or owners[mark] == name]
        gone = [known[name][mark] for mark in before - counts]
        parts = [
            f"{len(files)} {what}: {_some(files)}"
            for what, files in (("were another domain's", taken), ("are new", added), ("are gone", gone))
            if files
        ]
        changes += [f"domain {name}: {'; '.join(parts)}"] if parts else []
    return changes


def _some(files: list[str]) -> str:
    more = f" and {len(files) - MAX_NAMED} more" if len(files) > MAX_NAMED else ""
    return ", ".join(files[:MAX_NAMED]) + more
