"""A run of `score` against a stand-in service, for the tests of it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "text"))
from stand_ins import StandIn
from synthetic_pairs import write_config

from training.__main__ import main

KEY = "sk-test-0123456789abcdefSECRET"
QUICK = {"measures": ["flicker"]}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY", *proxies, *map(str.upper, proxies)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DREAMACTOR_API_KEY", KEY)
    monkeypatch.setenv("DREAMACTOR_API_HOST", "127.0.0.1")


class Always(list):
    """A script that never ends: what was put in front, then one and the same."""

    def __init__(self, then: Callable[..., None]) -> None:
        super().__init__()
        self.then = then

    def __bool__(self) -> bool:
        return True

    def pop(self, index: int = -1) -> Callable[..., None]:
        return super().pop(index) if len(self) else self.then


def config(folder: Path, service: StandIn | None = None, **score: object) -> Path:
    served = {"service": service.protocol, "model": "grader", "base_url": service.url} if service else {}
    return write_config(folder, score={**QUICK, "workers": 2, **served, **score})


def run(path: Path) -> int:
    return main(["score", str(path)])


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "run" / "scores" / "manifest.jsonl").read_bytes()).hexdigest()
