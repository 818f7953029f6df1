"""How fast pairs are made in bulk, as ratios within one run.

    .venv-service/bin/python -m tests.benchmarks.serving.bulk --model digit_edge

Prints JSON: shards of a service beside bare onnxruntime and PNG encoding on as many threads, the latency of single
requests with and without four shard streams, cogan-synthesize beside a bare loop, its memory, and two processes beside
one. Server and load share the processors: run it on an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import httpx
import numpy as np

from service.engine.onnx_model import CPU_ROWS, OnnxModel
from service.generation.images import png
from service.latents import draw_latent
from service.settings import available_cpus
from tests.running import Service, services

ROOT = Path(__file__).parents[3]
STREAMS = 4  # of shards, beside single requests
SHARE = 0.1  # of the peak rate of single requests


def bare_rate(file: Path, pairs: int, threads: int) -> float:
    """Return the pairs per second of onnxruntime and PNG encoding, in a loop in each thread."""
    models = [OnnxModel(file) for _ in range(threads)]

    def loop(worker: int) -> None:
        model = models[worker]
        for start in range(worker * pairs, (worker + 1) * pairs, CPU_ROWS):
            latents = np.array([draw_latent(model.prior, seed) for seed in range(start, start + CPU_ROWS)])
            for column in model.run({"latent": latents}).values():
                for image in column:
                    png(image)

    with ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        list(pool.map(loop, range(threads)))
    return pairs * threads / (time.perf_counter() - begun)


def shard_rate(service: Service, model: str, pairs: int, streams: int) -> float:
    """Return the pairs per second of so many shards at the same time."""

    def download(number: int) -> None:
        with httpx.stream(
            "GET", f"{service.url}/shards/{number}.tar?model={model}&size={pairs}", timeout=600
        ) as answer:
            answer.raise_for_status()
            for _ in answer.iter_raw():
                pass

    with ThreadPoolExecutor(streams) as pool:
        begun = time.perf_counter()
        list(pool.map(download, range(streams)))
    return pairs * streams / (time.perf_counter() - begun)


async def latencies(service: Service, model: str, rate: float, seconds: float, streams: int) -> list[float]:
    """Return the milliseconds of single requests at a rate, whatever they take, while shards stream."""
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=service.url, timeout=60, limits=limits) as client:
        begun, found = time.perf_counter(), list[float]()

        async def stream(number: int) -> None:
            async with client.stream("GET", f"/shards/{number}.tar?model={model}&size=100000") as answer:
                async for _ in answer.aiter_raw():
                    pass

        async def request(seed: int) -> None:
            at = begun + 1 + seed / rate
            await asyncio.sleep(at - time.perf_counter())
            (await client.get(f"/generate?model={model}&seed={seed}")).raise_for_status()
            found.append((time.perf_counter() - at) * 1e3)

        streaming = [asyncio.create_task(stream(number)) for number in range(streams)]
        await asyncio.gather(*(request(seed) for seed in range(round(rate * seconds))))
        for task in streaming:
            task.cancel()
        await asyncio.gather(*streaming, return_exceptions=True)
    return found


def peak_rate(service: Service, model: str, requests: int = 500) -> float:
    """Return the single requests per second of four connections that always wait for one."""

    def ask(worker: int) -> None:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            for i in range(requests):
                client.get(f"/generate?model={model}&seed={10**6 + worker * requests + i}").raise_for_status()

    with ThreadPoolExecutor(4) as pool:
        begun = time.perf_counter()
        list(pool.map(ask, range(4)))
    return 4 * requests / (time.perf_counter() - begun)


def synthesis(model: str, pairs: int, processes: int) -> tuple[float, float]:
    """Return the pairs per second of cogan-synthesize, without its start, and the largest resident memory in MB."""
    seconds, memory = [], 0.0
    starting, making = (processes, 1), (pairs, min(1000, -(-pairs // processes)))  # pairs, and pairs of a shard
    for count, size in (starting, making):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "service.synthesize", model, "--pairs", str(count), "--to", folder]
            begun = time.perf_counter()
            options = ["--size", str(size), "--processes", str(processes)]
            process = subprocess.Popen([*command, *options], cwd=ROOT, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0, "cogan-synthesize failed"
            seconds.append(time.perf_counter() - begun)
            memory = max(memory, usage.ru_maxrss / 1024)
    return (pairs - processes) / (seconds[1] - seconds[0]), memory


def p99(values: list[float]) -> float:
    """Return the 99th percentile."""
    return float(np.percentile(values, 99))


def main() -> None:
    """Measure, in turns, and print the medians of the repeats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digit_edge")
    parser.add_argument("--pairs", type=int, default=8_000, help="of a stream, loop or data set")
    parser.add_argument("--seconds", type=float, default=20.0, help="of single requests")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    name, pairs, cpus = options.model, options.pairs, available_cpus()
    (file,) = (ROOT / "models" / name).glob("*/model.onnx")
    rows: list[dict[str, float]] = []
    with services(ROOT / "models") as start:
        service = start(threads=cpus, cache_bytes=0)
        for _ in range(options.repeats):
            bare, bare_alone = bare_rate(file, pairs, cpus), bare_rate(file, pairs, 1)
            shards = shard_rate(service, name, pairs, cpus)
            rate = SHARE * peak_rate(service, name)
            quiet = asyncio.run(latencies(service, name, rate, options.seconds, 0))
            busy = asyncio.run(latencies(service, name, rate, options.seconds, STREAMS))
            (one, memory), (two, _) = synthesis(name, pairs, 1), synthesis(name, pairs, 2)
            rows.append(
                {
                    "bare_pairs_per_s": bare,
                    "shards_to_bare": shards / bare,
                    "p99_ms": p99(quiet),
                    "p99_beside_shards_ms": p99(busy),
                    "synthesize_to_bare": one / bare_alone,
                    "synthesize_mb": memory,
                    "two_processes_to_one": two / one,
                }
            )
    print(json.dumps({key: round(median(row[key] for row in rows), 3) for key in rows[0]}, indent=1))


if __name__ == "__main__":
    main()
