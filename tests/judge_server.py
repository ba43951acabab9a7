"""A local server that speaks the part of OpenAI's API that a judge needs, well or badly as a test wants it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class JudgeServer:
    """Answers with what `reply(texts, body)` returns, `texts` being those between the marks, in order.

    A str is the content of a chat completion; a dict is `status`, `headers`, `raw` (the body as bytes), `slow` (seconds
    before every 20 bytes). `script` is used up first.
    """

    def __init__(self, reply: Callable[[list[str], dict[str, Any]], Any]) -> None:
        self.reply = reply
        self.script: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.requests.append(body)
                    outer.headers.append(dict(self.headers))
                    scripted = outer.script.pop(0) if outer.script else None
                answer = outer.reply(texts_of(body), body) if scripted is None else scripted
                outer._send(self, answer)

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def _send(self, handler: BaseHTTPRequestHandler, answer: Any) -> None:
        if isinstance(answer, str):
            answer = {"raw": json.dumps({"choices": [{"message": {"content": answer}}]}).encode()}
        raw, slow = answer.get("raw", b""), answer.get("slow", 0)
        try:
            handler.send_response(answer.get("status", 200))
            for name, value in answer.get("headers", {}).items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(raw)))
            handler.end_headers()
            for at in range(0, len(raw), 20) if slow else [0]:
                if slow:
                    time.sleep(slow)
                handler.wfile.write(raw[at : at + 20] if slow else raw)
                handler.wfile.flush()
        except OSError:  # the client has given up
            handler.close_connection = True

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def texts_of(body: dict[str, Any]) -> list[str]:
    """What stands between BEGIN and END lines of one mark: the question, then the answers."""
    content = body["messages"][-1]["content"] if "messages" in body else ""
    marked = r"^BEGIN [A-Z ]+? ([0-9a-f]{16})\n(.*?)\nEND [A-Z ]+? \1$"
    return [text for _, text in re.findall(marked, content, re.DOTALL | re.MULTILINE)]


def verdict(**fields: Any) -> str:
    return json.dumps({"reason": "because", **fields})
