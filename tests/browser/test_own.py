"""Pictures of one's own in the studio: chosen, dropped or drawn, and the views that saved pictures bring back."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import MODEL, QUERY, Visitor, decode, expect_in_url, saved, texts_of
from tests.conftest import write_model
from tests.running import Service, services

Pairs = Callable[..., list[dict[str, Any]]]
READER = "?model=digit_edge"  # which has an encoder


def drop(page: Page, name: str, content: bytes) -> None:
    """Drop a file on the page."""
    page.evaluate(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
            document.body.dispatchEvent(new DragEvent("drop", options));
        }""",
        [name, list(content)],
    )


def test_a_saved_picture_brings_its_view_back(visit: Visitor, service: Service, pairs: Pairs) -> None:
    """A saved PNG has the service's pixels and says what it is; dropped, it restores its view, or tells a digest."""
    page = visit.open(QUERY + "&pin=8&truncation=0.9")
    download, content = saved(page, "Save edge as PNG")
    image = Image.open(io.BytesIO(content))
    texts = texts_of(content)
    digest = httpx.get(f"{service.url}/models/{MODEL}", timeout=60).json()["digest"]
    assert [texts[name] for name in ("Model", "Digest", "Seed", "Index", "Domain")] == [MODEL, digest, "8", "0", "edge"]
    (pair,) = pairs(seed=8, truncation=0.9)
    assert (np.asarray(image.convert("RGB"))[4::9, 4::9] == decode(pair["images"]["edge"])).all()
    assert image.size == (252, 252)
    other = visit.open("?model=digit_edge")
    drop(other, download.suggested_filename, content)
    expect(other.locator("#notices")).to_contain_text(f"seed 8 of {MODEL}, and this is its view")
    expect(other.locator(".thumbs img").nth(1)).to_have_attribute("src", pair["images"]["edge"])
    changed, info = io.BytesIO(), PngInfo()
    for name, text in (texts | {"Digest": "sha256:" + "0" * 64}).items():
        info.add_text(name, text)
    image.save(changed, "PNG", pnginfo=info)
    drop(other, "old.png", changed.getvalue())
    expect(other.locator("#notices")).to_contain_text("made by another file")


def test_a_picture_of_ones_own_is_told_what_it_needs(visit: Visitor) -> None:
    """Without an encoder, the page says so, and names the models that have one."""
    page = visit.open(QUERY)
    plain = io.BytesIO()
    Image.new("L", (28, 28), 200).save(plain, "PNG")
    page.get_by_label("Choose a picture").set_input_files(
        {"name": "mine.png", "mimeType": "image/png", "buffer": plain.getvalue()}
    )
    expect(page.locator(".result")).to_contain_text(f"{MODEL} has no encoder")
    page.get_by_role("button", name="digit_edge", exact=True).click()
    expect(page.locator("h1")).to_contain_text("digit and edge.")
    expect(page.locator(".result")).to_be_empty()


def test_a_picture_of_ones_own_gets_its_counterparts(browser: Browser, models_dir: Path) -> None:
    """With an encoder, the page shows what the service makes of the picture, and keeps it in its URL."""
    write_model(models_dir)
    write_model(models_dir, ("digit",), "reader", kind="encoder", goes_with=("tiny",))
    mine = io.BytesIO()
    Image.linear_gradient("L").resize((8, 6)).save(mine, "PNG")
    with services(models_dir) as start:
        url = start(processes=1).url
        page = Visitor(browser, url).open()
        page.get_by_label("Choose a picture").set_input_files(
            {"name": "mine.png", "mimeType": "image/png", "buffer": mine.getvalue()}
        )
        expect(page.locator(".result")).to_contain_text("Taken for a picture of the domain digit")
        found = httpx.post(
            f"{url}/translate", content=mine.getvalue(), headers={"content-type": "image/png"}, timeout=60
        ).json()
        for place, image in enumerate(found["pairs"][0]["images"].values()):
            expect(page.locator(".counterparts img").nth(place + 1)).to_have_attribute("src", image)
        expect(page.locator("pair-lens h2")).to_have_text("A picture of one's own, closely")
        page.get_by_role("button", name="Add to the walk").click()
        expect(page.locator(".keys li")).to_contain_text("given")
        expect_in_url(page, "keys", "l[\\w-]+")
        for other in (Visitor(browser, url).open(url=page.url), page):
            for place, image in enumerate(found["pairs"][0]["images"].values()):
                expect(other.locator(".thumbs img").nth(place)).to_have_attribute("src", image)
            other.context.close()
        cut = Visitor(browser, url).open(f"?pin={'l' + 'A' * 7}")  # no latent: left out, as all that is wrong
        expect(cut.locator("pair-lens h2")).to_have_text(re.compile(r"^Seed \d+, closely$"))
        cut.context.close()


def choose(page: Page, name: str, content: bytes) -> None:
    """Choose a PNG."""
    file = {"name": name, "mimeType": "image/png", "buffer": content}
    page.get_by_label("Choose a picture").set_input_files(file)  # type: ignore[arg-type]  # a dict is one


def draw(page: Page, first: tuple[int, int], *others: tuple[int, int]) -> None:
    """Draw a line through places of the board."""
    board = page.locator("canvas")
    board.scroll_into_view_if_needed()
    box = board.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + first[0], box["y"] + first[1])
    page.mouse.down()
    for x, y in others:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=5)
    page.mouse.up()


def test_the_studio_shows_a_drawing(visit: Visitor, picture_folder: Path) -> None:
    """The picture of the docs: a five and its counterparts."""
    page = visit.open(READER, viewport={"width": 1280, "height": 900})
    draw(page, (152, 45), (78, 45), (74, 101), (112, 94), (148, 112), (148, 152), (112, 179), (74, 168))
    expect(page.locator(".counterparts img")).to_have_count(3)
    page.mouse.move(0, 0)
    page.locator("own-picture").screenshot(path=picture_folder / "studio_own.png")
    shown = [seen.get_attribute("alt") for seen in page.locator(".counterparts img").all()]
    assert len(set(shown)) == 3  # each says what it is


def test_a_drawing_becomes_a_pair(visit: Visitor) -> None:
    """What is drawn is shown beside its counterparts when the pen rests, and cleared with them."""
    page = visit.open(READER)
    board = page.locator("canvas")
    draw(page, (112, 30), (108, 190))
    expect(page.locator(".result")).to_contain_text("Taken for a handwritten digit")
    expect(page.locator(".counterparts figcaption")).to_have_text(["yours", "digit", "edge"])
    drawn = decode(str(page.locator(".counterparts img").nth(1).get_attribute("src")))[..., 0]
    assert drawn[5:23, 12:16].mean() > 100 > 10 > drawn[:, :6].mean()  # an upright stroke in the middle
    expect(page.locator("pair-lens h2")).to_have_text("A picture of one's own, closely")
    expect_in_url(page, "pin", r"l[\w-]+")
    page.get_by_role("button", name="Clear the drawing").click()
    expect(page.locator(".result")).to_be_empty()
    inked = "one => one.getContext('2d').getImageData(0, 0, 224, 224).data.some((v, i) => i % 4 < 3 && v)"
    assert not board.evaluate(inked)


def test_ink_on_paper_is_turned_round(visit: Visitor, pairs: Pairs) -> None:
    """A picture unlike what the model knows is read with black and white exchanged; another model forgets it."""
    (pair,) = pairs(model="digit_edge", seed=5)
    paper = io.BytesIO()
    Image.fromarray(255 - decode(pair["images"]["digit"])).save(paper, "PNG")
    page = visit.open(READER)
    choose(page, "ink.png", paper.getvalue())
    expect(page.locator(".result")).to_contain_text("It was read with black and white exchanged.")
    expect(page.locator(".result")).not_to_contain_text("unlike")
    drawn = decode(str(page.locator(".counterparts img").nth(1).get_attribute("src"))).astype(int)
    assert np.abs(drawn - decode(pair["images"]["digit"])).mean() < 20
    page.get_by_label("Model").select_option("digit_negative")
    expect(page.locator("h1")).to_contain_text("digit and negative.")
    expect(page.locator(".result")).to_be_empty()


def test_a_saved_sheet_is_called_one(visit: Visitor) -> None:
    """Dropped, it names the seeds that it shows."""
    page = visit.open(READER + "&seed=4242")
    content = saved(page, "Sheet as PNG")[1]
    seeds = texts_of(content)["Seed"].replace("-", " to ")
    drop(page, "sheet.png", content)
    expect(page.locator("#notices")).to_contain_text(f"sheet.png is a sheet of seeds {seeds} of digit_edge")


def test_a_file_over_the_page_is_invited(visit: Visitor) -> None:
    """While it is held over the page, the page says what it would become, or which models read pictures."""
    told = {READER: "Drop it: it becomes a pair", QUERY: "This model cannot read pictures; try digit_edge, "}
    hold = """kind => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([], "five.png", { type: "image/png" }));
        document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
    }"""
    for query, text in told.items():
        page = visit.open(query)
        page.evaluate(hold, "dragenter")
        expect(page.locator("#invitation")).to_contain_text(text)
        page.evaluate(hold, "dragleave")
        expect(page.locator("#invitation")).to_be_hidden()


def test_what_happens_to_a_picture_is_said_at_once(visit: Visitor) -> None:
    """Also before the service answers."""
    page = visit.open(READER)
    held: list[Route] = []
    page.route("**/translate*", lambda route: held.append(route))
    plain = io.BytesIO()
    Image.new("L", (28, 28), 200).save(plain, "PNG")
    choose(page, "five.png", plain.getvalue())
    expect(page.locator(".result")).to_have_text("Reading five.png…")
