"""Ctrl-C, once and again: what was started is ended, and cleans up after itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootstrap.stopping import uninterrupted
from headless.server import HostServer

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signals to other processes")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, though tests that run in the background of a shell inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_signals_wait_for_the_end_of_the_block_only() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with uninterrupted():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_another_thread_may_clean_up_too() -> None:
    ran = []

    def clean_up() -> None:
        with uninterrupted():
            ran.append(True)

    thread = threading.Thread(target=clean_up)
    thread.start()
    thread.join()
    assert ran


@posix
@pytest.mark.usefixtures("ctrl_c")
def test_a_server_is_ended_though_ctrl_c_comes_again() -> None:
    slow = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit()))\n"
        "print('up', flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    server = HostServer.__new__(HostServer)  # without a ComfyUI: only its end is looked at
    server._process, server._folder = process, None
    again = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    again.start()
    try:
        server.stop()
        ended = process.poll() is not None
    except KeyboardInterrupt:
        ended = False
    finally:
        process.kill()
        process.wait()
    assert ended, "the second Ctrl-C left the process running"


def run_py_with(child: str) -> subprocess.Popen[bytes]:
    """A process that runs a child as run.py does; the child has said that it is up."""
    parent = (  # tests that run in the background of a shell inherit that Ctrl-C is ignored
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from bootstrap.verbs import run_child; sys.exit(run_child([sys.executable, '-c', {child!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    return process


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_its_child_cleanly(tmp_path: Path, number: int) -> None:
    child = (
        "import signal, sys, time, pathlib\n"
        "for each in (signal.SIGTERM, signal.SIGINT):\n    signal.signal(each, signal.default_int_handler)\n"
        "try:\n    print('up', flush=True); time.sleep(60)\n"
        f"finally:\n    pathlib.Path({str(tmp_path / 'cleaned')!r}).touch()\n"
    )
    process = run_py_with(child)
    began = time.monotonic()
    # a terminal's Ctrl-C goes to the whole group, a scheduler's SIGTERM to the one process it started
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    assert process.wait(30) == 130
    assert time.monotonic() - began < 10
    assert (tmp_path / "cleaned").exists()


@posix
def test_run_py_waits_for_its_child_though_ctrl_c_comes_again(tmp_path: Path) -> None:
    child = (
        "import pathlib, signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n    print('up', flush=True); time.sleep(60)\n"
        "finally:\n    print('cleaning', flush=True); time.sleep(2)\n"
        f"    pathlib.Path({str(tmp_path / 'cleaned')!r}).touch()\n"
    )
    process = run_py_with(child)
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == b"cleaning\n"
    time.sleep(0.5)  # until run.py has seen the first
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert (tmp_path / "cleaned").exists()
