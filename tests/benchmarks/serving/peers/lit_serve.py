"""LitServe.

- Reference of `LitServer`: on a CPU `workers_per_device` is the number of processors; `num_api_servers` is
  left to be as many, as recommended; `fast_queue` beyond 100 requests a second, which is asked for although
  version 0.2.19 ignores it (its issue 751).
- "Batching": it pays where a run costs more than its requests. onnxruntime computes transposed convolutions
  image by image on a CPU, so a batch gains little; BENCH_BATCH=1 measures it so all the same.
"""

from __future__ import annotations

import os
from typing import Any

import litserve

from tests.benchmarks.serving.peers.drawing import Drawer, processors


class Generate(litserve.LitAPI):
    """The model behind LitServe's four steps."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe's signature
        """Open the model in a worker process."""
        self.drawer = Drawer()

    def decode_request(self, request) -> int:  # type: ignore[no-untyped-def]  # a type would be the body's
        """Return the seed that is asked for."""
        return int(request["seed"])

    def predict(self, seeds: Any) -> Any:
        """Draw one seed, or a list of them where requests are joined."""
        return self.drawer.answers(seeds) if isinstance(seeds, list) else self.drawer.answers([seeds])[0]

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, for LitServe to write as JSON."""
        return output


def main() -> None:
    """Serve on PORT."""
    batching = {"max_batch_size": 16, "batch_timeout": 0.001} if os.environ.get("BENCH_BATCH") else {}
    server = litserve.LitServer(
        Generate(api_path="/generate", **batching), accelerator="cpu", workers_per_device=processors(), fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
