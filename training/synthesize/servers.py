"""ComfyUI servers for a run. Each has a guard, a process that ends it when whoever started it is gone, however that ended."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bootstrap import SetupError
from headless.server import HostServer, ServerDied
from training.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 30.0


@contextmanager
def started(count: int, gpus: int, arguments: Sequence[str] = ()) -> Iterator[list[tuple[str, str | None]]]:
    """Start that many servers, one on each GPU in turn; address and output folder of each.

    Raises:
        UserError: one did not start; its log is on standard error.
    """
    with contextlib.ExitStack() as stack:
        guards, ids = [], _ids(gpus)
        for number in range(count):
            chosen = ["--cuda-device", ids[number % len(ids)]] if ids else []
            guards.append(_guard([*chosen, *arguments]))
            stack.callback(_end, guards[-1])
        found = []
        for guard in guards:  # all of them start at the same time
            line = guard.stdout.readline() if guard.stdout else ""
            if not line:
                raise UserError("a ComfyUI server did not start; the reason is above. `python run.py setup` gets ComfyUI")
            address, results = json.loads(line)
            found.append((address, results))
        yield found


def _ids(gpus: int) -> list[str]:
    """What ComfyUI has to be told of each GPU that torch sees here. It puts that into CUDA_VISIBLE_DEVICES in place of what stands
    there, where numbers are those of the machine, not those among the visible ones."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(number) for number in range(gpus)] if visible is None else [name.strip() for name in visible.split(",")][:gpus]


def _guard(arguments: Sequence[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    # a group of its own: Ctrl-C comes to us first
    group = {"creationflags": 0x200} if sys.platform == "win32" else {"start_new_session": True}
    command = [sys.executable, "-m", "training.synthesize.servers", *arguments]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", **group
    )


def _end(guard: subprocess.Popen[str]) -> None:
    if guard.stdin:
        guard.stdin.close()
    try:
        guard.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
    if guard.stdout:
        guard.stdout.close()


def guard(arguments: Sequence[str]) -> int:
    """Run a server until standard input ends, which it does with the process at its other end."""
    answer = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed is no answer
    try:
        with HostServer(arguments=arguments) as server, os.fdopen(answer, "w", encoding="utf-8") as out:
            print(json.dumps([server.url, str(server.output_dir)]), file=out, flush=True)
            sys.stdin.read()
    except (ServerDied, SetupError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
