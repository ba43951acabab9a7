"""The viewer in a browser: every screen opened, used by keyboard alone, checked by axe-core, and fed hostile text."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
from made_run import STAGES, group, make_run
from test_dashboard_server import CORPUS, QUERIES, hostile  # noqa: F401

from cohort.record.rollouts import write_groups
from cohort.views.dashboard.export import report
from cohort.views.dashboard.runs import RunFiles, open_runs
from cohort.views.dashboard.screens import SCREENS, Site

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `make test-view` has it")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")

VENDOR = Path(__file__).parent / "vendor"
AXE = VENDOR / "axe-4.14.1.min.js"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
CHECKED = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        try:
            opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        except sync_api.Error as error:
            pytest.skip(f"there is no chromium: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


def served(*places: Path, **more):
    """A server of these runs in a thread, and its address."""
    from cohort.views.dashboard.app import make_app

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(make_app(Site(open_runs(list(places)), **more)), log_level="error", timeout_graceful_shutdown=1)
    )
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    return server, f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    base = tmp_path_factory.mktemp("browser")
    (base / "other").mkdir()
    make_run(base / "other").rename(base / "other/second")
    return make_run(base)


@pytest.fixture(scope="module")
def address(place):
    server, at = served(place, place.parent / "other/second")
    yield at
    server.should_exit = True


class Tab:
    """A page that notes what goes wrong in it: dialogs, errors of scripts, requests to elsewhere."""

    def __init__(self, browser, size=WIDE, **more):
        self.context = browser.new_context(viewport=size, **more)
        self.page, self.wrong, self.asked = self.context.new_page(), [], []
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error {error}"))
        self.page.on("console", lambda said: self.wrong.append(said.text) if "Content Security" in said.text else None)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def open(self, url: str):
        self.page.goto(url, wait_until="load", timeout=120_000)
        self.page.wait_for_timeout(80)
        return self.page


def serious(page) -> list[str]:
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate(f"axe.run(document, {json.dumps(CHECKED)})")["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


def until(page, holds: str) -> None:
    """Wait for a condition. It is asked from here, as the policy of the page lets nothing in it evaluate a text."""
    end = time.monotonic() + 60
    while not page.evaluate(holds):
        assert time.monotonic() < end, holds
        page.wait_for_timeout(100)


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"])
def test_every_screen_has_no_serious_finding_and_fits(browser, address, size, scheme):
    found = {}
    with Tab(browser, size, color_scheme=scheme) as tab:
        for screen in SCREENS:
            page = tab.open(f"{address}/r/0/0/{screen}{QUERIES.get(screen, '')}")
            wrong = serious(page)
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            wrong += [f"{over} pixels too wide"] if over > 0 else []
            found |= {screen: wrong + tab.wrong} if wrong or tab.wrong else {}
            tab.wrong.clear()
    assert not found, json.dumps(found, indent=1)
    assert all(url.startswith(address) for url in tab.asked)


def test_stages_that_have_no_groups_are_shown_as_well(browser, tmp_path):
    place = make_run(tmp_path, STAGES)
    (place / "stages/taste").mkdir(parents=True)
    (place / "metrics.jsonl").rename(place / "stages/taste/metrics.jsonl")
    server, at = served(place)
    found = {}
    with Tab(browser) as tab:
        for screen in ("overview", "step", "curves", "evaluation", "diagnostics", "data", "timeline", "search"):
            found |= {screen: wrong} if (wrong := serious(tab.open(f"{at}/r/0/0/{screen}"))) else {}
        page = tab.open(f"{at}/r/0/0/step")
        assert "of kind reward_model, which samples none" in page.locator("main").inner_text()
        page.get_by_role("link", name="Overview").click()
        page.wait_for_url("**/overview")
        assert not found
        assert not tab.wrong
    server.should_exit = True


def test_numbers_of_tokens_are_computed_when_they_are_asked_for(browser, place):
    numbers = {"learner": [-0.5, -0.4, -0.5], "entropy": [0.1, 0.7, 2.5], "after": [-0.5, -0.3, -0.9]}
    server, at = served(place, measure=lambda *_: {0: numbers | {"clipped": [False, True, False]}})
    with Tab(browser) as tab:
        page = tab.open(f"{at}/r/0/0/tokens?step=1&ticket=2")
        page.get_by_text("Compute them").click()
        page.wait_for_url("**by=entropy**")
        page.locator("#tokens").focus()
        page.keyboard.press("ArrowRight")
        said = page.locator("#token").inner_text()
        assert all(part in said for part in ("entropy 0.7000", "ratio 1.2214", "past the clip"))
        for by in ("entropy", "ratio", "gap"):
            assert serious(tab.open(f"{at}/r/0/0/tokens?step=1&ticket=2&by={by}")) == []
        assert not tab.wrong
    server.should_exit = True


def test_the_whole_way_from_the_verdict_to_a_token_by_keyboard(browser, address):
    with Tab(browser) as tab:
        page = tab.open(f"{address}/r/0/0/overview")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "To the content"
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "find"
        page.keyboard.type("5")
        page.keyboard.press("Enter")
        page.wait_for_url("**/search?text=5")
        assert page.locator(".hits tbody tr").count() == 2
        page.locator(".hits tbody a").nth(1).focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/tokens**")
        page.locator("#tokens").focus()
        page.keyboard.press("ArrowRight")
        assert "2 of 3" in page.locator("#token").inner_text()
        assert "60.7%" in page.locator("#token").inner_text()  # exp(-0.5)
        page.keyboard.press("End")
        assert "3 of 3" in page.locator("#token").inner_text()
        page.locator("#tokens .tok").first.hover()
        assert "1 of 3" in page.locator("#token").inner_text()
        page.locator("h1").click()
        page.keyboard.press("k")
        page.wait_for_url("**member=0**")
        assert not tab.wrong


def test_curves_are_drawn_smoothed_and_chosen(browser, address):
    with Tab(browser) as tab:
        page = tab.open(f"{address}/r/0/0/curves?all=1")
        assert page.locator(".uplot canvas").count() == page.locator(".uplot-here").count() > 1
        page.locator("#log").check()
        page.locator("#smooth").fill("0.5")
        page.locator("#pick summary").nth(1).click()
        page.locator("[data-metric='groups/signal']").uncheck()
        page.get_by_text("Show those that are ticked").click()
        page.wait_for_url("**names=**")
        assert "groups/signal" not in page.locator(".curves").inner_text()
        assert not tab.wrong


def test_the_record_is_checked_when_it_is_asked_for(browser, address):
    with Tab(browser) as tab:
        page = tab.open(f"{address}/r/0/0/record")
        page.get_by_text("Check it now").click()
        until(page, "document.querySelector('#checks').textContent.includes('log')")
        assert page.locator("math").count() > 2
        assert not tab.wrong


def test_hostile_text_runs_no_code(browser, hostile, tmp_path):  # noqa: F811
    server, at = served(hostile)
    queries = QUERIES | {"search": "?text=alert"}
    with Tab(browser) as tab:
        for screen in ("overview", "step", "search", "evaluation", "curves", "diagnostics"):
            tab.open(f"{at}/r/0/0/{screen}{queries.get(screen, '')}")
        for ticket in range(len(CORPUS)):
            page = tab.open(f"{at}/r/0/0/group?step=1&ticket={ticket}")
            page.locator("details.copy summary").first.click()
        file = tmp_path / "report.html"
        file.write_text(report(RunFiles(hostile)), "utf-8")
        tab.open(file.as_uri())
        assert not tab.wrong
        assert all(url.startswith((at, "file:")) for url in tab.asked)
    server.should_exit = True


def test_the_file_opens_from_disk_and_fetches_nothing(browser, place, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(report(RunFiles(place)), "utf-8")
    with Tab(browser) as tab:
        page = tab.open(file.as_uri())
        assert tab.asked == [file.as_uri()]
        assert page.locator(".uplot canvas").count() > 1
        assert serious(page) == []
        page.get_by_role("link", name="Evaluation").first.click()
        assert page.url.endswith("#evaluation")
        assert not tab.wrong


def test_a_run_that_goes_on_is_followed_without_a_jump(browser, tmp_path):
    """Written, killed, resumed and deleted while it is looked at; and the stream is lost and comes again."""
    place = make_run(tmp_path)
    server, at = served(place)
    with Tab(browser) as tab:
        page = tab.open(f"{at}/r/0/0/overview")
        until(page, "document.querySelector('#says').textContent.includes('Step 2')")
        page.wait_for_timeout(2200)  # an answer at once is held back for two seconds
        top = page.locator("h2").first.bounding_box()["y"]
        go_on(place, 3)
        until(page, "document.querySelector('#says').textContent.includes('Step 3')")
        until(page, "document.querySelector('.stat b').textContent === '3'")
        assert page.locator("h2").first.bounding_box()["y"] == top
        tab.context.set_offline(True)  # as in a sleep
        go_on(place, 4)
        page.wait_for_timeout(1500)
        tab.context.set_offline(False)
        page.evaluate("window.dispatchEvent(new Event('online'))")
        page.reload()
        assert page.locator(".stat b").first.inner_text() == "4"
        (place / "failed.txt").write_text("killed")
        until(page, "document.querySelector('#state').textContent.includes('stopped')")
        (place / "failed.txt").unlink()
        lines = (place / "metrics.jsonl").read_text().splitlines(keepends=True)
        (place / "new").write_text("".join(lines[:-1]))
        (place / "new").replace(place / "metrics.jsonl")  # a resumed run drops what it will write again
        until(page, "document.querySelector('#says').textContent.includes('Step 3')")
        shutil.rmtree(place)
        until(page, "document.querySelector('#says').textContent.includes('gone')")
        assert not tab.wrong
    server.should_exit = True


def go_on(place: Path, step: int) -> None:
    write_groups(place / f"log/step-{step:06d}.parquet", [group(step, (1.0, 0.0), ["4", "5"])], step)
    line = {"step": step, "reward/mean": 0.5, "groups/signal": 0.5, "tokens/sampled": 12.0, "time/step_s": 2.0}
    with (place / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    time.sleep(0.01)


def test_axe_is_what_was_published():
    (digest, name) = (VENDOR / "digests.sha256").read_text().split()
    assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest
