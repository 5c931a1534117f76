"""Weight files: found in the usual places, fetched over https only, and never there unless they are the right ones."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dreamactor_core.extract import weights
from dreamactor_core.extract.catalogue import MODELS, Source, WeightFile
from dreamactor_core.extract.errors import ExtractError

CONTENT = bytes(range(256)) * 20_000
ZIPPED = "deep/inside/end2end.onnx"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def archive(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return made.getvalue()


@dataclass
class Site:
    """A server: what it gives for each path, and which paths were asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    hang: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """On this machine, where http is let through for the tests."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    strict = weights._require_https

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            if self.path in made.redirects:
                self.send_response(302)
                self.send_header("Location", made.redirects[self.path])
                self.end_headers()
                return
            content = made.files.get(self.path)
            self.send_response(404 if content is None else 200)
            short = self.path.startswith("/short")
            self.send_header("Content-Length", str(len(content or b"") + (1000 if short else 0)))
            self.end_headers()
            if content and self.path.startswith("/hang"):
                self.wfile.write(content[:1000])
                self.wfile.flush()
                made.hang.wait(30)
            elif content:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Site(f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(weights, "_require_https", lambda url: None if url.startswith(made.url) else strict(url))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    made.hang.set()
    server.shutdown()
    server.server_close()


def wanted(site: Site, *paths: str, content: bytes = CONTENT, zipped: bytes = b"") -> WeightFile:
    """A file from some paths of the site, of which those that end in .zip hold it."""
    sources = tuple(Source(site.url + path, sha256(zipped) if path.endswith(".zip") else "") for path in paths)
    return WeightFile("net.onnx", sha256(content), len(content), sources, ("alias.onnx",))


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_catalogue_is_sound() -> None:
    files = [file for model in MODELS.values() for file in (model.detector, model.network)]
    for file in files:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.sources
        for source in file.sources:
            assert source.archive_sha256 == "" or re.fullmatch("[0-9a-f]{64}", source.archive_sha256)
            assert source.url.startswith("https://")
            assert source.url.endswith(".zip") == bool(source.archive_sha256)
        assert file.name.endswith(".onnx")
    assert len({file.sha256 for file in files}) == len({file.name for file in files}) == len(set(files))


def test_files_are_found_by_each_name_in_each_folder_and_one_below(tmp_path: Path) -> None:
    file = WeightFile("net.onnx", "0" * 64, 1, (), aliases=("alias.onnx",))
    first, second, none = tmp_path / "first", tmp_path / "second", tmp_path / "none"
    for folder in (first, second / "DWPose"):
        folder.mkdir(parents=True)
    assert weights.find(file, [first, second, none]) is None
    (second / "DWPose" / "alias.onnx").touch()
    assert weights.find(file, [first, none, second]) == second / "DWPose" / "alias.onnx"
    (first / "net.onnx").touch()
    assert weights.find(file, [first, second]) == first / "net.onnx"
    (first / "net.onnx").unlink()
    (first / "net.onnx").mkdir()
    assert weights.find(file, [first, second]) == second / "DWPose" / "alias.onnx"


def test_what_is_missing_is_named_with_its_place_and_its_source() -> None:
    model = MODELS["rtmw"]
    message = str(weights.missing([model.detector, model.network], Path("models/detection"), "turn on download"))
    for part in (
        "2 weight file(s) are missing, expected in", "models", "yolox_m_8xb8-300e_humanart-c2c7a14a.onnx (101 MB",
        "rtmw-dw-x-l_simcc-cocktail14_270e-384x288_20231122.onnx (229 MB", "https://download.openmmlab.com/mmpose",
        "end2end.onnx inside the zip: rename it", "turn on download",
    ):  # fmt: skip
        assert part in message


def test_a_file_is_fetched_checked_and_there(site: Site, tmp_path: Path) -> None:
    site.files["/net"] = CONTENT
    told: list[tuple[int, int]] = []
    path = weights.fetch(wanted(site, "/net"), tmp_path / "models" / "detection", lambda done, of: told.append((done, of)))
    assert path.read_bytes() == CONTENT
    assert entries(path.parent) == ["net.onnx"]
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_redirect_is_followed(site: Site, tmp_path: Path) -> None:
    site.files["/cdn/net"], site.redirects["/net"] = CONTENT, "/cdn/net"
    assert weights.fetch(wanted(site, "/net"), tmp_path).read_bytes() == CONTENT
    assert site.asked == ["/net", "/cdn/net"]


def test_an_archive_is_checked_unpacked_and_checked_again(site: Site, tmp_path: Path) -> None:
    zipped = archive({ZIPPED: CONTENT, "deep/inside/pipeline.json": b"{}"})
    site.files["/net.zip"] = zipped
    assert weights.fetch(wanted(site, "/net.zip", zipped=zipped), tmp_path).read_bytes() == CONTENT
    for paths in (("/gone", "/net.zip"), ("/gone.zip", "/net")):
        site.files["/net"] = CONTENT
        (tmp_path / "net.onnx").unlink()
        assert weights.fetch(wanted(site, *paths, zipped=zipped), tmp_path).read_bytes() == CONTENT
    assert entries(tmp_path) == ["net.onnx"]


def test_the_second_address_is_asked_when_the_first_fails(site: Site, tmp_path: Path) -> None:
    site.files["/mirror"] = CONTENT
    assert weights.fetch(wanted(site, "/gone", "/mirror"), tmp_path).read_bytes() == CONTENT
    assert site.asked == ["/gone", "/mirror"]


def test_another_file_is_thrown_away(site: Site, tmp_path: Path) -> None:
    site.files["/net"] = CONTENT[:-1] + b"!"
    (tmp_path / "other.onnx").touch()
    with pytest.raises(ExtractError, match=rf"net\.onnx has sha256 {sha256(site.files['/net'])}, expected {sha256(CONTENT)}"):
        weights.fetch(wanted(site, "/net"), tmp_path)
    assert entries(tmp_path) == ["other.onnx"]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({ZIPPED: CONTENT[1:]}, "net.onnx has sha256"),
        ({"readme": b""}, "holds 0 files end2end.onnx, expected one"),
        ({ZIPPED: CONTENT, "end2end.onnx": CONTENT}, "holds 2 files end2end.onnx"),
    ],
)
def test_another_network_in_the_archive(site: Site, tmp_path: Path, members: dict[str, bytes], says: str) -> None:
    zipped = archive(members)
    site.files["/net.zip"] = zipped
    with pytest.raises(ExtractError, match=re.escape(says)):
        weights.fetch(wanted(site, "/net.zip", zipped=zipped), tmp_path)
    site.files["/net.zip"] = zipped + b"!"
    with pytest.raises(ExtractError, match=r"the archive of net\.onnx has sha256"):
        weights.fetch(wanted(site, "/net.zip", zipped=zipped), tmp_path)
    assert entries(tmp_path) == []


def test_every_address_and_what_it_said_is_named(site: Site, tmp_path: Path) -> None:
    site.files["/short"] = CONTENT
    site.redirects["/loop"] = "/loop"
    with pytest.raises(ExtractError) as caught:
        weights.fetch(wanted(site, "/gone", "/short", "/loop"), tmp_path)
    message, place = str(caught.value), f"put the file into {tmp_path}"
    for part in ("net.onnx could not be fetched", "answered with status 404", "redirects", place, site.url):
        assert part in message
    assert entries(tmp_path) == []


@pytest.mark.parametrize("target", ["http://example.org/net", "ftp://example.org/net", "file:///etc/hostname"])
def test_nothing_but_https(site: Site, tmp_path: Path, target: str) -> None:
    site.redirects["/net"] = target
    with pytest.raises(ExtractError, match="expected https"):
        weights.fetch(wanted(site, "/net"), tmp_path)
    with pytest.raises(ExtractError, match="expected https"):
        weights.fetch(WeightFile("net.onnx", "0" * 64, 1, (Source(target),)), tmp_path)


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_require_https", lambda url: None)
    with socket.socket() as taken:  # and not listened to: nobody answers there, and nobody else can take it meanwhile
        taken.bind(("127.0.0.1", 0))
        file = WeightFile("net.onnx", "0" * 64, 1, (Source(f"http://127.0.0.1:{taken.getsockname()[1]}/net"),))
        told = r"net\.onnx could not be fetched \(127\.0\.0\.1: .*Check the network, or put the file"
        with pytest.raises(ExtractError, match=told):
            weights.fetch(file, tmp_path)
    assert entries(tmp_path) == []


def test_a_download_is_given_up_at_once(site: Site, tmp_path: Path) -> None:
    """The server sends a little and then nothing. Meanwhile the user is asked more than once a second."""
    site.files["/hang"] = CONTENT
    asked: list[float] = []

    def stop(done: int, of: int) -> None:
        if site.asked:
            asked.append(time.monotonic())
        if len(asked) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights.fetch(wanted(site, "/hang"), tmp_path, stop)
    assert time.monotonic() - asked[0] < 5, "half a second is usual; the server would be silent for half a minute"
    assert entries(tmp_path) == []


def test_a_digest_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"one")
    assert weights.sha256_of(path) == sha256(b"one")
    path.write_bytes(b"other")
    assert weights.sha256_of(path) == sha256(b"other")
