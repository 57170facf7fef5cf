"""A Hugging Face Hub on the loopback interface: the requests that uploads and downloads of small files make."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789" * 4


class Hub(ThreadingHTTPServer):
    """Repositories by name, each with its files.

    Args:
        log: what was asked for, in order.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.log: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *given: object) -> None:
        pass

    def _send(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), Content_Type="application/json")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.server.log.append(f"POST {path}")
        if self.headers.get("Authorization") != "Bearer hf_token":
            self._json({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.server.repositories.setdefault(name, {})
            self.server.private[name] = asked.get("visibility") == "private"
            self._json({"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name})
        elif path.endswith("/preupload/main"):
            files = [
                {**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]
            ]
            self._json({"files": [{k: f[k] for k in ("path", "uploadMode", "shouldIgnore")} for f in files]})
        elif path.endswith("/commit/main"):
            name = path.removeprefix("/api/models/").removesuffix("/commit/main")
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    content = base64.b64decode(item["value"]["content"])
                    self.server.repositories[name][item["value"]["path"]] = content
            url = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
            self._json(
                {
                    "success": True,
                    "commitOid": COMMIT,
                    "commitUrl": url,
                    "hookOutput": "",
                    "pullRequestUrl": None,
                }
            )
        else:
            self._json({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.log.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and "tree" in parts:
            self._tree("/".join(parts[2:4]))
        elif parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]))
        elif "resolve" in parts:
            self._file("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._json({"error": "Not Found"}, 404)

    def _info(self, name: str) -> None:
        files = self.server.repositories.get(name)
        if files is None:
            self._send(404, b"{}", X_Error_Code="RepoNotFound")
            return
        listed = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
        self._json(
            {"id": name, "modelId": name, "sha": COMMIT, "siblings": listed, "private": False, "tags": []}
        )

    def _tree(self, name: str) -> None:
        files = self.server.repositories.get(name, {})
        self._json(
            [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in files.items()
            ]
        )

    def _file(self, name: str, file: str) -> None:
        content = self.server.repositories.get(name, {}).get(file)
        if content is None:
            self._send(404, b"", X_Error_Code="EntryNotFound")
            return
        self._send(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=COMMIT)


@contextmanager
def hub() -> Iterator[Hub]:
    """A server that runs while the block does."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
