"""A Hub-shaped server on loopback: as much of the Hub's HTTP interface as a download by huggingface_hub asks for.

    GET  /api/models/OWNER/NAME/revision/REVISION
    GET  /api/models/OWNER/NAME/tree/COMMIT?recursive=…
    HEAD, GET /OWNER/NAME/resolve/REVISION/PATH, with ranges

Commits are folders. What is asked for is written down, and transfers can be made to break off or to stall.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """revisions: branch, tag or commit → the folder of that state. gated: nobody is let in."""

    revisions: dict[str, Path]
    gated: bool = False

    def commit(self, revision: str) -> str:
        """40 hexadecimal digits, as git's."""
        folder = self.revisions[revision]
        return hashlib.sha1(str(folder).encode()).hexdigest()

    def folder(self, revision: str) -> Path | None:
        by_commit = {self.commit(name): folder for name, folder in self.revisions.items()}
        return self.revisions.get(revision) or by_commit.get(revision)


@dataclass
class Hub:
    """Its address, its repositories by id, and what was asked: (method, path, Range header or "")."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    breaks_off: dict[str, int] = field(default_factory=dict)
    """File name → after how many bytes its next transfer breaks off, once."""
    stalls: dict[str, int] = field(default_factory=dict)
    """File name → after how many bytes its next transfer says nothing more, once."""
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def transfers(self) -> list[tuple[str, str]]:
        """(path in its repository, Range header) of every file whose content was asked for."""
        return [
            (path.split("/resolve/")[1].split("/", 1)[1], span)
            for method, path, span in self.requests
            if method == "GET" and "/resolve/" in path
        ]


@contextmanager
def serve_hub(repositories: dict[str, Repository]) -> Iterator[Hub]:
    hub = Hub(repositories=repositories)

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append((self.command, path, self.headers.get("Range", "")))
        kind, _, rest = path.lstrip("/").partition("/")
        words = rest.split("/") if kind == "api" else path.lstrip("/").split("/")
        if kind == "api":
            words = words[1:]
        repository = self.state.repositories.get("/".join(words[:2]))
        if repository is None:
            return self._refuse(404, "RepoNotFound")
        if repository.gated:
            return self._refuse(403, "GatedRepo")
        action, revision, *file = words[2:]
        folder = repository.folder(revision)
        if folder is None:
            return self._refuse(404, "RevisionNotFound")
        commit = next(
            repository.commit(name) for name, place in repository.revisions.items() if place == folder
        )
        if action == "resolve":
            return self._send_file(folder, "/".join(file), commit)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
        if action == "revision":
            siblings = [{"rfilename": name} for name in names]
            return self._send_json({"id": "/".join(words[:2]), "sha": commit, "siblings": siblings})
        return self._send_json([_entry(path, name) for path, name in zip(files, names, strict=True)])

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, folder: Path, name: str, commit: str) -> None:
        if not (folder / name).is_file():
            return self._refuse(404, "EntryNotFound")
        content = (folder / name).read_bytes()
        span = self.headers.get("Range")
        start = int(span.removeprefix("bytes=").partition("-")[0]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("ETag", f'"{_digest(folder / name)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return None
        body = content[start:]
        short = Path(name).name
        if short in self.state.breaks_off:
            self.wfile.write(body[: self.state.breaks_off.pop(short)])
            self.close_connection = True
        elif short in self.state.stalls:
            self.wfile.write(body[: self.state.stalls.pop(short)])
            self.wfile.flush()
            self.state.stalled.set()
            self.state.released.wait()
            self.close_connection = True
        else:
            self.wfile.write(body)
        return None


def _digest(path: Path) -> str:
    """Large files are named by their SHA-256, the others by git's SHA-1."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(path: Path, name: str) -> dict[str, Any]:
    size = path.stat().st_size
    entry: dict[str, Any] = {"type": "file", "oid": _digest(path)[:40], "size": size, "path": name}
    if path.suffix == ".safetensors":
        entry["lfs"] = {"oid": _digest(path), "size": size, "pointerSize": 134}
    return entry
