"""The process that a test kills: it listens at the port that it is told, and hands everything on to a `FakeVllm`."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def main(root: str, *words: str) -> None:
    told = dict(zip(words[2::2], words[3::2]))
    ask(root + "/began", json.dumps({"model": told["--model"]}).encode(), {})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.pass_on(None)

        def do_POST(self) -> None:
            self.pass_on(self.rfile.read(int(self.headers["Content-Length"])))

        def pass_on(self, body: bytes | None) -> None:
            status, said = ask(root + self.path, body, {"Authorization": self.headers.get("Authorization", "")})
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            return

    ThreadingHTTPServer(("127.0.0.1", int(told["--port"])), Handler).serve_forever(0.01)


def ask(address: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=60) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
