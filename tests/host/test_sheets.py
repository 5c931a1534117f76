"""Sample sheets of a run: ComfyUI's own look-up finds the run's LoRA, whatever its user has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import folder_paths
import pytest
from utils.extra_config import load_extra_path_config

from training.train import sheets


class Looked(Exception):
    """Nothing more is needed of the server."""


def test_the_runs_lora_comes_before_one_of_that_name_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users, run = tmp_path / "models" / "loras", tmp_path / "train"
    for folder in (users, run):
        folder.mkdir(parents=True)
        (folder / "lora.safetensors").write_bytes(b"")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(users)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    found: list[str | None] = []

    class Server:
        """Reads the file that it is given, as ComfyUI does when it starts."""

        def __init__(self, arguments: Sequence[str]) -> None:
            option, path = arguments
            assert option == "--extra-model-paths-config"
            load_extra_path_config(path)
            found.append(folder_paths.get_full_path("loras", "lora.safetensors"))
            raise Looked

    monkeypatch.setattr(sheets, "HostServer", Server)
    made = sheets.Sheets.__new__(sheets.Sheets)  # without a workflow and samples
    made.folder, made.samples = run, []
    with pytest.raises(Looked):
        made.make(run / "lora.safetensors", tmp_path / "sheet.png")
    assert found == [str(run / "lora.safetensors")]
