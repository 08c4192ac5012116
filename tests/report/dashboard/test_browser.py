"""The dashboard in a real browser, with a thousand runs: served, and from files."""

import os
import re
import shutil
import threading
import time

import pytest
from cli.made_runs import make_run
from report.dashboard.many_runs import HOSTILE, make_lab

from ssl_lab.report.dashboard.index import RunIndex
from ssl_lab.report.dashboard.server import Dashboard
from ssl_lab.report.dashboard.site import write_site
from ssl_lab.runs.directory import write_json

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
NUM = 1000


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        return make_lab(tmp_path_factory.mktemp("runs"), NUM)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """Pages that note every request, and every error on the console."""

    def __init__(self, browser, start):
        self.browser, self.start = browser, start
        self.wrong = []

    def open(self, url, **options):
        page = self.browser.new_context(viewport={"width": 1440, "height": 900}, **options).new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda told: self.wrong.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: None if self.allows(request.url) else self.wrong.append(request.url))
        page.goto(url)
        page.wait_for_selector("tbody tr, .empty, figure, h1")
        return page

    def allows(self, url):
        return url.startswith((self.start, "data:", "blob:"))


def until(page, condition):
    """Wait for a condition; Playwright's own waiting evaluates text, which the page's policy forbids."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"in vain: {condition}")


def turn_to(page, view):
    page.get_by_role("navigation").get_by_role("link", name=view, exact=True).click()


def picker(page, label):
    return page.locator("label.field", has=page.locator("span", has_text=label)).locator("select")


def shown_after_ms(page):
    """When the table was painted for the first time, by the browser's own clock."""
    until(page, "performance.getEntriesByName('runs shown').length")
    return page.evaluate("performance.getEntriesByName('runs shown')[0].startTime")


def tour(watched, url, index):
    """What a reader does, in both modes."""
    page = watched.open(url)
    if shown_after_ms(page) > 3000:  # the machine may have been busy
        page.context.close()
        page = watched.open(url)
        assert shown_after_ms(page) < 3000
    bar, rows = page.locator(".bar"), page.locator("tbody tr")
    assert "1,003 runs" in bar.inner_text() and rows.count() == 100
    assert page.locator("tbody tr .name").filter(has_text=HOSTILE).count() == 1
    assert "Loss is NaN" in page.locator("tr", has_text="broken_run").inner_text()

    # Filter and sort.
    entries = [entry for entry in index.entries if entry.settings["method.temperature"] == "0.2"]
    entries = [entry for entry in entries if entry.facts.status == "finished" and entry.facts.value > 0.5]
    page.get_by_label("Search", exact=True).fill("temperature=0.2 value>0.5")
    page.get_by_role("button", name="finished").click()
    assert f"{len(entries)} of 1,003 runs" in bar.inner_text() and len(entries) > 50
    page.get_by_role("button", name="Objective").click()
    heading = page.get_by_role("columnheader", name="Objective")
    assert heading.get_attribute("aria-sort") == "descending"
    values = [float(text.split()[0]) for text in page.locator("td.c-value").all_inner_texts()]
    assert values == sorted(values, reverse=True) and values[0] == max(entry.facts.value for entry in entries)
    page.get_by_role("button", name="Objective").click()
    assert heading.get_attribute("aria-sort") == "ascending"

    # A column of a hyperparameter.
    page.get_by_text("Columns", exact=True).click()
    page.get_by_label("Find a column").fill("optim.lr")
    page.locator(".list").get_by_label("optim.lr").check()
    assert page.get_by_role("columnheader", name="optim.lr").count() == 1
    page.get_by_text("Columns", exact=True).click()

    # One run, and back.
    page.locator("tbody .name").first.click()
    page.wait_for_selector(".command pre")
    assert page.locator(".command pre").inner_text() == "ssl-lab pretrain experiment=simclr_digits seed=3"
    assert page.locator("h1 .pill").inner_text() == "finished"
    page.wait_for_selector(".panel .scatterlayer .trace")
    page.go_back()
    assert f"{len(entries)} of 1,003 runs" in bar.inner_text()

    # Two runs beside each other.
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_label("Search", exact=True).fill("pictures_or_not")
    assert rows.count() == 0
    page.get_by_label("Search", exact=True).fill("simclr_digits/run_1")
    boxes = page.locator("tbody input[type=checkbox]")
    pictured = page.locator("tbody tr", has=page.locator(".place", has_text=re.compile(r"run_(1|101)$")))
    for k in range(2):
        pictured.nth(k).locator("input").check()
    assert "2 selected" in page.locator("#chosen").inner_text() and boxes.count() > 50
    turn_to(page, "Differences")
    page.wait_for_selector("table.differences")
    differing = page.locator("table.differences tr", has=page.get_by_role("rowheader", name="optim.lr"))
    told = differing.locator("td").all_inner_texts()
    assert len(told) == 2 and told[0] != told[1]

    # Pictures of both at one step.
    turn_to(page, "Pictures")
    until(page, "[...document.querySelectorAll('.pictures img')].filter((one) => one.naturalWidth > 100).length === 2")
    assert page.locator(".pictures .step").all_inner_texts() == ["step 200", "step 200"]
    page.get_by_label("Step").press("ArrowLeft")
    until(page, "[...document.querySelectorAll('.pictures .step')].every((one) => one.innerText === 'step 100')")

    # Curves of both, then the mean over seeds of a whole sweep.
    turn_to(page, "Curves")
    until(page, "document.querySelectorAll('.panel[data-metric=\"train/loss\"] .scatterlayer .trace').length === 2")
    turn_to(page, "Runs")
    page.get_by_label("Search", exact=True).fill("temperature=0.5")
    picker(page, "Sweep").select_option(label="sweep_3")
    page.get_by_label("Select all runs shown").check()
    chosen = [entry for entry in index.entries if entry.facts.sweep and entry.facts.sweep.name == "sweep_3"]
    turn_to(page, "Curves")
    page.get_by_label("Mean over seeds").check()
    picker(page, "Along").select_option("samples")
    page.wait_for_selector(".panel .scatterlayer .trace")
    assert "1 seed" in page.locator(".legend").inner_text()

    # The sweep as a whole.
    turn_to(page, "Sweep")
    until(page, f"document.querySelectorAll('svg.parallel .lines path').length === {len(chosen)}")
    axes = page.locator("svg.parallel .axis .title").all_text_contents()
    assert sorted(axes) == ["linear/top1", "lr", "temperature", "weight"], axes
    page.wait_for_selector(".importance table")
    axis = page.locator("svg.parallel .grip").last.bounding_box()
    page.mouse.move(axis["x"] + 8, axis["y"] + 12)
    page.mouse.down()
    page.mouse.move(axis["x"] + 8, axis["y"] + axis["height"] / 2, steps=3)
    page.mouse.up()
    until(page, "document.querySelectorAll('svg.parallel path.out').length > 5")
    kept = page.locator("svg.parallel .lines path:not(.out)").count()
    assert f"{kept} of {len(chosen)} runs are in range" in page.locator(".panel.wide").inner_text() and 0 < kept < len(
        chosen
    )
    page.get_by_role("button", name="Select them").click()
    assert f"{kept} selected" in page.locator("#chosen").inner_text()

    # The address holds it all.
    shared = page.url
    page.context.close()
    page = watched.open(shared, color_scheme="dark")
    until(page, "document.querySelectorAll('svg.parallel path.out').length > 5")
    assert f"{kept} selected" in page.locator("#chosen").inner_text()
    turn_to(page, "Runs")
    assert page.get_by_label("Search", exact=True).input_value() == "temperature=0.5"
    dark = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(dark)
    page.get_by_role("button", name="Colours").click()  # auto, then light
    assert page.evaluate(dark) != before

    # A phone shows every view without overflow, a keyboard reaches the rows.
    page.set_viewport_size({"width": 390, "height": 844})
    for view in ("Runs", "Curves", "Sweep", "Pictures", "Differences"):
        turn_to(page, view)
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    page.get_by_role("navigation").get_by_role("link", name="Runs").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Search", exact=True).press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    assert page.evaluate("window.hacked") is None
    return page


def test_served(lab, browser):
    index = RunIndex([lab])
    with Dashboard(index, "127.0.0.1", 0) as server:
        thread = threading.Thread(
            target=server.serve_forever,
        )
        thread.start()
        try:
            watched = Watched(browser, server.url)
            page = tour(watched, server.url, index)
            page.goto(f"{server.url}#q=live_run")
            step = page.locator("tbody td.c-step")
            assert step.inner_text().split()[-1] == "210"
            pulse = {
                "time": time.time(),
                "step": 4321,
                "epoch": 22,
                "samples_per_sec": 99.0,
                "host": "elsewhere",
                "pid": 1,
            }
            write_json(lab / "live" / "heartbeat.json", pulse)
            until(page, "document.querySelector('tbody td.c-step').innerText.includes('4,321')")
            id = next(entry.id for entry in index.entries if entry.place == "live")
            page.goto(f"{server.url}#view=curves&sel={id}&show=train/loss")
            page.wait_for_selector(".panel .scatterlayer .trace")
            page.evaluate("window.drawn = document.querySelector('.plot')")
            with (lab / "live" / "metrics.csv").open("a") as file:
                file.write("777,,0.5\n")
            until(page, "document.querySelector('.plot').data[0].x.at(-1) === 777")
            assert page.evaluate("window.drawn === document.querySelector('.plot')")  # changed in place
            page.goto(f"{server.url}#view=run&run=none")
            page.wait_for_selector(".empty")
            page.context.close()
            assert watched.wrong == []
        finally:
            server.shutdown()
            thread.join()


def test_from_files(lab, browser, tmp_path):
    index = RunIndex([lab])
    page_file = write_site(index, tmp_path / "site")
    watched = Watched(browser, (tmp_path / "site").as_uri())
    page = tour(watched, page_file.as_uri(), index)
    page.context.close()
    assert watched.wrong == []


def test_an_empty_folder_says_how_to_begin(browser, tmp_path):
    (tmp_path / "runs").mkdir()
    page_file = write_site(RunIndex([tmp_path / "runs"]), tmp_path / "site")
    watched = Watched(browser, (tmp_path / "site").as_uri())
    for view in ("runs", "curves", "sweep", "pictures", "differences"):
        page = watched.open(f"{page_file.as_uri()}#view={view}")
        page.wait_for_timeout(100)
        if view == "runs":
            assert "ssl-lab pretrain" in page.locator(".bar").inner_text()
        page.context.close()
    assert watched.wrong == []


def test_no_script_of_a_run_is_started_from_files(browser, tmp_path):
    script = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
    run = make_run(tmp_path / "runs/one", experiment=script, error=script)
    (run / "report.html").write_text(f"<!doctype html><body>{script}</body>")
    site = write_site(RunIndex([tmp_path / "runs"]), tmp_path / "site").parent
    (report,) = site.glob("runs/*/report.html")
    assert "window.ran" in report.read_text()
    report.write_text(report.read_text().replace("</body>", f"{script}</body>"))  # as if it had not been escaped
    page = Watched(browser, site.as_uri()).open(report.as_uri())
    assert page.evaluate("typeof window.ran") == "undefined"
    home = site / "index.html"
    home.write_text(home.read_text().replace("</body>", f"{script}</body>"))
    page = Watched(browser, site.as_uri()).open(home.as_uri())
    assert page.evaluate("typeof window.ran") == "undefined" and page.evaluate("typeof receive") == "function"
    page.context.close()
