"""A second Ctrl-C, while the first is being cleaned up after, leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from bootstrap.stopping import uninterrupted
from headless.server import HostServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")


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
            os.kill(os.getpid(), number)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_another_thread_may_clean_up_too() -> None:
    ran = []

    def clean_up() -> None:
        with uninterrupted():
            ran.append(True)

    thread = threading.Thread(target=clean_up)
    thread.start()
    thread.join()
    assert ran


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
