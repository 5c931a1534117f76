"""A client of ComfyUI's HTTP and websocket interface: queue a workflow, follow it, fetch what it made."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import websocket

from .atomic import atomic

Prompt = dict[str, dict[str, Any]]
"""A workflow in API format: node id to `class_type`, `inputs` and `_meta`."""

_POLL = 1.0  # seconds between looks at the clock while nothing arrives


class PromptRejected(RuntimeError):
    """The server refused the workflow before running it; the message names every node and what is wrong with it."""

    def __init__(self, prompt: Prompt, answer: dict[str, Any]) -> None:
        self.error: dict[str, Any] = answer.get("error") or {}
        self.node_errors: dict[str, Any] = answer.get("node_errors") or {}
        lines = [
            f"- {_name(prompt, node)}: " + ": ".join(filter(None, (problem["message"], problem.get("details"))))
            for node, found in self.node_errors.items()
            for problem in found["errors"]
        ]
        if not lines:
            about = (self.error.get("extra_info") or {}).get("node_id")
            where = f"{_name(prompt, about)}: " if about in prompt else ""
            lines = [f"- {where}{self.error.get('message', answer)}"]
        super().__init__("the server rejected the workflow:\n" + "\n".join(lines))


class PromptFailed(RuntimeError):
    """A node raised while the workflow ran.

    Attributes:
        node_id, title, class_type: The node.
        exception_type, exception_message: What it raised.
        traceback: The server's traceback.
    """

    def __init__(self, prompt: Prompt, data: dict[str, Any]) -> None:
        self.node_id = str(data.get("node_id"))
        self.class_type = str(data.get("node_type"))
        self.title = prompt.get(self.node_id, {}).get("_meta", {}).get("title", self.class_type)
        self.exception_type = str(data.get("exception_type", "interrupted"))
        self.exception_message = str(data.get("exception_message", "")).strip()
        self.traceback = "".join(data.get("traceback", []))
        super().__init__(f"{_name(prompt, self.node_id)} failed: {self.exception_type}: {self.exception_message}")


class PromptInterrupted(PromptFailed):
    """The workflow was interrupted."""


class ServerLost(RuntimeError):
    """The connection broke while a workflow ran."""


@dataclass(frozen=True)
class Progress:
    """A node began (maximum 0) or made a step."""

    node_id: str
    title: str
    value: int
    maximum: int


def _name(prompt: Prompt, node_id: str) -> str:
    node = prompt.get(node_id, {})
    class_type = node.get("class_type", "?")
    title = node.get("_meta", {}).get("title", class_type)
    return f'node {node_id} "{title}" ({class_type})'


def id_by_title(prompt: Prompt, title: str) -> str:
    """The id of the one node whose `_meta.title` is `title`. Raises KeyError naming the titles that there are."""
    found = [key for key, node in prompt.items() if node.get("_meta", {}).get("title") == title]
    if len(found) != 1:
        titles = sorted(node.get("_meta", {}).get("title", "") for node in prompt.values())
        raise KeyError(f"{len(found)} nodes are titled {title!r}, expected one; the workflow's titles are {titles}")
    return found[0]


def by_title(prompt: Prompt, title: str) -> dict[str, Any]:
    """The one node whose `_meta.title` is `title`."""
    return prompt[id_by_title(prompt, title)]


def files(output: dict[str, Any]) -> list[dict[str, str]]:
    """The files among one node's outputs, of whatever kind, each to be given to `Client.download`."""
    lists = [value for value in output.values() if isinstance(value, (list, tuple))]
    return [entry for entries in lists for entry in entries if isinstance(entry, dict) and "filename" in entry]


class Client:
    """Talks to the ComfyUI at `url`."""

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        self.url, self.timeout = url.rstrip("/"), timeout
        self._session = requests.Session()
        self._session.trust_env = False  # a configured proxy is not for a server of ours

    def _get(self, path: str, **parameters: str) -> requests.Response:
        answer = self._session.get(self.url + path, params=parameters, timeout=self.timeout)
        answer.raise_for_status()
        return answer

    def queue(self, prompt: Prompt, client_id: str | None = None) -> str:
        """Queue a workflow; returns its prompt id.

        Raises:
            PromptRejected: also when the server would have run the valid part of it only.
        """
        body: dict[str, Any] = {"prompt": prompt, **({"client_id": client_id} if client_id else {})}
        answer = self._session.post(f"{self.url}/prompt", json=body, timeout=self.timeout)
        if answer.status_code == 400:
            raise PromptRejected(prompt, answer.json())
        answer.raise_for_status()
        accepted = answer.json()
        if accepted.get("node_errors"):
            self.cancel(accepted["prompt_id"])
            raise PromptRejected(prompt, accepted)
        return str(accepted["prompt_id"])

    def run(
        self, prompt: Prompt, on_progress: Callable[[Progress], None] | None = None, timeout: float | None = None
    ) -> dict[str, dict[str, Any]]:
        """Queue a workflow and wait for it.

        Args:
            on_progress: Called when a node begins and at each of its steps.
            timeout: Seconds; None waits as long as it takes.

        Returns:
            Node id to that node's outputs (see `files`), cached nodes included.

        Raises:
            PromptRejected, PromptFailed, PromptInterrupted, ServerLost, TimeoutError. Whatever ends the wait early
            ends the work too.
        """
        client_id = uuid.uuid4().hex
        address = f"ws{self.url.removeprefix('http')}/ws?clientId={client_id}"
        with closing(websocket.create_connection(address, timeout=self.timeout, http_no_proxy=["*"])) as socket:
            prompt_id = self.queue(prompt, client_id)
            try:
                for kind, data in self._messages(socket, timeout):
                    if data.get("prompt_id") != prompt_id:
                        continue
                    if kind == "execution_error":
                        raise PromptFailed(prompt, data)
                    if kind == "execution_interrupted":
                        raise PromptInterrupted(prompt, data)
                    node = data.get("node")
                    if kind == "executing" and node is None:
                        break
                    if kind in ("executing", "progress") and on_progress is not None and node is not None:
                        on_progress(_progress(prompt, data))
            except PromptFailed:
                raise
            except BaseException:
                self._give_up(prompt_id)
                raise
        return dict(self.history(prompt_id)["outputs"])

    def _messages(self, socket: websocket.WebSocket, timeout: float | None) -> Iterator[tuple[str, dict[str, Any]]]:
        deadline = None if timeout is None else time.monotonic() + timeout
        socket.settimeout(_POLL)
        while True:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"the workflow did not end within {timeout:g} s; it was interrupted")
            try:
                message = socket.recv()
            except websocket.WebSocketTimeoutException:
                continue
            except (websocket.WebSocketException, OSError) as error:
                raise ServerLost(f"the connection to {self.url} broke ({error}); the server's log says why") from error
            if message == "":
                raise ServerLost(f"{self.url} closed the connection; the server's log says why")
            if isinstance(message, str):  # binary ones are previews
                decoded = json.loads(message)
                yield decoded["type"], decoded["data"]

    def _give_up(self, prompt_id: str) -> None:
        try:
            self.cancel(prompt_id)
        except requests.RequestException as error:
            # the reason for giving up is on its way up already, and may well be that the server is gone
            print(f"could not cancel the workflow: {error}")

    def cancel(self, prompt_id: str) -> None:
        """Take a workflow out of the queue, or interrupt it if it is the one that runs."""
        self._session.post(f"{self.url}/queue", json={"delete": [prompt_id]}, timeout=self.timeout).raise_for_status()
        self.interrupt(prompt_id)

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Interrupt the workflow that runs; with an id, only if it is that one."""
        body = {} if prompt_id is None else {"prompt_id": prompt_id}
        self._session.post(f"{self.url}/interrupt", json=body, timeout=self.timeout).raise_for_status()

    def history(self, prompt_id: str) -> dict[str, Any]:
        """What the server remembers of a finished workflow: `outputs`, `status`, `prompt`."""
        found = self._get(f"/history/{prompt_id}").json()
        if prompt_id not in found:
            raise KeyError(f"the server knows no finished workflow {prompt_id}; it may still be queued or running")
        return dict(found[prompt_id])

    def object_info(self, class_type: str | None = None) -> dict[str, Any]:
        """Class type to the node's inputs, outputs and names; of one class, or of all."""
        return dict(self._get("/object_info" + (f"/{class_type}" if class_type else "")).json())

    def system_stats(self) -> dict[str, Any]:
        """The server's machine and devices, with how much of their memory is free."""
        return dict(self._get("/system_stats").json())

    def free(self) -> None:
        """Unload all models and forget all results, between two workflows."""
        body = {"unload_models": True, "free_memory": True}
        self._session.post(f"{self.url}/free", json=body, timeout=self.timeout).raise_for_status()

    def upload(self, path: Path, name: str | None = None) -> str:
        """Copy a file into the server's input folder; returns the name to put into a loader's widget."""
        with path.open("rb") as file:
            answer = self._session.post(
                f"{self.url}/upload/image", files={"image": (name or path.name, file)}, timeout=self.timeout
            )
        answer.raise_for_status()
        return str(answer.json()["name"])

    def download(self, entry: dict[str, str], target: Path) -> Path:
        """Copy one of `files(output)` to `target`, which appears complete or not at all."""
        query = {key: entry.get(key, "") for key in ("filename", "subfolder", "type")}
        with atomic(target) as partial:
            partial.write_bytes(self._get("/view", **query).content)
        return target


def _progress(prompt: Prompt, data: dict[str, Any]) -> Progress:
    node_id = str(data.get("display_node") or data["node"])
    node = prompt.get(node_id, {})
    title = node.get("_meta", {}).get("title", node.get("class_type", node_id))
    return Progress(node_id, title, int(data.get("value", 0)), int(data.get("max", 0)))
