"""A small agent for any server that speaks the OpenAI API. It knows nothing of who trains the model behind it.

It lets the model write, works out what the model marks as <tool>calculator: 12 * 34</tool>, writes the <result> behind
it, and lets the model go on.

    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 python examples/calculator_agent.py "What is 12 times 34?"
"""

from __future__ import annotations

import ast
import json
import operator
import os
import sys
import urllib.request

OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}


def complete(base_url: str, api_key: str, model: str, prompt: str) -> str:
    """What the model writes behind a text, up to a call or its end."""
    body = {"model": model, "prompt": prompt, "max_tokens": 96, "stop": ["</tool>"]}
    request = urllib.request.Request(
        f"{base_url}/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {api_key}"},
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)["choices"][0]["text"]


def calculate(written: str) -> str:
    """The value of an expression such as 12 * 34, or what is wrong with it."""

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            return OPERATIONS[type(node.op)](value(node.left), value(node.right))
        raise ValueError("only + - * // of whole numbers")

    try:
        return str(value(ast.parse(written.strip(), mode="eval").body))
    except (ValueError, SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
        return f"error: {error}"[:40]


def solve(prompt: str, base_url: str, api_key: str, model: str = "policy", calls: int = 4) -> str:
    """The answer to a question, with the working before it."""
    text = prompt
    for _ in range(calls):
        said = complete(base_url, api_key, model, text)
        text += said
        _, marked, call = said.rpartition("<tool>")
        if not marked:
            break
        text += f"</tool><result>{calculate(call.partition(':')[2])}</result>"
    return text.removeprefix(prompt)


if __name__ == "__main__":
    print(
        solve(
            sys.argv[1],
            os.environ["OPENAI_BASE_URL"],
            os.environ.get("OPENAI_API_KEY", "none"),
            os.environ.get("OPENAI_MODEL", "policy"),
        )
    )
