"""ComfyUI servers of a run: which GPU each is given. The servers themselves are tested in tests/host."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from training.synthesize import servers


@pytest.mark.parametrize(
    ("visible", "gpus", "given"),
    [
        (None, 2, ["0", "1", "0"]),
        ("2,3", 2, ["2", "3", "2"]),
        ("GPU-5f2c, MIG-8a01", 2, ["GPU-5f2c", "MIG-8a01", "GPU-5f2c"]),
        ("3,-1,0", 1, ["3", "3", "3"]),  # what comes after a wrong one is not visible
        ("", 0, [None, None, None]),
        (None, 0, [None, None, None]),
    ],
)
def test_servers_are_on_the_gpus_that_are_visible(
    visible: str | None, gpus: int, given: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the machine's ids, as ComfyUI puts what it is given into CUDA_VISIBLE_DEVICES itself."""
    seen: list[list[str]] = []

    def guard(arguments: list[str]) -> SimpleNamespace:
        seen.append(arguments)
        return SimpleNamespace(stdout=io.StringIO('["http://x", "/out"]\n'))

    monkeypatch.setattr(servers, "_guard", guard)
    monkeypatch.setattr(servers, "_end", lambda guard: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with servers.started(3, gpus, ["--cpu"]) as found:
        assert found == [("http://x", "/out")] * 3
    assert seen == [[*(["--cuda-device", name] if name else []), "--cpu"] for name in given]
