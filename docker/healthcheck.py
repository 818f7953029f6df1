"""Exits 0 when the service in this container is ready, 1 when it is not: slim images have no curl."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request


def is_ready(port: int, timeout_s: float = 3.0) -> bool:
    """Ask the service on this machine whether it answers with a loaded model; proxies are never asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=timeout_s):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def find_port() -> int:
    """Return where the service tells of its health: the first that is set of what it reads itself."""
    set_ones = filter(None, map(os.environ.get, ("COGAN_HEALTH_PORT", "COGAN_PORT", "PORT")))
    return int(next(set_ones, 8000))


if __name__ == "__main__":
    sys.exit(0 if is_ready(find_port()) else 1)
