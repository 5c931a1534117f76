"""The verb `train`, by its own command line, on the small backbone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import websocket
from drawn_clips import write_clips, write_run
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from short_runs import furthest, log_of, run_file, trained

from dreamactor_core.contract import Contract
from training import config, manifest
from training.__main__ import main
from training.config import Augment
from training.errors import UserError
from training.hashing import sha256
from training.plan import costs
from training.plan.network import RELEASED, network
from training.train.data import Chance
from training.train.loop import Log, Trainer
from training.train.sheets import Sheets


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"backbone": {"name": "wan2.1-i2v-14b"}}, "sample_workflow is not given; name an API workflow"),
        ({"backbone": {"name": "wan2.2-i2v-a14b", "expert": "low_noise"}}, "sample_sheets is 4 for wan2.2-i2v-a14b, expected 0"),
    ],
)
def test_sheets_that_can_t_be_made_are_refused_before_anything_is_done(tmp_path: Path, sections: dict, said: str) -> None:
    """The file's own `data` and `cache` would take hours before `train` finds out."""
    with pytest.raises(UserError, match=said):
        config.load(write_run(tmp_path / "run.yaml", tmp_path, train={"sample_sheets": 4}, **sections))


@pytest.mark.parametrize(("variant", "other", "title"), [("rgb", "pose", "Driving video"), ("pose", "rgb", "Skeleton")])
def test_a_workflow_of_the_other_variant_is_refused_at_once(variant: str, other: str, title: str, tmp_path: Path) -> None:
    train = {"sample_sheets": 1, "sample_workflow": f"workflows/api/marionette_{other}.json"}
    settings = config.load(write_run(tmp_path / "run.yaml", tmp_path, variant=variant, train=train))
    with pytest.raises(UserError, match=f"sample_workflow, for a LoRA of variant {variant}: 0 nodes are titled '{title}'"):
        Sheets(settings, tmp_path)


def test_sheets_show_nothing_that_the_caches_have_to_train_on(tmp_path: Path) -> None:
    own, held_out = (tmp_path / name / "manifest.jsonl" for name in ("clips", "held_out"))
    samples = write_clips(held_out.parent, 4)
    manifest.write(held_out, [sample.model_copy(update={"source_sha256": f"of {sample.id}"}) for sample in samples])

    def sheets(cached: set[str], **cache: object) -> Sheets:
        path = write_run(tmp_path / "run.yaml", tmp_path, cache=cache, train={"sample_sheets": 2})
        return Sheets(config.load(path), tmp_path, cached)

    held = {"validation": str(held_out)}  # and no manifest of its own: what is trained on is the cache of another run
    assert [sample.id for sample in sheets(set(), **held).samples] == ["c0", "c1"]
    assert [sample.id for sample in sheets({"c0", "of c2", "elsewhere"}, **held).samples] == ["c1", "c3"]
    with pytest.raises(
        UserError, match="`cache` holds out 4, and the run's caches have each of them, or another clip of its source"
    ):
        sheets({"c0", "of c1", "of c2", "c3"}, **held)
    with pytest.raises(UserError, match=r"sample_sheets needs held-out samples: there is no manifest .*; name some in cache"):
        sheets(set())
    own.parent.mkdir()
    manifest.write(own, manifest.read(held_out)[:2])
    with pytest.raises(UserError, match=r"`cache` holds out none; name some in cache\.validation, or set train\.sample_sheets: 0"):
        sheets(set(), validation_share=0.0)
    assert [sample.id for sample in sheets(set(), validation_share=0.5).samples] == ["c1"]
    with pytest.raises(UserError, match=r"sample_sheets needs held-out samples: there is no manifest .*none\.jsonl"):
        sheets(set(), validation=str(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="has no train shards; run `python -m training cache` with this file first"):
        Trainer(config.load(tmp_path / "run.yaml"))  # what comes first is said first


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"batch": 7, "accumulate": 2}, "batch is 7, expected a multiple of accumulate, 2"),
        ({"sample_sheets": 1, "every": 200, "sample_every": 500}, "sample_every is 500, expected a multiple of every, 200"),
    ],
)
def test_what_does_not_divide_is_refused_when_the_file_is_read(train: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        config.load(write_run(tmp_path / "run.yaml", tmp_path, train=train))


def test_without_sheets_it_does_not_matter_when_they_are_made(tmp_path: Path) -> None:
    train = {"sample_sheets": 0, "every": 200, "sample_every": 500}
    assert config.load(write_run(tmp_path / "run.yaml", tmp_path, train=train)).train.sample_every == 500


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train").mkdir()
    with FileLock(tmp_path / "train" / ".lock"):
        assert main(["train", str(write_run(tmp_path / "run.yaml", tmp_path))]) == 1
    said = f"another train is at work in {tmp_path / 'train'}; wait for it, or give another `out`"
    assert said in capsys.readouterr().err


def test_events_that_the_log_keeps_are_kept_in_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, steps in ((0, (1, 2, 3)), (2, (3, 4))):  # ended after step 3, gone on with from the state of step 2
        with Log(tmp_path, True, first) as log:
            for step in steps:
                log.write(step, loss=step + first / 10)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert [(event.step, round(event.value, 4)) for event in found] == [(line["step"], line["loss"]) for line in lines]
    assert [line["loss"] for line in lines] == [1, 2, 3.2, 4.2]


def test_sheets_that_fail_are_told_of_and_do_not_end_the_run(
    world: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        """What a ComfyUI, or a workflow that lacks something, can end in."""

        reasons = iter((websocket.WebSocketTimeoutException("timed out"), KeyError("images")))

        def make(self, lora: Path, out: Path) -> None:
            raise next(self.reasons)

    trainer = Trainer(config.load(run_file(world, tmp_path, sample_every=1)))
    trainer.sheets = Broken()
    trainer.run()
    said = capsys.readouterr().err
    assert "no sample sheet of step 1 (WebSocketTimeoutException: timed out)" in said
    assert "no sample sheet of step 2 (KeyError: 'images')" in said
    assert furthest(load_file(tmp_path / "train" / "lora.safetensors"), load_file(plain / "train" / "lora.safetensors")) == 0


def test_a_run_leaves_what_it_says(plain: Path) -> None:
    folder = plain / "train"
    with safe_open(folder / "lora.safetensors", "pt") as file:
        contract = Contract.from_metadata(file.metadata())
        layers = {key.rpartition(".lora_")[0] for key in file.keys() if ".lora_" in key}  # noqa: SIM118 - not a dict
    assert len(layers) == 16 and all(".ffn." in layer for layer in layers)
    assert (contract.variant, contract.pairs, contract.skeleton, contract.frames) == ("pose", "self", "openpose18", 25)
    assert contract.fps == 12 and round(contract.lead_in * 12) == 8
    assert config.load(folder / "config.yaml").train.rank == 4
    assert [line["step"] for line in log_of(plain) if "validation_loss" in line] == [1, 2]
    assert "held-out loss at step 2" in (folder / "summary.txt").read_text("utf-8")
    assert list((folder / "tensorboard").iterdir())
    moved = load_file(folder / "lora.safetensors")
    assert max(float(value.abs().max()) for key, value in moved.items() if "lora_B" in key) > 1e-4, "it has learnt"


def test_the_average_of_the_weights_is_what_is_saved(world: Path, tmp_path: Path) -> None:
    """It begins with the first weights and leans on later ones the more, the fewer there were."""
    trained(world, tmp_path / "live", ema=0)
    run = run_file(world, tmp_path, ema=0.15)
    Trainer(config.load(run)).save(0)
    expected = load_file(tmp_path / "train" / "lora.safetensors")
    for step in (1, 2):
        weights = load_file(tmp_path / "live" / "train" / f"lora_{step:06d}.safetensors")
        decay = min(0.15, step / (step + 9))  # 0.1, then no more than what is asked for
        expected = {key: decay * expected[key] + (1 - decay) * weights[key] for key in weights}
    assert main(["train", str(run)]) == 0
    assert furthest(load_file(tmp_path / "train" / "lora.safetensors"), expected) < 1e-6


@pytest.mark.parametrize(
    ("change", "key"), [({"lr": 2e-3}, "lr"), ({"seed": 1}, "seed"), ({"loss": "full"}, "loss"), ({"batch": 4}, "batch")], ids=str
)
def test_a_run_is_not_gone_on_with_on_other_terms(change: dict, key: str, world: Path, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"with {key} "):
        Trainer(config.load(run_file(world, plain, **change)))
    run_file(world, plain)


def saved(settings: config.Config) -> costs.Saved:
    """What `plan` says of a run on the small backbone."""
    return costs.saved(costs.lora_parameters(network("marionette", RELEASED["marionette"]), settings.train.rank), settings.train)


def test_checkpoints_take_the_disk_that_plan_says(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at whenever a file is whole and the one whose place it takes is still there."""
    run, folder = run_file(world, tmp_path, steps=4, rank=32, ema=0.9, validate_on=0), tmp_path / "train"
    seen, real = [], os.replace

    def there() -> int:
        return sum(path.stat().st_size for path in folder.iterdir() if "safetensors" in path.name)

    def replace(source: str, target: str) -> None:
        seen.append(there())
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    assert main(["train", str(run)]) == 0
    expected = saved(config.load(run))
    assert (folder / "lora.safetensors").stat().st_size == pytest.approx(expected.lora, rel=0.02)
    assert (folder / "state.safetensors").stat().st_size == pytest.approx(expected.state, rel=0.02)
    assert there() == pytest.approx(expected.stays, rel=0.02)
    assert 0.9 * expected.peak < max(seen) < expected.peak


def test_a_disk_without_room_for_the_checkpoints_is_refused_at_once(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings(**train: object) -> config.Config:
        return config.load(run_file(world, tmp_path, rank=32, ema=0, validate_on=0, **train))

    expected, disk = saved(settings()), SimpleNamespace()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: disk)
    disk.free = 0.9 * expected.peak
    said = r"has 23\.6 MB left, expected 26\.2 MB for .*: 2 \+ 1 LoRA files of 2\.62 MB and a state of 7\.86 MB"
    with pytest.raises(UserError, match=said):
        Trainer(settings(cache="nothing"))  # no cache is read yet
    disk.free = expected.peak
    Trainer(settings()).run()
    disk.free = 0
    assert Trainer(settings()).first == 2, "what is at its end writes nothing"
    disk.free = expected.lora
    with pytest.raises(UserError, match=r"has 2\.62 MB left, expected 10\.\d MB for"):
        Trainer(settings(steps=3))
    disk.free = expected.lora + expected.state
    assert Trainer(settings(steps=3)).first == 2, "what is there counts"


def test_held_out_samples_of_keypoints_look_the_same_each_time(world: Path, tmp_path: Path) -> None:
    settings = config.load(run_file(world, tmp_path, cache="keypoints"))
    shaken = settings.model_copy(update={"cache": settings.cache.model_copy(update={"augment": Augment(normalise=1, bones=1)})})
    trainer = Trainer(shaken)
    one, again = (trainer.held_out.batch([0, 1], [Chance(0, step, 0)] * 2, train=False)[0].given for step in (0, 5))
    plain = Trainer(settings).held_out.batch([0, 1], [Chance(0, 0, 0)] * 2, train=False)[0].given
    assert torch.equal(one, again) and not torch.equal(one, plain), "augmented as in training, always alike"


def test_a_warm_start_is_another_run(world: Path, plain: Path, tmp_path: Path) -> None:
    parent = plain / "train" / "lora.safetensors"
    made = Trainer(config.load(run_file(world, tmp_path, init_lora=str(parent))))
    assert made.first == 0 and made.contract.parent_sha256 == sha256(parent)
    start = {f"diffusion_model.{made.backbone.rename(key.replace('/', '.'))}": value for key, value in made.trained.items()}
    for key, value in load_file(parent).items():
        if "alpha" not in key:
            assert torch.equal(start[key], value)


def test_a_parent_that_does_not_fit_is_refused(world: Path, plain: Path, tmp_path: Path) -> None:
    tensors = load_file(plain / "train" / "lora.safetensors")
    with safe_open(plain / "train" / "lora.safetensors", "pt") as file:
        metadata = file.metadata()
    for key, value, message in (
        ("variant", "rgb", "a LoRA of variant rgb, expected pose"), ("layout", "temporal", "trained with layout temporal"),
        ("backbone_sha256", "0" * 64, "trained with backbone_sha256 0000"),
    ):  # fmt: skip
        save_file(tensors, tmp_path / "parent.safetensors", metadata | {f"dreamactor_m2.{key}": value})
        with pytest.raises(UserError, match=message):
            Trainer(config.load(run_file(world, tmp_path, init_lora=str(tmp_path / "parent.safetensors"))))
    with pytest.raises(UserError, match=r"of rank 4, expected train\.rank, 8"):
        Trainer(config.load(run_file(world, tmp_path, rank=8, init_lora=str(plain / "train" / "lora.safetensors"))))
    (tmp_path / "parent.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="can't be the start"):
        Trainer(config.load(run_file(world, tmp_path, init_lora=str(tmp_path / "parent.safetensors"))))


def test_a_cache_of_another_run_is_refused(world: Path, tmp_path: Path) -> None:
    run = run_file(world, tmp_path)
    settings = config.load(run)
    with pytest.raises(UserError, match="layout spatial, expected temporal"):
        Trainer(settings.model_copy(update={"layout": "temporal"}))
    augment = settings.cache.augment.model_copy(update={"bones": 0.5})
    with pytest.raises(UserError, match="a cache with augment"):
        Trainer(settings.model_copy(update={"cache": settings.cache.model_copy(update={"augment": augment})}))
    with pytest.raises(UserError, match="no train shards"):
        Trainer(config.load(run_file(world, tmp_path, cache="nothing")))
