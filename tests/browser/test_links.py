"""The studio's old and wrong addresses, the browser's Back, the keyboard's focus, and files that are no pictures."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import MODEL, QUERY, Visitor, cell, expect_in_url


@pytest.mark.parametrize(
    ("query", "told", "kept"),
    [
        ("&directions=foo:3,1:99", f"{MODEL} has no direction foo", "directions=1:10"),
        ("&truncation=50&steps=5&keys=1~1~2", "", "keys=1~2"),
        ("&pin=9999999999999999&corners=p0,1,2,3@0.5,0.5~1~2~3&keys=p0,1,2,3@e,e", "", ""),
    ],
)
def test_what_does_not_fit_in_an_address_is_left_out(visit: Visitor, query: str, told: str, kept: str) -> None:
    """The rest is shown, all of it, and what is lost of a link is said."""
    page = visit.open(QUERY + query)
    expect(page.locator("model-card dd").first).to_be_visible()
    expect(page.locator("pair-lens h2")).to_have_text("Seed 0, closely")
    expect(page.locator("#notices")).to_contain_text(told) if told else expect(page.locator("#notices")).to_be_empty()
    page.get_by_label("Border between").fill("30")
    expect_in_url(page, "wipe", "30")
    assert page.url.partition("wipe")[0].partition("&digest=")[2].partition("&")[2].strip("&") == kept


def test_back_returns_to_the_model_before(visit: Visitor) -> None:
    """With its state; forward goes to the other one again."""
    page = visit.open(QUERY + "&pin=5")
    page.get_by_label("Model").select_option("digit_edge")
    expect(page.locator("h1")).to_contain_text("digit and edge.")
    page.go_back()
    expect(page.locator("h1")).to_contain_text("digit, edge and negative.")
    expect(page.locator("pair-lens h2")).to_contain_text("Seed 5")
    page.go_forward()
    expect(page.locator("h1")).to_contain_text("digit and edge.")


def test_the_address_is_kept_while_a_walk_is_played(visit: Visitor) -> None:
    """A link that is copied meanwhile has what was done since."""
    page = visit.open(QUERY + "&keys=1~2")
    page.get_by_role("button", name="Play").click()
    cell(page, "digit", 4).click()
    expect_in_url(page, "keys", "1~2~4")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def focused(page: Page) -> str:
    """Return what has the focus."""
    return str(page.evaluate("document.activeElement.tagName + ' ' + (document.activeElement.dataset.point ?? '')"))


def test_the_focus_stays_in_the_walk(visit: Visitor) -> None:
    """However quickly keys are pressed, and when a key frame is removed; after the last one it is on the hint."""
    page = visit.open(QUERY + "&keys=1~2~3~4")
    frames = page.locator(".keys li")
    frames.first.focus()
    for key in ("ArrowRight", "ArrowRight", "Delete", "Delete"):
        page.keyboard.press(key)
    expect_in_url(page, "keys", "2~3")
    page.wait_for_timeout(500)
    assert focused(page) == "LI 3"
    page.get_by_role("button", name="Remove seed 2 from the walk").press("Enter")
    expect(frames).to_have_count(1)
    assert focused(page) == "LI 3"
    page.keyboard.press("Delete")
    expect(page.get_by_role("button", name="Walk through the first three")).to_be_focused()


def test_the_focus_stays_in_the_plane(visit: Visitor) -> None:
    """A button that can do nothing more leaves it to the plane; a wrong corner is refused with what is allowed."""
    page = visit.open(QUERY + "&view=0.25,0.25,0.5")
    page.get_by_role("button", name="Zoom out").press("Enter")
    expect(page.locator(".map .cell:focus")).to_have_count(1)
    corner = page.get_by_label("Seed at the top left")
    corner.fill("1e3")
    corner.press("Enter")
    expect(corner).to_have_value("1000")
    for field in (corner, page.get_by_label("First seed")):
        for text in ("-3", "1.5", "9" * 20, ""):
            field.fill(text)
            field.press("Enter")
            told = str(field.evaluate("one => one.validationMessage"))
            assert told == "whole numbers from 0 to 9007199254740991"
    expect_in_url(page, "corners", "1000~1~2~3")


def test_sides_of_the_border_change_places(visit: Visitor) -> None:
    """A domain is never compared with itself."""
    page = visit.open(QUERY)
    page.get_by_label("Domain left of the border").select_option("edge")
    expect(page.get_by_label("Domain right of the border")).to_have_value("digit")


def test_an_error_goes_with_its_cause(visit: Visitor) -> None:
    """The notice of a failed request goes when the same part of the page succeeds."""
    page = visit.open(QUERY)
    problem = {"status": 422, "content_type": "application/problem+json", "body": '{"detail": "zebra", "code": "x"}'}
    page.route("**/generate?*", lambda route: route.fulfill(**problem))
    filters = page.get_by_role("group", name="Only pairs that")
    filters.get_by_label("read as").select_option("2")
    expect(page.locator("#notices")).to_contain_text("zebra")
    page.unroute("**/generate?*")
    filters.get_by_label("read as").select_option("3")
    expect(page.locator("#notices")).to_be_empty()
    assert all("422" in error for error in visit.errors)
    visit.errors.clear()


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("?model=digit_edge&class=zebra", "digit_edge has no class zebra, so it is left out."),
        ("?model=faces_drawn&class=5", "faces_drawn has no classifier, so it cannot be filtered."),
    ],
)
def test_filters_that_a_model_lacks_are_left_out(visit: Visitor, query: str, told: str) -> None:
    """The address no longer has them, and the page says so."""
    page = visit.open(query)
    expect(page.locator("#notices")).to_contain_text(told)
    expect_in_url(page, "digest", r"\w{12}")
    assert "class" not in page.url


def test_a_long_seed_is_told_by_its_end(visit: Visitor) -> None:
    """Heads of columns differ, their titles have all digits, and the field has room for them."""
    page = visit.open(QUERY + "&seed=123456789012345")
    heads = page.locator("[role=columnheader]")
    expect(heads.nth(1)).to_have_text("…12346")
    expect(heads.nth(1)).to_have_attribute("title", "seed 123456789012346")
    field = page.get_by_label("First seed")
    assert field.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_tiles_stand_for_pictures_that_are_late(visit: Visitor) -> None:
    """Until the service answers, the strip is busy and not blank."""
    page = visit.open(QUERY, ready=False)
    held: list[Route] = []
    page.route("**/generate?*", lambda route: held.append(route))
    page.reload()
    expect(page.locator(".images")).to_have_count(3)
    grid = page.locator("pair-strip [role=grid]")
    expect(grid).to_have_attribute("aria-busy", "true")
    tiles = page.locator(".images").first.evaluate("one => getComputedStyle(one, '::after').backgroundImage")
    assert "gradient" in tiles
    page.unroute("**/generate?*")
    page.reload()
    expect(grid).to_have_attribute("aria-busy", "false")


def test_a_notice_has_room_behind_the_page(visit: Visitor) -> None:
    """It stays in view, and at the page's end it covers nothing."""
    page = visit.open(QUERY + "&directions=foo:3")
    notice = page.locator(".notice")
    expect(notice).to_be_in_viewport(ratio=1)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(notice).to_be_in_viewport(ratio=1)
    end, above = (one.bounding_box() for one in (page.locator("footer"), notice))
    assert end is not None
    assert above is not None
    assert end["y"] + end["height"] <= above["y"]


@pytest.mark.parametrize("model", [MODEL, "digit_edge"])
def test_a_file_that_is_no_picture_is_told_by_its_name(visit: Visitor, model: str) -> None:
    """Also one that says it is; and the same file can be chosen again."""
    page = visit.open(f"?model={model}")
    choose, notices = page.get_by_label("Choose a picture"), page.locator("#notices")
    for _ in range(2):
        choose.set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"notes"})
        expect(notices).to_contain_text("notes.txt is no picture. Choose a PNG, JPEG, WebP, GIF, BMP or TIFF.")
        notices.get_by_role("button", name="Close").click()
    if model == "digit_edge":
        choose.set_input_files({"name": "cut.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n"})
        expect(page.locator(".result")).to_contain_text("cut.png was not read: ")
        expect(page.locator(".result")).not_to_contain_text("Choose a PNG")  # it says that it is one
        assert all("422" in error for error in visit.errors)
        visit.errors.clear()
