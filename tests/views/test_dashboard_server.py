"""The server of the viewer: whom it answers, what it shows of hostile runs, and that a run does not notice it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_run import RECIPE, group, make_run

pytest.importorskip("starlette", reason="starlette is not installed")

from starlette.testclient import TestClient

from cohort.record.rollouts import write_groups
from cohort.views.dashboard.app import make_app
from cohort.views.dashboard.export import report
from cohort.views.dashboard.guard import COOKIE
from cohort.views.dashboard.notebook import view
from cohort.views.dashboard.runs import RunFiles, open_runs
from cohort.views.dashboard.screens import HERE, SCREENS, Site, json_block

HERE_NAMED = "http://127.0.0.1:8765"
CORPUS = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</div></main></body><!--",
    "<svg/onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 977*1019 }}{% include '/etc/passwd' %}",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "\x1b[2J\x1b]0;owned\x07\x00",
    "a\u202egnp.exe\u2066",
    "]]><![CDATA[<script>",
)
VOID = {"meta", "br", "img", "input", "link", "hr"}
TAGS = {
    *("html", "head", "meta", "title", "link", "script", "style", "body", "a", "header", "div", "strong", "span", "i"),
    *("b", "br", "form", "label", "input", "nav", "p", "ul", "ol", "li", "small", "main", "section", "h1", "h2", "h3"),
    *("figure", "figcaption", "svg", "circle", "line", "path", "rect", "polyline", "polygon", "text", "table", "thead"),
    *("tbody", "tr", "th", "td", "details", "summary", "code", "pre", "dl", "dt", "dd", "article", "footer", "button"),
    *("select", "option", "mark", "math", "mrow", "mi", "mo", "mn", "mfrac", "msub", "msup", "msubsup", "munder"),
    *("mover", "munderover", "mtext", "mspace", "mstyle", "mtable", "mtr", "mtd", "msqrt"),
}
ATTRIBUTES = re.compile(r"on\w+|style|srcdoc|formaction|background|ping|srcset|xlink:href")


class Page(HTMLParser):
    """A page: its tags are those of the templates, balanced, without code or style in attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.texts, self.links, self.inside = [], [], [], ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        for name, value in attrs:
            assert not ATTRIBUTES.fullmatch(name), (tag, name, value)
            if name in ("href", "src", "action"):
                self.links.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)


def client_of(*places: Path, **more) -> TestClient:
    return TestClient(make_app(Site(open_runs(list(places))), **more), base_url=HERE_NAMED, follow_redirects=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("viewer"))


@pytest.fixture(scope="module")
def client(place):
    return client_of(place)


QUERIES = {
    "step": "?step=1",
    "group": "?step=1&ticket=2&beside=1",
    "tokens": "?step=1&ticket=2&member=0&by=advantage",
    "prompt": f"?id={group(1, (1.0,)).prompt.id}",
    "search": "?where=reward+%3E+0.5&text=4",
    "evaluation": "?way=greedy&before=0&after=2&only=gained",
}


@pytest.mark.parametrize("screen", SCREENS)
def test_every_screen_is_a_whole_page_and_a_part_of_one(client, screen):
    if screen == "record":
        pytest.importorskip("latex2mathml")
    address = f"/r/0/0/{screen}{QUERIES.get(screen, '')}"
    whole = client.get(address)
    assert whole.status_code == 200
    page = Page(whole.text)
    assert "made" in page.texts
    assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in page.links)
    part = client.get(address, headers={"HX-Request": "true"})
    assert "<html" not in part.text
    assert len(part.text) < len(whole.text)


def test_every_link_of_every_screen_leads_somewhere(client):
    seen, wait = set(), ["/r/0/0/overview"]
    while wait and len(seen) < 40:
        address = wait.pop().partition("#")[0]
        if address in seen or "/record" in address or address.startswith("/static"):
            continue
        seen.add(address)
        found = client.get(address)
        assert found.status_code in (200, 307), (address, found.text[-300:])
        if found.headers.get("content-type", "").startswith("text/html"):
            wait += [link for link in Page(found.text).links if link.startswith("/")]
    assert any("/tokens" in address for address in seen)


def test_what_is_not_there_is_said_and_is_no_traceback(client):
    for address in (
        *("/r/7/0/overview", "/r/0/7/overview", "/r/0/0/nothing", "/r/0/0/step?step=99", "/r/0/0/step?step=-1"),
        *("/r/0/0/step?step=1e9", "/r/0/0/group?step=1&ticket=77", "/r/0/0/tokens?step=1&ticket=2&member=9"),
        *("/r/0/0/prompt?id=../../etc", "/r/0/0/evaluation?way=../../x", "/r/0/0/compare?with=5", "/events/9"),
        f"/r/0/0/step?step={'9' * 400}",
    ):
        assert client.get(address).status_code in (200, 404), address
    assert client.get("/r/0/0/step?step=x").text.count("whole number") == 1
    assert "no condition" in client.get("/r/0/0/search?where=import+os").text


@pytest.mark.parametrize("path", ["../runs.py", "..%2fruns.py", "%2e%2e/app.py", "....//app.py", "vendor/../../app.py"])
def test_only_files_of_the_page_are_served(client, path):
    assert client.get(f"/static/{path}").status_code == 404


# --- who is answered


def test_a_page_runs_no_code_but_the_viewers_own(client):
    found = client.get("/r/0/0/overview")
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?! src=| type=\"application/json\")", found.text)
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "169.254.1.1", "", "localhost.evil", "[::2]"]
)
def test_another_name_is_not_answered(client, host):
    found = client.get("/r/0/0/overview", headers={"Host": host})
    assert found.status_code == 421
    assert "made" not in found.text


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1", "[::1]:8765"])
def test_this_machine_is_answered(client, host):
    assert client.get("/r/0/0/overview", headers={"Host": host}).status_code == 200


def test_work_is_done_for_pages_of_the_viewer_alone(client):
    token = re.search(r'X-Cohort-CSRF": "([^"]+)"', client.get("/r/0/0/record").text.replace("&#34;", '"'))[1]
    own = {"X-Cohort-CSRF": token, "Origin": HERE_NAMED}
    assert client.post("/r/0/0/verify").status_code == 403
    assert client.post("/r/0/0/verify", headers={**own, "Origin": "http://evil.example"}).status_code == 403
    assert client.post("/r/0/0/verify", headers={**own, "X-Cohort-CSRF": "x"}).status_code == 403
    assert client.delete("/r/0/0/verify", headers=own).status_code == 403
    assert client.post("/r/0/0/measure?step=1&ticket=2").status_code == 403
    assert "is not stored" in client.post("/r/0/0/measure?step=1&ticket=2", headers=own).text  # nobody computes here
    assert client.post("/r/0/0/verify", headers=own).status_code == 404  # this run has no log to check
    assert "log" in client.post("/r/0/0/verify", headers=own).text


def test_another_address_needs_the_token_which_then_leaves_the_link(place):
    client = client_of(place, hosts=("box",), token="secret")
    elsewhere = {"Host": "box:8765"}
    assert client.get("/r/0/0/overview", headers=elsewhere).status_code == 401
    assert client.get("/events/0", headers=elsewhere).status_code == 401
    assert client.get("/r/0/0/overview?token=wrong", headers=elsewhere).status_code == 401
    brought = client.get("/r/0/0/step?step=1&token=secret", headers=elsewhere)
    assert (brought.status_code, brought.headers["location"]) == (303, "/r/0/0/step?step=1")
    assert "HttpOnly" in brought.headers["set-cookie"]
    assert "samesite=strict" in brought.headers["set-cookie"].lower()
    found = client.get("/r/0/0/step?step=1", headers={**elsewhere, "Cookie": f"{COOKIE}=secret"})
    assert found.status_code == 200
    assert "secret" not in found.text


# --- hostile runs


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run in which everything that a policy, a data set or a person may write is hostile."""
    base = tmp_path_factory.mktemp("hostile") / "<img src=x onerror=alert(1)>"
    base.mkdir()
    place = make_run(
        base, RECIPE.replace('use = "exact_number"', 'use = "exact_number"\nname = "<script>alert(1)</script>"')
    )
    named = place.with_name("</title><script>alert(2)</script>".replace("/", "|"))
    place.rename(named)
    for step in (1, 2):
        groups = [group(i, (1.0, 0.0), [text, CORPUS[i - 1]], question=text) for i, text in enumerate(CORPUS)]
        write_groups(named / f"log/step-{step:06d}.parquet", groups, step)
    for step, right in ((0, 0.0), (2, 1.0)):
        answers = [group(i, (right,), [text], question=text) for i, text in enumerate(CORPUS)]
        write_groups(named / f"log/eval-{step:06d}-greedy.parquet", answers, step)
    (named / "contamination.json").write_text(json.dumps({"grpo": {"not_looked": {CORPUS[0]: CORPUS[1]}}}))
    (named / "failed.txt").write_text(CORPUS[1])
    line = json.dumps({"step": 3, f"reward/{CORPUS[0]}/mean": 1.0, "reward/mean": 0.5})
    with (named / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    return named


@pytest.mark.fault(
    "HTML and scripts that a model, a row or a reward wrote, in the viewer", "they are text on every screen"
)
@pytest.mark.parametrize("screen", [name for name in SCREENS if name != "record"])
def test_hostile_text_is_text_on_every_screen(hostile, screen):
    queries = QUERIES | {"group": "?step=1&ticket=3", "tokens": "?step=1&ticket=3", "search": "?text=alert"}
    queries["prompt"] = f"?id={group(0, (1.0,), question=CORPUS[0]).prompt.id}"
    found = client_of(hostile).get(f"/r/0/0/{screen}{queries.get(screen, '')}")
    assert found.status_code == 200
    Page(found.text)  # its tags are the templates' own
    assert not set(found.text) & set("\x00\x07\x1b\u202e\u2066")
    assert "995563" not in found.text  # a template of a run is not run


def test_reasoning_that_is_hidden_is_on_no_screen(tmp_path):
    """[record] traces governs the viewer, too: texts, search, tokens, evaluations, the report."""
    texts = ("<think> SECRET </think> 4", "<think> SECRET </think> 5")
    place = make_run(tmp_path, texts=texts, more='[record]\ntraces = "hidden"\n')
    for step in (0, 2):
        answers = [group(i, (float(step > 0),), ["<think> SECRET </think> 4"]) for i in range(2)]
        write_groups(place / f"log/eval-{step:06d}-greedy.parquet", answers, step)
    client = client_of(place)
    for screen in SCREENS:
        if screen != "record":
            assert "SECRET" not in client.get(f"/r/0/0/{screen}{QUERIES.get(screen, '')}").text, screen
    assert "SECRET" not in client.get("/r/0/0/group.json?step=1&ticket=2").text
    assert "No completion" in client.get("/r/0/0/search?text=SEC").text
    assert "easoning is hidden" in client.get("/r/0/0/tokens?step=1&ticket=2").text
    assert "SECRET" not in report(RunFiles(place)) + view(place).html


def test_what_is_asked_for_is_text_too(client):
    for screen, name in (
        ("search", "text"),
        ("search", "where"),
        ("curves", "names"),
        ("tokens", "by"),
        ("prompt", "id"),
    ):
        for text in CORPUS[:3]:
            found = client.get(f"/r/0/0/{screen}", params={name: text, "step": "1", "ticket": "2"})
            Page(found.text)


def test_the_report_is_whole_and_has_no_address(hostile, place):
    for one in (hostile, place):
        text = report(RunFiles(one))
        code = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
        page = Page(re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.DOTALL))
        assert page.links
        assert all(link.startswith("#") for link in page.links)
        assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:|//)""", text)
        assert len(text) < 5_000_000
        assert code == [(HERE / "static" / f).read_text() for f in ("vendor/uPlot-1.6.32.iife.min.js", "view.js")]
        blocks = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
        assert blocks
        assert all("<" not in block and json.loads(block) is not None for block in blocks)
        assert not set(text) & set("\x00\x07\x1b\u202e\u2066")
        anchors = {link[1:] for link in page.links}
        assert anchors <= set(re.findall(r'id="([^"]+)"', text))


def test_a_block_of_data_cannot_be_ended_by_what_is_in_it():
    for text in CORPUS:
        block = json_block({text: [text]})
        assert "<" not in block
        assert json.loads(block) == {text: [text]}


def test_a_cell_of_a_notebook_is_a_page_of_its_own_without_code(hostile):
    shown = view(hostile, step=1, group=3)
    assert "<script" not in shown.html
    cell = shown._repr_html_()
    assert cell.startswith("<iframe sandbox srcdoc=")
    assert cell.count("<") == 2  # the frame opens and closes; all else is escaped


# --- a run that goes on


def test_the_stream_says_what_is_new_and_goes_on_from_its_cursor(tmp_path):
    place = make_run(tmp_path)
    app = make_app(Site(open_runs([place])))

    async def events(after: str, change=None) -> list[str]:
        """What the stream says, from a cursor on, until its first event or for a second and a half."""
        sent, done = [], asyncio.Event()
        scope = {
            "type": "http", "method": "GET", "path": "/events/0", "query_string": b"", "http_version": "1.1",
            "headers": [(b"host", b"127.0.0.1"), (b"last-event-id", after.encode())], "scheme": "http", "app": app,
        }  # fmt: skip

        async def send(message):
            sent.append(message.get("body", b"").decode())
            if "event: change" in sent[-1]:
                done.set()

        async def receive():
            await done.wait()
            return {"type": "http.disconnect"}

        task = asyncio.create_task(app(scope, receive, send))
        if change:
            await asyncio.sleep(0.05)
            change()
        try:
            await asyncio.wait_for(done.wait(), 1.5 if not change else 20)
        except TimeoutError:
            done.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return [one for one in sent if "event: change" in one]

    (first,) = asyncio.run(events(""))
    cursor = re.search(r"id: (\S+)", first)[1]
    assert json.loads(re.search(r"data: (.*)", first)[1])["step"] == 2
    assert asyncio.run(events(cursor)) == []  # who slept and has missed nothing hears nothing

    def go_on():
        with (place / "metrics.jsonl").open("a") as file:
            file.write('{"step": 3, "reward/mean": 0.5}\n')

    (news,) = asyncio.run(events(cursor, go_on))
    assert json.loads(re.search(r"data: (.*)", news)[1])["step"] == 3
    (missed,) = asyncio.run(events(cursor))  # who slept meanwhile hears it once
    assert '"step": 3' in missed


def test_looking_changes_nothing_in_the_run(tmp_path):
    place = make_run(tmp_path)

    def digests():
        return {
            p: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
            for p in place.rglob("*")
            if p.is_file()
        }

    before, client = digests(), client_of(place)
    for screen in SCREENS:
        if screen != "record":
            client.get(f"/r/0/0/{screen}{QUERIES.get(screen, '')}")
    report(RunFiles(place))
    assert digests() == before


def test_a_run_that_is_deleted_or_damaged_while_it_is_shown(tmp_path):
    place = make_run(tmp_path)
    client = client_of(place)
    assert client.get("/r/0/0/step?step=1").status_code == 200
    (place / "log/step-000001.parquet").write_bytes(b"PAR1")
    found = client.get("/r/0/0/step?step=1")
    assert (found.status_code, "cannot be read" in found.text) == (404, True)
    (place / "log/incidents.jsonl").write_bytes(b"{")
    (place / "log/eval-000002-greedy.parquet").write_bytes(b"")
    for screen in ("overview", "diagnostics", "data", "search"):
        assert client.get(f"/r/0/0/{screen}").status_code == 200
    assert client.get("/r/0/0/evaluation").status_code == 404
    shutil.rmtree(place)
    for screen in ("overview", "diagnostics", "timeline"):
        assert client.get(f"/r/0/0/{screen}").status_code == 200


def test_what_is_vendored_is_what_was_published():
    vendor = HERE / "static/vendor"
    wanted = dict(line.split()[::-1] for line in (vendor / "digests.sha256").read_text().splitlines())
    there = {file.name for file in vendor.iterdir() if file.suffix != ".sha256"}
    assert there == set(wanted) | {file for file in there if file.endswith(".LICENSE")}
    for name, digest in wanted.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest
