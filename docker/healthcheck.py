"""Exits 0 when the service in this container is ready, 1 when it is not: slim images have no curl."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}  # of hosts that mean every address


def is_ready(url: str, timeout_s: float = 3.0) -> bool:
    """Return whether the service on this machine answers with a loaded model; no proxy is used."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/readyz", timeout=timeout_s):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def find_url() -> str:
    """Return where the service has its health routes, by the variables that it reads itself."""
    host = os.environ.get("COGAN_HOST", "127.0.0.1").removeprefix("[").removesuffix("]")
    host = LOOPBACK.get(host, host)
    ports = filter(None, map(os.environ.get, ("COGAN_HEALTH_PORT", "COGAN_PORT", "PORT")))
    return f"http://{f'[{host}]' if ':' in host else host}:{next(ports, '8000')}"


if __name__ == "__main__":
    sys.exit(0 if is_ready(find_url()) else 1)
