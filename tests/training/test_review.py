"""`python -m training review`: the real server on the loopback address, real requests, decisions that are never lost."""

from __future__ import annotations

import http.client
import io
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from synthetic_pairs import write_config, write_pairs  # noqa: E402

from training import manifest  # noqa: E402
from training.review.decisions import Decisions  # noqa: E402
from training.video import read_clip  # noqa: E402

ROOT = HERE.parents[1]


def cookie(by: str) -> dict[str, str]:
    """What the browser of that name sends."""
    return {"Cookie": f"dreamactor_review={by}"}


class Running:
    """The command in a process of its own."""

    def __init__(self, config: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "training", "review", str(config), *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        limit = threading.Timer(90, self.process.kill)
        limit.start()
        self.address = re.search(r"http://\S+", self.process.stdout.readline())[0]
        limit.cancel()
        self.port, self.path = urlsplit(self.address).port, urlsplit(self.address).path

    def ask(
        self, path: str, body: object = None, method: str = "", host: str = "", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers. A path that begins with / is taken as it is, any other behind the token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        full = path if path.startswith("/") else self.path + path
        connection.putrequest(method or ("POST" if body is not None else "GET"), full, skip_host=True)
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.putheader("Host", host or f"127.0.0.1:{self.port}")
        for name, value in {"Content-Length": str(len(data)), "Content-Type": "application/json", **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        found = answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        connection.close()
        return found

    def state(self) -> dict[str, bool | None]:
        return dict(json.loads(self.ask("state")[1])["samples"])

    def decide(self, name: str, accepted: bool, by: str = "one") -> int:
        return self.ask(f"samples/{name}/decision", {"accepted": accepted}, headers=cookie(by))[0]

    def undo(self, by: str = "one") -> dict[str, object]:
        return json.loads(self.ask("undo", {}, headers=cookie(by))[1])

    def stop(self, how: int = signal.SIGTERM) -> str:
        self.process.send_signal(how)
        return self.process.communicate(timeout=60)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs, and one whose clip is damaged."""
    root = tmp_path_factory.mktemp("review")
    samples = write_pairs(root / "run" / "kept", 3)
    bad = root / "run" / "kept" / "bad.mkv"
    bad.write_bytes(b"not a video")
    scored = [sample.model_copy(update={"scores": {"identity": 0.9}}) for sample in samples]
    odd = scored[0].model_copy(update={"id": "damaged", "driving_video": bad})
    manifest.write(root / "run" / "kept" / "manifest.jsonl", [*scored, odd])
    write_config(root)
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    running = Running(folder / "run.yaml")
    yield running
    running.process.kill()
    running.process.communicate()


@pytest.fixture
def fresh(server: Running) -> Iterator[Running]:
    """The server, without decisions."""
    yield server
    for by in ("one", "two", *(f"b{k}" for k in range(4))):
        while server.undo(by)["id"] is not None:
            pass
    assert set(server.state().values()) == {None}


def test_the_page_needs_nothing_from_elsewhere(server: Running) -> None:
    status, page, headers = server.ask("")
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"] and headers["referrer-policy"] == "no-referrer"
    whole = page + server.ask("page.js")[1] + server.ask("page.css")[1]
    assert not re.search(rb"https?://|url\(|//cdn|@import", whole)
    for name in re.findall(rb'(?:src|href)="([^"]+)"', page):
        assert name.startswith(b"data:") or server.ask(name.decode())[0] == 200


def test_a_sample_as_the_page_shows_it(server: Running, folder: Path) -> None:
    shown = json.loads(server.ask("samples/pair000")[1])
    assert shown["scores"] == {"identity": 0.9} and shown["kind"] == "e2e" and shown["reference"] == "character"
    assert str(folder) not in json.dumps(shown)
    status, data, headers = server.ask("samples/pair000/video")
    assert status == 200 and headers["content-type"] == "video/mp4" and headers["accept-ranges"] == "bytes"
    clip = folder / "clip.mp4"
    clip.write_bytes(data)
    frames, target = read_clip(clip), read_clip(folder / "run" / "kept" / "pair000_target.mkv")
    driving = read_clip(folder / "run" / "kept" / "pair000_driving.mkv")
    assert frames.shape == (17, 512, 342 + 12 + 342, 3)  # both halves, in step
    for t in (0, 8, 16):
        for half, clip_there in ((frames[t, :, :342], driving[t]), (frames[t, :, -342:], target[t + 8])):
            small = half.reshape(512, 342, 3)[2::16, 2::16].astype(int)
            there = clip_there[np.linspace(0.4, 95.1, 32).round().astype(int)]
            there = there[:, np.linspace(0.4, 63.3, small.shape[1]).round().astype(int)].astype(int)
            assert np.median(np.abs(small - there)) < 6
    part = server.ask("samples/pair000/video", headers={"Range": "bytes=10-19"})
    assert part[0] == 206 and part[1] == data[10:20]
    from PIL import Image

    assert Image.open(io.BytesIO(server.ask("samples/pair000/reference")[1])).size == (342, 512)


def test_a_damaged_clip_is_told_and_can_be_rejected(fresh: Running) -> None:
    status, said, _ = fresh.ask("samples/damaged/video")
    assert status == 500 and b"bad.mkv can't be read as a video" in said
    assert fresh.decide("damaged", False) == 200 and fresh.state()["damaged"] is False


@pytest.mark.parametrize(
    "path",
    [
        "/", "/state", "/wrong/", "/wrong/state", "/wrong/samples/pair000/video", "samples/../../../etc/passwd/video",
        "samples/..%2f..%2frun.yaml/video", "samples/%2e%2e/video", "samples/..%5crun.yaml/video", "samples/nobody/video",
        "samples/%2fetc%2fpasswd/reference", "../run.yaml", "%2e%2e/run.yaml", "server.py", "page.py", "..%2fserver.py",
        "journal.jsonl", "samples/pair000%00/video", "cache", "samples/",
    ],
)  # fmt: skip
def test_nothing_else_is_served(server: Running, path: str) -> None:
    status, body, _ = server.ask(path)
    assert status in (403, 404)
    assert b"root:" not in body and b"preset" not in body and b"import" not in body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1]:1", "192.168.0.1"])
def test_a_name_from_outside_is_refused(server: Running, host: str) -> None:
    assert server.ask("state", host=host)[0] == 404
    assert server.ask("state", host=f"localhost:{server.port}")[0] == 200


def test_it_listens_on_this_machine_alone(server: Running) -> None:
    assert server.address.startswith("http://127.0.0.1:") and len(server.path) > 24
    process = psutil.Process(server.process.pid)
    found = [one for each in (process, *process.children(recursive=True)) for one in each.net_connections("inet")]
    listening = [one.laddr for one in found if one.status == psutil.CONN_LISTEN]
    assert server.port in [port for _, port in listening]
    assert all(ipaddress.ip_address(address).is_loopback for address, _ in listening), listening


def test_every_key_and_button_of_the_page_does_something() -> None:
    """What the page names is what its script listens to, and a button's key does what the button does."""
    page, script = ((ROOT / "training" / "review" / name).read_text("utf-8") for name in ("page.html", "page.js"))
    acts, keys = (re.search(rf"const {name} = {{(.*?)}};", script, re.S)[1] for name in ("acts", "keys"))
    acts = set(re.findall(r"(?:^|,)\s*(\w+)(?=[:,])", acts))
    does = {quoted or plain: act for quoted, plain, act in re.findall(r'(?:"([^"]+)"|(\w+)): "(\w+)"', keys)}
    others = set(re.findall(r'key === "(.)"', script))  # those that are no button's
    assert len(acts) == 7 and set(does.values()) == acts and others == {"f", ",", "."}

    def key(shown: str) -> str:
        return {"space": " ", "←": "arrowleft", "→": "arrowright"}.get(shown.lower(), shown.lower())

    assert {key(shown) for shown in re.findall(r"<kbd>(.+?)</kbd>", page)} == does.keys() | others
    buttons = re.findall(r'<button id="(\w+)"><kbd>(.+?)</kbd>', page)
    assert {name for name, _ in buttons} == acts and len(buttons) == page.count("<button")
    hint = re.findall(r"<kbd>([←→])</kbd> (\w+)", page)
    assert len(hint) == 2 and all(does[key(shown)] == act for act, shown in [*buttons, *((act, shown) for shown, act in hint)])
    assert set(re.findall(r'\$\("(\w+)"\)', script)) <= set(re.findall(r'id="(\w+)"', page))


@pytest.mark.parametrize(
    "body",
    [
        {}, [], "x", b"not JSON", b"\xff", {"accepted": 1}, {"accepted": "yes"}, {"accepted": None},
    ],
)  # fmt: skip
def test_a_decision_must_be_one(server: Running, body: object) -> None:
    assert server.ask("samples/pair000/decision", body, headers=cookie("one"))[0] == 400
    assert set(server.state().values()) == {None}
    assert server.ask("samples/nobody/decision", {"accepted": True}, headers=cookie("one"))[0] == 404
    assert server.ask("samples/pair000/decision", b"x" * 100_000, headers=cookie("one"))[0] in (400, 413)
    assert server.ask("samples/pair000/decision")[0] == 404  # to be posted


def test_a_decision_is_somebodys(server: Running) -> None:
    for headers in ({}, cookie(""), cookie("x" * 65), {"Cookie": "other=one"}):
        for path, body in (("samples/pair000/decision", {"accepted": True}), ("undo", {})):
            status, said, _ = server.ask(path, body, headers=headers)
            assert status == 400 and b"allow cookies" in said
    assert set(server.state().values()) == {None}


def test_undo_goes_back_step_by_step_and_only_over_ones_own(fresh: Running) -> None:
    assert fresh.decide("pair000", True, "one") == 200
    assert fresh.decide("pair000", False, "two") == 200
    assert fresh.decide("pair001", True, "one") == 200
    assert fresh.decide("pair000", True, "two") == 200
    assert fresh.undo("two") == {"id": "pair000", "accepted": False}
    assert fresh.undo("one") == {"id": "pair001", "accepted": None}
    assert fresh.undo("one") == {"id": "pair000", "accepted": False}  # the other's decision stands
    assert fresh.undo("one") == {"id": None, "accepted": None}
    assert fresh.undo("two") == {"id": "pair000", "accepted": None}


def test_two_browsers_at_once_lose_nothing(fresh: Running, folder: Path) -> None:
    names, rounds = list(fresh.state()), 10
    troubles: list[object] = []

    def browse(by: str, name: str) -> None:
        for k in range(rounds):
            if fresh.decide(name, k % 2 == 0, by) != 200:
                troubles.append((by, name, k))

    threads = [threading.Thread(target=browse, args=(f"b{k}", name)) for k, name in enumerate(names)]
    before = len((folder / "run" / "review" / "journal.jsonl").read_text("utf-8").splitlines())
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not troubles
    lines = (folder / "run" / "review" / "journal.jsonl").read_text("utf-8").splitlines()
    assert len(lines) - before == rounds * len(names)
    assert [json.loads(line)["id"] for line in lines[before:]].count(names[0]) == rounds
    assert set(fresh.state().values()) == {False}


def test_the_state_is_sent_only_when_it_has_changed(fresh: Running) -> None:
    changes = json.loads(fresh.ask("state")[1])["changes"]
    assert "samples" not in json.loads(fresh.ask(f"state?since={changes}")[1])
    fresh.decide("pair000", True)
    assert json.loads(fresh.ask(f"state?since={changes}")[1])["samples"][0] == ["pair000", True]


def test_killed_it_goes_on(tmp_path: Path) -> None:
    write_pairs(tmp_path / "run" / "kept", 3)
    config, review = write_config(tmp_path), tmp_path / "run" / "review"
    first = Running(config)
    assert first.decide("pair000", True) == first.decide("pair001", False) == 200
    first.process.kill()
    first.process.wait()
    with (review / "journal.jsonl").open("ab") as file:
        file.write(b'{"id": "pair002", "acc')  # cut short by a crash
    second = Running(config)
    assert second.path != first.path  # a token of its own
    assert second.state() == {"pair000": True, "pair001": False, "pair002": None}
    assert second.undo() == {"id": "pair001", "accepted": None}
    second.process.kill()
    second.process.wait()


def test_a_browser_keeps_its_name_over_a_restart(tmp_path: Path) -> None:
    """Whose address is another one each time: the name is in a cookie, which is of all ports and paths."""

    def named(running: Running, headers: dict[str, str]) -> dict[str, str]:
        pair, *about = running.ask("", headers=headers)[2]["set-cookie"].split("; ")
        assert {"Path=/", "HttpOnly", "SameSite=Lax"} <= set(about) and not any(one.startswith("Domain") for one in about)
        assert any(re.fullmatch(r"Max-Age=\d{7,}", one) for one in about)
        return {"Cookie": pair}

    write_pairs(tmp_path / "run" / "kept", 1)
    config = write_config(tmp_path)
    first = Running(config)
    mine, others = named(first, {}), named(first, {})
    assert mine != others and first.ask("samples/pair000/decision", {"accepted": True}, headers=mine)[0] == 200
    first.stop()
    second = Running(config)
    assert named(second, mine) == mine
    assert json.loads(second.ask("undo", {}, headers=others)[1]) == {"id": None, "accepted": None}
    assert json.loads(second.ask("undo", {}, headers=mine)[1]) == {"id": "pair000", "accepted": None}
    second.stop()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_ctrl_c_writes_what_was_decided(tmp_path: Path) -> None:
    write_pairs(tmp_path / "run" / "kept", 3)
    config, review = write_config(tmp_path), tmp_path / "run" / "review"
    running = Running(config)
    assert running.decide("pair000", True) == running.decide("pair002", True) == 200
    said = running.stop(signal.SIGINT)
    assert "2 accepted, 0 rejected, 1 undecided" in said and running.process.returncode == 0
    found = manifest.read(review / "manifest.jsonl")
    assert [sample.accepted for sample in found] == [True, None, True]
    kept = manifest.read(review / "kept.jsonl")
    assert [sample.id for sample in kept] == ["pair000", "pair002"] and kept[0].driving_video.is_file()


def test_two_servers_on_one_folder_see_each_other(tmp_path: Path) -> None:
    """As far as they share the journal; here without the network."""
    samples = write_pairs(tmp_path / "kept", 2)
    one, two = Decisions(tmp_path / "review", samples), Decisions(tmp_path / "review", samples)
    one.decide("pair000", True, "a")
    two.decide("pair001", False, "b")
    assert one.all() == two.all() == {"pair000": True, "pair001": False}
    one.write()
    assert [sample.accepted for sample in manifest.read(tmp_path / "review" / "manifest.jsonl")] == [True, False]


def test_only_what_was_decided_since_is_put_into_words_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the manifests are those that the samples say: `to_line` is the slow part of ten thousands of them."""
    samples, review = write_pairs(tmp_path / "kept", 3), tmp_path / "review"
    decisions, made, to_line = Decisions(review, samples), [], manifest.to_line

    def watched(sample: manifest.Sample, folder: Path) -> str:
        made.append(sample.id)
        return to_line(sample, folder)

    monkeypatch.setattr(manifest, "to_line", watched)

    def written() -> list[str]:
        made.clear()
        decisions.write()
        found = manifest.read(review / "manifest.jsonl")
        assert {one.id: one.accepted for one in found} == decisions.all()
        assert [one.driving_video.resolve() for one in found] == [one.driving_video.resolve() for one in samples]
        assert [one.id for one in manifest.read(review / "kept.jsonl")] == [one.id for one in found if one.accepted]
        return list(made)

    assert written() == ["pair000", "pair001", "pair002"]
    decisions.decide("pair001", True, "a")
    assert written() == ["pair001"]
    decisions.decide("pair002", True, "a")
    decisions.undo("a")
    assert written() == []
    decisions.undo("a")
    assert written() == ["pair001"]


def test_manifests_are_not_rewritten_with_every_decision(tmp_path: Path) -> None:
    """The journal has them at once, the manifests every few seconds, and all of them at the end."""
    write_pairs(tmp_path / "run" / "kept", 2)
    review = tmp_path / "run" / "review"
    running, versions, decided = Running(write_config(tmp_path)), set(), 0
    until = time.monotonic() + 3.5
    while time.monotonic() < until:
        assert running.decide("pair000", decided % 2 == 0) == 200
        decided += 1
        versions.add((review / "manifest.jsonl").stat().st_ino if (review / "manifest.jsonl").exists() else None)
        time.sleep(0.1)
    assert len((review / "journal.jsonl").read_text("utf-8").splitlines()) == decided > 5
    assert len(versions - {None}) <= 2
    running.decide("pair000", True)
    running.stop(signal.SIGINT)
    assert [sample.accepted for sample in manifest.read(review / "manifest.jsonl")] == [True, None]


def test_an_older_state_is_never_written_over_a_newer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at Ctrl-C, when the last write begins while the one before is still at it."""
    decisions = Decisions(tmp_path / "review", write_pairs(tmp_path / "kept", 1))
    at_it, go_on, save = threading.Event(), threading.Event(), manifest.write_lines

    def slow(path: Path, lines: list[str]) -> None:
        if threading.current_thread() is first:
            at_it.set()
            go_on.wait(2)
        save(path, lines)

    monkeypatch.setattr(manifest, "write_lines", slow)
    first, last = threading.Thread(target=decisions.write), threading.Thread(target=decisions.write)
    first.start()
    assert at_it.wait(10)
    decisions.decide("pair000", True, "a")
    last.start()
    last.join(1)
    go_on.set()
    first.join()
    last.join()
    assert [sample.accepted for sample in manifest.read(tmp_path / "review" / "manifest.jsonl")] == [True]


def test_a_state_and_its_number_are_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a page would take the older decisions for the newer ones, and not ask again."""
    decisions = Decisions(tmp_path / "review", write_pairs(tmp_path / "kept", 2))
    plain, others = decisions.of, []

    def looked(name: str) -> bool | None:  # another browser decides after the first sample was looked at
        found = plain(name)
        if not others:
            others.append(threading.Thread(target=decisions.decide, args=("pair000", True, "a")))
            others[0].start()
            others[0].join(0.5)
        return found

    monkeypatch.setattr(decisions, "of", looked)
    assert decisions.state() == (0, {"pair000": None, "pair001": None})
    others[0].join()
    assert decisions.state() == (1, {"pair000": True, "pair001": None})


def test_a_clip_that_was_made_anew_is_undecided_again(tmp_path: Path) -> None:
    samples = [sample.model_copy(update={"driving_sha256": "a" * 64}) for sample in write_pairs(tmp_path / "kept", 1)]
    Decisions(tmp_path / "review", samples).decide("pair000", True, "a")
    assert Decisions(tmp_path / "review", samples).all() == {"pair000": True}
    again = [samples[0].model_copy(update={"driving_sha256": "b" * 64})]
    assert Decisions(tmp_path / "review", again).all() == {"pair000": None}


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    write_pairs(tmp_path / "run" / "kept", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "training", "review", str(write_config(tmp_path)), "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "give another --port" in done.stderr and "Traceback" not in done.stderr
