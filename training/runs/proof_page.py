"""Page of proofs, in Markdown, from the result of each model that a folder keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.files import expecting, read_json
from training.metrics.translation import NEAR, SIDE
from training.runs.figures import Row, markdown, spread

PAGE = f"""\
# Proof of use

How well networks that learned from generated pairs alone do on real test images. Written by
`python -m training.prove` from the files in [proof](proof): no figure here is typed.

```sh
python -m training.prove models/digit_edge --pairs 15000 --to docs/proof
python -m training.prove models/letters --pairs 10000 --to docs/proof
python -m training.prove docs/proof --page docs/proof.md
```

- **Classifiers** learn from generated images of one domain, labelled by the served classifier of the first domain that
  has one. Images of another domain get the label of the first domain's image of their pair, and only that classifier
  filters. Measured by the accuracy on all test images. The floor calls every image the most frequent class; **reached**
  is this accuracy over that of real images, **to reach** the project's goal for it.
- **Translations** are those of a small U-Net, trained by the cross entropy of every value. Measured by the mean
  distance to the true counterparts of all test images: the root of the mean squared difference, of 1 between black and
  white. The floor returns the given image; **reached** is the share of the way from there to that by real pairs,
  or a dash where these are not nearer than the floor.
- **By real images**: the same network, trained for as many steps on as many real training images or true pairs, or on
  all if there are fewer. Means and standard deviations are over seeds, of the weights, the order and the real images.
- **What the filters give** is measured by the classifiers that evaluate the model, others than those that filter: pairs
  that pass, in brackets as many without filters, then real images and true pairs.
- **Precision and recall** (Kynkäänniemi et al. 2019), on features of a public network; in brackets of training images.
- **Copies** are searched for among pairs without filters, by images averaged to {SIDE} x {SIDE} cells. **Near**
  means as close to a training image as the closest {NEAR:.0%} of test images are to theirs. In brackets the same of
  test images, and of training images among one another.
- **Versions** are those that were measured; newer ones may be served now.

"""


def page(folder: Path) -> str:
    """Return the page of the results in a folder, in Markdown. Raises RunError if a file holds none."""
    sections = []
    for file in sorted(folder.glob("*.json")):
        with expecting("a proof", file, f"python -m training.prove models/{file.stem} makes it anew"):
            sections.append(section(read_json(file, dict)))
    return PAGE + "\n".join(sections)


def section(result: Mapping[str, Any]) -> str:
    """Return the result of one model, in Markdown."""
    options, pairs, copies = result["options"], result["pairs"], result["copies"]
    networks, measures = [_network_row(one) for one in result["networks"]], result["without_labels"]["domains"]
    filters = f"labels by the classifiers of {', '.join(pairs['classifiers'])} are of confidence "
    filters += f"{options['min_confidence']} or more" + (" and agree" if options["agree"] else "")
    chosen = f": of {pairs['candidates']:,} candidates those whose {filters}" if pairs["classifiers"] else ""
    rest = f"Seeds {', '.join(map(str, options['seeds']))}; epochs: {options['epochs']}; up to {options['images']:,} "
    rest += f"images of a kind for precision and recall; {result['processor_minutes']:.0f} minutes of processor time."
    blocks = [
        f"## {result['model']}, version {result['version']}",
        f"{pairs['taken']:,} pairs{chosen}. {rest}",
        markdown(networks) if networks else "",
        *result["left_out"],
        markdown(_filter_rows(result["filters"])) if result.get("filters") else "",
        markdown([_copies_row(name, one, measures[name]) for name, one in copies["domains"].items()]),
        f"Of {copies['pairs']:,} pairs, {copies['equal_to_another']:,} are equal to another one.",
    ]
    return "\n\n".join(block.rstrip() for block in blocks if block) + "\n"


def _network_row(one: Mapping[str, Any]) -> Row:
    form = {"accuracy": ".2%", "distance": ".4f"}[one["measure"]]
    counts = *one["images"].values(), one["test_images"]
    return {
        "network": one["network"] + (f", labels of {one['labels']}" if "labels" in one else ""),
        "generated, real, test images": ", ".join(f"{count:,}" for count in counts),
        "measure": one["measure"],
        "floor": f"{one['floor']:{form}}",
        "by generated images": spread(one["generated"], form),
        "by real images": spread(one["real"], form),
        "reached": "-" if one["reached"] is None else f"{one['reached']:.3f}",
        "to reach": str(one["to_reach"]),
    }


def _filter_rows(filters: Mapping[str, Any]) -> list[Row]:
    """Return a row a domain: filtered (all, real)."""
    filtered, every = filters["filtered"], filters["all"]
    agreement, doubt, distance = "class_agreement", "doubtful_images", "frechet_distance"
    rows: list[Row] = []
    for name, one in filtered[doubt].items():
        other, real = every[doubt][name], filtered.get(f"{agreement}_of_real_pairs", {}).get(name)
        shares = [measured[agreement].get(name) for measured in (filtered, every)] + [real]
        near, far = filtered[distance][name], every[distance][name]
        rows.append(
            {
                "what the filters give": name,
                "classes agree": _beside(shares, ".4f") if shares[0] is not None else "",
                "doubtful": _beside((one["generated"], other["generated"], one["real"]), ".2%"),
                "Frechet distance": _beside((near["drawn"], far["drawn"], near["floor"]), ".2f"),
            }
        )
    return rows


def _beside(values: Sequence[float | None], form: str) -> str:
    """Return a value, and those that it is compared with in brackets."""
    first, *others = [f"{value:{form}}" for value in values if value is not None]
    return f"{first} ({', '.join(others)})"


def _copies_row(domain: str, one: Mapping[str, Any], measures: Mapping[str, Any]) -> Row:
    def beside(figures: Mapping[str, float], form: str, floor: str = "test") -> str:
        return _beside((figures["generated"], figures[floor]), form)

    return {
        "domain": domain,
        **{name: beside(measures[name], ".3f", "floor") for name in ("precision", "recall")},
        "training, generated, test images": ", ".join(f"{count:,}" for count in one["images"].values()),
        "equal to a training image": beside(one["equal_to_training"], ","),
        "distance to the nearest, median": beside(one["distance_to_training"], ".4f"),
        "near a training image": beside(one["near_training"], ".2%"),
        "near another": beside(one["near_another"], ".2%", "training"),
    }
