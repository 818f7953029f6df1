"""Data set card: the README.md of a data set, in the form of the Hugging Face hub."""

from __future__ import annotations

import json
import re
from typing import Any

LICENSE = re.compile(r"\bCC (BY(?:-[A-Z]{2})*) (\d\.\d)")
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}


def write_card(plan: dict[str, Any], data_files: str) -> str:
    """Return the card of a data set: licence, size and files for machines, and what it is for people."""
    model, domains = plan["model"], plan["domains"]
    found = LICENSE.search(plan["data_license"])
    size = next((name for most, name in SIZES.items() if plan["pairs"] < most), "n>10M")
    front = [
        f"pretty_name: Pairs of {model['name']}",
        f"license: cc-{found[1].lower()}-{found[2]}" if found else "license: other",
        *([] if found else [f"license_name: {json.dumps(plan['data_license'])}"]),
        "tags: [synthetic, coupled-gan]",
        f"size_categories: [{size}]",
        f"configs: [{{config_name: default, data_files: {json.dumps(data_files)}}}]",
    ]
    filters = ", ".join(f"{name} {value}" for name, value in plan["filters"].items() if value) or "none"
    text = [
        f"# Pairs of {model['name']}",
        f"Generated images of {', '.join(domains)}: those of a pair have one latent, so the same content.",
        f"- Model: `{model['name']}` version {model['version']}, `{model['digest']}`, a coupled GAN (Liu & Tuzel 2016)",
        f"- Seeds: 0 to {plan['pairs'] - 1}, one pair each; filters: {filters}",
        f"- Training data of the model, whose licence holds for these images: {plan['data_license']}",
        "- `manifest.json` has the digests of models and shards, and the measured quality of the model:",
        "```json\n" + json.dumps(plan["quality"], indent=1) + "\n```",
    ]
    return "---\n" + "\n".join(front) + "\n---\n\n" + "\n\n".join(text) + "\n"
