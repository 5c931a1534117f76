"""The verb `train`, by its own command line, on the small backbone: what must agree agrees, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import websocket
from drawn_clips import write_clips, write_run
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from short_runs import by_two, furthest, run_file, trained, write_cache

from dreamactor_core.contract import Contract
from training import config
from training.__main__ import main
from training.checkpoint import TrainState
from training.config import Augment, Timesteps
from training.errors import UserError
from training.hashing import sha256
from training.latents.read import Cache
from training.plan import costs
from training.plan.network import RELEASED, network
from training.train import contracts, parallel
from training.train.data import Batches, Chance, Order
from training.train.loop import Log, Trainer
from training.train.objective import draw_sigma
from training.train.sheets import Sheets


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips; a cache of augmented skeletons and one of keypoints, two clips of them held out."""
    folder = tmp_path_factory.mktemp("world")
    write_clips(folder / "clips", 6)
    for name, variants in (("encoded", 1), ("keypoints", 0)):
        write_cache(folder, name, variants)
    return folder


@pytest.fixture(scope="module")
def plain(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain")
    trained(world, out)
    return out


@pytest.fixture(scope="module")
def four(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with four samples a step."""
    out = tmp_path_factory.mktemp("four")
    trained(world, out, batch=4)
    return out


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


def test_ctrl_c_saves_the_step(world: Path, plain: Path, tmp_path: Path) -> None:
    """Interrupted between two checkpoints, the run goes on from that step and ends with the same weights."""
    settings = config.load(run_file(world, tmp_path, steps=4, every=4))
    trainer, steps = Trainer(settings), []
    whole = trainer.step

    def step(number: int) -> float:
        steps.append(number)
        if number == 1:
            signal.raise_signal(signal.SIGINT)
        return whole(number)

    trainer.step = step
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background have it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps == [0, 1], "the step is ended"
    again = Trainer(settings)
    assert again.first == 2
    again.run()
    other = tmp_path / "other"
    assert furthest(load_file(tmp_path / "train" / "lora.safetensors"), trained(world, other, steps=4, every=4)) == 0


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


def log_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "train" / "log.jsonl").read_text("utf-8").splitlines()]


def by_step(out: Path, key: str) -> dict[int, float]:
    """A figure of the log at each step that has it."""
    return {int(line["step"]): line[key] for line in log_of(out) if key in line}


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


def same(out: Path, other: Path, losses: float, weights: float) -> None:
    """Two runs agree in every loss of their logs and in their LoRA, to so much.

    Weights to a share of two steps of 1e-3, as AdamW makes rounding of the least gradients larger.
    """
    assert furthest(*(load_file(folder / "train" / "lora.safetensors") for folder in (out, other))) < weights
    for line, expected in zip(log_of(out), log_of(other), strict=True):
        assert line.keys() == expected.keys() and {"loss", "validation_loss"} & line.keys()
        for key in line.keys() - {"s_per_step"}:
            assert line[key] == pytest.approx(expected[key], abs=losses), key


@pytest.mark.parametrize("change", [{"accumulate": 4}, {"accumulate": 2}, {"checkpointing": True}], ids=str)
def test_what_changes_nothing_changes_nothing(change: dict, world: Path, four: Path, tmp_path: Path) -> None:
    trained(world, tmp_path, batch=4, **change)
    same(tmp_path, four, losses=1e-5, weights=5e-5)


def test_skeletons_made_in_training_are_those_of_the_cache(
    world: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without augmentation both ways are one, but for the half precision that caches keep; so here both are rounded to it."""
    made = Batches._condition

    def rounded(*given: object) -> dict[str, torch.Tensor]:
        return {name: value.half().float() for name, value in made(*given).items()}

    monkeypatch.setattr(Batches, "_condition", rounded)
    trained(world, tmp_path, cache="keypoints")
    same(tmp_path, plain, losses=1e-5, weights=5e-5)


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


def test_an_optimizer_of_8_bits_goes_on_where_it_was(world: Path, tmp_path: Path) -> None:
    given = {"optimizer": "adamw8bit", "rank": 16}  # of smaller matrices it keeps the state as it is
    torch.compiler.set_stance("force_eager")  # minutes of compiling, which change nothing of this
    try:
        whole = trained(world, tmp_path / "whole", **given)
        trained(world, tmp_path / "parts", steps=1, **given)
        parts = trained(world, tmp_path / "parts", **given)
    finally:
        torch.compiler.set_stance("default")
    assert furthest(whole, parts) == 0 < max(float(value.abs().max()) for key, value in whole.items() if "lora_B" in key)
    state = load_file(tmp_path / "parts" / "train" / "state.safetensors")
    assert torch.uint8 in {value.dtype for key, value in state.items() if key.startswith("optimizer/")}


@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
def test_two_processes_are_one(sharding: str, world: Path, four: Path, tmp_path: Path) -> None:
    """The same global batch, each process's half of it in two micro-batches; and two processes go on from where they stopped."""
    stops = (2,) if sharding == "none" else (1, 2)
    for steps in stops:
        done = by_two(run_file(world, tmp_path, batch=4, accumulate=2, sharding=sharding, steps=steps))
        assert done.returncode == 0, done.stderr[-3000:]
        assert "2 processes" in done.stdout
    assert furthest(*(load_file(out / "train" / "lora.safetensors") for out in (tmp_path, four))) < 1e-4
    one, two = (by_step(out, "validation_loss") for out in (four, tmp_path))
    assert one == pytest.approx(two, abs=1e-4)
    each, both = by_step(tmp_path, "loss"), by_step(four, "loss")
    assert tuple(each) == stops, "of one call there is the mean of both steps"
    assert sum(each.values()) / len(each) == pytest.approx(both[2], abs=1e-4)
    # weights hardly tell the scale of gradients, which AdamW divides by: its moments do
    one, two = (
        {key: value for key, value in load_file(out / "train" / "state.safetensors").items() if key.endswith("/exp_avg")}
        for out in (four, tmp_path)
    )
    assert one.keys() == two.keys() and len(one) == 32
    for key, expected in one.items():
        torch.testing.assert_close(two[key], expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3, msg=key)


def begin(rank: int, run: str, port: int) -> None:
    """One of two processes: makes a trainer and looks at it."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    real, read = contracts.sha256, []
    contracts.sha256 = lambda path: read.append(path) or real(path)
    trainer = Trainer(config.load(Path(run)))
    assert len(read) == (rank == 0), "only the main process reads the weights for their hash"
    assert trainer.contract.backbone_sha256 == real(trainer.backbone.weights()["transformer"][0])
    patience = torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout
    assert patience.total_seconds() >= 3600, "the others wait while the main process makes a sheet"
    del trainer
    parallel.ended()


def test_two_processes_begin(world: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(begin, (str(run_file(world, tmp_path)), port), nprocs=2)


def test_killed_and_resumed_it_ends_with_the_same_bits(world: Path, tmp_path: Path) -> None:
    whole = run_file(world, tmp_path / "whole", steps=4, ema=0.9)
    assert main(["train", str(whole)]) == 0
    parts = run_file(world, tmp_path / "parts", steps=4, ema=0.9)
    command = [sys.executable, "-m", "training", "train", str(parts)]
    state, killed = tmp_path / "parts" / "train" / "state.safetensors", 0
    before = 0
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 180
        while process.poll() is None and time.monotonic() < deadline:
            if state.exists() and state.stat().st_mtime_ns != before:
                before = state.stat().st_mtime_ns
                break
            time.sleep(0.005)
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed == 2
    assert subprocess.run(command, capture_output=True).returncode == 0
    for name in ("lora.safetensors", "state.safetensors"):
        assert sha256(tmp_path / "parts" / "train" / name) == sha256(tmp_path / "whole" / "train" / name)
    steps = [line["step"] for line in log_of(tmp_path / "parts") if "validation_loss" in line]
    assert steps == sorted(set(steps)), "no step is logged twice"


@pytest.mark.parametrize(
    ("change", "key"), [({"lr": 2e-3}, "lr"), ({"seed": 1}, "seed"), ({"loss": "full"}, "loss"), ({"batch": 4}, "batch")], ids=str
)
def test_a_run_is_not_gone_on_with_on_other_terms(change: dict, key: str, world: Path, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"with {key} "):
        Trainer(config.load(run_file(world, plain, **change)))
    run_file(world, plain)


def test_what_is_cut_off_between_lora_state_and_validation_is_made_up_for(
    world: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up at the last state; then the call is ended before its validation, with half a line in the log."""
    run, real = run_file(world, tmp_path), TrainState.save

    def full(self: TrainState, path: Path, step: int, write: bool = True) -> None:
        if step == 2:
            raise OSError(28, "No space left on device")
        real(self, path, step, write)

    monkeypatch.setattr(TrainState, "save", full)
    assert main(["train", str(run)]) == 1
    monkeypatch.setattr(TrainState, "save", real)
    monkeypatch.setattr(Trainer, "_look", lambda *_: sys.exit(9))
    with pytest.raises(SystemExit):
        main(["train", str(run)])
    monkeypatch.undo()
    with (tmp_path / "train" / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "validation_lo')
    assert main(["train", str(run)]) == 0
    assert furthest(load_file(tmp_path / "train" / "lora.safetensors"), load_file(plain / "train" / "lora.safetensors")) == 0
    assert [line for line in log_of(tmp_path) if "validation_loss" in line] == [
        line for line in log_of(plain) if "validation_loss" in line
    ]


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


def test_each_epoch_shows_every_sample(world: Path) -> None:
    cache = Cache(world / "encoded" / "cache", "train")
    for batch in (1, 2, 3, 4, 5):
        order = Order(cache, batch, 0)
        assert order.steps == -(-len(cache) // batch)
        seen = [number for step in range(order.steps) for number in order.numbers(step)]
        assert set(seen) == set(range(len(cache))) and len(seen) == order.steps * batch
        again = Order(cache, batch, 0)
        assert [again.numbers(step) for step in (3 * order.steps, 0)] == [order.numbers(step) for step in (3 * order.steps, 0)]
    orders = [[Order(cache, 1, seed).numbers(step)[0] for step in range(4 * len(cache))] for seed in (0, 1)]
    assert orders[0] != orders[1]


def test_choices_depend_on_seed_step_and_place_alone() -> None:
    drawn = {(s, t, p): torch.randn(4, generator=Chance(s, t, p).torch()) for s in range(3) for t in range(3) for p in range(3)}
    values = torch.stack(list(drawn.values()))
    assert len(torch.unique(values[:, 0])) == len(drawn)
    assert torch.equal(torch.randn(4, generator=Chance(1, 2, 0).torch()), drawn[1, 2, 0])


def test_noise_levels_are_those_of_the_backbone() -> None:
    def levels(**settings: object) -> torch.Tensor:
        chosen = Timesteps(**settings)
        return torch.tensor([draw_sigma(chosen, Chance(0, step, 0).torch()) for step in range(2000)])

    even = levels(kind="uniform")
    torch.testing.assert_close(even.quantile(torch.tensor([0.25, 0.5, 0.75])), torch.tensor([0.25, 0.5, 0.75]), atol=0.04, rtol=0)
    shifted = levels(kind="uniform", shift=5.0)  # 5u / (1 + 4u): half of the levels are above 5/6
    torch.testing.assert_close(shifted.median(), torch.tensor(5 / 6), atol=0.03, rtol=0)
    high, low = levels(kind="uniform", shift=5.0, low=0.9), levels(kind="uniform", shift=5.0, high=0.9)
    assert high.min() >= 0.9 and low.max() <= 0.9
    share = float((shifted >= 0.9).float().mean())  # an expert's levels are those that it would get of the whole
    expected = shifted[shifted >= 0.9].mean() * share + shifted[shifted < 0.9].mean() * (1 - share)
    torch.testing.assert_close(high.mean() * share + low.mean() * (1 - share), expected, atol=0.02, rtol=0)
    normal = levels(kind="logit_normal", mean=1.5, std=1.0)
    torch.testing.assert_close(normal.median(), torch.sigmoid(torch.tensor(1.5)), atol=0.02, rtol=0)
    with pytest.raises(UserError, match=r"none of .* noise levels"):
        levels(kind="logit_normal", mean=9.0, std=0.01, high=0.1)
