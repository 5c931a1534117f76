"""A run that stopped goes on as if it had not: bit for bit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

import training.checkpoint as checkpoint
from training.checkpoint import TrainState, save_atomic, update_ema
from training.optimizer import MuonAdamW, cosine_lr

State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def own_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


@dataclass
class Run:
    """A small network of every kind of parameter, in training. It draws its batches from torch's own generator."""

    module: torch.nn.Module
    optimizer: MuonAdamW
    ema: State
    state: TrainState

    @classmethod
    def new(cls, seed: int) -> Run:
        torch.manual_seed(seed)
        module = torch.nn.Sequential(
            torch.nn.Conv3d(2, 4, 3, padding=1), torch.nn.BatchNorm3d(4), torch.nn.Dropout(0.3),
            torch.nn.Flatten(2), torch.nn.Linear(8, 6), torch.nn.GELU(), torch.nn.Linear(6, 3),
        )  # fmt: skip
        optimizer = MuonAdamW(module, 0.02, adamw_only=("6.",), weight_decay=0.01)
        ema = {k: v.detach().clone() for k, v in module.state_dict().items() if v.is_floating_point()}
        return cls(module, optimizer, ema, TrainState({"model": module}, optimizer.parts, {"model": ema}))

    def train(self, first: int, last: int) -> list[float]:
        losses = []
        for step in range(first, last):
            self.optimizer.set_lr(cosine_lr(step, 10, 0.02, warmup=3))
            loss = self.module(torch.randn(4, 2, 2, 2, 2)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            update_ema(self.ema, self.module, 0.9)
            losses.append(float(loss.detach()))
        return losses

    def everything(self) -> State:
        """Weights, buffers, averages and every tensor of the optimizers."""
        found = {f"module/{k}": v for k, v in self.module.state_dict().items()}
        found |= {f"ema/{k}": v for k, v in self.ema.items()}
        for name, part in self.optimizer.parts.items():
            for index, values in part.state_dict()["state"].items():
                found |= {f"{name}/{index}/{k}": torch.as_tensor(v) for k, v in values.items()}
        return found


def assert_equal(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == other[key].dtype, key
        assert torch.equal(value, other[key]), key


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_going_on_equals_never_having_stopped(tmp_path: Path, stop: int) -> None:
    whole = Run.new(0)
    losses = whole.train(0, 6)

    before = Run.new(0)
    first = before.train(0, stop)
    before.state.save(tmp_path / "state.safetensors", stop)
    torch.manual_seed(99)  # another process starts elsewhere
    after = Run.new(123)
    after.train(0, 2)  # what a new object holds must not matter
    assert after.state.load(tmp_path / "state.safetensors") == stop
    assert first + after.train(stop, 6) == losses
    assert_equal(after.everything(), whole.everything())


def test_everything_is_restored_before_the_next_step(tmp_path: Path) -> None:
    run = Run.new(0)
    run.train(0, 3)
    held = {k: v.clone() for k, v in run.everything().items()}
    assert any(k.startswith("muon/") and k.endswith("momentum_buffer") for k in held)
    assert {k.rsplit("/")[-1] for k in held if k.startswith("adamw/")} == {"step", "exp_avg", "exp_avg_sq"}
    run.state.save(tmp_path / "s", 3)
    other = Run.new(1)
    other.state.load(tmp_path / "s")
    assert_equal(other.everything(), held)
    assert_equal(run.everything(), held)
    for name, part in run.optimizer.parts.items():
        for group, twin in zip(part.param_groups, other.optimizer.parts[name].param_groups, strict=True):
            settings = {k: list(v) if isinstance(v, tuple) else v for k, v in group.items() if k != "params"}
            assert settings == {k: list(v) if isinstance(v, tuple) else v for k, v in twin.items() if k != "params"}


def test_the_random_state_is_restored(tmp_path: Path) -> None:
    run = Run.new(0)
    run.state.save(tmp_path / "s", 0)
    expected = torch.rand(5)
    torch.manual_seed(5)
    run.state.load(tmp_path / "s")
    assert torch.equal(torch.rand(5), expected)


def test_weights_are_restored_in_place(tmp_path: Path) -> None:
    """Muon works on views of the weights: they must be views of the same memory afterwards."""
    run = Run.new(0)
    run.train(0, 1)
    run.state.save(tmp_path / "s", 1)
    pointers = [p.data_ptr() for p in run.module.parameters()], {k: v.data_ptr() for k, v in run.ema.items()}
    run.state.load(tmp_path / "s")
    assert ([p.data_ptr() for p in run.module.parameters()], {k: v.data_ptr() for k, v in run.ema.items()}) == pointers
    matrices = [p for group in run.optimizer.parts["muon"].param_groups for p in group["params"]]
    assert [m.data_ptr() for m in matrices] == [run.module[0].weight.data_ptr(), run.module[4].weight.data_ptr()]


def test_a_state_of_another_network_is_refused(tmp_path: Path) -> None:
    Run.new(0).state.save(tmp_path / "s", 1)
    other = torch.nn.Linear(3, 3)
    with pytest.raises(ValueError, match="holds the tensors of another network"):
        TrainState({"model": other}, {}).load(tmp_path / "s")


@pytest.mark.parametrize("other", [{"seed": 1, "data": "a"}, {"seed": 0, "data": "b"}, {"seed": 0}, {}])
def test_a_state_of_another_run_is_refused_before_anything_changes(tmp_path: Path, other: dict) -> None:
    run = Run.new(0)
    run.state.run = {"seed": 0, "data": "a"}
    run.state.save(tmp_path / "s", 1)
    run.state.load(tmp_path / "s")
    another = Run.new(1)
    another.state.run = other
    held = {k: v.clone() for k, v in another.everything().items()}
    with pytest.raises(ValueError, match=r"was saved by a run with (seed|data) .*, this one has .*another folder"):
        another.state.load(tmp_path / "s")
    assert_equal(another.everything(), held)


def test_what_is_loaded_does_not_hold_the_file(tmp_path: Path) -> None:
    """Windows does not replace a file that is mapped into memory, and a run saves over the state that it went on from."""
    run = Run.new(0)
    run.train(0, 1)
    run.state.save(tmp_path / "s", 1)
    run.state.load(tmp_path / "s")
    held = {k: v.clone() for k, v in run.everything().items()}
    content = (tmp_path / "s").read_bytes()
    with (tmp_path / "s").open("r+b") as file:  # in place: what is mapped would change with it
        file.write(b"\xff" * len(content))
    assert_equal(run.everything(), held)


@pytest.mark.parametrize(("step", "longer"), [(75, True), (76, False), (100, False)])
def test_a_run_is_lengthened_only_until_its_rate_falls(tmp_path: Path, step: int, longer: bool) -> None:
    run = Run.new(0)
    run.state.steps = 100
    run.state.save(tmp_path / "s", step)
    assert run.state.load(tmp_path / "s") == step
    run.state.steps = 200
    if longer:
        assert run.state.load(tmp_path / "s") == step
        return
    with pytest.raises(ValueError, match=rf"saved at step {step} of 100, .* this run has 200 steps; set 100 steps to go on"):
        run.state.load(tmp_path / "s")


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 1.0])
def test_averages(decay: float) -> None:
    module = torch.nn.BatchNorm1d(3)
    averaged = {"weight": torch.tensor([4.0, 5.0, 6.0]), "running_mean": torch.zeros(3)}
    kept = averaged["weight"].clone()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        module.running_mean.fill_(8.0)
    update_ema(averaged, module, decay)
    torch.testing.assert_close(averaged["weight"], decay * kept + (1 - decay) * torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(averaged["running_mean"], torch.full((3,), 8 * (1 - decay)))
    assert set(averaged) == {"weight", "running_mean"}


def test_files_are_written_with_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.safetensors"
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.ones(3, dtype=torch.float16, requires_grad=True)}
    save_atomic(tensors, path, {"k": "v"})
    found = load_file(path)
    assert_equal(found, {k: v.detach() for k, v in tensors.items()})
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"k": "v"}
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("moment", ["write", "replace"])
@pytest.mark.parametrize("existing", [True, False])
def test_a_crash_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, moment: str, existing: bool
) -> None:
    path = tmp_path / "a.safetensors"
    if existing:
        save_atomic({"x": torch.zeros(3)}, path)

    def half_written(tensors: State, file: str, metadata: dict[str, str] | None) -> None:
        Path(file).write_bytes(b"half")
        raise error

    def refused(source: str, target: Path) -> None:
        raise error

    if moment == "write":
        monkeypatch.setattr(checkpoint, "save_file", half_written)
    else:
        monkeypatch.setattr(checkpoint.os, "replace", refused)
    with pytest.raises(type(error)):
        save_atomic({"x": torch.ones(3)}, path)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == (["a.safetensors"] if existing else [])
    if existing:
        assert torch.equal(load_file(path)["x"], torch.zeros(3))
    save_atomic({"x": torch.ones(3)}, path)
    assert torch.equal(load_file(path)["x"], torch.ones(3))


@pytest.mark.skipif(sys.platform == "win32", reason="there a process cannot be given less room for its files")
def test_a_full_disk_is_an_oserror_that_names_the_file(tmp_path: Path) -> None:
    """The system refuses to write more than a few bytes, which the library reports in a class of its own."""
    import resource
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"a\.safetensors can't be written") as caught:
            save_atomic({"x": torch.zeros(100_000)}, tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert isinstance(caught.value.__cause__, SafetensorError)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "a[1].safetensors", tmp_path / "b.safetensors"
    for target in (path, other):
        with monkeypatch.context() as killed:  # a process that is killed removes nothing
            killed.setattr(checkpoint, "save_file", lambda *_: (_ for _ in ()).throw(MemoryError()))
            killed.setattr(Path, "unlink", lambda *_, **__: None)
            with pytest.raises(MemoryError):
                save_atomic({"x": torch.ones(3)}, target)
    assert len(list(tmp_path.iterdir())) == 2
    save_atomic({"x": torch.ones(3)}, path)
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left[0].startswith(".b.safetensors.") and left[1:] == [path.name], "those of other files may be in use"


def test_the_file_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the new one is written, a reader finds the old one."""
    path = tmp_path / "a.safetensors"
    save_atomic({"x": torch.zeros(3)}, path)
    seen = []
    write = checkpoint.save_file

    def watched(tensors: State, file: str, metadata: dict[str, str] | None) -> None:
        write(tensors, file, metadata)
        seen.append(load_file(path)["x"])

    monkeypatch.setattr(checkpoint, "save_file", watched)
    save_atomic({"x": torch.ones(3)}, path)
    assert torch.equal(seen[0], torch.zeros(3))
    assert torch.equal(load_file(path)["x"], torch.ones(3))


def test_files_of_one_content_are_the_same_to_the_byte(tmp_path: Path) -> None:
    metadata = {f"key {k}": "Wert ä\n\x01\"\\" * k for k in range(20)}
    for name in ("a", "b", "c"):
        save_atomic({"x": torch.arange(5)}, tmp_path / name, dict(sorted(metadata.items(), key=lambda _: name)))
        with safe_open(tmp_path / name, "pt") as file:
            assert file.metadata() == metadata and torch.equal(file.get_tensor("x"), torch.arange(5))
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1
