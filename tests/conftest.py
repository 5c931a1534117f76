"""What all tests share: our packages can be imported, and the two kinds of test keep to their own process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytest.register_assert_rewrite("short_runs")  # of tests/training: its asserts say what they compare, as those of tests do

if not any(Path(entry).resolve() == ROOT for entry in sys.path):
    sys.path.insert(0, str(ROOT))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse to run tests/host beside the others: there ComfyUI's `nodes` is imported, elsewhere ours."""
    in_host = {(ROOT / "tests" / "host") in item.path.parents for item in items}
    if len(in_host) > 1:
        raise pytest.UsageError(
            "got tests of tests/host and others in one process, expected one kind: ComfyUI's modules and ours have the "
            "same names. Run `python run.py test`, or pytest on tests/host alone"
        )
