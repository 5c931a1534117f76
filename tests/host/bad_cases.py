"""What the tests of bad input share: a valid workflow with one thing wrong, and what its refusal must say."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from toys import (
    contract,
    link,
    lora,
    node,
    small_feed_forward,
    toy_rgb,
)

from headless.client import Client, Prompt, PromptFailed, PromptRejected

Change = Callable[[Prompt], None]
CONDITIONING, LORA, REFERENCE, DRIVER = "In-context conditioning", "Motion LoRA", "Reference", "Driving video"
PATIENCE = 30.0
"""Seconds in which a case must be refused; it takes a fraction of one where the machine does nothing else."""


@dataclass(frozen=True)
class Case:
    """What is wrong, and what the message must hold: what was got, what is expected, how to put it right."""

    name: str
    change: Change
    got: str
    expected: str = ""
    fix: str = ""
    base: Callable[[], Prompt] = toy_rgb


def at(title: str, **values: Any) -> Change:
    """Sets inputs of the node of that title."""
    return lambda prompt: node(prompt, title).update(values)


def instead(title: str, made: dict[str, Any]) -> Change:
    """Puts another node in the place of the one of that title."""

    def change(prompt: Prompt) -> None:
        prompt[link(prompt, title)[0]] = {**made, "_meta": {"title": title}}

    return change


def write_good(folder: Path) -> None:
    """`good.safetensors`, the LoRA that every case loads that does not name another, and `pose.safetensors` of that variant."""
    save_file(lora(small_feed_forward()), folder / "good.safetensors", contract("marionette"))
    about = contract("marionette", variant="pose", skeleton="openpose18")
    save_file(lora(small_feed_forward()), folder / "pose.safetensors", about)


def assert_refused(client: Client, case: Case) -> None:
    """The case ends before sampling, with a message that holds all that it must hold."""
    prompt = case.base()
    node(prompt, LORA)["lora_name"] = "good.safetensors"
    case.change(prompt)
    seen: list[str] = []
    began = time.monotonic()
    with pytest.raises((PromptRejected, PromptFailed)) as caught:
        client.run(prompt, lambda progress: seen.append(progress.title), timeout=PATIENCE)
    assert time.monotonic() - began < PATIENCE
    assert "Sampler" not in seen
    message = str(caught.value)
    missing = [part for part in (case.got, case.expected, case.fix) if part not in message]
    assert not missing, f"{missing} not in: {message}"
