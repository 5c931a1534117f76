"""The shipped workflows and the nodes' help, held against what the server says of its nodes. No model is run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests
from graphs import NOTES, Graph, Info, inputs_of, loose_links, problems, to_api
from PIL import Image

from dreamactor_core.extract.catalogue import MODELS, WeightFile
from headless.client import Client, Prompt
from headless.server import HostServer
from training.config import from_values, presets

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS, DOCS = ROOT / "workflows", ROOT / "web" / "docs"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
REAL = [name for name in NAMES if not name.startswith("marionette")]
SMALL = [name for name in NAMES if name not in REAL]
EXTRACTING = [name for name in REAL if name.endswith("_pose")]
"""Driven by a video whose poses they find themselves: on our LoRAs, and on pose-driven models of ComfyUI's own."""
FOLDERS = {
    "UNETLoader": "diffusion_models", "CLIPLoader": "text_encoders", "DualCLIPLoader": "text_encoders", "VAELoader": "vae",
    "CLIPVisionLoader": "clip_vision", "LoraLoaderModelOnly": "loras", "DreamActorLoraLoader": "loras",
}  # fmt: skip
MATERIAL = {"LoadImage": "image", "LoadVideo": "file", "DreamActorLoadPoses": "poses"}
PRIVATE = {
    "an absolute path": r"(?<![\w.:/-])(/(home|Users|root|work|tmp|mnt|media|opt|usr|var)/|~/|[A-Za-z]:\\|\\\\\w)",
    "an e-mail address": r"[\w.+-]+@[\w-]+\.\w+",
    "a secret": r"(?i)\b(api|access|private)[-_ ]?(key|token)|secret|passw|bearer |\b(hf|sk|gh[opsu]|AKIA)[-_]?\w{16}",
}


def load(name: str, folder: str = ".") -> Graph | Prompt:
    return json.loads((WORKFLOWS / folder / f"{name}.json").read_text("utf-8"))


def strings(value: Any) -> list[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    return [text for inner in value for text in strings(inner)] if isinstance(value, list) else [str(value)]


def note_of(name: str) -> str:
    """The notes in a graph."""
    return "\n".join(node["widgets_values"][0] for node in load(name)["nodes"] if node["type"] in NOTES)


def kinds(name: str) -> set[str]:
    """The kinds of node in a workflow."""
    return {node["class_type"] for node in load(name, "api").values()}


def extracting(name: str) -> set[WeightFile]:
    """Files that Pose Extract needs in a workflow."""
    nodes = load(name, "api").values()
    models = [MODELS[node["inputs"]["model"]] for node in nodes if node["class_type"] == "DreamActorPoseExtract"]
    return {file for model in models for file in (model.detector, model.network)}


def needed(name: str) -> set[tuple[str, str, str]]:
    """Loader, folder and file of each model that a workflow loads and this repository does not hold."""
    loaders = [(node["class_type"], node["inputs"]) for node in load(name, "api").values() if node["class_type"] in FOLDERS]
    files = {(kind, FOLDERS[kind], str(file)) for kind, inputs in loaders for file in inputs.values()}
    shipped = ROOT / "models"
    absent = {row for row in files if row[2].endswith(".safetensors") and not (shipped / row[1] / row[2]).is_file()}
    return absent | {("DreamActorPoseExtract", "detection", file.name) for file in extracting(name)}


def table(page: str, heading: str) -> list[tuple[str, str]]:
    """Name and type in each row of the table below a heading of a help page. Rows that explain nothing do not count."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| (\S+) \| ([^|]+) \| [^|\s][^|]* \|$", section, re.MULTILINE)[2:]


@pytest.fixture(scope="module")
def info(client: Client) -> Info:
    return client.object_info()


@pytest.fixture(scope="module")
def folder(server: HostServer) -> str:
    """The pack's folder among the server's custom nodes."""
    return next(node.path.name for node in server.custom_nodes() if node.path.exists() and node.path.samefile(ROOT))


@pytest.fixture(scope="module")
def ours(info: Info, folder: str) -> Info:
    """The pack's nodes."""
    return {key: node for key, node in info.items() if node["python_module"] == f"custom_nodes.{folder}"}


def test_each_has_a_twin_for_the_api_and_a_picture() -> None:
    twins, pictures = (sorted(path.stem for path in WORKFLOWS.glob(kind)) for kind in ("api/*.json", "*.jpg"))
    assert NAMES == twins == pictures and len(REAL) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_the_two_formats_are_one_graph(name: str, info: Info) -> None:
    assert loose_links(load(name)) == []
    made, shipped = to_api(load(name), info), load(name, "api")
    assert made.keys() == shipped.keys()
    for key in made:
        assert made[key] == shipped[key]


@pytest.mark.parametrize("name", NAMES)
def test_a_server_takes_every_value_and_link(name: str, info: Info) -> None:
    # the files of a real backbone are not in this repository; those of the small one are, its inputs among the assets
    absent = {file for _, _, file in needed(name)}

    def may_lack(value: str) -> bool:
        chosen = bool(re.search(r"\.(png|mp4|json)$", value)) if name in REAL else (ROOT / "assets" / value).is_file()
        return chosen or value in absent

    assert problems(load(name, "api"), info, may_lack) == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_private_is_in_it(name: str) -> None:
    for text in strings([load(name), load(name, "api")]):
        assert [what for what, pattern in PRIVATE.items() if re.search(pattern, text)] == [], text


@pytest.mark.parametrize("name", NAMES)
def test_its_picture_is_small_and_holds_nothing_else(name: str) -> None:
    path = WORKFLOWS / f"{name}.jpg"
    assert path.stat().st_size <= 100_000
    with Image.open(path) as picture:
        picture.load()
        # a comment, EXIF, XMP and the like are segments of their own
        assert picture.format == "JPEG" and {segment for segment, _ in picture.applist} <= {"APP0"}


@pytest.mark.parametrize("name", [name for name in NAMES if needed(name)])
def test_its_note_names_every_file_and_what_24_gb_need(name: str) -> None:
    note, files = note_of(name), needed(name)
    assert "24 GB" in note
    assert set(re.findall(r"^- models/(\w+): \[?([\w.-]+)", note, re.MULTILINE)) == {(folder, file) for _, folder, file in files}
    if name in REAL:
        assert {"diffusion_models", "text_encoders", "vae"} <= {folder for _, folder, _ in files}
    offered = [model for node in load(name)["nodes"] for model in node["properties"].get("models", [])]
    public = {(folder, file) for loader, folder, file in files if not loader.startswith("DreamActor")}
    assert {(model["directory"], model["name"]) for model in offered} == public
    assert all(f"[{file.name}]({file.sources[0].url})" in note for file in extracting(name))
    for model in offered:
        assert f"[{model['name']}]({model['url']})" in note and model["url"].endswith(f"/{model['name']}")


@pytest.mark.parametrize("name", [name for name in NAMES if "DWPose Estimator" in note_of(name)])
def test_its_note_names_the_pack_s_own_extractor_first(name: str) -> None:
    note = note_of(name)
    others = [note.index(other) for other in ("SDPose Keypoint Extractor", "DWPose Estimator") if other in note]
    assert 0 <= note.find("**Pose Extract**") < min(others)


@pytest.mark.parametrize("name", [name for name in SMALL if "DreamActorTextFusion" in kinds(name)])
def test_its_note_says_how_little_of_a_text_is_read(name: str) -> None:
    assert "the first 16 words" in note_of(name) and '"a human waves"' in note_of(name)


@pytest.mark.parametrize("name", EXTRACTING)
def test_poses_and_text_come_from_the_driving_video_itself(name: str) -> None:
    """Pose Extract, Retarget, Draw and Text Fusion into a large model, with nothing but a picture and a video."""
    prompt = load(name, "api")
    assert {node["class_type"] for node in prompt.values() if node["class_type"] in MATERIAL} == {"LoadImage", "LoadVideo"}
    by_title = {node["_meta"]["title"]: (key, node) for key, node in prompt.items()}

    def source(title: str, field: str) -> str:
        return prompt[by_title[title][1]["inputs"][field][0]]["_meta"]["title"]

    def inputs(title: str) -> dict[str, Any]:
        return by_title[title][1]["inputs"]

    chain = [source("Skeleton", "pose_keypoint"), source("Retarget", "pose_keypoint"), source("Smooth", "pose_keypoint")]
    assert chain == ["Retarget", "Smooth", "Driving poses"]
    # poses, text and sound are of the seconds that drive: who is followed, and where they stand, hangs on nothing else
    assert source("Driving poses", "images") == source("Text fusion", "driving") == "Seconds of the driver"
    assert source("Seconds of the driver", "video") == "Driving video" and inputs("Seconds of the driver")["start_time"] == 0
    assert source("Retarget", "reference_pose") == "Reference poses" and source("Reference poses", "images") == "Reference"
    rate = 24 if "hunyuan" in name else 16
    assert inputs("Driving poses")["fps"] == rate and re.search(rf" at {rate} (frames )?per second", note_of(name))
    assert inputs("Driving poses")["download"] is False, "nothing is fetched before the user says so"
    assert source("Text fusion", "reference") == "Reference" and source("Prompt", "text") == "Text fusion"
    # as long as the text is shown, it is made, whatever Prompt is connected to
    assert source("Fused prompt", "source") == "Text fusion"
    assert "Or set mode = none in Text fusion, so that nobody is asked and no key is needed, disconnect text" in note_of(name)
    assert "GetVideoComponents" not in kinds(name), "it decodes every picture of a file to give its sound"
    if "Motion LoRA" in by_title:
        assert source("In-context conditioning", "audio") == "Driving poses" and source("Result", "video") == "Decode"
        driven = inputs("In-context conditioning")["length"] - inputs("Driving poses")["fps"]  # less a second of lead-in
        assert source("In-context conditioning", "driving") == "Skeleton"
        assert source("In-context conditioning", "driving_fps") == "Driving poses"
    else:
        assert source("Video", "audio") == "Driving poses"
        driven = next(node["inputs"]["length"] for node in prompt.values() if node["class_type"].endswith("ToVideo"))
        assert inputs("Skeleton")["fit"] == "crop" and source("Video", "fps") == "Driving poses"
    needed = driven / inputs("Driving poses")["fps"]
    assert needed + 0.1 < inputs("Seconds of the driver")["duration"] < needed + 0.35
    # the host's cut leaves frames without a face out: all later faces would come too early
    assert not {"SDPoseFaceBBoxes", "CropByBBoxes"} & kinds(name)


@pytest.mark.parametrize(
    ("preset", "name"), [(preset, f"{re.sub('_(high|low)$', '', preset)}_pose") for preset in presets() if preset != "marionette"]
)
def test_a_pose_graph_gives_what_its_preset_trains_with(preset: str, name: str, tmp_path: Path) -> None:
    settings = from_values({"preset": preset, "out": str(tmp_path)}, preset)
    nodes = {node["_meta"]["title"]: node["inputs"] for node in load(name, "api").values()}
    # as the direct teacher does it: first retargeted, then placed by the box if training was so
    assert nodes["Skeleton"]["fit"] == ("people" if settings.cache.augment.normalise > 0.5 else "crop")
    assert nodes["Skeleton"]["face"] and nodes["Skeleton"]["hands"] and nodes["Skeleton"]["style"] == "dwpose"
    assert nodes["Driving poses"]["fps"] == settings.clip.fps
    assert nodes["In-context conditioning"]["length"] == settings.clip.frames
    if settings.backbone.expert == "both":  # else the direct teacher can't run it
        asked = {field: value for node in nodes.values() for field, value in node.items() if field in ("steps", "shift", "cfg")}
        assert asked == {field: getattr(settings.synthesize, field) for field in ("steps", "shift", "cfg")}


@pytest.mark.parametrize("name", [name for name in NAMES if {"CLIPVisionEncode", "DreamActorLoraLoader"} <= kinds(name)])
def test_clip_vision_is_shown_what_training_shows_it(name: str) -> None:
    """All of the picture that the network is shown: where a skeleton says how large that is, in its shape."""
    prompt = load(name, "api")
    nodes = {node["_meta"]["title"]: node["inputs"] for node in prompt.values()}
    vision, conditioning = nodes["Reference for CLIP vision"], nodes["In-context conditioning"]
    assert vision["crop"] == "none" and vision["image"] == conditioning["reference"]
    if "Skeleton" in nodes:
        cropped = nodes["Reference at that size"]
        assert prompt[vision["image"][0]]["inputs"] is cropped and cropped["crop"] == "center"
        assert [cropped["width"], cropped["height"]] == [[cropped["width"][0], slot] for slot in (0, 1)]
        size = prompt[cropped["width"][0]]
        assert size["class_type"] == "GetImageSize" and size["inputs"]["image"] == conditioning["driving"]
    else:
        assert "crop a picture of another shape to it first" in note_of(name)


@pytest.mark.parametrize("name", SMALL)
def test_its_note_names_the_bundled_material(name: str) -> None:
    nodes = load(name, "api").values()
    used = {node["inputs"][MATERIAL[node["class_type"]]] for node in nodes if node["class_type"] in MATERIAL}
    assert used == set(re.findall(r"\*\*([\w.]+\.(?:png|mp4|json))\*\*", note_of(name)))
    assert all((ROOT / "assets" / file).is_file() for file in used)


def test_readme_names_every_workflow() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [name for name in NAMES if f"**{name}**" not in readme] == []


def test_gemini_is_asked_by_a_name_that_stays(info: Info) -> None:
    default = info["DreamActorTextFusion"]["input"]["required"]["model"][1]["default"]
    assert default.endswith("-latest"), "models with a version in their name are taken out of service within a year or two"
    made = [node["inputs"] for name in NAMES for node in load(name, "api").values() if node["class_type"] == "DreamActorTextFusion"]
    assert {inputs["model"] for inputs in made if inputs["service"] == "gemini"} == {default}


@pytest.mark.parametrize("name", NAMES)
def test_its_sizes_are_possible(name: str) -> None:
    made = [(node["class_type"], node["inputs"]) for node in load(name, "api").values()]
    nodes = [inputs for kind, inputs in made if kind.startswith("DreamActor") or kind.endswith("ToVideo")]
    sizes = {(node["width"], node["height"]) for node in nodes if "width" in node}
    assert len(sizes) == 1, "the skeleton is of another size than the clip"
    assert not any(side % 16 for side in sizes.pop())
    assert [node["length"] % 4 for node in nodes if "length" in node] == [1]


def test_the_editor_finds_the_templates_and_the_help(server: HostServer, folder: str) -> None:
    assert sorted(requests.get(f"{server.url}/workflow_templates", timeout=10).json()[folder]) == NAMES
    served = {path: f"api/workflow_templates/{folder}/{path.name}" for path in WORKFLOWS.glob("*.*")}
    served |= {path: f"extensions/{folder}/docs/{path.name}" for path in DOCS.iterdir()}
    for path, address in served.items():
        assert requests.get(f"{server.url}/{address}", timeout=10).content == path.read_bytes()


def test_every_node_and_input_explains_itself(ours: Info) -> None:
    for key, node in ours.items():
        assert node["description"] and node["display_name"].startswith("DreamActor "), key
        assert node["category"].split("/")[0] == "DreamActor-M2", key
        silent = [name for name, (_, options, _) in inputs_of(node).items() if not options.get("tooltip")]
        assert silent == [], f"{key} has inputs without a tooltip"


def test_help_pages_name_every_input_and_output(ours: Info) -> None:
    words = {"INT": "number", "FLOAT": "number", "COMBO": "choice", "BOOLEAN": "on/off", "STRING": "text"}
    assert {path.name for path in DOCS.iterdir()} == {f"{key}.md" for key in ours}
    for key, node in ours.items():
        page = (DOCS / f"{key}.md").read_text("utf-8")
        assert page.startswith(f"# {node['display_name']}\n")
        inputs = [
            (name, words.get(kind, kind.replace(",", " or ")) + ", optional" * (not required))
            for name, (kind, _, required) in inputs_of(node).items()
        ]
        assert table(page, "Inputs") == inputs, key
        assert table(page, "Outputs") == list(zip(node["output_name"], node["output"], strict=True)), key
