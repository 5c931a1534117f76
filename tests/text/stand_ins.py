"""Local servers that speak the services' protocols, well or badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

MOTION = (
    "In the video, the character's initial pose is upright with both arms down. Subsequently, the right arm rises. Then, the "
    "right hand waves twice, its back facing the viewer. After that, the character speaks. Finally, the right arm comes down."
)
APPEARANCE = "A woman with long brown hair, green eyes and a red coat, holding a cup; light skin and a slim build."
FUSED = (
    "In the video, a woman with long brown hair, green eyes and a red coat, holding a cup, raises the right arm, waves twice, "
    "speaks and lowers the arm again."
)
BAD_MOTION = "She waves.\nShe wears a red coat."


@dataclass(frozen=True)
class Request:
    """What arrived, and when: seconds of `time.monotonic`."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    came: float = field(default_factory=time.monotonic)

    @property
    def texts(self) -> list[str]:
        """All texts of the conversation, in order."""
        if "contents" in self.body:
            return [part["text"] for turn in self.body["contents"] for part in turn["parts"] if "text" in part]
        found = []
        for message in self.body["messages"]:
            content = message["content"]
            found += [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
        return found

    @property
    def pictures(self) -> int:
        """How many pictures came along."""
        if "contents" in self.body:
            return sum("inline_data" in part for turn in self.body["contents"] for part in turn["parts"])
        contents = [message["content"] for message in self.body["messages"] if not isinstance(message["content"], str)]
        return sum(part["type"] == "image_url" for content in contents for part in content)


Behaviour = Callable[["StandIn", "Handler", Request], None]


class Handler(BaseHTTPRequestHandler):
    """Notes the request and does what the script says next."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        stand_in: StandIn = self.server.stand_in
        request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(raw))
        stand_in.requests.append(request)
        behaviour = stand_in.script.pop(0) if stand_in.script else good
        try:
            behaviour(stand_in, self, request)
        except OSError:
            pass  # the client gave up, as it should
        finally:
            self.close_connection = True

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class StandIn:
    """A server on a free port of this machine.

    Attributes:
        protocol: "gemini" or "openai_compatible".
        script: What to do with the next requests; `good` when it is used up.
        requests: What arrived.
        released: Ends all hanging.
    """

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.script: list[Behaviour] = []
        self.requests: list[Request] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.stand_in = self  # type: ignore[attr-defined]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def wrapped(self, text: str) -> dict[str, Any]:
        """An answer in the protocol."""
        if self.protocol == "gemini":
            return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}]}
        return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}

    def __enter__(self) -> StandIn:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


def good(stand_in: StandIn, handler: Handler, request: Request) -> None:
    """The right text for what is asked."""
    prompt = request.texts[0]
    answer = FUSED if "{motion}" not in prompt and "Appearance:" in prompt else MOTION if "Subsequently" in prompt else APPEARANCE
    handler.send(200, json.dumps(stand_in.wrapped(answer)).encode())


def says(text: str) -> Behaviour:
    """A text."""
    return lambda stand_in, handler, request: handler.send(200, json.dumps(stand_in.wrapped(text)).encode())


def sends(data: Any) -> Behaviour:
    """Any JSON."""
    return lambda stand_in, handler, request: handler.send(200, json.dumps(data).encode())


def malformed(stand_in: StandIn, handler: Handler, request: Request) -> None:
    handler.send(200, b'{"candidates": [{"content"')


def empty(stand_in: StandIn, handler: Handler, request: Request) -> None:
    handler.send(200, json.dumps(stand_in.wrapped("  ")).encode())


def refusal(stand_in: StandIn, handler: Handler, request: Request) -> None:
    if stand_in.protocol == "gemini":
        data: dict[str, Any] = {"promptFeedback": {"blockReason": "SAFETY"}}
    else:
        data = {"choices": [{"message": {"content": None, "refusal": "I cannot help with that."}, "finish_reason": "stop"}]}
    handler.send(200, json.dumps(data).encode())


def status(code: int, **headers: str) -> Behaviour:
    """An error that repeats the key it was sent, as careless services do."""

    def behave(stand_in: StandIn, handler: Handler, request: Request) -> None:
        sent = request.headers.get("x-goog-api-key") or request.headers.get("authorization", "no key")
        body = {"error": {"code": code, "message": f"it went wrong for {sent}"}}
        handler.send(code, json.dumps(body).encode(), **headers)

    return behave


def hang(stand_in: StandIn, handler: Handler, request: Request) -> None:
    stand_in.released.wait(60)


def drip(stand_in: StandIn, handler: Handler, request: Request) -> None:
    """An answer that goes on for ever, a byte at a time."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while not stand_in.released.is_set():
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def disconnect(stand_in: StandIn, handler: Handler, request: Request) -> None:
    body = json.dumps(stand_in.wrapped(MOTION)).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])


def huge(stand_in: StandIn, handler: Handler, request: Request) -> None:
    """50 MB without saying so first."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    for _ in range(50):
        handler.wfile.write(b" " * (1 << 20))


def redirect(target: str, code: int = 307) -> Behaviour:
    """To another place."""
    return lambda stand_in, handler, request: handler.send(code, b"", Location=target)
