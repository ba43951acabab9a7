"""A vLLM server that Cohort starts, and ends with itself."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import httpx2

from cohort.settings import Vllm
from cohort.types import UserError

# The server's parent: it ends the server, with all processes of that, when the driver closes the pipe or dies.
GUARD = """
import os, signal, subprocess, sys, threading
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
threading.Thread(target=lambda: (sys.stdin.read(), os.killpg(server.pid, signal.SIGKILL)), daemon=True).start()
code = server.wait()
try:
    os.killpg(server.pid, signal.SIGKILL)
except ProcessLookupError:
    pass
sys.exit(code)
"""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM makes room for


class VllmServer:
    """One process, started again at the same port. It listens to this machine alone, and to who has `key`."""

    def __init__(self, table: Vllm, rows: int, log: Path):
        self._table, self._rows, self._log = table, rows, log
        self.key = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._port = table.port or 0

    def start(self, model: str, dtype: str, context: int | None, rank: int) -> str:
        """Start it, anew where it runs, and wait until it answers. Its address. Raises `UserError`."""
        self.stop()
        self._port = _free_port(self._port)
        words = [self._table.python or sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
        words += ["--served-model-name", "cohort", "--host", "127.0.0.1", "--port", str(self._port), "--dtype", dtype]
        words += ["--logprobs-mode", "processed_logprobs", "--max-num-seqs", str(self._rows), "--seed", "0"]
        words += ["--max-model-len", str(context)] * (context is not None)
        if rank:
            words += ["--enable-lora", "--max-lora-rank", str(next(r for r in RANKS if r >= rank)), "--max-loras", "2"]
        own = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", GUARD, *words, *self._table.arguments],
                env={**os.environ, **own, "VLLM_API_KEY": self.key},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is the driver's
            )
        weakref.finalize(self, _end, self._process)
        address, began = f"http://127.0.0.1:{self._port}", time.monotonic()
        with httpx2.Client(timeout=10.0) as http:
            while True:
                with contextlib.suppress(UserError):
                    self.answer(http, "GET", f"{address}/health")
                    return address
                if self._process.poll() is not None:
                    raise UserError(f"vLLM ended before it served anything: {self._last_words()}")
                if time.monotonic() - began > self._table.start_s:
                    self.stop()
                    limit = f"rollout.vllm.start_s = {self._table.start_s:g} s"
                    raise UserError(f"vLLM did not answer within {limit}: {self._last_words()}")
                time.sleep(0.2)

    def stop(self) -> None:
        """End it, with all that it has started."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text("utf-8", "replace").splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "it said nothing")
        hint = "; install it with pip install 'cohort[vllm]', or name the Python that has it in rollout.vllm.python"
        found_none = "No module named" in said or "FileNotFoundError" in said
        return said.strip()[-300:] + (hint if found_none else "")

    @staticmethod
    def answer(http: httpx2.Client, method: str, address: str, patience_s: float = 0.0) -> Any:
        """The JSON that an address says, or None where it says nothing. Asked for `patience_s` until it answers."""
        began = time.monotonic()
        while True:
            try:
                reply = http.request(method, address)
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                why = f"{type(error).__name__} {error}".strip()
            else:
                if reply.status_code == 200:
                    return reply.json() if reply.content else None
                why = f"HTTP {reply.status_code}: {' '.join(reply.text.split())[:200]}"
                if reply.status_code in (401, 403):
                    raise UserError(
                        f"the vLLM server at {address} does not take the key ({why}): see rollout.vllm.api_key_env"
                    )
            if time.monotonic() - began >= patience_s:
                raise UserError(f"the vLLM server at {address} does not answer ({why}): see rollout.vllm.url")
            time.sleep(0.5)


def _free_port(wanted: int) -> int:
    """`wanted`, or any where that is 0. Raises `UserError` where it is taken."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", wanted))
        except OSError:
            raise UserError(
                f"port {wanted} is taken by another program: set rollout.vllm.port, or leave it out"
            ) from None
        return int(one.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    process.wait()
