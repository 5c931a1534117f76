"""Videos are read by their timestamps, the same by both readers; what cannot be read is named."""

from __future__ import annotations

import importlib.util
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import data_videos as videos

from training.data import video
from training.data.dropping import Drop
from training.data.shots import ShotFinder
from training.data.video import Reader, look_through, read, readers

READERS = readers()
needs_decord = pytest.mark.skipif("decord" not in READERS, reason="decord has no wheel for this machine")
UNEVEN = np.cumsum([0, *np.random.default_rng(0).choice([0.02, 0.033, 0.05, 0.08], 39)]).round(3).tolist()
KINDS: dict[str, Callable[[Path], Path]] = {
    "constant.mp4": lambda path: videos.write(path, videos.moving(40), 30),
    "uneven.mp4": lambda path: videos.write(path, videos.moving(40), times=UNEVEN, bf="4"),
    "late.mp4": lambda path: videos.write(path, videos.moving(40), times=[time + 0.5 for time in UNEVEN]),
    "wide.mp4": lambda path: videos.write(path, videos.moving(20, 180, 320), 25),
    "uneven.webm": lambda path: videos.write(path, videos.moving(40, 98, 66), times=UNEVEN, codec="libvpx-vp9"),
    "lossless.mkv": lambda path: videos.write(path, videos.moving(40), times=UNEVEN, codec="ffv1"),
}


@pytest.mark.parametrize(("installed", "expected"), [(True, ["decord", "av"]), (False, ["av"])])
def test_without_decord_pyav_reads_alone(monkeypatch: pytest.MonkeyPatch, installed: bool, expected: list[Reader]) -> None:
    asked: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: asked.append(name) or (object() if installed else None))
    assert (readers(), asked) == (expected, ["decord"])


def test_pyav_reads_where_decord_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = videos.write(tmp_path / "a.mp4", videos.moving(6))
    info = look_through(path)
    monkeypatch.setattr(video, "readers", lambda: ["av"])
    monkeypatch.setitem(sys.modules, "decord", None)  # its import fails
    assert np.array_equal(np.stack(list(read(info, range(6)))), videos.read(path)[1])


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", KINDS)
def test_each_reader_gives_the_same_frames_at_the_same_times(name: str, reader: Reader, tmp_path: Path) -> None:
    path = KINDS[name](tmp_path / name)
    info = look_through(path)
    times, frames = videos.read(path)
    np.testing.assert_allclose(info.times, np.array(times) - times[0], atol=1e-6)
    wanted = [0, 0, 1, 5, 5, 12, 13, 14, len(frames) - 1]
    got = list(read(info, wanted, reader))
    assert np.array_equal(np.stack(got), frames[wanted])
    assert got[0] is got[1] and got[3] is got[4] and got[1] is not got[2]


@needs_decord
@pytest.mark.parametrize("name", KINDS)
def test_decord_s_own_clock_is_the_one_of_the_packets(name: str, tmp_path: Path) -> None:
    import decord

    path = KINDS[name](tmp_path / name)
    info = look_through(path)
    starts = decord.VideoReader(str(path)).get_frame_timestamp(range(len(info.times)))[:, 0]
    np.testing.assert_allclose(starts - starts[0], info.times, atol=1e-3)


def test_the_frame_rate_is_that_of_the_timestamps(tmp_path: Path) -> None:
    honest = look_through(videos.write(tmp_path / "honest.mkv", videos.moving(30), 12, codec="ffv1"))
    assert (round(honest.fps, 2), honest.note) == (12, "")
    lie = videos.write(tmp_path / "lie.mkv", videos.moving(30), 12, codec="ffv1", stated=30)
    info = look_through(lie)
    assert info.fps == pytest.approx(12, rel=0.01) and info.end == pytest.approx(30 / 12, abs=0.01)
    assert info.note == "it states 30 fps, its timestamps say 12: read by the timestamps"


@pytest.mark.parametrize("reader", READERS)
def test_pictures_are_upright(reader: Reader, tmp_path: Path) -> None:
    path = videos.write(tmp_path / "lying.mp4", videos.moving(6, 64, 96))
    data = bytearray(path.read_bytes())
    matrix = data.find(b"tkhd") + 4 + 4 + 20 + 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 64 << 16, 0, 1 << 30)  # a quarter turn clockwise
    path.write_bytes(data)
    info = look_through(path)
    assert (info.height, info.width) == (96, 64)
    stored = videos.read(path)[1]
    assert np.array_equal(np.stack(list(read(info, range(6), reader))), np.rot90(stored, -1, (1, 2)))


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "narrow.mp4", videos.moving(4, 96, 64), **{"x264-params": "sar=3/2"})
    info = look_through(path)
    assert (info.height, info.width) == (96, 96)
    assert next(read(info, [0])).shape == (96, 96, 3)


@needs_decord
def test_a_long_video_is_not_given_to_decord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps what it decodes ahead, however much that is."""
    import decord

    info = look_through(videos.write(tmp_path / "a.mp4", videos.moving(40)))
    opened = []
    real = decord.VideoReader
    monkeypatch.setattr(decord, "VideoReader", lambda *args, **named: opened.append(args) or real(*args, **named))
    short = list(read(info, range(40), "decord"))
    assert len(opened) == 1
    monkeypatch.setattr(video, "MOST_AHEAD", 40 * 96 * 64 * 3 - 1)
    assert np.array_equal(np.stack(short), np.stack(list(read(info, range(40), "decord")))) and len(opened) == 1


def _bytes(data: bytes) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        (folder / "a.mp4").write_bytes(data)
        return folder / "a.mp4"

    return made


def _sound(folder: Path) -> Path:
    import av

    with av.open(str(folder / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder / "a.mp4"


def _cut_short(folder: Path) -> Path:
    path = videos.write(folder / "a.mp4", videos.moving(40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


BROKEN = {
    "empty": _bytes(b""),
    "unreadable": _bytes(b"this is a letter, not a video\n" * 40),
    "missing_file": lambda folder: folder / "b.mp4",
    "no_video": _sound,
    "damaged": lambda folder: videos.flip_bits(videos.write(folder / "b.mp4", videos.moving(40)), folder / "a.mp4"),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_what_cannot_be_read_is_named(reason: str, tmp_path: Path) -> None:
    with pytest.raises(Drop) as error:
        look_through(BROKEN[reason](tmp_path))
    assert error.value.reason == reason, error.value


def test_half_a_file_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(Drop) as error:
        look_through(_cut_short(tmp_path))
    assert error.value.reason in ("unreadable", "damaged")


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_changes_after_it_was_looked_through(reader: Reader, tmp_path: Path) -> None:
    path = videos.write(tmp_path / "a.mp4", videos.moving(40))
    info = look_through(path)
    videos.write(path, videos.moving(20))
    with pytest.raises(Drop, match="ends before frame 30"):
        list(read(info, [10, 30], reader))


@pytest.mark.parametrize("lengths", [[40], [20, 30, 25], [12, 6, 30], [3, 40], [40, 2]])
def test_shots_begin_where_the_picture_changes(lengths: list[int], tmp_path: Path) -> None:
    frames = [frame for shot, count in enumerate(lengths) for frame in videos.moving(count, shot=shot + 1)]
    finder = ShotFinder()
    look_through(videos.write(tmp_path / "a.mp4", frames), finder)
    assert finder.starts() == np.cumsum([0, *lengths[:-1]]).tolist()
