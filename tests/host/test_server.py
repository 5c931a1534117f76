"""The server and its client, on a real ComfyUI."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import requests

from headless.client import (
    Client,
    Progress,
    PromptFailed,
    PromptInterrupted,
    PromptRejected,
    files,
)
from headless.media import read_image
from headless.server import HostServer, ServerDied

ROOT = Path(__file__).resolve().parents[2]


def picture(width: int = 32, title: str = "Result") -> dict[str, dict[str, Any]]:
    """A workflow that saves a red picture."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": width, "height": 16, "batch_size": 1, "color": 0xFF0000}},
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": "red"},
            "_meta": {"title": title},
        },
    }


def long_running() -> dict[str, dict[str, Any]]:
    """A workflow of many nodes that takes minutes and little memory."""
    blank = {"width": 512, "height": 512, "batch_size": 4, "color": 0x00FF00}
    workflow: dict[str, dict[str, Any]] = {"0": {"class_type": "EmptyImage", "inputs": blank}}
    for k in range(1, 200):
        inputs = {"image": [str(k - 1), 0], "blur_radius": 31, "sigma": 1 + k / 1000}
        workflow[str(k)] = {"class_type": "ImageBlur", "inputs": inputs}
    workflow["200"] = {"class_type": "PreviewImage", "inputs": {"images": ["199", 0]}}
    return workflow


def wait_until_idle(server: HostServer) -> None:
    """Fails when the server works on for as long as `long_running` takes by far."""
    deadline = time.monotonic() + 30
    while requests.get(f"{server.url}/prompt", timeout=10).json()["exec_info"]["queue_remaining"]:
        assert time.monotonic() < deadline, "the server still works on a workflow that nobody waits for"
        time.sleep(0.1)


def test_the_pack_is_loaded(server: HostServer) -> None:
    ours = [node for node in server.custom_nodes() if node.path.exists() and node.path.samefile(ROOT)]
    assert [node.loaded for node in ours] == [True], server.log_tail()


def test_what_a_workflow_saves_comes_back(client: Client, tmp_path: Path) -> None:
    seen: list[Progress] = []
    outputs = client.run(picture(), seen.append)
    saved = client.download(files(outputs["2"])[0], tmp_path / "red.png")
    assert read_image(saved).shape == (16, 32, 3)
    assert (read_image(saved) == (255, 0, 0)).all()
    assert [progress.title for progress in seen] == ["EmptyImage", "Result"]
    assert [path.name for path in tmp_path.iterdir()] == ["red.png"], "a partial file was left"


def test_a_cached_workflow_still_names_its_files(client: Client) -> None:
    workflow = picture(48)
    assert files(client.run(workflow)["2"]) == files(client.run(workflow)["2"])


def test_an_unknown_class_is_rejected_readably(client: Client) -> None:
    with pytest.raises(PromptRejected, match=r'node 7 "My node" \(NoSuchNode\).*not found'):
        client.run({"7": {"class_type": "NoSuchNode", "inputs": {}, "_meta": {"title": "My node"}}})


def test_a_wrong_value_names_node_and_input(client: Client) -> None:
    with pytest.raises(PromptRejected, match=r"node 1 .*\(EmptyImage\).*-5.*width"):
        client.run(picture(-5))


def test_a_partly_wrong_workflow_is_rejected_whole(client: Client, server: HostServer) -> None:
    bad = {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}, "_meta": {"title": "Bad"}}
    with pytest.raises(PromptRejected, match=r'"Bad".*images'):
        client.run(long_running() | {"bad": bad})
    wait_until_idle(server)


def test_a_failing_node_is_named_with_its_exception(client: Client, server: HostServer) -> None:
    (server.input_dir / "broken.mp4").write_bytes(b"no video")
    workflow = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "broken.mp4"}},
        "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}, "_meta": {"title": "Frames"}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    with pytest.raises(PromptFailed) as caught:
        client.run(workflow)
    error = caught.value
    assert (error.title, error.class_type) == ("Frames", "GetVideoComponents")
    assert "InvalidDataError" in error.exception_type
    assert "get_components" in error.traceback


def test_interrupt_ends_a_run(client: Client) -> None:
    with pytest.raises(PromptInterrupted):
        client.run(long_running(), on_progress=lambda _: client.interrupt(), timeout=120)


def test_a_timeout_cancels_the_work(client: Client, server: HostServer) -> None:
    with pytest.raises(TimeoutError, match="within 1 s"):
        client.run(long_running(), timeout=1)
    wait_until_idle(server)


def test_uploads_of_one_name_do_not_replace_each_other(client: Client, server: HostServer, tmp_path: Path) -> None:
    names = []
    for content in (b"one", b"two"):
        (tmp_path / "clip.json").write_bytes(content)
        names.append(client.upload(tmp_path / "clip.json"))
    assert [(server.input_dir / name).read_bytes() for name in names] == [b"one", b"two"]


def test_a_server_that_cannot_start_says_why() -> None:
    with (
        pytest.raises(ServerDied, match="unrecognized arguments: --no-such-option"),
        HostServer(arguments=["--no-such-option"]),
    ):
        pass
