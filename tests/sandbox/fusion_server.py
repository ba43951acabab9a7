"""A local server that speaks SandboxFusion's API for Python, for tests: it runs what comes in a plain subprocess."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Fusion"]

BROKEN = {
    "hang up": b"",
    "half an answer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{",
    "not HTTP": b"220 mail.example.org ESMTP\r\n",
}
FINISHED, TIMEOUT = "Finished", "TimeLimitExceeded"


class Fusion:
    """A context manager. `requests` holds the bodies that came; `troubles` what to answer instead, one for a request:
    an HTTP status, a text for the body, "hang up", "half an answer", or "not HTTP".
    """

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.troubles: list[int | str] = []
        fusion = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fusion.requests.append({"path": self.path, **json.loads(body)})
                trouble = fusion.troubles.pop(0) if fusion.troubles else None
                if trouble in BROKEN:
                    self.close_connection = True
                    self.wfile.write(BROKEN[trouble])
                    self.connection.close()
                    return
                if isinstance(trouble, int):
                    self.answer(trouble, "{}")
                elif isinstance(trouble, str):
                    self.answer(200, trouble)
                elif self.path != "/run_code":
                    self.answer(404, '{"detail": "Not Found"}')
                else:
                    self.answer(200, json.dumps(run_code(json.loads(body))))

            def answer(self, status: int, text: str) -> None:
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"{fusion.url}/moved")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Fusion:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def run_code(request: dict) -> dict:
    """The response to a request, field by field as the server's sandbox_api.py has them."""
    began = time.monotonic()
    try:
        assert request["language"] == "python"
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                [sys.executable, "-c", request["code"]],
                input=(request["stdin"] or "").encode(),
                capture_output=True,
                timeout=request["run_timeout"],
                check=False,
            )
            return _response(FINISHED, time.monotonic() - began, done.returncode, done.stdout, done.stderr)
        return _response(TIMEOUT, time.monotonic() - began, None, b"", b"")
    except Exception as error:
        return {"status": "SandboxError", "message": f"exception on running code: {error}", "run_result": None}


def _response(status: str, seconds: float, code: int | None, stdout: bytes, stderr: bytes) -> dict:
    result = {
        "status": status,
        "execution_time": seconds,
        "return_code": code,
        "stdout": stdout.decode(errors="replace"),
        "stderr": stderr.decode(errors="replace"),
    }
    overall = "Success" if status == FINISHED and code == 0 else "Failed"
    return {
        "status": overall,
        "message": "",
        "compile_result": None,
        "run_result": result,
        "executor_pod_name": None,
        "files": {},
    }
