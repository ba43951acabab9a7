"""A server that speaks the part of the Hugging Face hub's API with which a model is uploaded."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Server(ThreadingHTTPServer):
    """Repositories by name, and in each its files by path; which are private; what came by the LFS protocol."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Hub)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.private, self.objects = {}, {}, {}


class Hub(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self):
        self._say(404, {"error": f"there is no {self.path}"})

    def do_POST(self):
        sent, path = self.rfile.read(int(self.headers.get("Content-Length", 0))), self.path
        repositories = self.server.repositories
        if path == "/api/repos/create":
            given = json.loads(sent)
            name = f"{given.get('organization') or 'me'}/{given['name']}"
            if name in repositories:
                return self._say(409, {"error": "You already created this model repo"})
            repositories[name] = {}
            self.server.private[name] = given.get("private") or given.get("visibility") == "private"
            return self._say(200, {"url": f"{self.server.address}/{name}", "name": name})
        if path == "/api/validate-yaml":  # the front matter of a card
            return self._say(200, {"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = json.loads(sent)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
                for f in files
            ]
            return self._say(200, {"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(sent)["objects"]
            actions = {"upload": {"href": f"{self.server.address}/lfs/"}}
            found = [
                {**one, "actions": {"upload": {"href": actions["upload"]["href"] + one["oid"]}}} for one in objects
            ]
            return self._say(200, {"transfer": "basic", "objects": found})
        if "/commit/" in path:
            name = path.removeprefix("/api/models/").split("/commit/")[0]
            for line in map(json.loads, sent.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    repositories[name][value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    repositories[name][value["path"]] = self.server.objects[value["oid"]]
            return self._say(200, {"commitUrl": f"{self.server.address}/{name}/commit/1", "commitOid": "1" * 40})
        return self._say(404, {"error": f"there is no {path}"})

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects[self.path.rpartition("/")[2]] = content
        self._say(200, {})

    def log_message(self, *_):
        pass

    def _say(self, code, value):
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def running_hub():
    """The server, while it runs."""
    server = Server()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
