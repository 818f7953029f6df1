"""The studio with keys, limits and failures, behind a proxy, for keyboards and screen readers, and for other models."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.browser.conftest import MODELS, QUERY, Visitor, cell, on_screen
from tests.running import Service, services

KEY = "a-key-that-is-long-enough"


@contextmanager
def visiting(browser: Browser, models: Path = MODELS, **settings: Any) -> Iterator[tuple[Service, Visitor]]:
    """Give a service with settings, and what opens its pages."""
    with services(models) as start:
        service = start(**settings)
        yield service, Visitor(browser, service.url)
        for context in browser.contexts:
            context.close()


def test_a_key_is_asked_for_once(browser: Browser) -> None:
    """A wrong key is told, the right one is kept for the tab, and commands name it without showing it."""
    with visiting(browser, api_keys=KEY) as (_, visitor):
        page = visitor.open(QUERY, ready=False)
        page.get_by_label("API key").fill("a-wrong-key-that-is-long")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("That key is not one of this service")
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        expect(cell(page, "edge", 1)).to_be_visible()
        expect(page.locator("pair-take code")).to_contain_text('-H "X-API-Key: $KEY"')
        assert KEY not in page.content()
        page.reload()
        expect(cell(page, "edge", 1)).to_be_visible()
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert all("401" in error for error in visitor.errors)


def test_a_limit_is_told_and_waited_for(browser: Browser) -> None:
    """A 429 is shown as what it is, with the seconds that are left, and what was asked for comes after them."""
    with visiting(browser, rate_limit=0.2, rate_burst=3) as (_, visitor):
        page = visitor.open(QUERY, ready=False)
        told = re.compile(r"over the rate limit.*Trying again in.*429.rate_limited", re.DOTALL)
        expect(page.locator("#notices")).to_contain_text(told)
        expect(page.locator(".map .cell img[src]").first).to_be_visible(timeout=30_000)
        assert all("429" in error for error in visitor.errors)


def test_a_service_that_leaves_is_told_and_found_again(browser: Browser) -> None:
    """While the service shuts down or is gone the page says so, and goes on when it is back."""
    with visiting(browser) as (service, visitor):
        page = visitor.open(QUERY)
        service.process.send_signal(signal.SIGTERM)
        service.process.wait()
        page.get_by_label("First seed").fill("50")
        page.get_by_label("First seed").press("Enter")
        expect(page.locator("#notices")).to_contain_text("The service does not answer.")
        with services(MODELS) as start:
            start(port=service.port)
            expect(cell(page, "digit", 50)).to_be_visible(timeout=30_000)
        expect(page.locator("#notices")).to_be_empty()


def test_an_error_is_shown_with_its_code(browser: Browser) -> None:
    """An error shows the service's message; its code and request id are under Details."""
    with visiting(browser, max_frames=8) as (_, visitor):
        page = visitor.open(QUERY + "&keys=1~2~3&steps=8")
        page.evaluate("document.querySelector('pair-walk').save('gif')")
        notices = page.locator("#notices")
        notices.get_by_text("Details").click()
        expect(notices).to_contain_text("413 · too_large · request")
        expect(notices.get_by_role("button", name="Try again")).to_have_count(0)  # the same would be refused again


def test_small_limits_are_kept_to(browser: Browser) -> None:
    """With at most four pairs a request, the strip and the plane are made of smaller requests."""
    with visiting(browser, max_pairs=4) as (_, visitor):
        page = visitor.open(QUERY)
        expect(cell(page, "digit", 3)).to_be_visible()
        expect(page.locator(".map").first.locator(".cell")).to_have_count(4)


class Prefixed(BaseHTTPRequestHandler):
    """A reverse proxy below /cogan, which tells its prefix."""

    target = ""

    def _pass_on(self) -> None:
        if not self.path.startswith("/cogan"):
            self.send_error(404)
            return
        length = int(self.headers.get("Content-Length") or 0)
        own = ("host", "content-length")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in own}
        answer = httpx.request(
            self.command,
            self.target + (self.path.removeprefix("/cogan") or "/"),
            headers=headers | {"X-Forwarded-Prefix": "/cogan"},
            content=self.rfile.read(length),
            timeout=60,
        )
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name not in ("content-length", "content-encoding", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = _pass_on  # noqa: N815  # the names that the library calls

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.mark.parametrize("path", ["/cogan/", "/cogan"])
def test_it_works_behind_a_prefix(browser: Browser, path: str) -> None:
    """All that the page asks for lies below the prefix, with and without a slash at its end."""
    with visiting(browser) as (service, visitor):
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Prefixed,), {"target": service.url}))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}{path}"
            page = visitor.open(QUERY, url=url)
            expect(cell(page, "edge", 1)).to_be_visible()
            page.get_by_label("First seed").fill("9")
            page.get_by_label("First seed").press("Enter")
            page.wait_for_timeout(400)
            assert page.url.startswith(f"{url}?model=")
            assert page.get_by_role("link", name="API reference").evaluate("one => one.href").endswith("/cogan/docs")
            for context in browser.contexts:
                context.close()
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
        assert visitor.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_accessible(visit: Visitor, scheme: str, width: int) -> None:
    """Axe, which checks the rules of WCAG, finds nothing: with a walk, a zoomed plane, a notice and the light on."""
    query = QUERY + "&keys=1~2~3&pin=2&view=0.25,0.25,0.5&digest=000000000000"
    page = visit.open(query, viewport={"width": width, "height": 800}, color_scheme=scheme)
    expect(page.locator(".keys li")).to_have_count(3)
    cell(page, "edge", 1).hover()
    page.wait_for_timeout(300)
    found = Axe().run(page)
    assert [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found.response["violations"]] == []


def test_it_works_by_keyboard(visit: Visitor) -> None:
    """Tab leads into the strip, arrow keys through it, Enter keeps a pair, and cells say what they are."""
    page = visit.open(QUERY)
    page.get_by_role("link", name="API reference").focus()
    page.keyboard.press("Tab")
    expect(cell(page, "digit", 0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(cell(page, "edge", 1)).to_be_focused()
    assert cell(page, "edge", 1).get_attribute("aria-label") is not None
    expect(page.locator("pair-lens h2")).to_have_text("Seed 1, closely")
    page.keyboard.press("Enter")
    expect(page.locator(".keys li")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.get_by_label("First seed")).to_be_focused()
    page.locator(".map .cell").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Zoom out")).to_be_enabled()
    page.keyboard.press("-")
    expect(page.get_by_role("button", name="Zoom out")).to_be_disabled()


def test_any_number_of_domains(browser: Browser, tiny_model: Callable[..., Path], models_dir: Path) -> None:
    """One domain, or four of different sizes and colours: rows, lens and plane have them all."""
    tiny_model(("only",), name="single")
    tiny_model(("a", "b", "c", "d"), name="several")
    with visiting(browser, models_dir) as (_, visitor):
        page = visitor.open("?model=single")
        expect(page.locator("h1")).to_have_text("One random number, drawn as only.")
        expect(page.get_by_label("Domain right of the border")).to_have_count(0)
        page.get_by_label("Model").select_option("several")
        expect(page.locator(".images")).to_have_count(4)
        expect(page.locator(".map")).to_have_count(4)
        sizes = [cell(page, name, 1).locator("img").evaluate("one => [one.naturalWidth, one.width]") for name in "abcd"]
        assert len({shown // own for own, shown in sizes}) == 1
        assert all(shown % own == 0 for own, shown in sizes)
        cell(page, "d", 1).click()
        expect(page.locator(".thumbs img")).to_have_count(4)
        assert visitor.errors == []


@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"),
    [("studio", 1280, 1180, "light"), ("studio_dark", 1280, 1180, "dark"), ("studio_phone", 360, 740, "light")],
)
def test_screenshots(visit: Visitor, picture_folder: Path, name: str, width: int, height: int, scheme: str) -> None:
    """The pictures of the documentation are of the page as it is: a pair pointed at, and a walk."""
    query = QUERY + "&seed=3&keys=4~8~10~13&pin=8&frame=22"
    page = visit.open(query, viewport={"width": width, "height": height}, color_scheme=scheme)
    expect(page.locator(".keys li")).to_have_count(4)
    cell(page, "edge", 5).hover()
    page.wait_for_timeout(400)
    page.screenshot(path=picture_folder / f"{name}.png")
    lit, other = (on_screen(cell(page, "negative", seed).locator("img")) for seed in (5, 4))
    assert lit.max() == 255
    assert other.max() == 255 if scheme == "light" else other.max() < 200


def test_the_studio_shows_colour(visit: Visitor, picture_folder: Path) -> None:
    """The picture that the README begins with: three domains of a model in colour, a pair pointed at."""
    page = visit.open("?model=faces_drawn&seed=0", viewport={"width": 1280, "height": 590})
    expect(page.locator(".map .cell img[src]").first).to_be_visible()
    cell(page, "glasses", 3).hover()
    page.wait_for_timeout(400)
    page.screenshot(path=picture_folder / "studio_faces.png")
    seen = on_screen(cell(page, "plain", 3).locator("img")).astype(int)
    assert (seen.max(2) - seen.min(2)).max() > 60  # of 255: skin and hair are not grey
