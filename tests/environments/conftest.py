from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from cohort.policy.scratch import make_tokenizer


@pytest.fixture(autouse=True)
def one_thread():
    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


# Chat templates as the Qwen 2.5 and Llama 3.1 ones write turns, tool results and the beginning of the next turn.
HERMES = """\
{%- if tools %}<|im_start|>system
You have tools. Call them as <tool_call>{"name": ..., "arguments": ...}</tool_call>:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}
{%- if loop.first or messages[loop.index0 - 1].role != "tool" %}<|im_start|>user{% endif %}
<tool_response>
{{ message.content }}
</tool_response>
{%- if loop.last or messages[loop.index0 + 1].role != "tool" %}<|im_end|>
{% endif %}
{%- else %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LLAMA3 = """\
{%- for message in messages %}
{%- set role = "ipython" if message.role == "tool" else message.role -%}
<|start_header_id|>{{ role }}<|end_header_id|>

{% if message.role == "tool" %}{{ message.content | tojson }}{% else %}{{ message.content }}{% endif %}<|eot_id|>
{%- endfor %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
TEMPLATES = {
    "hermes": (HERMES, "<|im_end|>", ["<|im_start|>", "<|im_end|>"]),
    "llama3": (LLAMA3, "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"]),
}


@pytest.fixture(params=sorted(TEMPLATES))
def chat_tokenizer(request):
    """(format name, a tokenizer with the chat template and the control tokens of that family)"""
    template, end, special = TEMPLATES[request.param]
    texts = ['user assistant system ipython tool response name arguments 12 + 30 = 42 { } " : , <tool_call>'] * 3
    tokenizer = make_tokenizer(texts, 400)
    tokenizer.add_special_tokens({"eos_token": end, "additional_special_tokens": special})
    tokenizer.chat_template = template
    return request.param, tokenizer


class Pages(BaseHTTPRequestHandler):
    """A small web: what it was asked is kept in `server.seen`."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        status, _, rest = self.path[1:].partition("/")
        if status == "slow":
            self.server.release.wait(30)  # type: ignore[attr-defined]
        body = b"x" * (1 << 20) if status == "large" else f"the page {self.path}".encode()
        self.send_response(int(status) if status.isdigit() else 200)
        if status == "302":
            self.send_header("Location", "http://elsewhere.example/" + rest)
        self.send_header("Set-Cookie", "who=me")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # nobody reads the end of a large page
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[ThreadingHTTPServer]:
    """A web server on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.seen, server.release = [], threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.release.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join()
