"""The page of the OpenAPI document, in a real browser."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.running import services

CHROMIUM = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
CHROMIUM += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


def render(url: str, profile: Path) -> str:
    """Return a page's HTML once its scripts have run."""
    options = [f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom"]
    ran = subprocess.run([*CHROMIUM, *options, url], capture_output=True, text=True, check=True, timeout=100)
    return ran.stdout


def test_the_page_shows_every_operation(tiny_model: Callable[..., Path], models_dir: Path, tmp_path: Path) -> None:
    """Its policy lets its own scripts run: each operation of the document is on the page."""
    tiny_model()
    with services(models_dir) as start:
        url = start().url
        operations = [
            method for path in httpx.get(f"{url}/openapi.json", timeout=60).json()["paths"].values() for method in path
        ]
        page = render(f"{url}/docs", tmp_path / "profile")
    assert len(operations) > 20
    assert page.count('class="opblock opblock-') == len(operations)
