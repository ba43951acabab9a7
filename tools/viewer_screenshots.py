"""Pictures of the viewer for README.md and docs/viewer.md, from a run on disk: one a screen, and two of a telephone.

make test-view                                    # once: the environment that has a driver of browsers
.venv-view/bin/python tools/viewer_screenshots.py runs/quickstart
"""

from __future__ import annotations

import argparse
import shutil
import socket
import threading
from pathlib import Path

import uvicorn
from playwright.sync_api import sync_playwright

from cohort.commands.view import measured
from cohort.views.dashboard.app import make_app
from cohort.views.dashboard.groups import step_view
from cohort.views.dashboard.runs import RunFiles, open_runs
from cohort.views.dashboard.screens import Site

FIGURES = Path(__file__).parent.parent / "docs/figures"
SCREENS = {  # file -> screen, query, height, scheme, width
    "viewer-overview": ("overview", "", 1180, "light", 1280),
    "viewer-step": ("step", "?step={first}", 720, "light", 1280),
    "viewer-group": ("group", "?step={first}&ticket={ticket}", 900, "light", 1280),
    "viewer-tokens": ("tokens", "?step={first}&ticket={ticket}&member=1&by=entropy", 460, "dark", 1280),
    "viewer-curves": ("curves", "", 760, "dark", 1280),
    "viewer-evaluation": ("evaluation", "", 1000, "light", 1280),
    "viewer-diagnostics": ("diagnostics", "", 900, "light", 1280),
    "viewer-record": ("record", "", 760, "light", 1280),
    "viewer-telephone": ("overview", "", 844, "light", 390),
    "viewer-telephone-group": ("group", "?step={first}&ticket={ticket}", 844, "dark", 390),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--to", type=Path, default=FIGURES)
    parser.add_argument("--only", default="", help="names of pictures, with commas")
    asked = parser.parse_args()
    run = RunFiles(asked.run)
    stage = run.stage(run.latest)
    first = stage.shards[0].step
    values = {"first": first, "ticket": step_view(stage.shard(first).path, first, [first]).strips[0].ticket}
    listening = socket.create_server(("127.0.0.1", 0))
    site = Site(open_runs([asked.run]), measure=measured)
    if "viewer-tokens" in (asked.only or "viewer-tokens"):  # coloured by what is computed again
        known = measured(asked.run, stage.name, first, values["ticket"])
        site.measured[0, run.latest, first, values["ticket"]] = known
    server = uvicorn.Server(uvicorn.Config(make_app(site), log_level="error"))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    base = f"http://127.0.0.1:{listening.getsockname()[1]}/r/0/{run.latest}"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (screen, query, height, scheme, width) in SCREENS.items():
            if asked.only and name not in asked.only.split(","):
                continue
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, color_scheme=scheme)
            page.goto(f"{base}/{screen}{query.format(**values)}", timeout=300_000)
            page.wait_for_timeout(500)
            page.screenshot(path=asked.to / f"{name}.png")
            page.close()
            print(asked.to / f"{name}.png")
        browser.close()
    server.should_exit = True


if __name__ == "__main__":
    main()
