"""The studio in a real Chromium, in front of the real service: every page is watched for errors and other hosts."""

from __future__ import annotations

import io
import re
import shutil
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from playwright.sync_api import Browser, ConsoleMessage, Download, Locator, Page, expect, sync_playwright

from tests.running import Service, services

Pixels = NDArray[np.uint8]
MODELS = Path(__file__).parents[2] / "models"
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
SWITCHES += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATIENCE_MS = 20_000  # beside other tests a page may take seconds
MODEL = "digit_edge_negative"
QUERY = f"?model={MODEL}"
DOMAINS = ("digit", "edge", "negative")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that has the pictures of the documentation made anew."""
    parser.addoption("--screenshots", metavar="FOLDER", help="write screenshots of the studio to this folder")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return a running Chromium; without one, the tests are skipped."""
    if (program := shutil.which("chromium")) is None:
        pytest.skip("no chromium is installed")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=SWITCHES)


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """Return the service with the committed models."""
    with services(MODELS) as start:
        yield start(cors_origins="")


class Visitor:
    """Opens pages, and records what no page may do: log an error, or send a request to another host."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser, self.url = browser, url
        self.errors: list[str] = []
        self.hosts: set[str] = set()

    def open(self, query: str = "", url: str | None = None, init: str = "", ready: bool = True, **options: Any) -> Page:
        """Open the studio in a context of its own, and wait until it shows pairs."""
        chosen: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
        context = self.browser.new_context(**(chosen | options), accept_downloads=True)
        context.set_default_timeout(PATIENCE_MS)
        if init:
            context.add_init_script(init)
        page = context.new_page()
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._see(request.url))
        page.goto((url or self.url + "/") + query)
        if ready:
            page.locator(".map .cell img[src]").first.wait_for()
        return page

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _see(self, url: str) -> None:
        if not url.startswith(("data:", "blob:")):
            self.hosts.add(url.split("/")[2])


@contextmanager
def visiting(browser: Browser, service: Service) -> Iterator[Visitor]:
    """Give what opens pages of a service; in the end none has logged an error or asked another host."""
    visitor = Visitor(browser, service.url)
    yield visitor
    for context in browser.contexts:
        context.close()
    assert visitor.errors == []
    assert visitor.hosts <= {service.url.split("/")[2]}


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[Visitor]:
    """Return what opens pages of the committed models."""
    with visiting(browser, service) as visitor:
        yield visitor


@pytest.fixture
def picture_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder for screenshots: that of the option, or a temporary one."""
    return Path(request.config.getoption("--screenshots") or tmp_path)


def cell(page: Page, domain: str, seed: int) -> Locator:
    """Return the cell of a domain and a seed of the strip."""
    return page.locator(f'[data-domain="{domain}"] .cell[aria-label^="{domain}, seed {seed}"]').first


def expect_in_url(page: Page, name: str, pattern: str) -> None:
    """Wait until the URL has a field of the state, whose value is of a pattern."""
    expect(page).to_have_url(re.compile(rf"[?&]{name}={pattern}(&|$)"))


def on_screen(locator: Locator) -> Pixels:
    """Return what the screen shows of an element, [H, W, 3], at the whole pixels that its edges are drawn at."""
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    assert box is not None
    left, top = round(box["x"]), round(box["y"])
    clip = {"x": left, "y": top, "width": round(box["x"] + box["width"]) - left}
    clip["height"] = round(box["y"] + box["height"]) - top
    seen = locator.page.screenshot(clip=clip, animations="disabled")  # type: ignore[arg-type]  # a dict is one
    return np.asarray(Image.open(io.BytesIO(seen)).convert("RGB"))


def picture(seen: Locator | Pixels, width: int, height: int) -> Pixels:
    """Return the pixels of an image as they are on the screen, [height, width, 3], proven to be enlarged wholly.

    Raises AssertionError if a pixel of the image is not a square of one colour; rounded corners are left out.
    """
    seen = on_screen(seen) if isinstance(seen, Locator) else seen
    scale = seen.shape[0] // height
    assert seen.shape == (height * scale, width * scale, 3)
    blocks = seen.reshape(height, scale, width, scale, 3)
    small = blocks[:, scale // 2, :, scale // 2]
    uniform = (blocks == small[:, None, :, None]).all((1, 3, 4))
    for y in (0, 1, -2, -1):
        uniform[y, [0, 1, -2, -1]] = True
    assert uniform.all()
    return small


def inner(pixels: Pixels) -> Pixels:
    """Return pixels without the two outermost rows and columns, where corners are rounded."""
    return pixels[2:-2, 2:-2]


def saved(page: Page, name: str) -> tuple[Download, bytes]:
    """Return the file that a button saves."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name=name, exact=True).click()
    return waiting.value, waiting.value.path().read_bytes()


def texts_of(png: bytes) -> dict[str, str]:
    """Return the texts that a PNG carries."""
    image = Image.open(io.BytesIO(png))
    assert isinstance(image, PngImageFile)
    return {name: str(text) for name, text in image.text.items()}


def decode(data_url: str) -> Pixels:
    """Return the pixels of a data URL, [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(b64decode(data_url.partition(",")[2]))).convert("RGB"))


@pytest.fixture
def pairs(service: Service) -> Callable[..., list[dict[str, Any]]]:
    """Return what asks the service for pairs, by the fields of a body."""

    def ask(**body: Any) -> list[dict[str, Any]]:
        answer = httpx.post(f"{service.url}/generate", json={"model": MODEL} | body, timeout=60)
        found: list[dict[str, Any]] = answer.raise_for_status().json()["pairs"]
        return found

    return ask
