"""The explorable report of a real run: its numbers against plain definitions, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from sklearn.metrics import recall_score

from ser_models.intervals import jackknife_interval
from ser_models.metrics import Metric, calibration_error
from ser_models.metrics import uar as uar_of_clips
from seral import storage
from seral.errors import OptionError, StateError
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import parse
from seral.pool.shards import open_pool
from seral.report.calibration import tempered
from seral.report.comparison import headline
from seral.report.groups import group_tables, results_by_group
from seral.report.judged import confusions, judged_clips
from seral.report.listing import list_runs
from seral.report.options import ReportOptions
from seral.report.records import read_run
from seral.report.report import report_run

pytestmark = pytest.mark.slow  # two runs of the loop, and a browser
EMOTIONS = ["anger", "happiness", "neutral", "sadness"]
WATCH = """
window.violations = [];
document.addEventListener(
  'securitypolicyviolation', e => window.violations.push(e.violatedDirective + ' ' + e.blockedURI));
"""


@pytest.fixture(scope="module")
def runs(speech_pool: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two runs of the loop on one pool that differ in their strategy."""
    folder = tmp_path_factory.mktemp("explore")
    values: dict[str, Any] = {
        "pool": speech_pool,
        "encoder": "seral-tiny",
        "classes": EMOTIONS,
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0, 1],
        "seeds": [0, 1],
        "budget": {"sizes": [8, 14, 20]},
        "finetune": {"adapter": "frozen"},
    }
    uris = {name: str(folder / "runs" / name) for name in ("margin", "entropy")}
    for name, uri in uris.items():
        run_loop(parse(LoopOptions, values | {"run": uri, "strategy": {"name": name}}))
    return uris


@pytest.fixture(scope="module")
def page_file(runs: dict[str, str]) -> Path:
    """The report of the first run, with prices and SVG."""
    values = {"run": runs["margin"], "audio_mb": 0.5, "clip_s": 1.0, "price_per_label": 0.5, "svg": True}
    return Path(report_run(parse(ReportOptions, values)))


@pytest.fixture(scope="module")
def rated_run(speech_pool: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of the loop that learns ratings and no classes."""
    values: dict[str, Any] = {
        "pool": speech_pool,
        "run": str(tmp_path_factory.mktemp("rated") / "run"),
        "encoder": "seral-tiny",
        "classes": [],
        "dimensions": ["valence", "arousal"],
        "split": {"scheme": "k-fold", "k": 2},
        "seeds": [0],
        "budget": {"sizes": [12, 20]},
        "finetune": {"adapter": "frozen"},
        "strategy": {"name": "igs"},
        "full_arm": False,
    }
    return run_loop(parse(LoopOptions, values))


@pytest.fixture(scope="module")
def judged(runs: dict[str, str], speech_pool: str) -> pd.DataFrame:
    pool = open_pool(speech_pool)
    return judged_clips(read_run(runs["margin"]), pool, pool.metadata)


def test_judged_clips_say_what_the_rounds_say(runs: dict[str, str], judged: pd.DataFrame) -> None:
    records = read_run(runs["margin"])
    for row in headline(records).to_dict("records"):
        own = judged[judged["arm"] == row["arm"]].groupby(["fold", "seed"])
        uars = [recall_score(part["truth"], part["predicted"], average="macro", zero_division=0) for _, part in own]
        assert np.mean(uars) == pytest.approx(row["uar"])
    counts = confusions(judged, EMOTIONS)
    for arm, matrix in records.confusion.items():
        own = counts[(counts["arm"] == arm) & (counts["fold"] == "all")]
        assert own["clips"].to_numpy().reshape(4, 4).tolist() == matrix.tolist()


def test_groups_against_plain_definitions(judged: pd.DataFrame) -> None:
    further = {"mine:uar": Metric(uar_of_clips, of="classes")}
    results = results_by_group(judged, EMOTIONS, further).set_index(["by", "arm", "group"])
    for end in ("", "_low", "_high"):  # the same metric as somebody else's, whose interval is not cut off at 0 and 1
        theirs, ours = results[f"mine:uar{end}"], results[f"uar{end}"]
        assert theirs.clip(0, 1).to_numpy() == pytest.approx(ours.to_numpy(), nan_ok=True)
    tables = group_tables(results.reset_index())
    assert tables["language"].columns[-2:] == ["mine:uar", "95 % interval"]
    assert set(results.index.unique("by")) == {"class", "speaker", "fold", "language"}

    def uar(rows: pd.DataFrame) -> float:
        by_seed = rows.groupby("seed")
        return float(np.mean([(o["truth"] == o["predicted"]).groupby(o["truth"]).mean().mean() for _, o in by_seed]))

    for by, column, group, unit in (
        ("language", "language", "de", "speaker"),
        ("class", "truth", "anger", "speaker"),
        ("speaker", "speaker", judged["speaker"].iloc[0], "utterance_id"),
    ):
        own = judged[(judged["arm"] == "margin") & (judged[column] == group)]
        row = results.loc[(by, "margin", str(group))]
        without_G = np.array([uar(own[own[unit] != name]) for name in own[unit].unique()])
        low, high, _ = jackknife_interval(uar(own), without_G)
        assert row["uar"] == pytest.approx(uar(own))
        assert (row["uar_low"], row["uar_high"]) == pytest.approx((max(low, 0), min(high, 1)))


def test_the_temperature_is_of_dev_and_the_error_of_test(
    runs: dict[str, str], judged: pd.DataFrame, speech_pool: str
) -> None:
    records, pool = read_run(runs["margin"]), open_pool(speech_pool)
    dev = judged_clips(records, pool, pool.metadata, "dev")
    assert not set(dev[dev["fold"] == 0]["speaker"]) & set(judged[judged["fold"] == 0]["speaker"])
    bins, errors = tempered(judged, dev, EMOTIONS)
    for row in errors.head(3).to_dict("records"):
        own = judged[(judged[["arm", "fold", "seed"]] == [row[key] for key in ("arm", "fold", "seed")]).all(axis=1)]
        p_NC = own[[f"p_{name}" for name in EMOTIONS]].to_numpy(np.float64)
        truth_N = pd.Categorical(own["truth"], EMOTIONS).codes
        assert row["ece_before"] == pytest.approx(calibration_error(truth_N, p_NC / p_NC.sum(1, keepdims=True)))
        sharp_NC = p_NC ** (1 / row["temperature"])
        assert row["ece_after"] == pytest.approx(
            calibration_error(truth_N, sharp_NC / sharp_NC.sum(1, keepdims=True)), abs=1e-6
        )
    before = bins[(bins["arm"] == "margin") & (bins["stage"] == "before")]
    assert before["clips"].sum() == (judged["arm"] == "margin").sum()


def test_files_beside_the_page(page_file: Path) -> None:
    costs = pd.read_csv(page_file.parent / "costs.csv")
    assert (costs["money"] == 0.5 * costs["labels"]).all()
    assert (costs.groupby("arm")["minutes"].diff().dropna() > 0).all()
    pngs = {path.stem for path in page_file.parent.glob("*.png")}
    assert {path.stem for path in (page_file.parent / "svg").glob("*.svg")} == pngs
    assert {"learning_curves", "confusion", "reliability", "map", "picked_why"} <= pngs
    picks = pd.read_csv(page_file.parent / "picked.csv")
    later = picks[(picks["arm"] == "margin") & (picks["round"] > 0)]
    assert later["uncertainty"].between(0, 100).all()
    assert later["why"].str.match(r"margin [\d.e-]+, less sure than ").all()
    assert later["ahead_of"].between(0, 100).all()
    assert set(picks.loc[picks["arm"] == "random", "why"]) == {"by chance"}
    wrong = pd.read_csv(page_file.parent / "mistakes.csv")
    assert (wrong["truth"] != wrong["predicted"]).all()
    assert wrong["confidence"].is_monotonic_decreasing


def test_the_page_keeps_its_budget_and_is_the_same_again(page_file: Path, runs: dict[str, str]) -> None:
    html = page_file.read_text(encoding="utf-8")
    clips = re.findall(r"data:audio/flac;base64,[^\"]+", html)
    assert clips
    assert sum(map(len, clips)) <= 0.5e6
    assert len(html) - sum(map(len, clips)) < 5e6
    values = {"run": runs["margin"], "audio_mb": 0.5, "clip_s": 1.0, "price_per_label": 0.5}
    assert Path(report_run(parse(ReportOptions, values))).read_text(encoding="utf-8") == html
    silent = Path(report_run(parse(ReportOptions, values | {"audio_mb": 0, "map_points": 0}))).read_text("utf-8")
    assert "<audio" not in silent
    assert 'id="map"' not in silent
    page_file.write_text(html, encoding="utf-8")


def test_runs_are_compared_in_pairs(runs: dict[str, str], tmp_path: Path) -> None:
    page = Path(report_run(parse(ReportOptions, {"run": runs["margin"], "against": [runs["entropy"]]})))
    assert page.name == "comparison.html"
    rows = pd.read_csv(page.parent / "comparison_differences.csv").set_index("arm")
    one, other = (read_run(uri).rounds for uri in runs.values())
    ends = [
        frame[(frame["arm"] == arm) & (frame["labelled"] == 20)].set_index(["fold", "seed"])["uar"]
        for frame, arm in ((other, "entropy"), (one, "margin"))
    ]
    row = rows.loc["entropy: entropy"]
    assert (row["against"], row["pairs"], row["labelled"]) == ("margin: margin", 4, 20)
    assert row["mean"] == pytest.approx((ends[0] - ends[1]).mean())
    assert rows.loc["entropy: random", "mean"] == pytest.approx(0), "the same picks, so the same models"
    stranger = shutil.copytree(runs["entropy"], tmp_path / "stranger")
    facts = json.loads((stranger / "environment.json").read_text())
    facts.pop("sha256", None)
    (stranger / "environment.json").write_text(json.dumps(facts | {"pool_hash": "another"}))
    html = Path(report_run(parse(ReportOptions, {"run": runs["margin"], "against": [str(stranger)]}))).read_text()
    assert "are of different pools, so nothing is paired" in html
    with pytest.raises(OptionError, match="named twice"):
        report_run(parse(ReportOptions, {"run": runs["margin"], "against": [runs["margin"]]}))


def test_runs_of_a_folder_are_listed(runs: dict[str, str], tmp_path: Path) -> None:
    rows = list_runs(str(Path(runs["margin"]).parent))
    assert [row["run"] for row in rows] == sorted(runs.values())
    assert {(row["verb"], row["labels"], row["state"]) for row in rows} == {("loop", 20, "done")}
    rounds = read_run(runs["entropy"]).rounds
    last = rounds[(rounds["arm"] == "entropy") & (rounds["round"] == 2)]
    assert rows[0]["dev"] == pytest.approx(last["dev_uar"].mean(), abs=1e-3)
    cut = shutil.copytree(runs["margin"], tmp_path / "cut" / "run")
    for number in (1, 2):
        shutil.rmtree(cut / "trajectories" / "margin.fold-01.seed-1" / "rounds" / f"{number:04d}")
    (tmp_path / "cut" / "notes.txt").write_text("no run")
    assert [row["state"] for row in list_runs(str(tmp_path / "cut"))] == ["7 of 8 trajectories ended"]
    with pytest.raises(StateError, match="no folder"):
        list_runs(str(tmp_path / "nothing"))


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Chromium, in which clips may play at once."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"],
        )
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Page]:
    """A page that fails its test on an error, or where the policy of the page was violated."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    page.add_init_script(WATCH)
    yield page
    assert complaints == []
    assert page.evaluate("window.violations") == []
    page.close()


def show(page: Page, file: Path) -> None:
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready=yes]", timeout=60_000)


def test_runs_of_other_verbs_are_done_where_they_say_so(tmp_path: Path) -> None:
    for name, files in {"done": ("environment.json", "complete.json"), "cut": ("environment.json",), "new": ()}.items():
        storage.write_yaml(tmp_path / name / "config.yaml", "verb: train\n")
        for file in files:
            storage.write_json(tmp_path / name / file, {"created": "2026-11-27"})
    assert {row["run"][-4:]: row["state"] for row in list_runs(str(tmp_path))} == {
        "/cut": "begun",
        "done": "done",
        "/new": "new",
    }


def test_charts_are_drawn_under_the_policy(opened: Page, page_file: Path) -> None:
    show(opened, page_file)
    policy = opened.locator("meta[http-equiv]").get_attribute("content") or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert opened.locator(".chart").count() == 9
    assert opened.locator("[data-draws] > img:visible").count() == 0
    assert opened.locator(".chart path[d]").count() > 20


def test_what_was_not_written_into_the_page_does_not_run(browser: Browser, page_file: Path) -> None:
    page = browser.new_page()
    page.add_init_script(WATCH)
    show(page, page_file)
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.evil = 1'}))")
    assert page.evaluate("window.evil === undefined")
    assert page.evaluate("window.violations") == ["script-src-elem inline"]
    page.close()


def test_tables_are_sorted_and_filtered(opened: Page, page_file: Path) -> None:
    show(opened, page_file)
    table = opened.locator("table", has=opened.locator("caption", has_text="By speaker"))
    table.locator("thead button", has_text="UAR %").press("Enter")
    score = table.locator("tbody tr td:nth-child(4)")
    values = [float(text) for text in score.all_inner_texts()]
    assert values == sorted(values)
    assert table.locator("th[aria-sort=ascending]").inner_text() == "UAR %"
    table.locator("thead button", has_text="UAR %").click()
    assert [float(text) for text in score.all_inner_texts()] == sorted(values, reverse=True)
    box = opened.locator(
        ".tools", has=opened.locator("xpath=following-sibling::div[1]//caption[contains(.,'By speaker')]")
    )
    box.locator("input").fill("margin")
    assert set(table.locator("tbody tr:visible th").all_inner_texts()) == {"margin"}


def test_arms_are_switched_in_tables_and_charts(opened: Page, page_file: Path) -> None:
    show(opened, page_file)
    points = opened.locator("[data-draws]").first.locator("[role=graphics-symbol][aria-roledescription=point]")
    before = points.count()
    box = opened.get_by_role("checkbox", name="random")
    box.focus()
    opened.keyboard.press("Space")
    assert opened.locator("tr[data-arm=random]:visible").count() == 0
    assert opened.locator("tr[data-arm=margin]:visible").count() > 0
    opened.wait_for_function(
        "n => document.querySelector('[data-draws]').querySelectorAll('[aria-roledescription=point]').length < n",
        arg=before,
    )
    box.check()
    assert opened.locator("tr[data-arm=random]:visible").count() > 0


def test_picks_say_why(opened: Page, page_file: Path, runs: dict[str, str]) -> None:
    reasons = read_run(runs["margin"]).reasons.query("arm == 'margin' and fold == 0 and seed == 0 and round == 2")
    show(opened, page_file)
    table = opened.locator("table", has=opened.locator("caption", has_text="Why: the score"))
    own = table.locator("tbody tr[data-arm=margin]", has=opened.locator("xpath=./td[1][.='2']"))
    words = own.locator("td:nth-child(7)").all_inner_texts()
    assert words == [
        f"margin {-score:.2g}, less sure than {'all others' if share == 1 else f'{100 * share:.0f} %'}"
        for score, share in zip(reasons["score"], reasons["share"], strict=True)
    ]
    table.locator("thead button", has_text="ahead of %").click()
    shares = table.locator("tbody tr td:nth-child(8)").all_inner_texts()
    numbers = [float(text) for text in shares if text != "–"]
    assert numbers == sorted(numbers)
    assert shares[len(numbers) :] == ["–"] * (len(shares) - len(numbers)), "what has no score comes last"
    charts = map(json.loads, opened.eval_on_selector_all("[data-draws] script", "all => all.map(one => one.text)"))
    points = next(chart for chart in charts if "coloured by" in json.dumps(chart["params"]))
    why = {row["utterance_id"]: row["why"] for row in points["data"]["values"]}
    asked = [row["utterance_id"] for row in points["data"]["values"] if row["round"] != "not asked"]
    assert {why[name] for name in asked}.isdisjoint({"–"})
    assert {"field": "why"} in points["encoding"]["tooltip"]


def test_bars_are_hovered_and_switched(opened: Page, page_file: Path) -> None:
    def bars(words: str) -> Locator:
        figure = opened.locator("[data-draws]", has=opened.locator(f"xpath=.//img[contains(@alt,'{words}')]"))
        return figure.locator("[aria-roledescription=bar]")

    show(opened, page_file)
    shares = pd.read_csv(page_file.parent / "picks.csv")
    first = shares[(shares["arm"] == "margin") & (shares["round"] == 0)]
    bars("answered classes").first.hover(force=True)
    words = opened.locator("#tip").inner_text()
    match = re.match(r"arm: margin\nround: 0\nanswer: (\w+)\nclips: (\d+)\nshare, %: ", words)
    assert match is not None, words
    assert int(match[2]) == (first["emotion"] == match[1]).sum()
    drawn = {name: bars(name).count() for name in ("answered classes", "share of picks by", "mean seconds")}
    assert min(drawn.values()) > 0
    opened.get_by_role("checkbox", name="random").uncheck()
    opened.wait_for_timeout(300)
    for name, count in drawn.items():
        assert 0 < bars(name).count() < count
    groups = opened.locator("[data-draws]", has=opened.locator("xpath=.//img[contains(@alt,'share of picks by')]"))
    groups.locator("select[name=by]").select_option("corpus")
    opened.wait_for_timeout(300)
    assert bars("share of picks by").count() == 1, "one corpus, one arm"


@pytest.mark.parametrize("width", [390, 1000, 1280])
def test_nothing_is_wider_than_the_window(opened: Page, page_file: Path, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 900})
    show(opened, page_file)
    beyond = """all => all.filter(one => !one.parentElement.closest('.scroll, .chart, pre')
        && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"""
    assert opened.eval_on_selector_all("main *", beyond) == []
    captions = "all => all.filter(one => one.getBoundingClientRect().right > innerWidth + 1).length"
    assert opened.eval_on_selector_all("caption span", captions) == 0, "captions are read without scrolling"


def test_confusions_switch_and_curves_tell_on_hover(opened: Page, page_file: Path, judged: pd.DataFrame) -> None:
    show(opened, page_file)
    matrix = opened.locator("[data-draws]", has=opened.locator("xpath=.//img[contains(@alt,'Confusion')]"))
    matrix.locator("select[name=fold]").select_option("1")
    matrix.locator("select[name=arm]").select_option("random")
    own = judged[(judged["arm"] == "random") & (judged["fold"] == 1)]
    wanted = int(((own["truth"] == "anger") & (own["predicted"] == "anger")).sum())
    cell = matrix.locator("[aria-roledescription='rect mark']").first
    opened.wait_for_timeout(300)
    assert f"clips: {wanted}" in (cell.get_attribute("aria-label") or "")
    point = opened.locator("[data-draws]").first.locator("[aria-roledescription=point]").first
    point.hover(force=True)
    assert re.search(r"arm: \w+\nround: 0\nlabels: 8", opened.locator("#tip").inner_text())


def test_clips_play_from_tables_and_stop(opened: Page, page_file: Path) -> None:
    show(opened, page_file)
    button = opened.locator("tr[data-hear] button").first
    name = (button.get_attribute("title") or "").removeprefix("play ")
    button.click()
    opened.wait_for_function("name => document.querySelector(`[data-clip='${name}'] audio`).currentTime > 0", arg=name)
    opened.locator("tr[data-hear] button").nth(1).click()
    opened.wait_for_function("name => document.querySelector(`[data-clip='${name}'] audio`).paused", arg=name)


def test_the_map_is_walked_and_heard_by_keyboard(opened: Page, page_file: Path) -> None:
    show(opened, page_file)
    box = opened.locator("[data-draws]", has=opened.locator("xpath=.//img[contains(@alt,'Scatter plot of')]"))
    box.locator(".chart").focus()
    present = set(opened.eval_on_selector_all("[data-clip]", "all => all.map(figure => figure.dataset.clip)"))
    clips, keys = [""], cycle(["ArrowRight", "ArrowUp", "ArrowLeft", "ArrowLeft", "ArrowDown", "ArrowRight"])
    while clips[-1] not in present:
        opened.keyboard.press(next(keys))
        words = re.match(r"utterance_id: (\S+)\npredicted: ", opened.locator("#tip").inner_text())
        assert words is not None
        clips.append(words[1])
        assert len(clips) < 50
    assert opened.locator(".ring:visible").count() == 1
    opened.keyboard.press("Enter")
    plays = "name => !document.querySelector(`[data-clip='${name}'] audio`).paused"
    opened.wait_for_function(plays, arg=clips[-1])


def test_clips_play_from_files_beside_the_page(opened: Page, runs: dict[str, str], page_file: Path) -> None:
    options = {"run": runs["entropy"], "audio_mb": 0.2, "clip_s": 1.0, "audio_beside": True}
    file = Path(report_run(parse(ReportOptions, options)))
    clips = sorted(path.stem for path in (file.parent / "audio").iterdir())
    assert 0 < sum(path.stat().st_size for path in (file.parent / "audio").iterdir()) <= 200_000
    assert file.stat().st_size < page_file.stat().st_size
    show(opened, file)
    assert sorted(opened.eval_on_selector_all("[data-clip]", "all => all.map(one => one.dataset.clip)")) == clips
    button = opened.locator("tr[data-hear] button").first
    name = (button.get_attribute("title") or "").removeprefix("play ")
    button.click()
    opened.wait_for_function("name => document.querySelector(`[data-clip='${name}'] audio`).currentTime > 0", arg=name)
    report_run(parse(ReportOptions, options | {"audio_mb": 0}))
    assert not (file.parent / "audio").exists()


def test_a_run_of_ratings_is_explored(opened: Page, rated_run: str) -> None:
    file = Path(report_run(parse(ReportOptions, {"run": rated_run, "audio_mb": 0.5, "clip_s": 1.0})))
    by_fold = pd.read_csv(file.with_name("rating_groups.csv"))
    by_fold = by_fold[(by_fold["by"] == "fold") & (by_fold["arm"] == "igs")]
    rounds = pd.read_csv(file.with_name("rounds.csv")).query("arm == 'igs' and round == 1").set_index("fold")
    for row in by_fold.to_dict("records"):
        assert row["ccc"] == pytest.approx(rounds.loc[int(row["group"]), "ccc"], abs=1e-6)
    errors = pd.read_csv(file.with_name("rating_errors.csv"))
    assert errors["deviations"].is_monotonic_decreasing
    np.testing.assert_allclose(errors["error"], errors["predicted"] - errors["true"], atol=1e-6)
    show(opened, file)
    assert opened.locator(".chart").count() == 6
    curves = opened.locator("[data-draws]", has=opened.locator("xpath=.//img[contains(@alt,'test CCC')]"))
    curves.locator("select[name=dimension]").select_option("valence")
    curves.locator("[aria-roledescription=point]").first.hover(force=True)
    assert re.search(r"arm: \w+\nround: 0\nlabels: 12", opened.locator("#tip").inner_text())
    table = opened.locator("table", has=opened.locator("caption", has_text="ratings of test clips"))
    button = table.locator("tr[data-hear] button").first
    name = (button.get_attribute("title") or "").removeprefix("play ")
    assert name == errors["utterance_id"][0]
    button.click()
    opened.wait_for_function("name => document.querySelector(`[data-clip='${name}'] audio`).currentTime > 0", arg=name)
    colours = opened.locator("select[name=colour]")
    assert "predicted" in colours.inner_text()
    points = pd.read_csv(file.with_name("map.csv"))
    assert set(points["predicted"]) >= {"valence: lowest quarter", "valence: highest quarter"}


def test_without_scripts_everything_is_there(browser: Browser, page_file: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(page_file.as_uri())
    assert page.locator("figure img:visible").count() == page.locator("figure img").count() >= 8
    assert page.locator("table").count() >= 10
    assert page.locator("audio").count() > 0
    page.close()
