"""The executor on another machine: SandboxFusion's HTTP API, `POST /run_code`.

Sources: github.com/bytedance/SandboxFusion, sandbox/server/sandbox_api.py and sandbox/runners/types.py.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cohort.sandbox import functions, values
from cohort.sandbox.contract import Cases, Isolation, Limits, Run, SandboxError, Status
from cohort.types import UserError

_PATIENCE_S = 30.0  # beyond the program's own time: a queue, a container that starts
_LARGEST_CASE = 1 << 30
_LONGEST_ANSWER = 1 << 26  # bytes of JSON; a longer answer is a candidate's flood of output
_TRY_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)  # and everything from 500


class RemoteSandbox:
    """Runs untrusted Python behind a SandboxFusion server. An Executor; threads may share it.

    Those who run the server know how well it isolates; here the level is "remote". Times are by the server's clock. A
    request that the server failed is repeated `retries` times: after `backoff_s`, then twice as long each time.
    """

    def __init__(self, url: str, limits: Limits | None = None, retries: int = 3, backoff_s: float = 0.5) -> None:
        if not url.startswith(("http://", "https://")):
            raise UserError(f"the url of a sandbox begins with http:// or https://, not {url!r}")
        self._url = url.rstrip("/").removesuffix("/run_code") + "/run_code"
        self._limits = limits or Limits()
        self._retries = retries
        self._backoff_s = backoff_s

    @property
    def isolation(self) -> Isolation:
        """The level is "remote": what that means is unknown here."""
        return Isolation("remote", missing={"all": f"{self._url} does not say"})

    def run(self, code: str, stdin: str, time_s: float) -> Run:
        """See Executor.run."""
        if not _is_text(code):
            return Run("error", message="the code is not valid Unicode")
        result = self._ask(code, stdin, time_s)
        output = (result.get("stdout") or "").encode("utf-8", "surrogatepass")
        used_s = float(result.get("execution_time") or 0.0)
        if result["status"] == "TimeLimitExceeded":
            return Run("timeout", output, message=f"more than {time_s:g} s", used_s=used_s)
        if len(output) > self._limits.output_kb << 10:
            return Run("error", output, message=f"wrote more than {self._limits.output_kb} KiB", used_s=used_s)
        if result.get("return_code"):
            last = ((result.get("stderr") or "").strip().splitlines() or [f"exit status {result['return_code']}"])[-1]
            return Run("memory" if last.startswith("MemoryError") else "error", output, None, last[:500], used_s)
        return Run("ok", output, used_s=used_s)

    def call(
        self, code: str, function: str, cases: Cases, time_s: float, total_s: float, go_on: Callable[[Run], bool]
    ) -> list[Run]:
        """See Executor.call. The cases of one request see each other's arguments, never their results."""
        runs: list[Run] = []
        deadline = time.monotonic() + total_s
        while len(runs) < len(cases):
            left = deadline - time.monotonic()
            if not _is_text(code):
                answers = [Run("error", message="the code is not valid Unicode")]
            elif left <= 0:
                answers = [Run("timeout", message=f"more than {total_s:g} s for all cases together")]
            else:
                answers = self._call(code, function, cases[len(runs) :], time_s, left)
            for run in answers:
                runs.append(run)
                if not go_on(run):
                    return runs
        return runs

    def close(self) -> None:
        """Nothing is kept between two calls."""

    def _call(self, code: str, function: str, cases: Cases, time_s: float, total_s: float) -> list[Run]:
        """The answers of one request: one at least, all if the process lived so long."""
        mark, most = os.urandom(8).hex(), self._limits.output_kb << 10
        job = {
            "code": code, "function": function, "mark": mark, "time_s": time_s, "most": most,
            "cases": [values.encode(list(c), _LARGEST_CASE).hex() for c in cases],
        }  # fmt: skip
        result = self._ask(_program(), json.dumps(job) + "\n", total_s)
        runs = _answers(result.get("stdout") or "", mark, len(cases), most)
        if len(runs) < len(cases):  # the process ended in the case after the last answer
            slow = result["status"] == "TimeLimitExceeded" or result.get("return_code") in _SIGALRM
            message = f"more than {min(time_s, total_s):g} s" if slow else f"exit status {result.get('return_code')}"
            runs.append(Run("timeout" if slow else "error", message=message))
        return runs

    def _ask(self, code: str, stdin: str, time_s: float) -> dict[str, Any]:
        body = {
            "code": code, "language": "python", "stdin": stdin, "run_timeout": time_s,
            "memory_limit_MB": self._limits.memory_mb, "files": {}, "fetch_files": [],
        }  # fmt: skip
        problem = ""
        for attempt in range(self._retries + 1):
            if attempt:
                time.sleep(self._backoff_s * 2 ** (attempt - 1))
            try:
                return _result_of(self._post(json.dumps(body).encode(), time_s + _PATIENCE_S))
            except (OSError, ValueError, SandboxError) as error:  # no answer, no sense in it, or its own failure
                problem = str(error)
        raise SandboxError(f"the sandbox at {self._url} failed {self._retries + 1} times: {problem[:300]}")

    def _post(self, body: bytes, patience_s: float) -> Any:
        import http.client  # here, because the launcher never needs them and they take 30 ms
        import urllib.error
        import urllib.request

        class Stays(urllib.request.HTTPRedirectHandler):  # a server may not send us where the recipe does not
            def redirect_request(self, *_: Any) -> None:
                return None

        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.build_opener(Stays).open(request, timeout=patience_s) as response:
                answer = response.read(_LONGEST_ANSWER + 1)
            return json.loads(answer) if len(answer) <= _LONGEST_ANSWER else _FLOOD
        except urllib.error.HTTPError as error:
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in _TRY_AGAIN:
                raise UserError(
                    f"{self._url} answered {error.code} {error.reason}; url must be that of a SandboxFusion server"
                ) from None
            raise
        except http.client.HTTPException as error:  # it hung up in the middle of its answer
            raise SandboxError(f"{type(error).__name__}: {error}") from error


_SIGALRM = (-14, 142)  # as Python and as a shell say it
_FIELDS = (("stdout", str), ("stderr", str), ("return_code", int), ("execution_time", int | float))
_FLOOD = {"run_result": {"status": "Finished", "return_code": 1, "stderr": "it wrote far too much"}}


def _result_of(answer: Any) -> dict[str, Any]:
    result = answer.get("run_result") if isinstance(answer, dict) else None
    if not isinstance(result, dict) or result.get("status") not in ("Finished", "TimeLimitExceeded"):
        message = answer.get("message") if isinstance(answer, dict) else answer
        raise SandboxError(f"it could not run the program: {message}")
    for name, kind in _FIELDS:
        if not isinstance(result.get(name), kind | None):
            raise SandboxError(f"its {name} is {result[name]!r:.80}")
    if result["status"] == "Finished" and result.get("return_code") is None:
        raise SandboxError("it does not say how the program ended")
    return result


def _answers(output: str, mark: str, count: int, most: int) -> list[Run]:
    """The answers in order, up to the first that is missing or makes no sense. A value has at most `most` bytes."""
    runs: list[Run] = []
    for line in output.splitlines():
        start, *rest = line.split(" ")
        if start != mark or len(runs) == count:
            continue
        try:
            index, kind, content = int(rest[0]), rest[1], bytes.fromhex(rest[2])
            if index != len(runs):
                continue
            if len(content) > most:
                raise ValueError("too large")
            if kind == "value":
                runs.append(Run("ok", value=values.decode(content)))
            else:
                status: Status = "memory" if kind == "memory" else "error"
                runs.append(Run(status, message=content.decode("utf-8", "replace")))
        except (ValueError, IndexError):
            runs.append(Run("error", message="it wrote among the results"))
    return runs


def _program() -> str:
    texts = [Path(str(module.__file__)).read_text("utf-8") for module in (values, functions)]
    dropped = ("from __future__", "from cohort.")
    lines = [line for text in texts for line in text.splitlines() if not line.startswith(dropped)]
    return "from __future__ import annotations\n" + "\n".join(lines) + "\nmain()\n"


def _is_text(code: str) -> bool:
    """Whether the server can write the code to a file; if not, it would seem to fail by itself, again and again."""
    return not any("\ud800" <= character <= "\udfff" for character in code)
