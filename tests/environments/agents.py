"""Agents as people have them: they know the OpenAI API, and nothing of Cohort."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from typing import Any


def post(base_url: str, api_key: str, path: str = "/chat/completions", **body: Any) -> dict[str, Any]:
    """One request; what the server refuses is raised as it is."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {api_key}"}
    asked = urllib.request.Request(base_url + path, json.dumps({"model": "any", **body}).encode(), headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)


def talks(prompt, base_url, api_key, turns=3):
    """Asks, and asks again about what was answered: one row."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
    for _ in range(turns):
        found = post(base_url, api_key, messages=messages, max_tokens=8)["choices"][0]["message"]
        messages += [found, {"role": "user", "content": f"And {len(found['content'])}?"}]
    return found["content"]


def forgets(prompt, base_url, api_key):
    """Asks, then begins anew with a summary: two rows. It pays itself by call."""
    first = post(base_url, api_key, messages=[{"role": "user", "content": prompt}], max_tokens=6)
    said = first["choices"][0]["message"]["content"]
    again = [{"role": "user", "content": f"{prompt} It was said: {said[:3]}"}]
    second = post(base_url, api_key, messages=again, max_tokens=6)["choices"][0]["message"]["content"]
    return {"text": second, "reward": [float("e" in said), float("e" in second)]}


async def completes(prompt, base_url, api_key):
    """Goes on with a text, async."""
    text = f"Q: {prompt}\nA:"
    for _ in range(2):
        text += post(base_url, api_key, "/completions", prompt=text, max_tokens=5)["choices"][0]["text"] + "."
    return float(text.count("e"))


def hangs(prompt, base_url, api_key):
    time.sleep(60)


def silent(prompt, base_url, api_key):
    return "nothing asked"


def no_url(prompt):
    return prompt


def breaks(prompt, base_url, api_key):
    post(base_url, api_key, messages=[{"role": "user", "content": prompt}], max_tokens=2)
    raise TypeError("a mistake of mine")


def confused(prompt, base_url, api_key):
    """Cannot read what was answered."""
    found = post(base_url, api_key, messages=[{"role": "user", "content": prompt}], max_tokens=2)
    return json.loads("{" + found["choices"][0]["message"]["content"])


def greedy(prompt, base_url, api_key):
    """Asks until nothing is left."""
    while True:
        post(base_url, api_key, messages=[{"role": "user", "content": prompt}], max_tokens=2)


LATE: list[int] = []


def lingers(prompt, base_url, api_key):
    """Leaves a thread that asks when all is over."""

    def later():
        time.sleep(0.5)
        try:
            post(base_url, api_key, messages=[{"role": "user", "content": prompt}], max_tokens=2)
        except urllib.error.HTTPError as error:
            LATE.append(error.code)

    threading.Thread(target=later, daemon=True).start()
    return post(base_url, api_key, messages=[{"role": "user", "content": prompt}], max_tokens=4)["choices"][0][
        "message"
    ]["content"]
