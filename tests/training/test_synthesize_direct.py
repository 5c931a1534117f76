"""The direct teacher on the real small backbone: what it refuses, that it samples as training does, and what its bits depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from synthesis import FRAMES, HEIGHT, LEAD_IN, POSE_LORA, RGB_LORA, WIDTH, config, draw

from dreamactor_core.augment import MARGIN
from dreamactor_core.clips import ClipSpec
from dreamactor_core.contract import Contract
from dreamactor_core.layout import SpatialLayout
from tests.training.toy_backbones import LAYERS, WAN, write_wan
from training.backbones import get
from training.backbones.marionette import MarionetteBackbone
from training.errors import UserError
from training.latents.encode import conditions_of
from training.latents.header import files_hash
from training.lora_file import add_lora, load_lora, rank_of
from training.sampling import sample
from training.synthesize import direct
from training.synthesize.direct import DirectTeacher
from training.synthesize.plan import Package, Unit, packages, plan_units

DRIVEN = FRAMES - LEAD_IN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("direct")
    draw(out / "clips")
    return out


@pytest.fixture(scope="module")
def teacher(folder: Path) -> DirectTeacher:
    return DirectTeacher(config(folder, steps=2), torch.device("cpu"))


@pytest.fixture(scope="module")
def units(folder: Path) -> list[Unit]:
    settings, samples = config(folder, steps=2, same_kind=False), draw(folder / "clips")
    return plan_units(settings, samples, samples, direct.check(settings))


def made(teacher: DirectTeacher, package: Package) -> dict[str, np.ndarray | str]:
    return {unit.id: frames for unit, frames in teacher.make(package)}


def test_a_batch_with_the_lora_in_the_weights_is_one_sample_with_it_beside_them(teacher: DirectTeacher, units: list[Unit]) -> None:
    jobs = [teacher.job(unit) for unit in units[:2]]
    frames = teacher.generate(jobs)
    assert frames.shape == (2, DRIVEN, HEIGHT, WIDTH, 3) and frames.dtype == np.uint8 and frames.std() > 10
    backbone, layout, job = teacher.backbone, SpatialLayout(), jobs[0]
    model = backbone.load_transformer()
    add_lora(model, rank_of(POSE_LORA))
    load_lora(model, POSE_LORA, backbone.rename)
    spec = ClipSpec(FRAMES, LEAD_IN, 12)
    given = conditions_of(teacher.encoders, layout, [job.reference], [job.skeleton], spec)[0]["condition"][None]
    context = backbone.collate(teacher.encoders.text([units[0].prompt]))
    latents = sample(backbone, model, layout, given, context, 2, teacher.settings.shift, [job.seed], sampler="lcm")
    assert torch.equal(latents[..., WIDTH // 8 :], given[..., WIDTH // 8 :]), "the driver's half is the driver"
    pixels = layout.crop(teacher.encoders.decode(latents))[0, :, LEAD_IN:].permute(1, 2, 3, 0)
    difference = np.abs(frames[0] - ((pixels + 1) * 127.5).numpy())
    assert difference.mean() < 1.5, "bfloat16 rounds the two products otherwise"
    assert np.abs(frames[1] - ((pixels + 1) * 127.5).numpy()).mean() > 3 * difference.mean()


def test_the_reference_its_poses_the_text_and_the_seed_all_count(teacher: DirectTeacher, units: list[Unit]) -> None:
    job = teacher.job(units[0])
    other = teacher.job(units[1])
    assert not np.array_equal(job.skeleton, other.skeleton), "one motion in two bodies"
    variants = [
        job, replace(job, seed=job.seed + 1), replace(job, prompt="a bird flies"), replace(job, reference=other.reference),
        replace(job, skeleton=other.skeleton),
    ]  # fmt: skip
    found = teacher.generate(variants)
    assert all(not np.array_equal(found[0], one) for one in found[1:])


def test_without_retargeting_the_skeleton_is_the_sources_own(folder: Path, teacher: DirectTeacher, units: list[Unit]) -> None:
    plain = DirectTeacher.__new__(DirectTeacher)
    plain.__dict__ |= teacher.__dict__ | {"settings": teacher.settings.model_copy(update={"retarget": False})}
    one, other = (plain.job(unit) for unit in units[:2])
    assert units[0].source.id == units[1].source.id and np.array_equal(one.skeleton, other.skeleton)
    assert not np.array_equal(one.skeleton, teacher.job(units[0]).skeleton)


def test_skeletons_are_placed_as_the_lora_was_trained(teacher: DirectTeacher, units: list[Unit]) -> None:
    boxed = DirectTeacher.__new__(DirectTeacher)
    boxed.__dict__ |= teacher.__dict__ | {"contract": replace(teacher.contract, normalised=1.0)}
    plain, placed = (np.argwhere(each.job(units[0]).skeleton.any((0, 3))) for each in (teacher, boxed))
    assert not np.array_equal(plain, placed)
    low, high = placed.min(0), placed.max(0)
    _, height, width = units[0].shape
    assert abs((low[1] + high[1] + 1) / 2 - width / 2) <= 1 and abs(high[0] - height * (1 - MARGIN)) <= 2, "on the lower margin"


def test_guidance_moves_the_result_and_at_one_there_is_none(teacher: DirectTeacher, units: list[Unit]) -> None:
    strong = DirectTeacher.__new__(DirectTeacher)
    strong.__dict__ |= teacher.__dict__ | {"settings": teacher.settings.model_copy(update={"cfg": 3.0})}
    job = teacher.job(units[0])
    assert not np.array_equal(strong.generate([job, job]), teacher.generate([job, job]))
    untold = replace(job, prompt="")  # then both predictions are one
    assert np.abs(strong.generate([untold, job])[0].astype(int) - teacher.generate([untold, job])[0]).max() <= 1


def test_a_result_does_not_depend_on_who_shares_its_batch(teacher: DirectTeacher, units: list[Unit], tmp_path: Path) -> None:
    package = packages(units[:4], 4)[0]
    whole = made(teacher, package)
    assert set(whole) == {unit.id for unit in package.units}
    again = made(teacher, replace(package, wanted=frozenset([units[2].id])))
    assert set(again) == {units[2].id} and np.array_equal(again[units[2].id], whole[units[2].id])
    # one whose files are broken fails alone, and its place is taken by another's copy
    empty, short = tmp_path / "empty.mkv", tmp_path / "gone.json"
    empty.write_bytes(b"")
    spoiled = [
        replace(units[0], source=units[0].source.model_copy(update={"target_video": empty})), units[1], units[2],
        replace(units[3], source=units[3].source.model_copy(update={"poses": short})),
    ]  # fmt: skip
    rest = made(teacher, Package(tuple(spoiled), package.wanted))
    assert "empty.mkv can't be read as a video" in rest[units[0].id] and "gone.json cannot be read" in rest[units[3].id]
    assert all(np.array_equal(rest[unit.id], whole[unit.id]) for unit in units[1:3])
    lonely = made(teacher, Package((spoiled[0],), frozenset([spoiled[0].id])))
    assert list(lonely) == [spoiled[0].id] and isinstance(lonely[spoiled[0].id], str)


def test_a_clip_or_poses_of_another_length(teacher: DirectTeacher, units: list[Unit]) -> None:
    longer = replace(units[0], source=units[0].source.model_copy(update={"frames": 17}))
    with pytest.raises(UserError, match=r"has 13 frames of 32x48, expected 17 frames of 32x48"):
        teacher.job(longer)


def rewritten(path: Path, **changes: str) -> Path:
    """The pose LoRA with other statements in its contract."""
    with safe_open(POSE_LORA, "pt") as file:
        contract = Contract.from_metadata(file.metadata())
    save_file(load_file(POSE_LORA), path, replace(contract, **changes).to_metadata())
    return path


def test_loras_that_cannot_be_the_teacher(folder: Path, tmp_path: Path) -> None:
    def refused(lora: Path | None, message: str, over: dict | None = None) -> None:
        with pytest.raises(UserError, match=message):
            direct.check(config(folder, over, lora=lora and str(lora)))

    refused(None, r"synthesize\.lora is not given")
    refused(tmp_path / "none.safetensors", "which is not there")
    refused(RGB_LORA, "of variant rgb, expected pose")
    broken, plain = tmp_path / "broken.safetensors", tmp_path / "plain.safetensors"
    broken.write_bytes(b"0" * 100)
    refused(broken, "can't be read as safetensors")
    save_file(load_file(POSE_LORA), plain)
    refused(plain, "carries no dreamactor_m2")
    refused(rewritten(tmp_path / "wan.safetensors", backbone="wan2.1-i2v-14b"), "is for wan2.1-i2v-14b, expected one for")
    refused(rewritten(tmp_path / "weights.safetensors", backbone_sha256="0" * 64), r"was trained on weights of sha256 0{12}")
    refused(POSE_LORA, "lead-in of 8 frames, this run's clips have 12 fps and 4", {"clip": {"lead_in": 0.3333}})
    save_file({}, tmp_path / "bare.safetensors", safe_metadata())
    refused(tmp_path / "bare.safetensors", "covers 0 feed-forward layers")
    two = {"backbone": {"name": "wan2.2-i2v-a14b", "expert": "high_noise"}, "train": {"sample_sheets": 0}}
    refused(POSE_LORA, "both experts; use teacher: comfyui", two)


def test_a_lora_of_wan21_fits_a_folder_in_diffusers_names(folder: Path, tmp_path: Path) -> None:
    wan21, wan22 = (write_wan(tmp_path / f"image{image}", image) for image in (True, False))
    width, inner, tensors = WAN["num_attention_heads"] * WAN["attention_head_dim"], WAN["ffn_dim"], {}
    for layer in range(LAYERS):
        for n, (rows, columns) in enumerate(((inner, width), (width, inner))):
            key = f"diffusion_model.blocks.{layer}.ffn.{2 * n}"
            tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"] = torch.zeros(4, columns), torch.zeros(rows, 4)
            tensors[f"{key}.alpha"] = torch.tensor(4.0)
    with safe_open(POSE_LORA, "pt") as file:
        contract = replace(Contract.from_metadata(file.metadata()), backbone="wan2.1-i2v-14b", backbone_sha256="")
    save_file(tensors, tmp_path / "lora.safetensors", contract.to_metadata())

    def checked(path: Path) -> str:
        over = {"backbone": {"name": "wan2.1-i2v-14b", "path": str(path)}, "train": {"sample_sheets": 0}}
        return direct.check(config(folder, over, lora=str(tmp_path / "lora.safetensors"))).digest

    assert checked(wan21)
    with pytest.raises(UserError, match=r"has an image embedding.*the model has none"):
        checked(wan22)


def test_weights_in_several_files_are_compared_too(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = get(config(folder).backbone).weights()
    tensors = load_file(whole["transformer"][0])
    shards = [tmp_path / "shard0.safetensors", tmp_path / "shard1.safetensors"]
    for k, path in enumerate(shards):
        save_file({key: tensors[key] for key in sorted(tensors)[k::2]}, path)
    monkeypatch.setattr(MarionetteBackbone, "weights", lambda self: whole | {"transformer": shards})
    right = rewritten(tmp_path / "right.safetensors", backbone_sha256=files_hash(shards))
    direct.check(config(folder, lora=str(right)))
    wrong = rewritten(tmp_path / "wrong.safetensors", backbone_sha256="0" * 64)
    with pytest.raises(UserError, match=r"weights of sha256 0{12}.*2 files"):
        direct.check(config(folder, lora=str(wrong)))


def safe_metadata() -> dict[str, str]:
    with safe_open(POSE_LORA, "pt") as file:
        return file.metadata()


def test_the_digest_is_of_the_lora_and_of_the_way_of_sampling(folder: Path, tmp_path: Path) -> None:
    variants = [
        {}, {"steps": 2}, {"shift": 3.0}, {"cfg": 2.0}, {"retarget": False},
        {"lora": str(rewritten(tmp_path / "other.safetensors", prompt_language="zh"))},
    ]  # fmt: skip
    digests = [direct.check(config(folder, **variant)).digest for variant in variants]
    assert len(set(digests)) == len(digests)
    assert direct.check(config(folder, batch=7, workers=2)).digest == digests[0], "how the work is shared out is no matter"
