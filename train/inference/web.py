"""
One local page to talk on: a server of the standard library, bound to loopback.

    GET  /          the page (chat.html), whose script and style are admitted by their hash and nothing else is
    POST /answer    {"messages": [...]}  ->  lines of JSON as the answer comes, {"kind": "text", "text": "Hel"}, and at the end
                    {"content": [parts], "ended": true, "dropped": 0}, which the page puts into its history

Answers are only for requests with Host localhost or 127.0.0.1, so no name of elsewhere leads here, and from the page itself
(Origin, and a body of JSON), so no other page can ask. What is shown comes as text in which no character is invisible or
changes direction; the page writes it as text. The page holds the history: two windows are two conversations.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from prep.signals import Interrupted
from prep.text import visible
from train.inference.chat import Chat

PAGE = Path(__file__).with_name("chat.html")
HOSTS = ("localhost", "127.0.0.1")
MAX_BYTES = 1 << 20  # of a request
SECONDS = 30.0  # that a request may take to arrive
PART_KINDS = ("text", "python", "python_output")


def policy(page: str) -> str:
    """Content-Security-Policy: the page's own script and style, and requests to where it came from"""
    hashes = {
        tag: base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        for tag, content in re.findall(r"<(script|style)>(.*?)</\1>", page, re.DOTALL)
    }
    own = f"script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; connect-src 'self'"
    return f"default-src 'none'; {own}; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def checked_messages(body: Any) -> list[dict[str, Any]]:
    """The conversation of a request, which ends with the user's message. ValueError where it is none."""
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not messages:
        raise ValueError("no messages found, wanted a list that ends with the user's")
    system = [{"role": "system"}] if isinstance(messages[0], dict) and messages[0].get("role") == "system" else []
    for number, message in enumerate(messages[len(system) :]):
        role = ("user", "assistant")[number % 2]
        if not isinstance(message, dict) or message.get("role") != role:
            raise ValueError(f"message {number} is not of the {role}: wanted user and assistant in turn")
    if messages[-1]["role"] != "user":
        raise ValueError("the last message is not the user's")
    return [{"role": message["role"], "content": checked_content(message)} for message in messages]


def checked_content(message: dict[str, Any]) -> Any:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if message["role"] != "assistant" or not isinstance(content, list):
        raise ValueError(f"the content of a {message['role']} message is {content!r:.40}: wanted text")
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in PART_KINDS or not isinstance(part.get("text"), str):
            raise ValueError(f"part {part!r:.60} found, wanted a type of {', '.join(PART_KINDS)}, and a text")
    return [{"type": part["type"], "text": part["text"]} for part in content]


class Handler(BaseHTTPRequestHandler):
    """Requests of the page. The class has what a server has one of."""

    chat: ClassVar[Chat]
    page: ClassVar[str]
    lock: ClassVar[threading.Lock]  # one answer at a time
    timeout = SECONDS
    server_version, sys_version = "midprep", ""

    def parse_request(self) -> bool:
        return super().parse_request() and self.is_from_here()

    def do_GET(self) -> None:
        if self.path != "/":
            self.refuse(404, "only the page / is here")
            return
        self.begin(200, "text/html; charset=utf-8")
        self.wfile.write(self.page.encode())

    def do_POST(self) -> None:
        try:
            messages = checked_messages(self.read_json())
        except (ValueError, RecursionError) as error:
            self.refuse(400, str(error))
            return
        with suppress(ConnectionError, TimeoutError), self.lock:  # the page was closed, or its button pressed
            self.answer(messages)

    def is_from_here(self) -> bool:
        """Whether a request is for this machine, and not sent by a page of elsewhere; refused otherwise"""
        host = self.headers.get("Host", "")
        name, _, port = host.lower().partition(":")
        if name not in HOSTS or not re.fullmatch(r"\d{0,5}", port):
            self.refuse(403, f"answers only to Host {' or '.join(HOSTS)}")
            return False
        if self.headers.get("Origin", f"http://{host}").lower() != f"http://{host.lower()}":
            self.refuse(403, "answers only to its own page")
            return False
        return True

    def read_json(self) -> Any:
        kind, length = self.headers.get("Content-Type", ""), self.headers.get("Content-Length", "")
        if self.path != "/answer" or kind.partition(";")[0].strip() != "application/json":
            raise ValueError("wanted JSON for /answer")
        if not re.fullmatch(r"\d{1,8}", length, re.ASCII) or int(length) > MAX_BYTES:
            raise ValueError(f"a body of {length!r:.20} bytes found, wanted at most {MAX_BYTES:,}")
        return json.loads(self.rfile.read(int(length)))

    def answer(self, messages: list[dict[str, Any]]) -> None:
        chat = self.chat
        self.begin(200, "application/x-ndjson; charset=utf-8")
        self.send({"kind": "question", "text": visible(messages[-1]["content"])})
        try:
            with closing(chat.go_on(messages)) as pieces:
                for kind, text in pieces:
                    self.send({"kind": kind, "text": visible(text)})
        except ValueError as error:
            self.send({"error": visible(str(error))})
            return
        assert chat.reader is not None
        self.send({"content": chat.reader.parts, "ended": chat.reader.ended, "dropped": chat.num_dropped})

    def begin(self, status: int, kind: str) -> None:
        """Head of a reply that ends with its connection"""
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Security-Policy": policy(self.page),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
            "Connection": "close",
        }.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, value: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(value).encode() + b"\n")
        self.wfile.flush()

    def refuse(self, status: int, reason: str) -> None:
        self.begin(status, "text/plain; charset=utf-8")
        self.wfile.write(f"{visible(reason)}\n".encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal stays as it is"""


def make_server(chat: Chat, port: int) -> ThreadingHTTPServer:
    """A server on 127.0.0.1. OSError, in one line, where the port is taken."""
    members = {"chat": chat, "page": PAGE.read_text(encoding="utf-8"), "lock": threading.Lock()}
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), type("ChatHandler", (Handler,), members))
    except OSError as error:
        raise OSError(
            f"port {port} cannot be used ({error.strerror}): give another --port, 0 takes a free one"
        ) from None


def serve(chat: Chat, port: int) -> None:
    """Until Ctrl-C"""
    with make_server(chat, port) as server:
        server.daemon_threads = True
        print(f"http://127.0.0.1:{server.server_address[1]}/ talks to {chat.speaker.root} (Ctrl-C ends it)", flush=True)
        with suppress(Interrupted):
            server.serve_forever()
