"""run.py's arguments: which tests and benchmarks they name, and what is handed on."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from bootstrap import SetupError, verbs
from bootstrap.verbs import TEST_GROUPS, parser, pytest_commands

ROOT = Path(__file__).resolve().parents[2]


def test_arguments_of_pytest_go_to_both_processes(tmp_path: Path) -> None:
    for group in TEST_GROUPS:
        for folder in group:
            (tmp_path / folder).mkdir(parents=True)
    first, second = pytest_commands(["-k", "pose"], tmp_path)
    assert first[-2:] == second[-2:] == ["-k", "pose"]
    assert "tests/host" in second and "tests/host" not in first


def test_named_tests_take_the_place_of_the_folders(tmp_path: Path) -> None:
    for group in TEST_GROUPS:
        for folder in group:
            (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tests/host/test_x.py").write_text("")
    (only,) = pytest_commands(["tests/host/test_x.py::test_y", "-x"], tmp_path)
    assert only[-2:] == ["tests/host/test_x.py::test_y", "-x"]


@pytest.mark.parametrize(
    ("argument", "groups"),
    [
        ("tests", [["tests/core", "tests/training", "tests/headless", "tests/text", "tests/benchmarks"], ["tests/host"]]),
        ("tests/", [["tests/core", "tests/training", "tests/headless", "tests/text", "tests/benchmarks"], ["tests/host"]]),
        ("./tests/host/test_x.py", [["tests/host/test_x.py"]]),
        ("{root}/tests/host/test_x.py::test_y", [["tests/host/test_x.py::test_y"]]),
    ],
)
def test_tests_may_be_named_in_any_way(tmp_path: Path, argument: str, groups: list[list[str]]) -> None:
    for group in TEST_GROUPS:
        for folder in group:
            (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tests/host/test_x.py").write_text("")
    commands = pytest_commands([argument.format(root=tmp_path), "-x"], tmp_path)
    assert [command[5:] for command in commands] == [[*group, "-x"] for group in groups]


@pytest.mark.parametrize("option", ["-k", "-m", "--junitxml", "--deselect"])
def test_the_value_of_an_option_is_not_a_path(tmp_path: Path, option: str) -> None:
    for folder in ("training", *(folder for group in TEST_GROUPS for folder in group)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    commands = pytest_commands([option, "training", "-x"], tmp_path)
    assert [command[5:] for command in commands] == [[*group, option, "training", "-x"] for group in TEST_GROUPS]
    # a path beside it still is one, even of the same name
    (only,) = pytest_commands(["tests/host", option, "tests/host"], tmp_path)
    assert only[5:] == ["tests/host", option, "tests/host"]


def test_a_file_that_is_no_test_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tests/networks").mkdir(parents=True)
    with pytest.raises(SetupError, match="got tests/networks, expected a file or folder in tests/core"):
        pytest_commands(["tests/networks"], tmp_path)


def test_a_missing_test_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tests" / "core").mkdir(parents=True)
    with pytest.raises(SetupError, match="tests/training"):
        pytest_commands([], tmp_path)


def test_paths_are_meant_where_they_are_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    options = parser().parse_args(["demo", "--drive", "clip.mp4"])
    assert options.drive == str(tmp_path / "clip.mp4")
    assert options.out == str(tmp_path / "demo_out")


def test_a_benchmark_is_given_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verbs, "only_one", nullcontext)
    monkeypatch.setattr(verbs, "prepare", lambda: tmp_path)
    monkeypatch.setattr(verbs, "run_child", lambda command: ran.append([str(part) for part in command[1:]]) or 0)
    assert verbs.main(["bench", "quality", "--variants", "pose", "rgb", "--lora", "mine.safetensors"]) == 0
    assert verbs.main(["bench", "--clips", "8", "text", "--seed", "3"]) == 0
    assert verbs.main(["bench", "speed", "--layers", "40"]) == 0
    assert verbs.main(["bench", "evidence", "--rows", "pose_full", "rgb_cold", "--pairs", "16"]) == 0
    assert ran[0] == ["-m", "benchmarks.quality", "--variants", "pose", "rgb", "--lora", str(tmp_path / "mine.safetensors")]
    assert ran[1] == ["-m", "benchmarks.text", "--seed", "3", "--clips", "8"]
    assert ran[2] == ["-m", "benchmarks.speed", "--layers", "40"]
    assert ran[3] == ["-m", "benchmarks.evidence", "--pairs", "16", "--rows", "pose_full", "rgb_cold"]
