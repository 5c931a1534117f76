"""A manifest of the user's: right lines are made into samples, wrong ones are listed, and the copy trap is shut."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import data_videos as videos

from dreamactor_core.extract.weights import sha256_of
from training.data import build
from training.errors import UserError
from training.marionette.world import rng_for, sample_scene

CLIP = {"fps": 12, "frames": 25, "lead_in": 0.6667, "sizes": [[64, 96]]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two characters who do the same, a copy of the first in disguise, and one who does something else for longer."""
    rng = rng_for("validation", 12, 0)
    scene = sample_scene(rng, "human")
    videos.write(tmp_path / "target.mp4", scene.draw()[0], 12)
    videos.write(tmp_path / "other.mp4", scene.with_character(rng, "human").draw()[0], 12)
    videos.write(tmp_path / "again.mkv", [frame[2:-3, 2:-2] for frame in scene.draw()[0]], 12, codec="ffv1")
    (tmp_path / "same.mp4").write_bytes((tmp_path / "target.mp4").read_bytes())
    videos.write(tmp_path / "longer.mp4", videos.moving(40), 12)
    Image.fromarray(np.full((150, 100, 3), (200, 30, 90), np.uint8)).save(tmp_path / "face.png")
    (tmp_path / "no face.png").write_bytes(b"no picture")
    return tmp_path


def made(folder: Path, lines: list[Any], **data: Any) -> tuple[list[Any], dict[str, tuple[str, str]]]:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "list.jsonl").write_text("\n".join(texts) + "\n", "utf-8")
    given = {"source": "manifest", "manifest": folder / "list.jsonl", "min_frames": 25, "max_frames": 25, "captions": "file"} | data
    samples = build.build(videos.config(folder / "out", CLIP, **given))
    dropped = [json.loads(line) for line in (folder / "out" / "clips" / "dropped.jsonl").read_text("utf-8").splitlines()]
    return samples, {one["source"]: (one["reason"], one["detail"]) for one in dropped}


def pair(driver: str, **more: Any) -> dict[str, Any]:
    name = Path(driver).stem.replace(" ", "-")
    return {"id": name, "kind": "e2e", "target_video": "target.mp4", "driving_video": driver, "caption": "a human"} | more


def test_pairs_pass_and_copies_do_not(folder: Path) -> None:
    lines = [
        pair(
            "other.mp4",
            reference_image="face.png",
            fps=30,
            scores={"identity": 0.5},
            source_sha256=sha256_of(folder / "target.mp4"),
        ),
        pair("same.mp4"),
        pair("again.mkv"),
        pair("target.mp4"),
        pair("longer.mp4"),
    ]
    (sample,), dropped = made(folder, lines)
    assert (sample.id, sample.kind, sample.caption, sample.scores) == ("other", "e2e", "a human", {"identity": 0.5})
    assert sample.pairs == "filmed"
    assert sample.driving_sha256 == sha256_of(folder / "other.mp4") and sample.source_sha256 == sha256_of(folder / "target.mp4")
    for made_of, source in ((sample.target_video, "target.mp4"), (sample.driving_video, "other.mp4")):
        frames, truth = videos.read(made_of)[1], videos.read(folder / source)[1]
        assert frames.shape == truth.shape == (25, 96, 64, 3)
        assert np.abs(frames.astype(int) - truth).mean() < 4
    with Image.open(sample.reference_image) as image:
        assert image.size == (64, 96) and image.getpixel((30, 40)) == (200, 30, 90)
    assert "states 30 fps, its timestamps say 12" in sample.note
    assert {name: reason for name, (reason, _) in dropped.items()} == {
        "same": "copy", "again": "copy", "target": "copy", "longer": "not_aligned",
    }  # fmt: skip
    assert "same bytes" in dropped["same"][1] and "the target itself" in dropped["again"][1]


def test_wrong_lines_are_listed_and_the_rest_goes_on(folder: Path) -> None:
    good = {"id": "good", "target_video": "target.mp4", "caption": "a human walks"}
    lines: list[Any] = [
        good,
        "{not json",
        good | {"caption": "another with the same id"},
        good | {"id": "a", "colour": "red"},
        good | {"id": "b c"},
        good | {"id": "d", "target_video": "gone.mp4"},
        pair("other.mp4") | {"id": "e", "driving_video": None},
        pair("other.mp4") | {"id": "f", "kind": "pose"},
        "",
        good | {"id": "g", "reference_image": "no face.png"},
        good | {"id": "h", "source_sha256": "0" * 64},
        good | {"id": "i", "caption": " "},
    ]
    samples, dropped = made(folder, lines)
    assert [sample.id for sample in samples] == ["good"]
    expected = {
        "line 2": "bad_line", "line 3": "bad_line", "line 4": "bad_line", "line 5": "bad_line", "line 6": "missing_file",
        "line 7": "bad_line", "line 8": "bad_line",
    }  # fmt: skip
    assert {name: reason for name, (reason, _) in dropped.items()} == {
        **{f"list.jsonl, {line}": reason for line, reason in expected.items()},
        "g": "bad_reference", "h": "damaged", "i": "no_caption",
    }  # fmt: skip
    assert "colour" in dropped["list.jsonl, line 4"][1] and "already" in dropped["list.jsonl, line 3"][1]


def test_a_long_video_of_a_line_has_several_ids(folder: Path) -> None:
    videos.write(folder / "long.mp4", videos.moving(80), 12)
    samples, dropped = made(folder, [{"id": "long", "target_video": "long.mp4", "caption": "x"}])
    assert [sample.id for sample in samples] == ["long-000", "long-001", "long-002"]
    assert dropped["long"][0] == "too_short"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line that is right; expected"),
        ('{"id": 3}\n', "no line that is right; the first trouble is in list.jsonl, line 1: id"),
    ],
)
def test_a_file_without_a_right_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text(text, "utf-8")
    with pytest.raises(UserError, match=message):
        build.build(videos.config(tmp_path / "out", source="manifest", manifest=tmp_path / "list.jsonl"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a JSONL file"):
        build.build(videos.config(tmp_path / "out", source="manifest", manifest=tmp_path / "no.jsonl"))
