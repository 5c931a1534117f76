"""The verb `cache`: what training reads is what the method's functions make of the clips, and of no others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_clips import PLAIN, hashes, write_clips, write_run
from safetensors import safe_open
from safetensors.torch import load_file
from short_runs import FLOAT

from dreamactor_core.clips import ClipSpec
from dreamactor_core.conditions import build_condition
from dreamactor_core.layout import SpatialLayout, get_layout
from dreamactor_core.order import steady_people
from dreamactor_core.poses import Person, PoseSequence, from_body_joints, from_pose_keypoint, to_pose_keypoint
from training import backbones, config, manifest
from training.__main__ import main
from training.backbones.base import Context, Encoders
from training.backbones.marionette import MarionetteEncoders
from training.checkpoint import save_atomic
from training.config import Augment
from training.errors import UserError
from training.latents import copies, header, skeletons
from training.latents.bodies import bodies_of, others_of
from training.latents.build import EMPTY, build, header_of
from training.latents.encode import Maker, read_driver, read_poses, read_target, to_pixels
from training.latents.read import Cache
from training.latents.split import split
from training.marionette.world import FRAMES, HEIGHT, LEAD_IN, WIDTH, rng_for, sample_scene
from training.train.contracts import check_cache
from training.video import read_clip, write_clip

SPEC = ClipSpec(25, LEAD_IN, 12.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "clips"
    write_clips(folder, 5)
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def cached(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose cache is made: four samples to train on, one held out, without augmentation."""
    folder = tmp_path_factory.mktemp("run")
    cache = {"manifest": str(clips), "shard": 2, "validation_share": 0.2, "augment": PLAIN, "workers": 1}
    run = write_run(folder / "run.yaml", folder, cache=cache, backbone=FLOAT)
    assert main(["cache", str(run)]) == 0
    return folder


def test_shards_hold_what_the_nodes_would_make(cached: Path, clips: Path) -> None:
    cache, encoders = Cache(cached / "cache", "train"), MarionetteEncoders(torch.device("cpu"), torch.float32)
    assert [place.id for place in cache.places] == ["c0", "c1", "c2", "c3"]
    assert [place.id for place in Cache(cached / "cache", "validation").places] == ["c4"]
    sample = manifest.read(clips)[1]
    target = read_target(sample)
    skeleton = skeletons.drawn(read_poses(sample)[LEAD_IN:])
    reference = to_pixels(target)[:, :, 0]
    exact = build_condition(SpatialLayout(), reference, to_pixels(skeleton), SPEC, encoders.encode, torch.float32).latents[0]
    found = cache.tensors(1)
    assert found["condition"].shape == (1, 16, 7, 12, 16) and found["target"].shape == (16, 7, 12, 8)
    torch.testing.assert_close(found["condition"][0].float(), exact, atol=4e-3, rtol=1e-3)  # half precision's own error
    text = encoders.text([sample.caption])[0]["text"]
    torch.testing.assert_close(cache.context(1)["text"].float(), text, atol=2e-3, rtol=1e-3)
    assert torch.equal(cache.context(1, drop_text=True)["text"].float(), encoders.text([""])[0]["text"])


def test_an_rgb_cache_holds_the_raw_driver(tmp_path: Path) -> None:
    samples = write_clips(tmp_path / "clips", 2, pairs=True)
    run = write_run(tmp_path / "run.yaml", tmp_path, variant="rgb", backbone=FLOAT, cache={"validation_share": 0.0, "workers": 1})
    assert main(["cache", str(run)]) == 0
    cache, encoders = Cache(tmp_path / "cache", "train"), MarionetteEncoders(torch.device("cpu"), torch.float32)
    assert cache.header("pairs") == "ground_truth" and cache.header("skeleton") == ""
    reference, driver = to_pixels(read_target(samples[0]))[:, :, 0], to_pixels(read_driver(samples[0], SPEC))
    exact = build_condition(SpatialLayout(), reference, driver, SPEC, encoders.encode, torch.float32).latents[0]
    torch.testing.assert_close(cache.tensors(0)["condition"][0].float(), exact, atol=4e-3, rtol=1e-3)


def test_a_second_call_makes_nothing_and_a_missing_shard_is_made_again(cached: Path) -> None:
    before = hashes(cached / "cache")
    shard = sorted((cached / "cache" / "train").glob("*.safetensors"))[1]
    changed = {path: path.stat().st_mtime_ns for path in (cached / "cache").rglob("*.safetensors")}
    shard.unlink()
    build(config.load(cached / "run.yaml"))
    assert hashes(cached / "cache") == before
    assert [path for path, when in changed.items() if path.stat().st_mtime_ns != when] == [shard]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"augment": {**PLAIN, "normalise": 1.0}}, "augment"),
        ({"validation_share": 0.4}, "manifest_sha256"),
        ({"variants": 2}, "variants"),
        ({"shard": 3}, "_00000.safetensors holds 2 samples, expected 3, from c0 to c2; it"),
    ],
)
def test_a_cache_of_other_settings_is_refused(cached: Path, clips: Path, tmp_path: Path, change: dict, key: str) -> None:
    cache = {"manifest": str(clips), "shard": 2, "validation_share": 0.2, "augment": PLAIN} | change
    with pytest.raises(UserError, match=f"{key} .* make it again"):
        build(config.load(write_run(tmp_path / "run.yaml", cached, cache=cache)))


@pytest.mark.parametrize(("found", "expected"), [("1.0", ""), ("", "1.0"), ("0.5", "1.0")])
def test_a_shard_of_another_motion_context_is_refused(found: str, expected: str, tmp_path: Path) -> None:
    """Also where a field is not stated on one of the two sides."""
    names = "backbone vae_sha256 text_sha256 variant layout fps lead_in text variants augment skeleton pairs manifest_sha256"
    own = header.Header(**dict.fromkeys(names.split(), "same"), apart=expected)
    shard = tmp_path / "cache" / "train" / "a.safetensors"
    header.check(own.metadata() | {"whole": "{}"}, own, shard)
    said = f"apart is {found or 'not stated'}, expected {expected or 'not stated'}; the cache was made"
    with pytest.raises(UserError, match=said):
        header.check(replace(own, apart=found).metadata(), own, shard)


def test_a_cache_of_other_clips_is_refused(cached: Path, clips: Path, tmp_path: Path) -> None:
    copy = tmp_path / "clips"
    shutil.copytree(clips.parent, copy)
    with (copy / "c1.mkv").open("ab") as file:
        file.write(b"\0")
    cache = {"manifest": str(copy / "manifest.jsonl"), "shard": 2, "validation_share": 0.2, "augment": PLAIN}
    with pytest.raises(UserError, match="manifest_sha256"):
        build(config.load(write_run(tmp_path / "run.yaml", cached, cache=cache)))


@pytest.fixture
def copied(cached: Path, tmp_path: Path) -> Path:
    """The cache of `cached`, to be spoilt."""
    return Path(shutil.copytree(cached / "cache", tmp_path / "cache"))


def rewritten(path: Path, metadata: dict[str, str]) -> None:
    save_atomic(load_file(path), path, metadata)


@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_cache_that_was_not_finished_is_not_read(name: str, copied: Path) -> None:
    (copied / name / "64x96x25_00000.safetensors").unlink()
    counts = {"train": "1 shards with 2 samples of train, expected 2 with 4", "validation": "0 shards .* expected 1 with 1"}
    with pytest.raises(UserError, match=f"{counts[name]}: .* run `python -m training cache` again"):
        Cache(copied, name)


def test_a_cache_of_before_shards_were_counted_is_read_as_it_is(copied: Path) -> None:
    for path in copied.rglob("*_0*.safetensors"):
        with safe_open(path, "pt") as file:
            about = file.metadata()
        assert json.loads(about.pop("whole")) == {"train": [2, 4], "validation": [1, 1]}
        rewritten(path, about)
    rewritten(copied / EMPTY, {})
    settings = config.load(write_run(copied.parent / "run.yaml", copied.parent, cache={"augment": PLAIN}))
    for name, count in (("train", 4), ("validation", 1)):
        cache = Cache(copied, name)
        check_cache(settings, backbones.get(settings.backbone), cache, name)
        assert len(cache) == count
    (copied / "train" / "64x96x25_00000.safetensors").unlink()
    assert len(Cache(copied, "train")) == 2


def test_dropped_texts_need_the_empty_prompt_of_this_text_encoder(cached: Path, copied: Path) -> None:
    settings = config.load(write_run(copied.parent / "run.yaml", copied.parent, cache={"augment": PLAIN}))
    without = settings.model_copy(update={"train": settings.train.model_copy(update={"drop_text": 0.0})})
    backbone = backbones.get(settings.backbone)
    rewritten(copied / EMPTY, {"cache.backbone": "marionette", "cache.text_sha256": "another"})
    with pytest.raises(UserError, match=r"is of text_sha256 another, expected .* run `python -m training cache`"):
        check_cache(settings, backbone, Cache(copied, "train"), "train")
    (copied / EMPTY).unlink()
    with pytest.raises(UserError, match=r"there is no .*empty\.safetensors, expected it for train.drop_text"):
        check_cache(settings, backbone, Cache(copied, "train"), "train")
    check_cache(without, backbone, Cache(copied, "train"), "train")


def test_the_empty_prompt_of_another_text_encoder_is_replaced(cached: Path) -> None:
    path, before = cached / "cache" / EMPTY, hashes(cached / "cache")
    save_atomic({"text": torch.zeros(2, 3)}, path, {"cache.backbone": "marionette", "cache.text_sha256": "another"})
    build(config.load(cached / "run.yaml"))
    assert hashes(cached / "cache") == before


def test_the_contract_tells_of_hands_that_any_sample_has(clips: Path, tmp_path: Path) -> None:
    """Not of the first one's alone."""
    dancer = json.loads(Path("tests/data/drives/dancer.json").read_text("utf-8"))["frames"]
    (tmp_path / "dancer.json").write_text(json.dumps({"frames": [dancer[k % len(dancer)] for k in range(FRAMES)]}), "utf-8")
    settings = config.load(write_run(tmp_path / "run.yaml", tmp_path, cache={"manifest": str(clips)}))
    samples = manifest.read(clips)
    assert header_of(settings, samples, tmp_path).skeleton == "openpose18"
    samples[3] = samples[3].model_copy(update={"poses": tmp_path / "dancer.json"})
    assert header_of(settings, samples, tmp_path).skeleton == "openpose18+face+hands"


def spoilt(folder: Path, how: str) -> tuple[dict, str]:
    """A change to the clips' first line, or to its files, and what is said of it."""
    if how == "video":
        (folder / "c0.mkv").write_bytes(b"")
        return {}, r"c0\.mkv can't be read as a video"
    if how == "poses":
        (folder / "c0.json").write_text('{"frames": []}')
        return {}, r"c0\.json can't be read as POSE_KEYPOINT .*zero frames"
    if how == "text":
        return {"motion": ""}, "c0 lacks its motion or appearance text, expected both for cache.text: concatenated"
    if how == "missing":
        (folder / "c0.mkv").unlink()
        return {}, r"there is no .*c0\.mkv"
    return {"size": ({"width": 80}, r"c0 is 80x96, expected one of clip\.sizes: 64x96"), "rate": ({"fps": 24}, "24 fps, expected")}[
        how
    ]


@pytest.mark.parametrize("how", ["video", "poses", "missing", "size", "rate", "text"])
def test_clips_that_are_wrong_are_named(how: str, tmp_path: Path) -> None:
    samples = write_clips(tmp_path / "clips", 2)
    change, message = spoilt(tmp_path / "clips", how)
    manifest.write(tmp_path / "clips" / "manifest.jsonl", [samples[0].model_copy(update=change), samples[1]])
    with pytest.raises(UserError, match=message):
        cache = {"validation_share": 0.0, "workers": 1} | ({"text": "concatenated"} if how == "text" else {})
        build(config.load(write_run(tmp_path / "run.yaml", tmp_path, cache=cache)))
    assert not list((tmp_path / "cache").rglob("*_0*.safetensors")), "nothing half-written"


def test_another_body_is_drawn_by_the_same_numbers_whoever_is_there_to_draw(clips: Path, tmp_path: Path) -> None:
    cache = {"manifest": str(clips), "augment": {"other_bodies": 0.5}}
    settings, samples = config.load(write_run(tmp_path / "run.yaml", tmp_path, cache=cache)), manifest.read(clips)
    drawn, counted = others_of(bodies_of(settings, samples)), bodies_of(settings, samples)
    without = others_of(replace(counted, samples={}))
    people = [sample for sample in samples if sample.appearance != "a quadruped"]
    for seed in range(8):
        rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
        found = drawn(people[0], rng)
        expected = people[int(np.random.default_rng(seed).integers(len(people)))]
        if expected.id == people[0].id:
            assert found is None
        else:
            first = steady_people(read_poses(expected)[:1])
            assert np.array_equal(skeletons.to_array(found), skeletons.to_array(first))
        assert without(people[0], same) is None and same.random() == rng.random()


@pytest.mark.parametrize("how", ["path", "link", "hash", "again"])
def test_a_driver_that_is_its_target_is_refused(how: str, tmp_path: Path) -> None:
    """The copy trap, in manifests that `data` has not made, too."""
    samples = write_clips(tmp_path / "clips", 2, pairs=True)
    copy, target = tmp_path / "clips" / "copy.mkv", samples[1].target_video
    change: dict[str, object] = {"driving_video": copy}
    if how == "path":
        change = {"driving_video": target, "driving_start": 0}
    elif how == "link":
        copy.hardlink_to(target)
    elif how == "hash":
        change = {"source_sha256": "a" * 64, "driving_sha256": "A" * 64}
    else:  # encoded anew, a little darker: other bytes
        write_clip(copy, (read_clip(target)[LEAD_IN:] * 0.9).astype(np.uint8), samples[1].fps, lossless=False)
    manifest.write(tmp_path / "clips" / "manifest.jsonl", [samples[0], samples[1].model_copy(update=change)])
    cache = {"validation_share": 0.0, "workers": 2, "shard": 1}
    message = r"c1: .* is its target_video, expected another" if how != "again" else r"c1: .*copy\.mkv: the driver shows the target"
    with pytest.raises(UserError, match=message):
        build(config.load(write_run(tmp_path / "run.yaml", tmp_path, variant="rgb", cache=cache)))
    assert not list((tmp_path / "cache").rglob("*_0*.safetensors"))


@pytest.mark.parametrize("workers", [1, 2])
def test_all_drivers_that_show_their_target_are_named(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before the first shard is made, up to a number."""
    samples = write_clips(tmp_path / "clips", 3, pairs=True)
    for k in (0, 2):
        copy = tmp_path / "clips" / f"copy{k}.mkv"
        write_clip(copy, (read_clip(samples[k].target_video)[LEAD_IN:] * 0.9).astype(np.uint8), samples[k].fps, lossless=False)
        samples[k] = samples[k].model_copy(update={"driving_video": copy})
    listed = tmp_path / "clips" / "manifest.jsonl"
    manifest.write(listed, samples)
    settings = config.load(
        write_run(tmp_path / "run.yaml", tmp_path, variant="rgb", cache={"validation_share": 0.0, "workers": workers, "shard": 1})
    )
    named = r"show their own target.* 2 of them(?s:.*)c0: .*copy0\.mkv(?s:.*)c2: .*copy2\.mkv"
    with pytest.raises(UserError, match=named) as caught:
        build(settings)
    assert str(listed) in str(caught.value) and "c1:" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*_0*.safetensors"))
    assert "3 samples are looked at first" in capfd.readouterr().out
    monkeypatch.setattr(copies, "_SHOWN", 1)
    with pytest.raises(UserError, match=r"2 of them") as caught:
        build(settings)
    assert "c2:" not in str(caught.value) and str(caught.value).endswith("...")


@pytest.mark.parametrize(
    ("sources", "share", "held_out"), [(1, 0.05, 0), (2, 0.05, 1), (10, 0.05, 1), (10, 0.0, 0), (40, 0.05, 2), (5, 0.34, 2)]
)
def test_something_is_held_out_where_there_is_a_second_source(
    sources: int, share: float, held_out: int, clips: Path, tmp_path: Path
) -> None:
    first = manifest.read(clips)[0]
    made = [first.model_copy(update={"id": f"c{k}", "source_sha256": str(k // 2)}) for k in range(2 * sources)]  # two clips of each
    manifest.write(tmp_path / "many.jsonl", made)
    cache = {"manifest": str(tmp_path / "many.jsonl"), "validation_share": share}
    found = split(config.load(write_run(tmp_path / "run.yaml", tmp_path, cache=cache)))
    assert [len(found[name]) for name in ("train", "validation")] == [2 * (sources - held_out), 2 * held_out]


def test_the_end_says_how_many_samples_are_where(
    cached: Path, clips: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build(config.load(cached / "run.yaml"))
    said = capfd.readouterr().out
    assert "4 samples to train on, 1 held out, 0 skipped; 3 shards in" in said and "nothing is held out" not in said
    folder = tmp_path / "clips"
    shutil.copytree(clips.parent, folder)
    samples = manifest.read(folder / "manifest.jsonl")
    other = samples[1].model_copy(update={"kind": "e2e", "driving_video": samples[0].target_video})
    manifest.write(
        folder / "manifest.jsonl", [samples[0], other, *(one.model_copy(update={"accepted": False}) for one in samples[2:4])]
    )
    build(config.load(write_run(tmp_path / "run.yaml", tmp_path, cache={"workers": 1, "augment": PLAIN, "variants": 0})))
    said = capfd.readouterr().out
    assert "1 samples to train on, 0 held out, 3 skipped (1 of another kind than pose, 2 rejected); 1 shards in" in said
    assert "nothing is held out" in said and "give clips of two sources or more" in said


def test_held_out_shards_of_an_earlier_setting_are_refused(clips: Path, tmp_path: Path) -> None:
    """`train` would read them, though nothing is held out any more."""
    first, second = manifest.read(clips)[:2]
    manifest.write(tmp_path / "one.jsonl", [first])
    manifest.write(tmp_path / "other.jsonl", [second])

    def run(validation: Path | None) -> config.Config:
        cache = {"manifest": str(tmp_path / "one.jsonl"), "validation": validation and str(validation), "validation_share": 0}
        cache |= {"workers": 1, "augment": PLAIN, "variants": 0}
        return config.load(write_run(tmp_path / "run.yaml", tmp_path, cache=cache, backbone=FLOAT))

    build(run(tmp_path / "other.jsonl"))
    left = tmp_path / "cache" / "validation"
    with pytest.raises(UserError, match=r"validation/.*\.safetensors is of no sample of this run, expected 0 shards; delete"):
        build(run(None))
    shutil.rmtree(left)
    build(run(None))


def test_no_clip_is_on_both_sides(clips: Path, tmp_path: Path) -> None:
    samples = [
        sample.model_copy(update={"source_sha256": "abc" if k > 1 else str(k)}) for k, sample in enumerate(manifest.read(clips))
    ]
    manifest.write(tmp_path / "same.jsonl", samples)
    cache = {"manifest": str(tmp_path / "same.jsonl"), "validation": str(tmp_path / "same.jsonl")}
    with pytest.raises(UserError, match="share 3 source files"):
        build(config.load(write_run(tmp_path / "run.yaml", tmp_path, cache=cache)))


def test_shares_of_augmentation_are_kept() -> None:
    poses = from_body_joints(sample_scene(rng_for("train", 98, 0), "human").keypoints(), HEIGHT, WIDTH)
    other = from_body_joints(sample_scene(rng_for("train", 98, 1), "cartoon").keypoints(), HEIGHT, WIDTH)
    plain = skeletons.to_array(poses)

    def share(**settings: float) -> float:
        chosen = Augment(**(PLAIN | settings))
        changed = [skeletons.to_array(skeletons.augmented(poses, chosen, np.random.default_rng(k), [other])) for k in range(60)]
        return float(np.mean([not np.array_equal(one, plain) for one in changed]))

    assert share() == 0
    for name in PLAIN:
        assert share(**{name: 1.0}) == 1
        assert 0.25 < share(**{name: 0.5}) < 0.75


def test_another_body_stands_where_the_own_one_stood() -> None:
    """And it has the other's proportions and the own joint angles."""
    poses = from_body_joints(sample_scene(rng_for("train", 98, 2), "human").keypoints(), HEIGHT, WIDTH)
    other = from_body_joints(sample_scene(rng_for("train", 98, 3), "cartoon").keypoints(), HEIGHT, WIDTH)
    changed = skeletons.with_body_of(poses, other)
    own, new, wanted = (sequence.frames[0][0].body[:, :2] for sequence in (poses, changed, other))
    np.testing.assert_allclose(new[[8, 11], 0].mean(), own[[8, 11], 0].mean(), atol=1e-3)
    np.testing.assert_allclose(max(new[10, 1], new[13, 1]), max(own[10, 1], own[13, 1]), atol=1e-3)
    arm = {name: np.linalg.norm(p[3] - p[2]) + np.linalg.norm(p[4] - p[3]) for name, p in (("new", new), ("wanted", wanted))}
    np.testing.assert_allclose(arm["new"], arm["wanted"], rtol=0.02)
    directions = [(p[3] - p[2]) / np.linalg.norm(p[3] - p[2]) for p in (own, new)]
    np.testing.assert_allclose(*directions, atol=1e-3)


def test_people_are_in_order_as_in_the_nodes(clips: Path, tmp_path: Path) -> None:
    """Two people whom the estimator lists the other way round in some frames, with the hands of each other's side."""
    one, two = (from_body_joints(sample_scene(rng_for("train", 98, k), "human").keypoints(), HEIGHT, WIDTH) for k in (0, 1))

    def person(frame: list[Person], shift: float) -> Person:
        body = frame[0].body.copy()
        body[:, 0] = body[:, 0] / 2 + shift
        hands = [np.repeat(body[[wrist]], 21, 0) for wrist in (7, 4)]  # of the body's left and right
        return Person(body=body, left_hand=hands[1], right_hand=hands[0])

    rows = [[person(a, 0), person(b, WIDTH / 2)] for a, b in zip(one.frames, two.frames, strict=True)]
    mixed = [row[::-1] if t % 5 == 4 else row for t, row in enumerate(rows)]
    frames = to_pose_keypoint(PoseSequence(mixed, HEIGHT, WIDTH))
    (tmp_path / "two.json").write_text(json.dumps({"frames": frames}), "utf-8")
    sample = manifest.read(clips)[0].model_copy(update={"poses": tmp_path / "two.json"})

    class Blind(Encoders):
        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return latents

        def text(self, prompts: Sequence[str]) -> list[Context]:
            return [{} for _ in prompts]

    maker = Maker(Blind(), SpatialLayout(), lambda _: SPEC, Augment(**PLAIN), 0, lambda *_: None)
    joints = maker([sample], [0])[0][0]["joints"].numpy()
    expected = skeletons.to_array(steady_people(read_poses(sample)[LEAD_IN:]))
    assert np.array_equal(joints, expected)
    assert not np.array_equal(joints, skeletons.to_array(read_poses(sample)[LEAD_IN:]))
    groups = skeletons.from_array(joints, HEIGHT, WIDTH).frames
    assert all(np.allclose(p.left_hand[0, :2], p.body[7, :2], atol=0.1) for people in groups for p in people)
    places = np.array([[p.body[1, 0] for p in people] for people in groups])
    assert (places[:, 0] < places[:, 1]).all()


@pytest.mark.parametrize(("context", "variants"), [("joint", 2), ("cached_half", 2), ("cached", 0)])
def test_clips_that_are_encoded_together_are_as_alone(clips: Path, context: str, variants: int) -> None:
    samples, seeds, encoders = manifest.read(clips)[:3], [3, 1, 2], MarionetteEncoders(torch.device("cpu"), torch.float32)
    layout = get_layout("spatial", context)
    maker = Maker(encoders, layout, lambda _: SPEC, Augment(bones=1.0), variants, lambda *_: None)
    together = maker(samples, seeds)
    assert len(together) == 3
    for k, (tensors, text) in enumerate(together):
        ((own, own_text),) = maker(samples[k : k + 1], seeds[k : k + 1])
        driver = {"motion"} if context != "joint" else set()
        names = {"condition"} | driver if variants else {"reference", "joints"}
        assert tensors.keys() == own.keys() == {"target"} | names
        torch.testing.assert_close(tensors | text, own | own_text, atol=1e-4, rtol=0)
        if variants:
            driven = tensors.get("motion", tensors["condition"])
            assert len(driven) == variants and (driven[0] - driven[1]).abs().max() > 0.1, "each variant is drawn anew"
    assert (together[0][0]["target"] - together[1][0]["target"]).abs().max() > 0.1


def test_joints_go_into_a_tensor_and_back() -> None:
    frames = json.loads(Path("tests/data/drives/dancer.json").read_text("utf-8"))["frames"][:4]
    poses = from_pose_keypoint(frames)
    back = skeletons.from_array(skeletons.to_array(poses), poses.height, poses.width)
    assert [f["people"][0]["pose_keypoints_2d"] for f in to_pose_keypoint(back)] == [
        f["people"][0]["pose_keypoints_2d"] for f in to_pose_keypoint(poses)
    ]
    assert skeletons.convention([poses]) == "openpose18+face+hands"
