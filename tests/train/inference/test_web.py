"""The page: it answers this machine alone, streams, asks nobody else, and shows what is said as text."""

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prep.tokenizer.tokenizer import Tokenizer
from tests.train.inference.speakers import KNOWN, question
from train.inference.chat import Chat
from train.inference.generate import Sampling, Token
from train.inference.speaker import Speaker
from train.inference.web import MAX_BYTES, PAGE, make_server
from train.model import GPT

JSON = {"Content-Type": "application/json"}
EVIL = "<img src=x onerror=\"document.title='hacked'\">\x1b[31m\u202e"


class Server:
    """A running server and requests to it"""

    def __init__(self, chat: Chat) -> None:
        self.http = make_server(chat, 0)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        return connection.getresponse()

    def ask(self, messages: Any, **headers: str) -> tuple[int, str]:
        body = messages if isinstance(messages, str) else json.dumps({"messages": messages})
        reply = self.request("POST", "/answer", body, **{"Content_Type": "application/json", **headers})
        return reply.status, reply.read().decode()


@pytest.fixture
def chat(parrot: GPT, toy: Tokenizer) -> Chat:
    return Chat(Speaker(Path("runs/parrot"), 7, parrot, toy), Sampling(), 60)


@pytest.fixture
def server(chat: Chat) -> Iterator[Server]:
    running = Server(chat)
    yield running
    running.http.shutdown()
    running.http.server_close()


# ---- who is answered ----


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *[("localhost", 200), ("127.0.0.1", 200), ("localhost:1234", 200), ("LocalHost", 200), ("", 403), ("[::1]", 403)],
        *[("evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhost.", 403), ("localhost:x", 403)],
        *[("evil@localhost", 403), ("0.0.0.0", 403), ("localhost:80:80", 403), ("127.0.0.2", 403)],
    ],
)  # fmt: skip
def test_only_host_localhost_and_127_0_0_1_are_answered(server: Server, host: str, status: int) -> None:
    assert server.request("GET", "/", Host=host).status == status
    assert server.ask(question("Hi"), Host=host)[0] == status
    assert server.request("PUT", "/", Host=host).status == (501 if status == 200 else 403)


def test_a_request_without_a_host_is_not_answered(server: Server) -> None:
    for request in (b"GET / HTTP/1.0\r\n\r\n", b"GET /\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(request)
            assert b" 403 " in connection.recv(9999) or not request.endswith(b"1.0\r\n\r\n")


def test_it_listens_on_loopback_only(server: Server) -> None:
    assert server.http.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://localhost:5", 200), ("http://evil.example", 403), ("null", 403), ("https://localhost:5", 403)],
)
def test_pages_of_elsewhere_cannot_ask(server: Server, origin: str, status: int) -> None:
    assert server.ask(question("Hi"), Host="localhost:5", Origin=origin)[0] == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/x", 404), ("GET", "/../etc/passwd", 404), ("PUT", "/", 501), ("POST", "/", 400)],
)
def test_there_is_nothing_but_the_page_and_answers(server: Server, method: str, path: str, status: int) -> None:
    assert server.request(method, path, "{}", Content_Type="application/json").status == status


@pytest.mark.parametrize(
    "body",
    [
        *["", "{", "[]", "{}", '{"messages": []}', '{"messages": [1]}', "[" * 9000, '{"messages": {"role": "user"}}'],
        *[json.dumps({"messages": messages}) for messages in (
            [{"role": "user"}], [{"role": "boss", "content": "x"}], [{"role": "system", "content": "x"}],
            [{"role": "user", "content": [{"type": "text", "text": "x"}]}], [{"role": "user", "content": 3}],
            [*question("x"), {"role": "assistant", "content": "y"}], [*question("x"), *question("y")],
            [*question("x"), {"role": "assistant", "content": [{"type": "image", "text": ""}]}, *question("y")],
        )],
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_refused_in_one_line(server: Server, body: str) -> None:
    status, reason = server.ask(body)
    assert status == 400
    assert len(reason.splitlines()) == 1


def test_a_body_that_is_no_json_or_too_long_is_refused(server: Server) -> None:
    for headers in ({"Content_Type": "text/plain"}, {"Content_Length": str(MAX_BYTES + 1)}, {"Content_Length": "-1"}):
        reply = server.request("POST", "/answer", None, **{"Content_Type": "application/json", **headers})
        assert reply.status == 400


# ---- what is answered ----


def test_answers_come_in_pieces_with_calls_and_a_content_for_the_history(server: Server) -> None:
    status, body = server.ask(question("2+3?"))
    events = [json.loads(line) for line in body.splitlines()]
    assert status == 200
    assert events[0] == {"kind": "question", "text": "2+3?"}
    assert events[-1] == {"content": KNOWN[1][1], "ended": True, "dropped": 0}
    assert [event["kind"] for event in events[1:-1] if event["kind"] != "text"] == ["python"] * 3 + ["python_output"]
    history = [*question("2+3?"), {"role": "assistant", "content": events[-1]["content"]}, *question("Hi")]
    assert "content" in json.loads(server.ask(history)[1].splitlines()[-1])


def test_turns_that_were_left_out_are_counted_and_a_question_that_is_too_long_is_told(server: Server) -> None:
    history = [*question("Hi"), {"role": "assistant", "content": "x" * 90}, *question("Hi")]
    assert json.loads(server.ask(history)[1].splitlines()[-1])["dropped"] == 1
    last = json.loads(server.ask(question("x" * 200))[1].splitlines()[-1])
    assert last["error"].startswith("the question has 204 tokens")


def test_pieces_come_while_the_answer_is_made_and_stop_when_nobody_reads(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, stopped = threading.Semaphore(0), threading.Event()

    def say_x(self: Speaker, *others: Any) -> Iterator[Token]:
        try:
            while go_on.acquire(timeout=20):
                yield Token(0, ord("x"), False)
        finally:
            stopped.set()

    monkeypatch.setattr(Speaker, "answer", say_x)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", "/answer", json.dumps({"messages": question("Hi")}), JSON)
    reply = connection.getresponse()
    assert json.loads(reply.readline())["kind"] == "question"
    go_on.release()
    assert json.loads(reply.readline()) == {"kind": "text", "text": "x"}  # and the second is not made yet
    reply.close()
    connection.close()
    while not stopped.wait(0.01):
        go_on.release()


def test_what_is_said_comes_without_characters_that_move_things(server: Server) -> None:
    events = [json.loads(line) for line in server.ask(question("Bell?"))[1].splitlines()]
    shown = "".join(event["text"] for event in events if event.get("kind") == "text")
    assert shown == "\\x1b]0;owned\\x07<script>alert(1)</script>"
    assert json.loads(server.ask(question(EVIL))[1].splitlines()[0])["text"].endswith("\\x1b[31m\\u202e")


def test_a_port_that_is_taken_is_one_line(server: Server, chat: Chat) -> None:
    with pytest.raises(OSError, match=r"port \d+ cannot be used \(.*\): give another --port, 0 takes a free one"):
        make_server(chat, server.port)


# ---- the page ----


def test_the_page_asks_nobody_else_and_runs_its_own_script_only(server: Server) -> None:
    reply = server.request("GET", "/")
    page, policy = reply.read().decode(), reply.getheader("Content-Security-Policy", "")
    assert page == PAGE.read_text(encoding="utf-8")
    assert not re.findall(r"https?:|\burl\(|@import|innerHTML|insertAdjacent|document\.write|\beval\b", page)
    assert not re.findall(r"(?:src|href|action)=[\"'](?!data:,)", page)
    assert not re.search(r"\son\w+=|\sstyle=", page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert reply.getheader("X-Content-Type-Options") == "nosniff"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_talks_on_the_page(server: Server, chromium: Any, width: int) -> None:
    view = chromium.new_page(viewport={"width": width, "height": 800})
    said: list[str] = []
    asked: set[str] = set()
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.on("request", lambda request: asked.add(request.url))
    address = f"http://localhost:{server.port}/"
    view.goto(address)

    def ask(text: str, number: int) -> Any:
        view.fill("#question", text)
        view.press("#question", "Enter")
        for _ in range(500):
            view.wait_for_timeout(20)
            if view.evaluate(f"messages.length === {2 * number} && running === null"):
                break
        return view.locator(".assistant").nth(number - 1)

    answer = ask("2+3?", 1)
    assert answer.inner_text() == "That is 2+3 = 55.\n#### 5".replace(" = ", "")
    assert answer.locator(".python").inner_text() == "2+3"
    assert answer.locator(".python_output").inner_text() == "5"
    view.click("#clear")
    assert view.locator("#log > *").count() == 0
    assert ask("Bell?", 1).inner_text() == "\\x1b]0;owned\\x07<script>alert(1)</script>"
    ask(EVIL, 2)
    assert view.locator(".user").nth(1).inner_text().startswith("<img src=x onerror=")
    assert view.title() == "midprep chat"
    assert view.locator("script").count() == 1
    assert view.locator("img").count() == 0
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {address, f"{address}answer"}
    view.close()
