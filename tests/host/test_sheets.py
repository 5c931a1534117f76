"""Sample sheets of a run, made by a ComfyUI that it starts; the look-up finds the run's LoRA, whatever its user has."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import folder_paths
import numpy as np
import pytest
from utils.extra_config import load_extra_path_config

from headless.media import read_image
from tests.training.drawn_clips import write_clips, write_run
from training import config
from training.marionette.backbone import LORA_FOLDER
from training.marionette.world import HEIGHT, WIDTH
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


@pytest.mark.parametrize("variant", ["pose", "rgb"])
def test_a_sheet_shows_each_truth_above_what_the_lora_makes(variant: str, tmp_path: Path) -> None:
    write_clips(tmp_path / "clips", 4, pairs=variant == "rgb")
    run = tmp_path / "train"
    run.mkdir()
    name = "marionette_pose_cached" if variant == "pose" else "marionette_rgb"
    shutil.copy(LORA_FOLDER / f"{name}.safetensors", run / "lora.safetensors")
    sections = {"variant": variant, "motion_context": "cached", "cache": {"validation_share": 0.5}, "train": {"sample_sheets": 2}}
    settings = config.load(write_run(tmp_path / "run.yaml", tmp_path, **sections))
    sheets.Sheets(settings, run).make(run / "lora.safetensors", run / "samples.png")
    sheet = read_image(run / "samples.png").astype(float)
    rows, columns = 2 * 2, 1 + 6  # two samples; reference and frames
    assert sheet.shape == (rows * HEIGHT, columns * WIDTH, 3)
    cells = sheet.reshape(rows, HEIGHT, columns, WIDTH, 3).swapaxes(1, 2)
    for truth, made in zip(cells[::2], cells[1::2], strict=True):
        assert np.array_equal(truth[0], made[0]), "the reference stands before both"
        ours, still = (np.square(truth[1:] - clip).mean() for clip in (made[1:], truth[:1]))
        assert 0 < ours < still, "the shipped LoRA is nearer to the truth than one that stands still, and is not the truth"
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == [], "nothing is left beside the run"
