"""`python -m training score` broken off in every way: killed, by Ctrl-C, by a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from scoring import Always, config, digest, environment, run  # noqa: F401 - a fixture is used by being here
from stand_ins import Request, StandIn, hang, says
from synthetic_pairs import write_pairs

ROOT = Path(__file__).resolve().parents[2]


def test_killed_at_any_moment_it_ends_the_same(tmp_path: Path) -> None:
    """SIGKILL to the real command, at growing times; then it runs to its end, and the manifest is that of an unbroken run."""
    write_pairs(tmp_path / "run" / "synthetic", 5)
    with StandIn("openai_compatible") as service:

        def slowly(stand_in: StandIn, handler: object, request: Request) -> None:
            time.sleep(0.1)
            score = 1 + int(hashlib.sha256(request.texts[0].encode()).hexdigest(), 16) % 5
            says(json.dumps({"score": score}))(stand_in, handler, request)

        service.script = Always(slowly)
        path = config(tmp_path, service, measures=["flicker", "motion_flow"])
        command = [sys.executable, "-m", "training", "score", str(path)]
        journal, kills = tmp_path / "run" / "scores" / "journal.jsonl", 0
        for least in (0, 1, 3):  # after so many clips
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            asked, until = len(service.requests), time.monotonic() + 120
            while process.poll() is None and time.monotonic() < until:
                done = len(journal.read_bytes().splitlines()) if journal.exists() else 0
                if done >= least and len(service.requests) > asked:
                    process.kill()
                    kills += 1
                    break
                time.sleep(0.005)
            else:
                process.kill()
            process.wait()
        assert kills >= 2
        assert not (tmp_path / "run" / "scores" / "manifest.jsonl").exists()
        with journal.open("ab") as file:
            file.write(b'{"id": "pair000", "key": "')  # as a crash in the middle of a line leaves it
        assert run(path) == 0
        resumed, asked = digest(tmp_path), len(service.requests)
        assert asked <= 5 * 4 + 2 * kills  # no more than what was under way is asked twice
        for file in (tmp_path / "run" / "scores").rglob("*.json*"):
            file.unlink()
        assert run(path) == 0
        assert digest(tmp_path) == resumed


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_ctrl_c_ends_soon(tmp_path: Path) -> None:
    write_pairs(tmp_path / "run" / "synthetic", 2)
    with StandIn("openai_compatible") as service:
        service.script = Always(hang)
        path = config(tmp_path, service)
        process = subprocess.Popen([sys.executable, "-m", "training", "score", str(path)], cwd=ROOT, stderr=subprocess.PIPE)
        limit = threading.Timer(60, process.kill)
        limit.start()
        while not service.requests and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1].decode()
        limit.cancel()
        assert process.returncode == 130 and "goes on from what is saved" in said


def test_a_full_disk_is_told_and_nothing_half_written_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.journal import Journal

    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append({"id": "a"})
    real = os.fsync

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        journal.append({"id": "b"})
    monkeypatch.setattr(os, "fsync", real)
    path.write_bytes(path.read_bytes()[:-5])  # what a full disk leaves of the line
    journal.append({"id": "c"})
    assert [entry["id"] for entry in Journal(path).news()] == ["a", "c"]
