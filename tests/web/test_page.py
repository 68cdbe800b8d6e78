"""The annotation page in a real browser, before a real server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from seral.labels.audit import WRITE_EVERY_S, read_events
from seral.labels.ledger import Ledger
from seral.labels.records import Project

TARGET_PX = 44
"""The least side of what a finger is to hit."""
QUICK_MS = 330
"""The page takes no answer sooner: nobody has heard anything by then."""
PLACE = "[...document.querySelectorAll('button, a, input')].indexOf(document.activeElement)"
Enter = Callable[..., Page]


@pytest.fixture
def enter(browser: Any, server: Any, ledger: Ledger) -> Iterator[Enter]:
    """`enter("ada")`: her page, after she has followed her link and pressed a key."""
    contexts, errors = [], []

    def open_page(name: str, *, token: str | None = None, **context: Any) -> Page:
        contexts.append(browser.new_context(**{"viewport": {"width": 1100, "height": 850}, **context}))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{server.url}/in/{token or ledger.add_person(name)}")
        expect(page.locator("#time")).to_contain_text("of")
        page.keyboard.press("r")  # a first gesture: the browser may wait for one before it plays
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def wait_for_clip(page: Page, number: int) -> None:
    """Until that clip is there, and long enough to have heard something."""
    expect(page.get_by_role("heading", name=f"Clip {number}", exact=True)).to_be_visible()
    expect(page.locator("#time")).to_contain_text("of")
    page.wait_for_timeout(QUICK_MS)


def label(page: Page, first: int, keys: str) -> None:
    """One key for each clip, from number `first` on."""
    for number, key in enumerate(keys, first):
        wait_for_clip(page, number)
        page.keyboard.press(key)


def test_a_person_labels_twenty_clips_by_keyboard(enter: Enter, ledger: Ledger) -> None:
    page = enter("ada")
    keys = "1234" * 4 + "su2o"
    label(page, 1, keys)
    wait_for_clip(page, 21)
    expect(page.locator("#standing")).to_contain_text("20 answered · 20 left")
    expect(page.locator("#standing")).to_contain_text("clips an hour")
    rows = ledger.answers().to_pylist()
    answers = {"s": "skipped", "u": "unusable", "o": "other-language"}
    expected = [answers[key] if key in answers else ledger.project.classes[int(key) - 1] for key in keys]
    assert [row["emotions"][0] if row["emotions"] else row["kind"] for row in rows] == expected
    assert all(QUICK_MS / 1000 - 0.05 < row["seconds"] < 10 for row in rows)


def test_several_emotions_a_fainter_one_a_comment_and_how_sure(enter: Enter, ledger: Ledger) -> None:
    page = enter("ada")
    wait_for_clip(page, 1)
    for key in ("Shift+Digit1", "Shift+Digit3", "a", "4", "e", "c"):
        page.keyboard.press(key)
    page.keyboard.type("2 voices, sz")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    wait_for_clip(page, 2)
    (row,) = ledger.answers().to_pylist()
    assert (row["emotions"], row["secondary"]) == (["anger", "neutral"], ["sadness"])
    assert (row["confidence"], row["comment"]) == (1.0, "2 voices, sz")


def test_a_clip_is_logged_as_played_when_it_plays(enter: Enter, server: Any, ledger: Ledger) -> None:
    page = enter("ada")
    with page.expect_response("**/played"):
        label(page, 1, "1")
        wait_for_clip(page, 2)
        page.keyboard.press("r")
    page.wait_for_timeout(1000 * (WRITE_EVERY_S + 1))
    played = [event.utterance_id for event in read_events(ledger.database, person="ada") if event.action == "played"]
    assert played == ["calls-000", "calls-001"], "once each; the next one is fetched, and not played yet"


def test_undo_goes_back_and_corrects(enter: Enter, ledger: Ledger) -> None:
    page = enter("ada")
    label(page, 1, "11")
    wait_for_clip(page, 3)
    page.keyboard.press("z")
    page.keyboard.press("Backspace")
    expect(page.get_by_text("say it again to correct it")).to_be_visible()
    expect(page.get_by_role("button", name="anger")).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(QUICK_MS)
    page.keyboard.press("4")
    wait_for_clip(page, 3)
    expect(page.locator("#state")).to_have_text("Corrected.")
    assert ledger.answers().sort_by("utterance_id")["emotions"].to_pylist() == [["sadness"], ["anger"]]
    assert ledger.answers(history=True).num_rows == 3
    page.reload()
    wait_for_clip(page, 3)
    page.keyboard.press("z")
    expect(page.get_by_role("button", name="sadness")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("n")
    expect(page.get_by_role("heading", name="Clip 3")).to_be_visible()


def test_two_people_at_once_never_have_the_same_clip(enter: Enter, ledger: Ledger) -> None:
    pages = [enter("ada"), enter("ben")]
    for number in range(1, 5):
        for page in pages:
            label(page, number, "2")
    for page in pages:
        wait_for_clip(page, 5)
    rows = ledger.answers().to_pylist()
    assert len({row["utterance_id"] for row in rows}) == len(rows) == 8
    assert [row["person"] for row in rows] == ["ada", "ben"] * 4


def test_a_killed_server_loses_nothing_and_the_page_goes_on(enter: Enter, server: Any, ledger: Ledger) -> None:
    page = enter("ada")
    label(page, 1, "123")
    wait_for_clip(page, 4)
    server.kill()
    label(page, 4, "4")
    wait_for_clip(page, 5)
    expect(page.locator("#network")).to_have_text("Offline, 1 answer waiting. Nothing is lost; trying again.")
    page.keyboard.press("1")  # the last clip that was fetched before
    expect(page.locator("#network")).to_contain_text("2 answers waiting")
    server.start()
    wait_for_clip(page, 6)
    expect(page.locator("#network")).to_be_empty()
    label(page, 6, "2")
    wait_for_clip(page, 7)
    rows = ledger.answers(history=True).to_pylist()
    assert [row["emotions"][0] for row in rows] == [ledger.project.classes[n - 1] for n in (1, 2, 3, 4, 1, 2)]
    assert len({row["utterance_id"] for row in rows}) == 6


def test_answers_outlive_the_tab(enter: Enter, server: Any, ledger: Ledger) -> None:
    page = enter("ada")
    wait_for_clip(page, 1)
    server.kill()
    page.keyboard.press("3")
    expect(page.locator("#network")).to_contain_text("1 answer waiting")
    server.start()
    page.goto(server.url)
    wait_for_clip(page, 2)
    assert ledger.answers()["emotions"].to_pylist() == [["neutral"]]


def test_the_end_is_said_and_new_clips_are_found(enter: Enter, ledger: Ledger) -> None:
    ledger.shut("evaluation")
    ledger.ask("more", ["calls-007"], purpose="round", round=1)
    page = enter("ada")
    label(page, 1, "1")
    expect(page.get_by_role("heading", name="Nothing to do now")).to_be_focused()
    ledger.ask("again", ["calls-009"], purpose="round", round=2)
    page.evaluate("dispatchEvent(new Event('online'))")
    wait_for_clip(page, 2)


def test_who_stops_gives_their_clips_back(enter: Enter, ledger: Ledger) -> None:
    page = enter("ada")
    wait_for_clip(page, 1)
    with page.expect_response("**/let-go"):
        page.get_by_role("button", name="Stop for now").click()
    ledger.add_person("ben")
    assert ledger.claim("ben")[0].utterance_id == "calls-000"
    page.get_by_role("button", name="Go on").click()
    wait_for_clip(page, 1)


def test_a_wrong_link_shows_nothing(browser: Any, server: Any) -> None:
    page = browser.new_page()
    assert page.goto(f"{server.url}/in/wrong").status == 403  # type: ignore[union-attr]
    assert page.content().count("calls-") == 0
    page.goto(server.url)
    expect(page.get_by_role("heading", name="You are not let in")).to_be_visible()
    expect(page.locator("#work")).to_be_hidden()
    assert page.context.cookies() == []
    page.close()


def test_what_the_policy_forbids_is_seen(browser: Any, server: Any) -> None:
    page = browser.new_page()
    page.goto(server.url)
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://elsewhere.example/a.png'}))")
    page.wait_for_timeout(QUICK_MS)
    assert page.evaluate("window.ran") is None
    refused, browser.refused = browser.refused, []
    assert [any(word in text for text in refused) for word in ("inline script", "elsewhere.example")] == [True, True]


def test_the_link_leaves_no_token_in_the_address(enter: Enter, server: Any, ledger: Ledger) -> None:
    token = ledger.add_person("ada")
    page = enter("ada", token=token)
    assert page.url == f"{server.url}/"
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert page.evaluate("document.cookie") == ""
    assert token not in page.content()


def test_whoever_signs_out_is_out(enter: Enter, ledger: Ledger) -> None:
    page = enter("ada")
    label(page, 1, "1")
    wait_for_clip(page, 2)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are not let in")).to_be_visible()
    expect(page.locator("#idle-text")).to_have_text("nobody is signed in here; open your personal link.")
    assert page.context.cookies() == []
    assert ledger.answers()["person"].to_pylist() == ["ada"]


def test_anothers_link_asks_before_it_changes_who_one_is(enter: Enter, server: Any, ledger: Ledger) -> None:
    page, link = enter("ada"), f"{server.url}/in/{ledger.add_person('ben')}"
    page.set_content(f'<a href="{link}">a link in a chat</a>')
    left_open = page.context.new_page()
    left_open.goto(server.url)
    wait_for_clip(left_open, 1)
    page.get_by_text("a link in a chat").click()
    expect(page.get_by_role("heading", name="You are signed in as ada")).to_be_visible()
    page.get_by_role("link", name="Stay ada").click()
    expect(page.locator("#who")).to_have_text("ada")
    page.goto(link)
    page.get_by_role("button", name="Sign out, and go on as ben").click()
    expect(page.locator("#who")).to_have_text("ben")
    left_open.keyboard.press("1")
    expect(left_open.get_by_text("this page is ada's, and ben has signed in")).to_be_visible()
    assert ledger.answers().num_rows == 0, "nothing in anybody's name; it waits until ada is back"


def test_a_phone_has_room_for_every_finger(enter: Enter, ledger: Ledger) -> None:
    page = enter("ada", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    wait_for_clip(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for control in page.locator("#work").locator("button:visible, input:visible").all():
        box = control.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= TARGET_PX, control.inner_text()
    page.get_by_role("button", name="happiness").tap()
    wait_for_clip(page, 2)
    page.get_by_role("button", name=re.compile("^Several")).tap()
    page.get_by_role("button", name="anger").tap()
    page.get_by_role("button", name="sadness").tap()
    page.get_by_role("button", name=re.compile("^Send")).tap()
    wait_for_clip(page, 3)
    assert ledger.answers()["emotions"].to_pylist() == [["happiness"], ["anger", "sadness"]]


def test_every_control_has_a_name_and_tab_goes_through_them_in_order(enter: Enter) -> None:
    page = enter("ada")
    wait_for_clip(page, 1)
    controls = page.locator("button:visible, a:visible, input:visible").all()
    tree = page.locator("body").aria_snapshot()
    assert not re.findall(r"- (?:button|link|textbox|slider)(?::|$| \[)", tree, re.M), "one without a name"
    assert len(re.findall(r"- (?:button|link|textbox|slider) ", tree)) == len(controls)
    page.locator("#theme").focus()
    reached = [page.evaluate(PLACE)]
    for _ in controls[1:]:
        page.keyboard.press("Tab")
        reached.append(page.evaluate(PLACE))
    assert reached == sorted(set(reached)), "in the order of the page, none left out or twice"
    assert len(reached) == len(controls)
    assert page.locator("[role=status][aria-live=polite]").count() == 2


def test_dark_and_light_follow_the_system_until_told_otherwise(enter: Enter) -> None:
    page = enter("ada", color_scheme="dark")
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Switch to light colours").click()
    page.reload()
    expect(root).to_have_attribute("data-theme", "light")


class TestDimensions:
    @pytest.fixture
    def project(self) -> Project:
        return Project(classes=("anger", "joy"), dimensions=("valence", "arousal"), scale=(-1, 1))

    def test_numbers_go_from_group_to_group_and_enter_sends(self, enter: Enter, ledger: Ledger) -> None:
        page = enter("ada")
        wait_for_clip(page, 1)
        page.keyboard.press("2")
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        expect(page.locator("#state")).to_have_text("Still to rate: arousal.")
        page.keyboard.press("4")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("3")
        page.keyboard.press("Enter")
        wait_for_clip(page, 2)
        (row,) = ledger.answers().to_pylist()
        assert (row["emotions"], row["valence"], row["arousal"]) == (["joy"], 0.0, 0.5)


class TestRatingsAlone:
    @pytest.fixture
    def project(self) -> Project:
        return Project(classes=(), dimensions=("valence", "arousal"))

    def test_no_emotion_is_asked_and_numbers_rate_from_the_first_key_on(self, enter: Enter, ledger: Ledger) -> None:
        page = enter("ada")
        wait_for_clip(page, 1)
        expect(page.get_by_text("Which emotion do you hear?")).to_be_hidden()
        for key in ("ArrowUp", "Shift+Digit2", "Enter"):
            page.keyboard.press(key)
        expect(page.locator("#state")).to_have_text("Still to rate: arousal.")
        page.keyboard.press("5")
        page.keyboard.press("Enter")
        wait_for_clip(page, 2)
        (row,) = ledger.answers().to_pylist()
        assert (row["kind"], row["emotions"], row["valence"], row["arousal"]) == ("label", [], 2.0, 5.0)


class TestOneRating:
    @pytest.fixture
    def project(self) -> Project:
        return Project(classes=(), dimensions=("arousal",))

    def test_one_key_is_an_answer(self, enter: Enter, ledger: Ledger) -> None:
        page = enter("ada")
        label(page, 1, "41")
        wait_for_clip(page, 3)
        assert ledger.answers().sort_by("utterance_id")["arousal"].to_pylist() == [4.0, 1.0]
