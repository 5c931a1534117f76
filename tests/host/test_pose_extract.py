"""Pose Extract in the host: from files to poses that the other nodes take, and what it refuses."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
import weakref
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PACK, load_package
from marker_networks import DOG, Drawn, dot_network, draw, person, rectangle_detector
from toys import run_saved, save, write_video

from headless.client import Client, Progress, Prompt, PromptFailed, PromptInterrupted
from headless.media import write_image
from headless.server import HostServer

WIDTH, HEIGHT, FPS = 320, 192, 24
NOSE = 2  # of AP-10K


def walker(t: int) -> Drawn:
    return person((10 + 5 * t, 20, 110 + 5 * t, 170), 17, 0, 6, 1)


def stander(colour: int = 1) -> Drawn:
    return person((200, 30, 300, 180), 17, colour, 6, 2)


def write_networks(folder: Path, side: int = 320, crop: int = 256) -> None:
    """Stand-ins for the files of `animal` and `dwpose`; their sizes are their own."""
    rectangle_detector(folder / "yolox_l.onnx", side, kinds=[DOG, DOG, 0, 0, 0, 0])
    dot_network(folder / "rtmpose-m_ap10k_256.onnx", 17, (crop, crop))
    dot_network(folder / "dw-ll_ucoco_384.onnx", 133, (128, 96))


@pytest.fixture(scope="module")
def networks(shelf: Path) -> None:
    """On the server's shelf; what `rtmw` needs is not there."""
    write_networks(shelf / "detection")


@pytest.fixture
def alone(pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only one in which this process looks for weights."""
    folder = tmp_path / "detection"
    folder.mkdir()
    monkeypatch.setattr(pack.nodes.pose_extract, "weight_folders", lambda: [folder])
    return folder


def extract(pack: ModuleType, images: Any, **inputs: Any) -> Any:
    """The node's outputs, on the CPU, with the defaults of the schema for what is not given."""
    node = pack.nodes.pose_extract.PoseExtract
    defaults = {i.id: i.default for i in node.define_schema().inputs if getattr(i, "default", None) is not None}
    return node.execute(images, **{**defaults, "model": "animal", "device": "cpu", **inputs}).result


def as_images(*frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(frames)).float() / 255


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title or class_type}}


def extractor(images: list[Any], **inputs: Any) -> dict[str, Any]:
    given = {"model": "animal", "device": "cpu", "download": False, "fps": 0.0, "max_people": 4}
    given |= {"min_confidence": 0.3, "detection_threshold": 0.5}
    return node("DreamActorPoseExtract", "Extract", images=images, **(given | inputs))


def from_video(file: str, **inputs: Any) -> Prompt:
    return {"video": node("LoadVideo", file=file), "extract": extractor(["video", 0], **inputs)}


@pytest.fixture(scope="module")
def clip(server: HostServer) -> list[list[Drawn]]:
    """A video in the server's input folder, clip.mp4: one walks, one stands, who is gone for three frames."""
    shown = [[walker(t)] + [stander()] * (not 5 <= t < 8) for t in range(16)]
    write_video(server.input_dir / "clip.mp4", [draw(HEIGHT, WIDTH, people) for people in shown])
    write_image(server.input_dir / "still.png", draw(256, 256, [person((40, 20, 220, 240), 17, 0, 8, 5)]))
    return shown


def test_poses_of_a_video_feed_the_other_nodes(
    client: Client, server: HostServer, networks: None, clip: list[list[Drawn]], tmp_path: Path
) -> None:
    prompt = from_video("clip.mp4") | {
        "still": node("LoadImage", image="still.png"),
        "reference": extractor(["still", 0]),
        "placed": node("DreamActorPoseRetarget", pose_keypoint=["extract", 0], reference_pose=["reference", 0], travel_frames=0),
        "smooth": node("DreamActorPoseSmooth", pose_keypoint=["extract", 0], reach=3),
        "report": node("PreviewAny", source=["extract", 3]),
        "fps": node("PreviewAny", source=["extract", 1]),
    }
    drawing = {"width": WIDTH, "height": HEIGHT, "fit": "canvas", "face": True, "hands": True, "threshold": 0.3, "style": "dwpose"}
    for name, source in (("plain", "extract"), ("placed skeleton", "placed"), ("smooth skeleton", "smooth")):
        prompt[name] = node("DreamActorPoseDraw", pose_keypoint=[source, 0], **drawing)
        save(prompt, **{name: [name, 0]})
    save(prompt, preview=["extract", 2])
    found = run_saved(client, prompt, tmp_path)
    assert {len(found[name]) for name in ("plain", "placed skeleton", "smooth skeleton", "preview")} == {16}
    for t, people in enumerate(clip):
        for one in people:
            x, y = one.dots[NOSE].astype(int)
            assert found["plain"][t, y, x].tolist() == [1, 0, 0], f"the red dot of a nose in frame {t}"
    gone = found["plain"][6, :, 190:]
    assert not gone.any()
    outputs = client.run(prompt)
    report = outputs["report"]["text"][0]
    for part in (
        "model: RTMPose-m AP-10K, animals", "device: cpu, CPUExecutionProvider of onnxruntime ", "frames: 16 of 320x192 at 24 fps",
        " frames/s", "people: 2, seen in 16, 13 frames", "yolox_l.onnx (NOT the published file: another sha256)",
    ):  # fmt: skip
        assert part in report
    assert float(outputs["fps"]["text"][0]) == FPS


def test_the_other_models_and_sampling(client: Client, server: HostServer, networks: None, clip: Any, tmp_path: Path) -> None:
    one = person((20, 10, 300, 180), 133, 2, 4, 3)
    write_video(server.input_dir / "body.mp4", [draw(HEIGHT, WIDTH, [one])] * 24)
    prompt = from_video("body.mp4", model="dwpose", fps=6.0)
    prompt["report"] = node("PreviewAny", source=["extract", 3])
    outputs = client.run(prompt)
    report = outputs["report"]["text"][0]
    assert outputs["extract"]["text"] == [report], "on the node as well"
    assert "model: DWPose-l, whole body" in report
    assert "frames: 6 of 320x192 at 6 fps" in report


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"model": "rtmw"}, ("2 weight file(s) are missing", "models", "yolox_m_8xb8-300e_humanart", "https://", "download")),
        ({"detection_threshold": 0.95}, ("nobody was found in any of the 16 frames", "lower detection_threshold")),
        ({"min_confidence": 1.0}, ("nobody was found", "no joint in them", "lower min_confidence")),
        ({"fps": 0.01}, ("fps is 0.01", "expected 0.1 to 240")),
    ],
)
def test_what_it_refuses(client: Client, networks: None, clip: Any, inputs: dict[str, Any], says: tuple[str, ...]) -> None:
    prompt = from_video("clip.mp4", **inputs)
    prompt["draw"] = node("PreviewImage", images=["extract", 2])
    with pytest.raises(PromptFailed) as caught:
        client.run(prompt, timeout=60)
    assert caught.value.title == "Extract"
    for part in says:
        assert part in str(caught.value)


def test_a_damaged_video(client: Client, server: HostServer, networks: None, clip: Any) -> None:
    (server.input_dir / "noise.mp4").write_bytes(b"no video")
    prompt = from_video("noise.mp4") | {"draw": node("PreviewImage", images=["extract", 2])}
    with pytest.raises(PromptFailed, match="cannot be read"):
        client.run(prompt, timeout=60)


def test_cancelling_stops_it_between_frames(client: Client, server: HostServer, networks: None) -> None:
    frames = [draw(HEIGHT, WIDTH, [stander()])] * 3000
    write_video(server.input_dir / "long.mp4", frames)
    prompt = from_video("long.mp4") | {"draw": node("PreviewImage", images=["extract", 2])}
    steps: list[int] = []
    asked: list[float] = []

    def follow(progress: Progress) -> None:
        if progress.title == "Extract" and progress.maximum:
            steps.append(progress.value)
            if not asked:
                client.interrupt()
                asked.append(time.monotonic())

    with pytest.raises(PromptInterrupted) as caught:
        client.run(prompt, follow, timeout=120)
    assert time.monotonic() - asked[0] < 5, "a second, and the way back on a busy machine"
    assert caught.value.title == "Extract"
    assert steps[-1] < 1500


def test_the_user_is_asked_after_each_frame(pack: ModuleType, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management

    class Interrupted(Exception):
        pass

    write_networks(alone, 32, 32)
    module = import_module(f"{pack.__name__}.dreamactor_core.extract.extractor")
    original, looked_at = module.Extractor.detections, []

    def detections(self: Any, given: np.ndarray) -> Any:
        looked_at.append(given)
        return original(self, given)

    def ask() -> None:
        if len(looked_at) == 3:
            raise Interrupted

    monkeypatch.setattr(module.Extractor, "detections", detections)
    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", ask)
    with pytest.raises(Interrupted):
        extract(pack, as_images(*[draw(HEIGHT, WIDTH, [stander()])] * 6))
    assert len(looked_at) == 3, "nobody was asked before the next frame"


def test_3000_frames_of_a_file_are_not_in_memory_together(
    pack: ModuleType, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy_api.latest import InputImpl

    write_networks(alone, 32, 32)
    module = import_module(f"{pack.__name__}.dreamactor_core.extract.extractor")
    frame = draw(96, 160, [person((30, 10, 130, 90), 17, 0, 5)])
    path = write_video(tmp_path / "long.mp4", [frame] * 3000, tone=True)
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0
    original = module.Extractor.detections

    def counted(self: Any, given: np.ndarray) -> Any:
        nonlocal most
        alive[:] = [one for one in alive if one() is not None] + [weakref.ref(given)]
        most = max(most, len(alive))
        return original(self, given)

    monkeypatch.setattr(module.Extractor, "detections", counted)
    poses, fps, preview, report, audio = extract(pack, InputImpl.VideoFromFile(str(path)))
    assert (len(poses), fps, len(preview)) == (3000, FPS, 16)
    assert audio["waveform"].shape[:2] == (1, 1) and float(audio["waveform"].abs().max()) > 0.3, "the sound is lost"
    assert audio["waveform"].shape[2] / audio["sample_rate"] == pytest.approx(1.0, abs=0.1)
    assert most <= 3
    assert "seen in 3000 frames" in report


def test_images_are_taken_as_they_are(pack: ModuleType, alone: Path) -> None:
    write_networks(alone)
    frames = [draw(HEIGHT, WIDTH, [walker(t)]) for t in range(4)]
    poses, fps, preview, report, audio = extract(pack, as_images(*frames))
    assert audio is None
    assert (len(poses), fps, tuple(preview.shape)) == (4, 0.0, (4, HEIGHT, WIDTH, 3))
    unknown = "fps unknown: set fps here, or driving_fps at In-Context Conditioning"
    assert unknown in report.splitlines()
    assert (preview.dtype, poses[0]["canvas_width"], poses[0]["canvas_height"]) == (torch.float32, WIDTH, HEIGHT)
    for t, frame in enumerate(poses):
        nose = np.array(frame["people"][0]["pose_keypoints_2d"][:3])
        np.testing.assert_allclose(nose[:2], walker(t).dots[NOSE], atol=1)
    assert [frame["people"][0]["person_id"] for frame in poses] == [[0]] * 4, "they were followed"
    known, still = extract(pack, as_images(*frames), fps=12.0), extract(pack, as_images(frames[0]))
    assert known[1] == 12.0
    assert unknown not in known[3] and unknown not in still[3], "a reference image needs no rate"


def test_the_report_says_who_came_back(pack: ModuleType, alone: Path) -> None:
    write_networks(alone)
    rectangle_detector(alone / "yolox_l.onnx", 320, kinds=[DOG] * 6)
    here, there = stander(), person((20, 30, 120, 180), 17, 1, 6, 2)
    report = extract(pack, as_images(*[draw(HEIGHT, WIDTH, [one]) for one in [here] * 4 + [there] * 4]))[3]
    assert "people: 1, seen in 8 frames; 1 appearance(s) after a cut" in report
    pair = [[walker(0), stander()]] * 4
    for clip, said in ((pair, False), ([*pair, *[[]] * 8, *[[stander(2)]] * 4], True)):
        report = extract(pack, as_images(*[draw(HEIGHT, WIDTH, people) for people in clip]), fps=4.0)[3]
        assert ("never more than 2 at a time: somebody may have come back" in report) == said


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(0, 32, 32, 3), "zero frames, expected at least one"),
        (torch.zeros(2, 32, 32, 4), "has 4 channels"),
        (torch.zeros(2, 32, 32, 1), "has 1 channel"),
        (torch.full((2, 32, 32, 3), torch.nan), "holds NaN"),
        (torch.zeros(32, 32), "expected a batch of images"),
        (torch.zeros(2, 32, 32, 3), "nobody was found in any of the 2 frames"),
    ],
)
def test_images_that_are_none(pack: ModuleType, alone: Path, images: torch.Tensor, says: str) -> None:
    write_networks(alone)
    with pytest.raises((ValueError, RuntimeError), match=says):
        extract(pack, images)


def test_nan_in_a_later_frame(pack: ModuleType, alone: Path) -> None:
    write_networks(alone)
    images = as_images(*[draw(HEIGHT, WIDTH, [walker(t)]) for t in range(3)])
    images[2, 5, 5, 1] = torch.nan
    with pytest.raises(ValueError, match="holds NaN"):
        extract(pack, images)


def test_networks_are_loaded_once_and_again_when_their_file_changed(
    pack: ModuleType, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module(f"{pack.__name__}.dreamactor_core.extract.session")
    write_networks(alone)
    loaded: list[str] = []
    load = module.load
    monkeypatch.setattr(module, "load", lambda path, *device: loaded.append(path.name) or load(path, *device))
    images = as_images(draw(HEIGHT, WIDTH, [stander()]))
    for _ in range(3):
        extract(pack, images)
    assert loaded == ["yolox_l.onnx", "rtmpose-m_ap10k_256.onnx"]
    dot_network(alone / "rtmpose-m_ap10k_256.onnx", 17, (128, 128))
    extract(pack, images)
    assert loaded[2:] == ["rtmpose-m_ap10k_256.onnx"]


@pytest.mark.parametrize(
    ("device", "nvidia", "offered", "says"),
    [
        ("cuda", False, "CPUExecutionProvider", "device is cuda, but onnxruntime"),
        ("auto", True, "CPUExecutionProvider", "device is auto on an NVIDIA GPU, but onnxruntime"),
        ("auto", False, "CUDAExecutionProvider", ""),
    ],
    ids=["cuda", "auto on NVIDIA", "auto on AMD"],
)
def test_cuda_is_taken_when_asked_for_or_where_the_host_runs_on_it_and_not_on_an_amd_gpu(
    pack: ModuleType, alone: Path, monkeypatch: pytest.MonkeyPatch, device: str, nvidia: bool, offered: str, says: str
) -> None:
    """ROCm's torch calls its devices cuda as well. What this machine's onnxruntime offers makes no difference."""
    import comfy.model_management
    import onnxruntime

    write_networks(alone)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [offered])
    monkeypatch.setattr(comfy.model_management, "get_torch_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(comfy.model_management, "is_nvidia", lambda: nvidia)
    images = as_images(draw(HEIGHT, WIDTH, [stander()]))
    if says:
        with pytest.raises(RuntimeError, match=f"{says}.* expected CUDAExecutionProvider.* pip .*set device to cpu"):
            extract(pack, images, device=device)
    else:
        assert "device: cpu, CPUExecutionProvider" in extract(pack, images, device=device)[3]


@pytest.mark.parametrize("kind", ["cut", "page", "other"])
def test_weights_that_are_something_else(pack: ModuleType, alone: Path, kind: str) -> None:
    write_networks(alone)
    network = alone / "rtmpose-m_ap10k_256.onnx"
    if kind == "other":
        shutil.copyfile(alone / "dw-ll_ucoco_384.onnx", network)
    else:
        network.write_bytes(network.read_bytes()[:5000] if kind == "cut" else b"<html>404</html>")
    says = "of 17 joints.*get it again" if kind == "other" else "cannot be loaded as an ONNX network.*Delete it"
    with pytest.raises(RuntimeError, match=says):
        extract(pack, as_images(draw(HEIGHT, WIDTH, [stander()])))


def test_weights_that_are_not_the_published_ones_are_told_in_the_log(
    pack: ModuleType, alone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_networks(alone)
    images = as_images(draw(HEIGHT, WIDTH, [stander()]))
    extract(pack, images)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for name in ("yolox_l.onnx", "rtmpose-m_ap10k_256.onnx"):
        assert [f"{name} (NOT the published file" in text for text in told].count(True) == 1
    caplog.clear()
    weights = import_module(f"{pack.__name__}.dreamactor_core.extract.weights")
    model = pack.dreamactor_core.extract.catalogue.MODELS["animal"]
    published = {file.name: file.sha256 for file in (model.detector, model.network)}
    monkeypatch.setattr(weights, "sha256_of", lambda path: published[path.name])
    assert "NOT the published" not in extract(pack, images)[3]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_missing_files_are_fetched_when_asked_and_only_then(
    pack: ModuleType, alone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = import_module(f"{pack.__name__}.dreamactor_core.extract.weights")
    write_networks(tmp_path)
    asked: list[str] = []

    def fetch(file: Any, folder: Path, progress: Callable[[int, int], None]) -> Path:
        asked.append(file.name)
        progress(file.size, file.size)
        return Path(shutil.copyfile(tmp_path / file.name, folder / file.name))

    monkeypatch.setattr(weights, "fetch", fetch)
    images = as_images(draw(HEIGHT, WIDTH, [stander()]))
    with pytest.raises(RuntimeError, match=r"2 weight file\(s\) are missing"):
        extract(pack, images)
    assert asked == []
    extract(pack, images, download=True)
    assert asked == ["yolox_l.onnx", "rtmpose-m_ap10k_256.onnx"]
    extract(pack, images, download=True)
    assert len(asked) == 2, "what is there is not fetched again"


def test_weights_of_other_packs_are_found(pack: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import folder_paths

    node = pack.nodes.pose_extract
    packs, models = tmp_path / "custom_nodes", tmp_path / "models"
    monkeypatch.setattr(folder_paths, "models_dir", str(models))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "custom_nodes", ([str(packs)], set()))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "detection", ([str(models / "detection")], set()))
    aux = packs / "comfyui_controlnet_aux" / "ckpts"
    chosen = pack.dreamactor_core.extract.catalogue.MODELS["dwpose"]
    (models / "onnx").mkdir(parents=True)
    (models / "onnx" / chosen.detector.name).touch()
    # each comes before those before it
    for place in (aux / "yzd-v" / "DWPose", models / "checkpoints" / "DWPose", models / "dwpose", models / "detection"):
        place.mkdir(parents=True, exist_ok=True)
        (place / chosen.network.name).touch()
        assert node.weights_of(chosen)[chosen.network] == place / chosen.network.name
    assert node.weights_of(chosen)[chosen.detector].parent.name == "onnx"


def test_the_pack_loads_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnx", "rtmlib", "cv2", "scipy.optimize"):
        monkeypatch.setitem(sys.modules, name, None)

    again = tmp_path / "again"  # under another name the pack is imported once more, as if nothing of it was
    again.symlink_to(PACK.resolve(), target_is_directory=True)

    async def nodes() -> list[Any]:
        module = load_package(again)
        return await (await module.comfy_entrypoint()).get_node_list()

    assert "DreamActorPoseExtract" in [made.define_schema().node_id for made in asyncio.run(nodes())]


def test_it_explains_itself(pack: ModuleType) -> None:
    schema = pack.nodes.pose_extract.PoseExtract.define_schema()
    assert (schema.display_name, schema.category) == ("DreamActor Pose Extract", "DreamActor-M2/pose")
    assert len(schema.search_aliases) >= 3
    assert all(one.tooltip for one in [*schema.inputs, *schema.outputs])
    page = (Path(__file__).resolve().parents[2] / "web" / "docs" / "DreamActorPoseExtract.md").read_text("utf-8")
    for model in pack.dreamactor_core.extract.catalogue.MODELS.values():
        for file in (model.detector, model.network):
            assert f"`{file.name}` | {file.size / 1e6:.0f} |" in page
