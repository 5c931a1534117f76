"""A ComfyUI server as a child process: its own port and folders, ready when entered, gone when left."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import requests

from bootstrap.host import find_host, link_pack
from bootstrap.stopping import uninterrupted

from .device import describe

__all__ = ["CustomNode", "HostServer", "ServerDied", "find_host"]

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""A headless run downloads nothing: it must not hang on a machine without a network."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_IMPORT_LINE = re.compile(r"(?P<seconds>\d+\.\d+) seconds(?P<failed> \(IMPORT FAILED\))?: (?P<path>.+)$", re.MULTILINE)


class ServerDied(RuntimeError):
    """The server process ended, or did not come up. The message ends with the tail of its log."""


@dataclass(frozen=True)
class CustomNode:
    """One line of the host's report on custom nodes."""

    path: Path
    seconds: float
    loaded: bool


class HostServer:
    """A context manager around ComfyUI's main.py.

    Args:
        host: ComfyUI checkout; `find_host()` when None.
        arguments: Further arguments for main.py.
        packs: Names of folders in custom_nodes to load beside this pack. No others are: those of a user's ComfyUI may need
            packages that our environment lacks, and may install some.
        log: Where its output goes; into the server's temporary folder, which goes with it, when None.
        cpu: Run on the CPU even where there is a GPU.
        patience: Seconds it may take to answer.

    Attributes:
        device: What it computes on, in words.
    """

    def __init__(
        self,
        host: Path | None = None,
        arguments: Sequence[str] = (),
        *,
        packs: Sequence[str] = (),
        log: Path | None = None,
        cpu: bool = False,
        patience: float = 300.0,
    ) -> None:
        self.host = find_host() if host is None else host
        self.patience = patience
        self.device, device_arguments = ("CPU (as asked)", ["--cpu"]) if cpu else describe()
        wanted = [link_pack(self.host).name, *packs]
        self._arguments = [*device_arguments, "--disable-all-custom-nodes", "--whitelist-custom-nodes", *wanted, *arguments]
        self._wanted_log = log
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Address of the server, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def folder(self) -> Path:
        """The temporary folder that everything of this server lies in."""
        if self._folder is None:
            raise RuntimeError("the server is not running; use it in a with statement")
        return Path(self._folder.name)

    @property
    def input_dir(self) -> Path:
        """Where LoadImage and LoadVideo look."""
        return self.folder / "input"

    @property
    def output_dir(self) -> Path:
        """Where SaveImage and SaveVideo write."""
        return self.folder / "output"

    @property
    def log_path(self) -> Path:
        """Everything the server printed."""
        return self._wanted_log or self.folder / "comfyui.log"

    def log(self) -> str:
        """The log so far, without terminal colours."""
        return _COLOUR.sub("", self.log_path.read_text("utf-8", errors="replace"))

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the log."""
        return "\n".join(self.log().splitlines()[-lines:])

    def custom_nodes(self) -> list[CustomNode]:
        """The custom nodes that the host tried to load."""
        return [
            CustomNode(Path(m["path"]), float(m["seconds"]), not m["failed"]) for m in _IMPORT_LINE.finditer(self.log())
        ]

    def start(self) -> None:
        """Start the process and wait until it answers. Raises ServerDied."""
        self._folder = tempfile.TemporaryDirectory(prefix="dreamactor-host-", ignore_cleanup_errors=True)
        for name in ("input", "output", "temp", "user"):
            (self.folder / name).mkdir()
        try:
            self._launch()
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _launch(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        command = [sys.executable, str(self.host / "main.py"), "--listen", "127.0.0.1", "--port", str(self._port)]
        command += ["--disable-auto-launch", "--disable-api-nodes"]  # API nodes talk to a paid service
        for name in ("input", "output", "temp", "user"):
            command += [f"--{name}-directory", str(self.folder / name)]
        command += ["--database-url", f"sqlite:///{(self.folder / 'comfyui.db').as_posix()}", *self._arguments]
        environment = {**os.environ, **_OFFLINE, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        environment.pop("PYTHONPATH", None)  # our nodes/ must not come before the host's nodes.py
        # a group of its own, so that a Ctrl-C reaches us first and the whole group can be ended
        group = {"creationflags": 0x200} if sys.platform == "win32" else {"start_new_session": True}
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.host,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **group,
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + self.patience
        with requests.Session() as session:
            session.trust_env = False  # a configured proxy is not for an address of this machine
            while time.monotonic() < deadline:
                self.check_alive()
                try:
                    if session.get(f"{self.url}/system_stats", timeout=5).ok:
                        return
                except requests.RequestException:
                    time.sleep(0.2)
        raise ServerDied(f"ComfyUI did not answer within {self.patience:g} s. The end of its log:\n{self.log_tail()}")

    def check_alive(self, patience: float = 0) -> None:
        """Raises ServerDied when the process has ended, or does within `patience` seconds."""
        status = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(patience)
        if status is not None:
            raise ServerDied(f"ComfyUI ended with status {status}. The end of its log:\n{self.log_tail()}")

    def stop(self) -> None:
        """End the process, with everything it started, and remove its folder. A Ctrl-C meanwhile is ignored."""
        with uninterrupted():
            process, self._process = self._process, None
            if process is not None:
                for ask in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
                    _signal_group(process, ask)
                    try:
                        process.wait(10)
                        break
                    except subprocess.TimeoutExpired:
                        continue
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def __enter__(self) -> HostServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)
        return
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # it is gone already, which is what was wanted
