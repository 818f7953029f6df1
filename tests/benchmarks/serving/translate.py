"""Throughput of /translate, as ratios within one run.

    .venv-service/bin/python -m tests.benchmarks.serving.translate --model digit_edge

Prints JSON: one image in and one pair out, over each number of connections, beside a bare loop in as many threads that
decodes, encodes, refines, generates and writes the PNGs; and the latency of these requests. Server and load share the
processors: run it on an idle machine, with wrk installed, as client.py takes a share of them that shows in the ratio.
"""

from __future__ import annotations

import argparse
import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from service.engine.onnx_model import OnnxModel
from service.generation.decoding import Fitting, fit_all
from service.generation.images import png
from service.generation.pairs import companions
from service.generation.translation import EncoderQuality
from service.latents import draw_latent
from service.metadata import LATENT, PREVIOUS
from service.settings import available_cpus
from tests.benchmarks.serving.limit import pairs_per_second
from tests.benchmarks.serving.load import WRK, Load, Question, put_load
from tests.running import services

MODELS = Path(__file__).parents[3] / "models"
SEED = 7  # of the image that is translated


def open_models(name: str) -> tuple[OnnxModel, OnnxModel]:
    """Return a generator and the encoder of its first domain that has one. Raises SystemExit if none has."""
    found = {model.name: model for model in map(OnnxModel, sorted(MODELS.glob("*/*/model.onnx")))}
    if name not in found or not (encoders := companions("encoder", found[name], list(found.values()))):
        raise SystemExit(f"no encoder in {MODELS.name} goes with '{name}'")
    return found[name], next(iter(encoders.values()))


def make_image(generator: OnnxModel, domain: str) -> bytes:
    """Return a generated image of a domain as a PNG file."""
    latent = draw_latent(generator.prior, SEED)[np.newaxis]
    return png(generator.run({LATENT: latent})[domain][0])


def bare_step(generator: OnnxModel, encoder: OnnxModel, file: bytes) -> Callable[[int], int]:
    """Return a function that translates a file once, without a service."""
    (domain,), passes = encoder.domains, EncoderQuality.of(encoder).passes
    fitting, dim = Fitting(generator.shapes[domain]), generator.prior.latent_dim

    def translate(_: int) -> int:
        (image,) = fit_all(file, [fitting], lambda: False)
        latent = np.zeros((1, dim), np.float32)
        for _ in range(passes):
            latent = encoder.run({domain: image[np.newaxis], PREVIOUS: latent})[LATENT]
        for column in generator.run({LATENT: latent}).values():
            png(column[0])
        return 1

    return translate


def main() -> None:
    """Measure, in turns, and print the medians of the repeats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digit_edge")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    generator, encoder = open_models(options.model)
    (domain,), cpus = encoder.domains, available_cpus()
    file = make_image(generator, domain)
    url = "data:image/png;base64," + b64encode(file).decode()
    question = Question(path="/translate", body=json.dumps({"model": options.model, "from": domain, "image": url}))
    step, rows = bare_step(generator, encoder, file), list[dict[str, float]]()
    with services(MODELS) as start:
        service = start(processes=cpus, threads=1)
        for _ in range(options.repeats):
            row = {"bare_per_s": pairs_per_second(step, cpus, options.seconds)}
            for connections in options.connections:
                report = put_load(service, Load(connections, options.seconds), question)
                assert not report["errors"], f"{report['errors']} requests had an error"
                rate = report["requests"] / report["seconds"]
                row[f"{connections}_to_bare"] = rate / row["bare_per_s"]
                row[f"{connections}_p50_ms"], row[f"{connections}_p99_ms"] = report["p50_ms"], report["p99_ms"]
            rows.append(row)
    medians = {key: round(median(row[key] for row in rows), 3) for key in rows[0]}
    print(json.dumps({"load": "client.py" if WRK is None else "wrk"} | medians, indent=1))


if __name__ == "__main__":
    main()
