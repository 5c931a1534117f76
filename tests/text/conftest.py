"""Stand-in services, and no key or proxy of the machine's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for `stand_ins`

from stand_ins import StandIn  # noqa: E402

KEY = "sk-test-0123456789abcdefSECRET"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY", "DREAMACTOR_API_KEY", "DREAMACTOR_API_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """A key for the stand-ins' host."""
    monkeypatch.setenv("DREAMACTOR_API_KEY", KEY)
    monkeypatch.setenv("DREAMACTOR_API_HOST", "127.0.0.1")
    return KEY


@pytest.fixture(params=["gemini", "openai_compatible"])
def service(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    """A server that speaks one of the two protocols."""
    with StandIn(request.param) as running:
        yield running
