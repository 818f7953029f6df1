"""Each point of the studio, by pixels or text: what it shows is what the service answers."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from PIL import Image
from playwright.sync_api import Browser, Request, expect

from service.metadata import METADATA_KEY
from tests.browser.conftest import (
    DOMAINS,
    MODEL,
    MODELS,
    QUERY,
    Pixels,
    Visitor,
    cell,
    decode,
    expect_in_url,
    inner,
    on_screen,
    picture,
    saved,
    texts_of,
    visiting,
)
from tests.running import Service, services

Pairs = Callable[..., list[dict[str, Any]]]
BEYOND_110 = r"[?&]seed=(11[1-9]|1[2-9]\d|[2-9]\d\d)(&|$)"  # in a URL


def equal(first: Pixels, second: Pixels) -> bool:
    """Return whether two images are the same, without their rounded corners."""
    return bool((inner(first) == inner(second)).all())


def test_seeds_are_columns_and_domains_are_rows(visit: Visitor, pairs: Pairs) -> None:
    """The strip shows the pixels of the service for each seed and domain; typed and scrolled to, any seed."""
    page = visit.open(QUERY)
    for seed, pair in enumerate(pairs(seeds=[0, 1, 2])):
        for domain in DOMAINS:
            assert equal(picture(cell(page, domain, seed).locator("img"), 28, 28), decode(pair["images"][domain]))
    page.get_by_label("First seed").fill("9007199254740000")
    page.get_by_label("First seed").press("Enter")
    expect(cell(page, "edge", 9007199254740000)).to_be_visible()
    (pair,) = pairs(seed=9007199254740000)
    assert equal(picture(cell(page, "edge", pair["seed"]).locator("img"), 28, 28), decode(pair["images"]["edge"]))
    page.get_by_label("First seed").fill("100")
    page.get_by_label("First seed").press("Enter")
    expect(cell(page, "digit", 100)).to_be_visible()
    for _ in range(100):  # a busy machine takes longer
        page.locator(".scroller").evaluate("one => one.scrollBy(900, 0)")
        page.wait_for_timeout(150)
        if re.search(BEYOND_110, page.url) and cell(page, "digit", 130).is_visible():
            break
    expect(cell(page, "digit", 130)).to_be_visible()
    assert re.search(BEYOND_110, page.url)


def test_a_model_is_picked_and_described(visit: Visitor, service: Service) -> None:
    """Another model has rows of its own, and its card tells quality with floors, licence and digest."""
    page = visit.open(QUERY)
    assert "drawn three ways: digit, edge and negative." in page.locator("h1").inner_text()
    page.get_by_label("Model").select_option("digit_edge")
    expect(page.locator(".images")).to_have_count(2)
    card = httpx.get(f"{service.url}/models/digit_edge", timeout=60).json()
    expect(page.locator("model-card")).to_contain_text(card["digest"])
    expect(page.locator("model-card")).to_contain_text("CC BY-SA 3.0")
    expect(page.locator("model-card")).to_contain_text("In 99 of 100 pairs both pictures show the same digit.")
    page.get_by_text("Everything that was measured").click()
    figures = card["quality"]["pixel_agreement"]["edge"]
    row = page.get_by_role("row").filter(has_text="pixel agreement, binarised")
    expect(row).to_contain_text(f"{figures['binarised']:.3f} ({figures['floor']['binarised']:.3f})")


@pytest.mark.parametrize("name", [path.name for path in sorted(MODELS.iterdir()) if (path / "sheet.png").exists()])
def test_every_models_card_can_be_read(visit: Visitor, service: Service, name: str) -> None:
    """Facts are wide enough, no row is empty, and those measured without labels have their figures, too."""
    page = visit.open(f"?model={name}")
    facts = page.locator("model-card dd")
    assert min(one.bounding_box()["width"] for one in facts.all()) > 200  # type: ignore[index]  # it is shown
    page.get_by_text("Everything that was measured").click()
    rows = page.locator("model-card tbody tr")
    assert all(any("0" <= one <= "9" for one in text.partition("\t")[2]) for text in rows.all_inner_texts())
    quality = httpx.get(f"{service.url}/models/{name}", timeout=60).json()["quality"]
    for domain in quality.get("without_labels", {"domains": {}})["domains"].values():
        figures = domain["precision"]
        expect(rows.filter(has_text="precision")).to_contain_text(
            f"{figures['generated']:.3f} ({figures['floor']:.3f})" if figures["generated"] else "0 ("
        )


def test_counterparts_light_up(visit: Visitor) -> None:
    """Pointing at one image leaves its column as it is, from the first row to the last, and dims all others."""
    page = visit.open(QUERY)
    before = {seed: picture(cell(page, "digit", seed).locator("img"), 28, 28) for seed in (3, 4)}
    cell(page, "edge", 3).hover()
    page.wait_for_timeout(300)
    after = {seed: picture(cell(page, "digit", seed).locator("img"), 28, 28) for seed in (3, 4)}
    assert equal(before[3], after[3])
    assert not equal(before[4], after[4])
    colours = [cell(page, domain, 3).evaluate("one => getComputedStyle(one).backgroundColor") for domain in DOMAINS]
    assert len(set(colours)) == 1
    assert colours[0] != cell(page, "digit", 4).evaluate("one => getComputedStyle(one).backgroundColor")
    expect(page.locator("pair-lens h2")).to_have_text("Seed 3, closely")


def test_two_domains_are_wiped_in_whole_pixels(visit: Visitor, pairs: Pairs) -> None:
    """The lens enlarges by whole pixels; left of its border is one domain, right of it the other."""
    page = visit.open(QUERY + "&pin=5&wipe=50")
    (pair,) = pairs(seed=5)
    digit, edge, negative = (decode(pair["images"][domain]) for domain in DOMAINS)
    border = page.get_by_label("Border between the two domains")
    glass = page.locator(".glass img").first
    border.fill("100")
    scale = (seen := on_screen(glass)).shape[0] // 28
    assert scale >= 8
    assert equal(picture(seen[:, : 24 * scale], 24, 28), digit[:, :24])  # the border's handle covers what is beside it
    border.fill("0")
    assert equal(picture(on_screen(glass)[:, 4 * scale :], 24, 28), edge[:, 4:])
    page.get_by_label("Domain right of the border").select_option("negative")
    border.fill("50")
    seen = on_screen(glass)
    small = seen[scale // 2 :: scale, scale // 2 :: scale]
    assert (small[2:10, 2:12] == digit[2:10, 2:12]).all()
    assert (small[2:10, 16:26] == negative[2:10, 16:26]).all()
    expect_in_url(page, "right", "negative")


def test_clicked_images_make_a_walk(visit: Visitor, service: Service) -> None:
    """Clicks add key frames, dragging orders them, scrubbing shows the service's frames, and the GIF is its GIF."""
    page = visit.open(QUERY)
    for seed in (1, 4, 6):
        cell(page, "digit", seed).click()
    frames = page.locator(".keys li")
    expect(frames).to_have_count(3)
    frames.nth(0).hover()
    page.mouse.down()
    box = frames.nth(2).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] + 20, steps=8)
    page.mouse.up()
    expect(frames.nth(2)).to_contain_text("1")
    expect_in_url(page, "keys", "4~6~1")
    body = {"model": MODEL, "keyframes": [{"seed": s, "index": 0} for s in (4, 6, 1)], "steps": 16, "loop": True}
    walk = httpx.post(f"{service.url}/interpolate", json=body, timeout=60).json()["frames"]
    page.get_by_label("Frame", exact=True).fill("20")
    for i, domain in enumerate(DOMAINS):
        expect(page.locator(".stage img").nth(i)).to_have_attribute("src", walk[20]["images"][domain])
        seen = picture(page.locator(".stage img").nth(i), 28, 28)
        assert equal(seen, decode(walk[20]["images"][domain]))
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_label("Frame", exact=True)).to_have_value(re.compile(r"^(2[2-9]|[34]\d)$"))
    page.get_by_role("button", name="Pause").click()
    for name, format_ in (("Save GIF", "gif"), ("Save WebP", "webp")):
        made = httpx.post(f"{service.url}/interpolate", json=body | {"format": format_, "scale": 6}, timeout=60).content
        assert saved(page, name)[1] == made


def test_a_walk_is_ordered_by_keyboard(visit: Visitor) -> None:
    """Arrow keys move a key frame, Delete removes it, and the focus goes along."""
    page = visit.open(QUERY + "&keys=4~6~1")
    page.locator(".keys li").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".keys li").first).to_contain_text("6")
    expect(page.locator(".keys li").nth(1)).to_be_focused()
    page.keyboard.press("Delete")
    expect(page.locator(".keys li")).to_have_count(2)
    expect_in_url(page, "keys", "6~1")
    page.get_by_label("Variety").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(700)
    expect(page.get_by_label("Variety")).to_be_focused()  # the walk, made anew, takes the focus only once


def test_a_plane_has_its_seeds_in_the_corners(visit: Visitor, pairs: Pairs) -> None:
    """Its corners are the four seeds in every domain, one place lights up in all, and a click zooms in."""
    page = visit.open(QUERY + "&corners=10~11~12~13")
    maps = page.locator(".map")
    corners = pairs(seeds=[10, 11, 12, 13])
    for d, domain in enumerate(DOMAINS):
        for at, pair in zip((0, 7, 56, 63), corners, strict=True):
            source = maps.nth(d).locator(".cell img").nth(at).get_attribute("src")
            assert source == pair["images"][domain]
    maps.nth(0).locator(".cell").nth(9).hover()
    assert maps.locator(".cell.on").count() == 3
    before = maps.nth(0).screenshot()
    maps.nth(0).locator(".cell").nth(63).click()
    expect(page.get_by_role("button", name="Zoom out")).to_be_enabled()
    expect_in_url(page, "view", r"0\.5,0\.5,0\.5")
    expect(maps.nth(1).locator(".cell img").nth(63)).to_have_attribute("src", corners[3]["images"]["edge"])
    assert maps.nth(0).screenshot() != before
    page.get_by_role("button", name="Whole plane").click()
    expect(maps.nth(1).locator(".cell img").nth(0)).to_have_attribute("src", corners[0]["images"]["edge"])


def test_variety_redraws_as_it_moves(visit: Visitor, pairs: Pairs) -> None:
    """Every place of the slider shows what the service answers for its truncation, in strip and lens."""
    page = visit.open(QUERY + "&pin=3")
    slider = page.get_by_label("Variety")
    for truncation in ("0.5", "1.2"):
        slider.fill(truncation)
        (pair,) = pairs(seed=3, truncation=float(truncation))
        image = cell(page, "digit", 3).locator("img")
        expect(image).to_have_attribute("src", pair["images"]["digit"])
        expect(page.locator(".thumbs img").first).to_have_attribute("src", pair["images"]["digit"])
        assert equal(picture(image, 28, 28), decode(pair["images"]["digit"]))
    expect_in_url(page, "truncation", r"1\.2")


def test_directions_move_everything(visit: Visitor, pairs: Pairs) -> None:
    """A slider moves strip, lens, walk and plane along a direction, to the service's bytes, and the URL keeps it."""
    page = visit.open(QUERY + "&pin=3&keys=1~2&corners=4~5~6~7")
    page.get_by_label("Direction 2").fill("-1.5")
    moved = {"directions": {"2": -1.5}}
    (pair,) = pairs(seed=3, **moved)
    image = cell(page, "negative", 3).locator("img")
    expect(image).to_have_attribute("src", pair["images"]["negative"])
    assert equal(picture(image, 28, 28), decode(pair["images"]["negative"]))
    assert not equal(decode(pair["images"]["negative"]), decode(pairs(seed=3)[0]["images"]["negative"]))
    expect(page.locator(".thumbs img").first).to_have_attribute("src", pair["images"]["digit"])
    (first,) = pairs(seed=1, **moved)
    expect(page.locator(".stage img").first).to_have_attribute("src", first["images"]["digit"])
    (corner,) = pairs(seed=7, **moved)
    expect(page.locator(".map").first.locator(".cell img").nth(63)).to_have_attribute("src", corner["images"]["digit"])
    expect_in_url(page, "directions", r"2:-1\.5")
    _, content = saved(page, "Save edge as PNG")
    assert json.loads(texts_of(content)["Directions"]) == {"2": -1.5}
    page.get_by_role("button", name="Reset").click()
    expect(image).to_have_attribute("src", pairs(seed=3)[0]["images"]["negative"])


def test_what_is_off_the_screen_waits(visit: Visitor) -> None:
    """Of moves in quick succession a plane on the screen shows the first and the last, one off it only the last."""
    page = visit.open(QUERY)
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    move = """(slider, values) => values.forEach((value) => {
        slider.value = value;
        slider.dispatchEvent(new Event("input"));
    })"""
    for place, values, expected in (
        ("pair-strip", ["1", "1.5", "2"], [2]),
        ("pair-plane", ["0.5", "1", "1.5"], [0.5, 1.5]),
    ):
        page.locator(place).scroll_into_view_if_needed()
        asked.clear()
        page.get_by_label("Direction 2").evaluate(move, values)
        page.wait_for_timeout(1500)  # for one request too many, too
        for _ in range(50):  # a busy machine takes longer
            bodies = [json.loads(one.post_data or "") for one in asked if one.method == "POST"]
            if len(bodies) >= len(expected):
                break
            page.wait_for_timeout(200)
        assert [body["directions"] for body in bodies] == [{"2": value} for value in expected]


def test_filters_tell_what_they_passed_over(visit: Visitor, pairs: Pairs) -> None:
    """Only pairs that pass are shown, with what they are read as, and how many others were drawn is told."""
    page = visit.open(QUERY)
    filters = page.get_by_role("group", name="Only pairs that")
    expect(page.locator(".foot .label").first).to_have_text(re.compile(r"^\d"))
    filters.get_by_label("read as").select_option("3")
    filters.get_by_label("classifier at least").fill("0.9")
    filters.get_by_label("all rows show the same class").check()
    page.mouse.move(5, 5)  # off the strip, which scrolls below it
    expect(page.locator(".caption")).to_contain_text("passed over by the filters")
    expect(page.locator(".foot .label", has_text="/")).to_have_count(0)  # of the filter before, if it is shown yet
    shown = page.locator(".foot .label").all_inner_texts()
    asked = {"class": "3", "min_confidence": 0.9, "agree": True}
    expected = pairs(seeds=list(range(len(shown))), labels=True, **asked)
    assert set(shown) == {"3"}
    over = sum(pair["index"] for pair in expected)
    assert over > 10
    told = f"{len(shown)} pairs shown of {len(shown) + over} drawn; {over} passed over by the filters"
    expect(page.locator(".caption")).to_have_text(told)
    for pair in expected[:3]:
        image = cell(page, "edge", pair["seed"]).locator("img")
        assert equal(picture(image, 28, 28), decode(pair["images"]["edge"]))
    passed = next(pair for pair in expected if pair["index"])
    cell(page, "digit", passed["seed"]).click()
    page.mouse.move(5, 5)
    expect(page.locator("pair-lens h2")).to_contain_text(f"image {passed['index']}")
    expect(page.locator(".thumbs img").first).to_have_attribute("src", passed["images"]["digit"])
    expect_in_url(page, "agree", "1")


def test_the_url_is_the_whole_state(visit: Visitor, pairs: Pairs) -> None:
    """A URL opened elsewhere shows the same bytes: strip, lens, walk and plane."""
    page = visit.open(QUERY)
    page.get_by_label("Variety").fill("0.8")
    cell(page, "edge", 2).click()
    cell(page, "edge", 5).click()
    page.locator(".map").nth(0).locator(".cell").nth(20).click()
    expect(page.locator("pair-lens h2")).to_contain_text("plane")
    page.get_by_role("button", name="Add to the walk").click()
    expect(page.get_by_label("Frame", exact=True)).to_have_attribute("max", "44")  # its frames are there
    page.get_by_label("Frame", exact=True).fill("33")
    page.mouse.move(5, 5)
    expect_in_url(page, "frame", "33")  # the last change
    sources = "Array.from(document.querySelectorAll('main img'), one => one.src)"
    other = visit.open(url=page.url)
    expect(other.locator(".keys li")).to_have_count(3)
    for _ in range(100):
        if (found := other.evaluate(sources)) == (wanted := page.evaluate(sources)):
            break
        other.wait_for_timeout(200)
    assert found == wanted
    assert other.locator(".thumbs img").first.get_attribute("src") not in {
        p["images"]["digit"] for p in pairs(seeds=[2, 5])
    }


def test_a_digest_in_a_url_that_differs_is_told(visit: Visitor) -> None:
    """The URL of another file of the model warns that pictures may differ."""
    page = visit.open(QUERY + "&digest=000000000000")
    expect(page.locator("#notices")).to_contain_text("The pictures may differ")


def test_what_is_shown_is_taken_away(visit: Visitor, service: Service, tmp_path: Path) -> None:
    """The sheet and the arrays are the service's, and the commands shown fetch the same again."""
    page = visit.open(QUERY + "&seed=40&truncation=1.5")
    seeds = [int(text) for text in page.locator("[role=columnheader]").all_inner_texts()]
    _, sheet = saved(page, "Sheet as PNG")
    _, arrays = saved(page, "Arrays as npz")
    digits = np.load(io.BytesIO(arrays))["digit"]
    body = {"model": MODEL, "seeds": seeds[: len(digits)], "truncation": 1.5, "format": "npz"}
    assert httpx.post(f"{service.url}/generate", json=body, timeout=60).content == arrays
    assert len(digits) >= 8
    pixels = np.asarray(Image.open(io.BytesIO(sheet)).convert("L"))[::9, ::9]  # 252 pixels a side are to be looked at
    assert (pixels.reshape(len(digits), 28, 3, 28)[:, :, 0] == digits[..., 0]).all()
    curl = page.locator("pair-take code").inner_text()
    subprocess.run(["bash", "-euc", curl.replace("curl", "curl -sS")], cwd=tmp_path, check=True)
    assert (tmp_path / f"{MODEL}.npz").read_bytes() == arrays
    assert (np.asarray(Image.open(tmp_path / f"{MODEL}.png").convert("L"))[::9, ::9] == pixels).all()
    page.get_by_role("button", name="Python").click()
    code = page.locator("pair-take code").inner_text()
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"digit ({len(digits)}, 28, 28, 1)" in ran.stdout
    _, gif = saved(visit.open(QUERY + "&keys=1~2&steps=4"), "Walk as GIF")
    assert Image.open(io.BytesIO(gif)).format == "GIF"


@pytest.mark.parametrize(("works", "told"), [("true", "Copied"), ("false", "Press Ctrl+C")])
def test_a_command_is_copied_without_a_clipboard(visit: Visitor, works: str, told: str) -> None:
    """As on plain http of another host: the command is selected, and what is left to do is said."""
    init = "Object.defineProperty(navigator, 'clipboard', { value: undefined });"
    page = visit.open(QUERY, init=f"{init} document.execCommand = () => {works};")
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name=told)).to_be_visible()
    assert page.evaluate("getSelection().toString()").startswith("curl -o ")


def test_the_sheet_says_what_it_is(visit: Visitor) -> None:
    """A saved sheet carries model, digest and seeds, and the view that made it."""
    page = visit.open(QUERY + "&seed=40")
    texts = texts_of(saved(page, "Sheet as PNG")[1])
    assert re.fullmatch(r"40-\d+", texts["Seed"])
    assert json.loads(texts["Directions"]) == {}
    assert "seed=40" in texts["View"]


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_page(visit: Visitor, width: int) -> None:
    """At any width the page scrolls down, never sideways."""
    page = visit.open(QUERY + "&keys=1~2~3~4~5~6~7~8", viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_second_click_removes_a_key_frame(visit: Visitor) -> None:
    """The caption counts the key frames, and the player is there from two on."""
    page = visit.open(QUERY)
    for seed in (1, 4):
        cell(page, "digit", seed).click()
    expect(page.locator(".told")).to_have_text("Added to the walk (2)")
    expect(page.locator(".player")).to_be_visible()
    cell(page, "edge", 4).click()
    expect(page.locator(".told")).to_have_text("Removed from the walk (1)")
    expect(page.locator(".player")).to_be_hidden()
    expect_in_url(page, "keys", "1")


def test_lens_and_walk_are_of_filtered_pairs(visit: Visitor, pairs: Pairs) -> None:
    """Nothing is shown that the filters pass over: lens and walk take their pairs from the strip."""
    page = visit.open(QUERY + "&class=7&confidence=0.99&agree=1")
    expect(page.locator(".foot .label").first).to_have_text("7")
    expected = pairs(seeds=[0, 1, 2], min_confidence=0.99, agree=True, **{"class": "7"})
    expect(page.locator(".thumbs img").first).to_have_attribute("src", expected[0]["images"]["digit"])
    expect(page.locator("[role=columnheader] small").first).to_have_text(re.compile(r"^#\d+$"))
    page.get_by_role("button", name="Walk through the first three").click()
    points = [f"{pair['seed']}.{pair['index']}".removesuffix(".0") for pair in expected]
    expect_in_url(page, "keys", re.escape("~".join(points)))


@pytest.fixture
def weak_models(tmp_path: Path) -> Path:
    """Return a folder with digits and print, whose file says that half of its pairs agree."""
    for name in ("digit_print", "digit_classifier", "print_classifier"):
        shutil.copytree(MODELS / name, tmp_path / name)
    (file,) = tmp_path.glob("digit_print/*/model.onnx")
    model = onnx.load(file)
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    stated = json.loads(entry.value)
    stated["quality"]["class_agreement"] = {"print": 0.5}
    entry.value = json.dumps(stated)
    onnx.save(model, file)
    return tmp_path


def test_a_weak_model_opens_with_filters(browser: Browser, weak_models: Path) -> None:
    """Where few pairs agree, those that do are shown, unless an address of the page says otherwise."""
    with services(weak_models) as start, visiting(browser, start(cors_origins="")) as visit:
        show_filters(visit)


def show_filters(visit: Visitor) -> None:
    """Open a weak model with its filters, and without them."""
    page = visit.open("?model=digit_print&seed=80")
    filters = page.get_by_role("group", name="Only pairs that")
    expect(filters.get_by_label("all rows show the same class")).to_be_checked()
    expect(page.locator(".caption")).to_contain_text("passed over by the filters")
    filters.get_by_label("all rows show the same class").uncheck()
    filters.get_by_label("classifier at least").fill("0")
    expect(page.locator(".label.differ").first).to_have_attribute("title", "the rows are read as different classes")
    expect(page.locator(".caption")).to_be_empty()
    again = visit.open(url=page.url)
    expect(again.locator(".foot .label").first).to_be_visible()
    expect(again.get_by_label("all rows show the same class")).not_to_be_checked()
