"""The card of an exported model: README.md and sheet.png beside its versions, as model hubs show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from service.metadata import LATENT, ModelMetadata
from training.files import write_whole
from training.networks.coupled import latents_of_seeds
from training.runs.figures import save_sheet

PAIRS, COLUMNS = 32, 4  # on the sheet
WRITTEN = "<!-- written anew by each export, unless this line is removed -->"
CARD = """\
---
license: other
license_name: that-of-the-data
library_name: onnx
{task}tags: [cogan, coupled-gan, {kind}]
---
{written}

# {name}

{summary}
{sheet}
| domain | height x width x channels | description |
| --- | --- | --- |
{domains}

## Quality

As measured for version {version}, after {steps} steps from seed {seed}.

| figure | value |
| --- | --- |
{quality}

## Licence and credit

Trained on: {data_license}

The method is that of Liu & Tuzel, *Coupled Generative Adversarial Networks*, NIPS 2016.

## How to serve

`{version}/model.onnx` describes itself. From a checkout of CoGAN, with this folder published as `USER/{name}`:

```sh
make serve MODELS=hf://USER/{name}
curl {request}
```
"""
SUMMARIES = {
    "generator": "Coupled images: each latent of {size} values gives the same content in every domain.",
    "classifier": "Classifies images of its domain as one of {classes}.",
    "encoder": "Finds the latent of given images.",
}
REQUESTS = {
    "generator": "-o pair.png 'localhost:8000/generate?model={name}&seed=7&format=png'",
    "classifier": "localhost:8000/models/{name}",
    "encoder": "localhost:8000/models/{name}",
}


def write_card(file: Path, metadata: ModelMetadata) -> str:
    """Write the card of a model, and the sheet of a generator, into the folder of its versions.

    `file` is the exported model; the pairs of the sheet are those of seeds 0 and up, not chosen. A README.md that is
    not the work of export is kept, with its sheet; the warning is returned.
    """
    folder, is_generator = file.parents[1], metadata.kind == "generator"
    card = folder / "README.md"
    if card.exists() and WRITTEN not in card.read_text(encoding="utf-8", errors="replace"):
        return f"{card} is not what export writes, and is kept as it is: remove it to have it written anew"
    if is_generator:
        _write_sheet(file, metadata, folder / "sheet.png")
    values = {
        "size": metadata.prior.latent_dim if metadata.prior is not None else None,
        "classes": ", ".join(metadata.classes),
        "name": metadata.name,
    }
    text = CARD.format(
        written=WRITTEN,
        **metadata.model_dump(include={"name", "version", "kind", "data_license"}),
        task="pipeline_tag: unconditional-image-generation\n" if is_generator else "",
        summary=SUMMARIES[metadata.kind].format(**values),
        sheet=f"\n![Pairs of seeds 0 to {PAIRS - 1}, not chosen](sheet.png)\n" if is_generator else "",
        domains="\n".join(
            f"| {d.name} | {d.height} x {d.width} x {d.channels} | {d.description} |" for d in metadata.domains
        ),
        steps=metadata.provenance.steps,
        seed=metadata.provenance.seed,
        quality="\n".join(f"| {name} | {value} |" for name, value in _figures(metadata.quality)),
        request=REQUESTS[metadata.kind].format(**values),
    )
    write_whole(card, lambda aside: aside.write_text(text, encoding="utf-8"))
    return ""


def _write_sheet(file: Path, metadata: ModelMetadata, sheet: Path) -> None:
    """Write the images that onnxruntime computes, rows of pairs with one domain beside the other."""
    assert metadata.prior is not None, "a generator's metadata have one"
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    images = session.run(names, {LATENT: latents_of_seeds(metadata.prior, range(PAIRS)).numpy()})
    pairs = {name: torch.from_numpy(batch).permute(0, 3, 1, 2) for name, batch in zip(names, images, strict=True)}
    save_sheet(pairs, sheet, COLUMNS, 2)


def _figures(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, str]]:
    """Yield every figure with the names that lead to it."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{place}{name} ")
        else:
            yield f"{place}{name}".replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value)
