"""`python -m training score`: grades through a stand-in service, resumed, repaired, stopped, and never a key on the disk."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "text")]
from scoring import KEY, QUICK, Always, config, digest, environment, run  # noqa: E402, F401 - a fixture is used by being here
from stand_ins import StandIn, refusal, says, status  # noqa: E402
from synthetic_pairs import write_config, write_pair, write_pairs  # noqa: E402

from dreamactor_core.poses import to_pose_keypoint  # noqa: E402
from training import manifest  # noqa: E402
from training.config import GRADES  # noqa: E402
from training.errors import UserError  # noqa: E402
from training.score.grades import Prompts, parse  # noqa: E402
from training.score.material import Material  # noqa: E402

ROOT = HERE.parents[1]


@pytest.fixture
def service() -> Iterator[StandIn]:
    """Says 4 to everything, in JSON, until it is told otherwise."""
    with StandIn("openai_compatible") as running:
        running.script = Always(says('{"score": 4, "reason": "fine"}'))
        yield running


def scored(folder: Path) -> list[manifest.Sample]:
    return manifest.read(folder / "run" / "scores" / "manifest.jsonl")


def dropped(folder: Path) -> dict[str, str]:
    lines = (folder / "run" / "scores" / "dropped.jsonl").read_text("utf-8").splitlines()
    return {entry["id"]: entry["reason"] for entry in map(json.loads, lines)}


def test_measures_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = write_pairs(tmp_path / "run" / "synthetic", 2)
    lacking = write_pair(tmp_path / "run" / "synthetic", 2, "human", with_reference=False)
    manifest.write(tmp_path / "run" / "synthetic" / "manifest.jsonl", [*samples, lacking])
    assert run(write_config(tmp_path)) == 0
    found = scored(tmp_path)
    assert [sample.id for sample in found] == ["pair000", "pair001", "pair002"]
    assert set(found[0].scores) == {"identity", "motion_flow", "flicker"}
    assert set(found[2].scores) == {"motion_flow", "flicker"}  # never a number where there is no reference
    assert "identity                 not measured on 1 clips, which lack driving_reference" in capsys.readouterr().out
    assert (tmp_path / "run" / "scores" / "config.yaml").is_file()
    assert found[0].driving_video.is_file()  # paths hold from the new folder


@pytest.mark.parametrize("protocol", ["gemini", "openai_compatible"])
def test_grades_by_a_service(tmp_path: Path, protocol: str) -> None:
    write_pairs(tmp_path / "run" / "synthetic", 1)
    with StandIn(protocol) as service:
        service.script = Always(says('```json\n{"score": 5, "reason": "clean"}\n```'))
        assert run(config(tmp_path, service, dimensions=list(GRADES))) == 0
        assert len(service.requests) == len(GRADES)
        shown = {re.search(r"judge (?:the |whether )?([\w ]+)", request.texts[0])[1]: request for request in service.requests}
        assert len(shown) == len(GRADES)
        pictures = sorted(request.pictures for request in service.requests)
        # 17 frames at 12 fps: two a second and the last are 4 (one more with the reference); eight a second are 12, in rows of 8
        assert pictures == [2, 2, 4, 4, 5, 5]
        texts = " ".join(request.texts[0] for request in service.requests)
        assert "{pictures}" not in texts and "first picture is the reference image" in texts and "row of up to 8 frames" in texts
    assert {name: scored(tmp_path)[0].scores[name] for name in GRADES} == dict.fromkeys(GRADES, 5.0)


def test_a_second_run_asks_nothing(tmp_path: Path, service: StandIn) -> None:
    write_pairs(tmp_path / "run" / "synthetic", 2)
    path = config(tmp_path, service)
    assert run(path) == 0
    before, asked = digest(tmp_path), len(service.requests)
    assert asked == 2 * 4
    assert run(path) == 0
    (tmp_path / "run" / "scores" / "journal.jsonl").unlink()  # then the answers are still there
    assert run(path) == 0
    assert (digest(tmp_path), len(service.requests)) == (before, asked)


def test_what_has_changed_is_graded_anew(tmp_path: Path, service: StandIn) -> None:
    samples = write_pairs(tmp_path / "run" / "synthetic", 2)
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    one = {"dimensions": ["imaging_quality"]}
    assert run(config(tmp_path, service, **one)) == 0
    assert len(service.requests) == 2
    samples[0].driving_video.write_bytes(samples[1].driving_video.read_bytes())  # another clip of the same name
    assert run(config(tmp_path, service, **one)) == 0
    assert len(service.requests) == 3
    (prompts / "imaging_quality.txt").write_text("Grade these: {pictures} Only JSON.", "utf-8")
    assert run(config(tmp_path, service, prompts=str(prompts), **one)) == 0
    assert len(service.requests) == 5
    assert service.requests[-1].texts[0].startswith("Grade these: You are shown")
    assert run(config(tmp_path, service, prompts=str(prompts), **(one | {"model": "another"}))) == 0
    assert len(service.requests) == 7


def test_one_request_for_repair(tmp_path: Path, service: StandIn) -> None:
    write_pairs(tmp_path / "run" / "synthetic", 1)
    service.script[:0] = [says("I would give it a 4.5 out of 5."), says("Score: 3")]
    assert run(config(tmp_path, service, dimensions=["imaging_quality"])) == 0
    assert scored(tmp_path)[0].scores["imaging_quality"] == 3
    assert len(service.requests) == 2
    assert len(service.requests[1].texts) == 3 and "can be read" in service.requests[1].texts[2]


def test_no_grade_after_the_repair_drops_the_clip(tmp_path: Path, service: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "run" / "synthetic", 2)
    service.script[:0] = [says("great!"), says("really great!")]
    path = config(tmp_path, service, dimensions=["imaging_quality"], workers=1)
    assert run(path) == 0
    assert [sample.id for sample in scored(tmp_path)] == ["pair001"]
    assert "no grade for imaging_quality" in dropped(tmp_path)["pair000"]
    assert "1 clips left out" in capsys.readouterr().out
    assert run(path) == 0  # tried again
    assert len(scored(tmp_path)) == 2 and not dropped(tmp_path)


def test_a_model_that_refuses_one_clip(tmp_path: Path, service: StandIn) -> None:
    write_pairs(tmp_path / "run" / "synthetic", 2)
    service.script[:0] = [refusal]
    assert run(config(tmp_path, service, dimensions=["imaging_quality"], workers=1)) == 0
    assert "refused" in dropped(tmp_path)["pair000"] and len(scored(tmp_path)) == 1


def test_a_retargeted_clip_is_looked_at_where_it_is(tmp_path: Path) -> None:
    """Poses on a reference that is the driver at half the size, elsewhere: the driver's own at half the size, there."""
    sample = write_pair(tmp_path, 0, "human")
    plain = Material(sample)
    assert plain.pair.result_poses is None and plain.pair.driven_by is plain.pair.poses
    driver = plain.pair.poses
    path = tmp_path / "reference.json"
    small = [[one.mapped((0.5, 0.5), (20, 40)) for one in people] for people in driver.frames]
    path.write_text(json.dumps({"frames": to_pose_keypoint(replace(driver, frames=small[:1])), "frame_ms": 100}), "utf-8")
    material = Material(sample.model_copy(update={"driving_reference_poses": path}))
    made = material.pair.result_poses
    assert (made.height, made.width) == (sample.height, sample.width) and len(made) == len(material.pair.result)
    for got, wanted in zip(made.frames, small, strict=True):
        assert np.abs(got[0].body[1, :2] - wanted[0].body[1, :2]).max() < 1.5
    assert material.content != plain.content
    before = material.content
    path.write_text(path.read_text("utf-8") + "\n", "utf-8")
    assert Material(material.sample).content != before, "scores hang on them"
    path.write_text("{}", "utf-8")
    with pytest.raises(UserError, match=r"reference\.json can't be made again .*run `synthesize` anew"):
        _ = Material(material.sample).pair


def test_a_service_that_goes_away_stops_and_keeps(tmp_path: Path, service: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "run" / "synthetic", 3)
    path = config(tmp_path, service, dimensions=["imaging_quality", "motion_smoothness"], workers=1)
    service.script[:0] = [service.script.then] * 3 + [status(500)] * 4  # in the middle of the second clip, all tries
    assert run(path) == 1
    said = capsys.readouterr().err
    assert "status 500" in said and "the same command goes on" in said
    assert not (tmp_path / "run" / "scores" / "manifest.jsonl").exists()
    assert len(service.requests) == 7
    assert run(path) == 0
    assert len(service.requests) == 7 + 3  # what was answered is not asked again
    assert len(scored(tmp_path)) == 3
    assert not list((tmp_path / "run").rglob("*.part"))


def test_a_busy_service_is_asked_again(tmp_path: Path, service: StandIn) -> None:
    write_pairs(tmp_path / "run" / "synthetic", 1)
    service.script[:0] = [status(429, Retry_After="0"), status(503)]
    assert run(config(tmp_path, service, dimensions=["imaging_quality"])) == 0
    assert len(service.requests) == 3


def test_no_service_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "run" / "synthetic", 1)
    with StandIn("openai_compatible") as gone:
        path = config(tmp_path, gone, dimensions=["imaging_quality"])
    assert run(path) == 1
    assert "connection to 127.0.0.1 failed" in capsys.readouterr().err


def test_the_key_is_nowhere(tmp_path: Path, service: StandIn, capfd: pytest.CaptureFixture[str]) -> None:
    """Not even when a careless service repeats it, in an error or in its answer."""
    write_pairs(tmp_path / "run" / "synthetic", 2)
    path = config(tmp_path, service, dimensions=["imaging_quality"], workers=1)
    service.script[:0] = [says(f'{{"score": 4, "reason": "{KEY}"}}'), status(401)]
    assert run(path) == 1
    assert service.requests[0].headers["authorization"] == f"Bearer {KEY}"
    service.script[:0] = [says(KEY), says(f"no: {KEY}")]
    assert run(path) == 0
    said = capfd.readouterr()
    assert KEY not in said.out + said.err
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any("answers" in file.parts for file in files)
    assert not [file for file in files if KEY.encode() in file.read_bytes()]


@pytest.mark.parametrize("harm", ["cut short", "empty", "not a video", "gone", "another length", "changed since"])
def test_a_damaged_clip_is_left_out_and_told(tmp_path: Path, harm: str) -> None:
    samples = write_pairs(tmp_path / "run" / "synthetic", 2)
    clip = samples[0].driving_video
    data = clip.read_bytes()
    if harm == "changed since":
        changed = samples[0].model_copy(update={"driving_sha256": "0" * 64})
        manifest.write(tmp_path / "run" / "synthetic" / "manifest.jsonl", [changed, samples[1]])
    elif harm == "another length":
        clip.write_bytes(samples[0].target_video.read_bytes())
    elif harm == "gone":
        clip.unlink()
    else:
        clip.write_bytes({"cut short": data[: len(data) // 2], "empty": b"", "not a video": b"#!/bin/sh\n" * 99}[harm])
    assert run(config(tmp_path)) == 0
    assert [sample.id for sample in scored(tmp_path)] == ["pair001"]
    assert clip.name in dropped(tmp_path)["pair000"]


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ({"service": "gemini"}, "model is empty"),
        ({"service": "chatgpt", "model": "x"}, "score.service"),
        ({"measures": []}, "nothing to score by"),
        ({"measures": ["sharpness"]}, "score.measures"),
        ({"measures": ["motion"]}, "motion_flow instead, which needs no estimator"),
        ({"service": "gemini", "model": "x", "base_url": "https://me:secret@host/v1"}, "base_url holds a password"),
        ({"service": "gemini", "model": "x", "prompts": "nowhere"}, "there is no folder nowhere"),
    ],
)
def test_wrong_settings_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], score: dict, said: str) -> None:
    write_pairs(tmp_path / "run" / "synthetic", 1)
    assert run(write_config(tmp_path, score=score)) == 1
    assert said in capsys.readouterr().err


def test_missing_weights_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "run" / "synthetic", 1)
    assert run(write_config(tmp_path, score={"measures": ["motion"]}, data={"pose_weights": str(tmp_path)})) == 1
    assert "weight file(s) are missing" in capsys.readouterr().err


def test_samples_that_are_no_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = write_pairs(tmp_path / "run" / "synthetic", 1)[0]
    alone = sample.model_copy(update={"kind": "pose", "driving_video": None})
    manifest.write(tmp_path / "run" / "synthetic" / "manifest.jsonl", [alone])
    assert run(config(tmp_path)) == 1
    assert "not of kind e2e (pair000)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "grade"),
    [
        ('{"score": 1}', 1),
        ('{"reason": "x", "score": 5}', 5),
        ('```json\n{"score": 3, "reason": "a"}\n```', 3),
        ("<think>score: 2</think>Score: 4", 4),
        ("It is clean.\n**Score: 2**", 2),
        ("score: 5.", 5),
    ],
)
def test_answers_that_can_be_read(answer: str, grade: int) -> None:
    assert parse(answer) == grade


@pytest.mark.parametrize(
    "answer",
    [
        "", "4", "I give it 4 of 5", '{"score": 4.5}', '{"score": "4"}', '{"score": true}', '{"score": 6}', '{"score": 0}',
        '{"score": -3}', '{"grade": 4}', '{"score": 4', "Score: 4/5", "Score: 4.5", "Score: 7", "Score: four", "Score: 4\nScore: 5",
        "Score: -4", "[4]",
    ],
)  # fmt: skip
def test_answers_that_are_none(answer: str) -> None:
    with pytest.raises(ValueError, match=r"score|grade|JSON"):
        parse(answer)


def test_questions_that_ship_have_their_places(tmp_path: Path) -> None:
    prompts = Prompts(GRADES)
    assert len({prompts.version(name) for name in GRADES}) == len(GRADES)
    assert '{"score": <a whole number' in prompts.fill("imaging_quality", "")
    (tmp_path / "imaging_quality.txt").write_text("no place", "utf-8")
    with pytest.raises(ValueError, match=r"imaging_quality\.txt has no {pictures}"):
        Prompts(GRADES, tmp_path)
