"""
A Hub of one small data set on loopback, that fails on demand.

    with FaultHub() as hub:
        hub.fault = "cut"       refuse 401 429 500 hang cut flip html drop, or "" for none; `hub.times` limits how often,
                                `hub.only` which paths, `hub.skip` how many requests are answered well before
        subprocess.run(..., env=hub.environment(home))

It answers what `datasets` asks of a data set, and huggingface_hub of a model: what a revision holds, and
the files. The commit is a hash of the contents.
"""

import hashlib
import io
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

REPO = "openai/gsm8k"
CARD = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
---
"""
STATUS = {"401": 401, "429": 429, "500": 500}


def problems(num: int, first: int = 0) -> bytes:
    """A parquet file of so many rows of gsm8k"""
    questions = [f"What is {i} + {i}?" for i in range(first, first + num)]
    answers = [f"It is {i}+{i}=<<{i}+{i}={2 * i}>>{2 * i}.\n#### {2 * i}" for i in range(first, first + num)]
    out = io.BytesIO()
    pq.write_table(pa.table({"question": questions, "answer": answers}), out)
    return out.getvalue()


class FaultHub:
    """Serves `files` until left; `requests` are those that came, `commit` what the data set is now."""

    def __init__(self) -> None:
        self.files = {"README.md": CARD.encode()}
        self.fault, self.times, self.only, self.skip = "", 1 << 30, "", 0
        self.requests: list[str] = []
        self.change(0)
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def change(self, first: int) -> None:
        """Other contents under the same name"""
        for split, num in (("train", 40), ("test", 8)):
            self.files[f"main/{split}-00000-of-00001.parquet"] = problems(num, first)

    @property
    def commit(self) -> str:
        return hashlib.sha1(b"".join(self.files[name] for name in sorted(self.files))).hexdigest()

    def environment(self, home: Path) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
        return {
            **kept,
            "HF_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "HF_HOME": str(home / "hf"),
            "XDG_CACHE_HOME": str(home / "cache"),
        }

    def fails_now(self, path: str) -> str:
        """The fault of this request; each one is used up"""
        if not self.fault or self.only not in path or self.times <= 0:
            return ""
        self.skip -= 1
        if self.skip >= 0:
            return ""
        self.times -= 1
        return self.fault

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FaultHub

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        posted = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.hub.requests.append(f"{self.command} {path}")
        fault = self.hub.fails_now(path)
        if fault == "hang":
            time.sleep(60)
        if fault == "drop":
            self.close_connection = True
            return None
        if fault == "html":
            return self.reply(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})
        if fault in STATUS:
            return self.reply(STATUS[fault], {"error": "as asked"}, {"Retry-After": "1"} if fault == "429" else {})
        path = path.replace("/api/models/", "/api/datasets/")  # a model of this name has the same files
        if path.startswith(f"/{REPO}/resolve/"):
            path = f"/datasets{path}"
        if path.startswith(f"/datasets/{REPO}/resolve/"):
            return self.send_file(path.split("/", 5)[5], fault)
        if path.startswith(f"/api/datasets/{REPO}"):
            return self.answer(path.removeprefix(f"/api/datasets/{REPO}").strip("/"), parse_qs(url.query), posted)
        return self.missing("RepoNotFound")

    do_HEAD = do_POST = do_GET

    def answer(self, what: str, query: dict[str, list[str]], posted: str) -> None:
        verb, _, rest = what.partition("/")
        revision, _, folder = rest.partition("/")
        if verb and revision not in ("main", self.hub.commit):
            return self.missing("RevisionNotFound")
        if verb in ("", "revision"):
            files = [{"rfilename": name} for name in self.hub.files]
            about = {"id": REPO, "sha": self.hub.commit, "private": False, "gated": False, "disabled": False}
            return self.reply(200, {**about, "tags": [], "downloads": 0, "likes": 0, "siblings": files})
        if verb == "tree":
            inside = [name for name in self.hub.files if name.startswith(folder)]
            deep = query.get("recursive", [""])[0].lower() in ("1", "true")
            names = {name if deep else _top(name, folder): self.hub.files[name] for name in inside}
            return self.reply(200, [self.entry(name) for name in names])
        if verb == "paths-info":
            try:
                paths = json.loads(posted)["paths"]
            except ValueError:
                paths = parse_qs(posted).get("paths", [])
            known = [name.rstrip("/") for name in ([paths] if isinstance(paths, str) else paths)]
            entries = [
                self.entry(name) for name in known if any((f + "/").startswith(name + "/") for f in self.hub.files)
            ]
            return self.reply(200, entries)
        return self.missing("EntryNotFound")

    def entry(self, name: str) -> dict[str, Any]:
        oid = hashlib.sha1(self.hub.files.get(name, name.encode())).hexdigest()
        kind = "file" if name in self.hub.files else "directory"
        return {"type": kind, "path": name, "oid": oid, "size": len(self.hub.files.get(name, b""))}

    def send_file(self, place: str, fault: str) -> None:
        revision, _, name = place.partition("/")
        data = self.hub.files.get(name)
        if data is None or revision not in ("main", self.hub.commit):
            return self.missing("EntryNotFound")
        head = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": self.hub.commit,
            "Accept-Ranges": "none",
        }
        if fault == "flip":
            data = data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]
        return self.reply(200, data, head, cut=fault == "cut")

    def missing(self, code: str) -> None:
        self.reply(404, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    def reply(self, status: int, body: Any, head: dict[str, str] | None = None, cut: bool = False) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(head or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut


def _top(name: str, folder: str) -> str:
    """The file or directory in `folder` that `name` is, or is in"""
    rest = name.removeprefix(folder).lstrip("/")
    return "/".join(part for part in (folder, rest.split("/")[0]) if part)
