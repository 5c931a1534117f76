"""The shipped workflows of the small backbone, run as they are shipped but for the steps and the service's address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from services import stand_ins
from talker import write_talker
from toys import ROOT, link, node, replace_links, run_saved, save

from dreamactor_core.text.prompts import load_prompts
from headless.client import Client, Prompt, PromptFailed, files, id_by_title
from headless.media import Video, read_video

ASSETS = ROOT / "assets"
WAVES, CLAPS = "In the video, a cartoon waves.", "In the video, a cartoon claps."
"""Fused texts that the small backbone reads to their end: its encoder takes 16 words, and two longer texts can be one to it."""


@pytest.fixture(scope="module", autouse=True)
def assets(client: Client) -> None:
    """The bundled material, where the workflows look for it."""
    for path in ASSETS.iterdir():
        client.upload(path)


def workflow(name: str) -> Prompt:
    """A shipped workflow, with fewer steps: what is looked at here is the graph."""
    prompt = json.loads((ROOT / "workflows" / "api" / f"marionette_{name}.json").read_text("utf-8"))
    node(prompt, "Sampler")["steps"] = 2
    return prompt


def run(client: Client, prompt: Prompt, folder: Path) -> tuple[Video, dict[str, Any]]:
    """Run it; returns the video it saved, and all outputs by title."""
    outputs = client.run(prompt)
    made = files(outputs[id_by_title(prompt, "Result")])
    named = {prompt[key]["_meta"]["title"]: value for key, value in outputs.items() if "_meta" in prompt[key]}
    return read_video(client.download(made[0], folder / "result.mp4")), named


def check(video: Video, width: int = 64) -> None:
    """25 frames less the lead-in, and something to see in them that moves."""
    assert video.frames.shape == (17, 96, width, 3) and video.fps == 12
    assert video.frames.std() > 10
    assert np.abs(np.diff(video.frames.astype(int), axis=0)).mean() > 0.1


def saved(client: Client, prompt: Prompt, folder: Path, **values: list[Any]) -> dict[str, torch.Tensor]:
    """The tensors at some connections. Nothing is sampled for that."""
    rest = {key: made for key, made in prompt.items() if made["class_type"] not in ("SaveVideo", "PreviewImage")}
    return run_saved(client, save(rest, **values), folder)


def told(client: Client, prompt: Prompt, text: str, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """What the prompt's encoder makes of its input, and of `text`."""
    typed = {"class_type": "CLIPTextEncode", "inputs": node(prompt, "Prompt") | {"text": text}}
    found = saved(client, prompt | {"typed": typed}, folder, made=link(prompt, "Prompt"), typed=["typed", 0])
    return found["made"], found["typed"]


@pytest.mark.parametrize("protocol", ["gemini", "openai_compatible"])
def test_pose_with_text_by_a_service(client: Client, protocol: str, tmp_path: Path) -> None:
    prompt = workflow("pose_text_service")
    heard = []
    with stand_ins.StandIn(protocol) as service:
        node(prompt, "Text fusion").update(service=protocol, base_url=service.url, model=f"workflow-{protocol}")
        service.script = [stand_ins.good, stand_ins.good, stand_ins.says(WAVES)]
        video, outputs = run(client, prompt, tmp_path)
        assert outputs["Fused prompt"]["text"] == [WAVES]
        pictures = [request.pictures for request in service.requests]
        assert pictures == [6, 1, 0], "17 frames at 12 a second, shown at 4; the reference; the fusion is of texts alone"
        check(video)
        claps = stand_ins.MOTION.replace("waves twice", "claps once")
        for text in (WAVES, CLAPS):
            made, typed = told(client, prompt, text, tmp_path)
            assert torch.equal(made, typed)
            heard.append(made)
            # a model of another name is asked anew, and sees another motion
            node(prompt, "Text fusion")["model"] = f"workflow-{protocol}-again"
            service.script = [stand_ins.says(claps), stand_ins.good, stand_ins.says(CLAPS)]
        assert claps in service.requests[-1].texts[0]
    assert not torch.equal(*heard), "another motion is the same to the network"


def test_pose_with_text_by_a_local_model(client: Client, tmp_path: Path) -> None:
    """As it is shipped, with a stand-in that keeps to the form in the place of the language model."""
    prompt = workflow("pose_text_local")
    del prompt[id_by_title(prompt, "Language model")]
    for title, answer, pictures in (
        ("Motion text", stand_ins.MOTION, 6),
        ("Appearance text", stand_ins.APPEARANCE, 1),
        ("Fused text", stand_ins.FUSED, 0),
    ):
        prompt[f"model {title}"] = {"class_type": "ToyTalker", "inputs": {"answer": answer, "pictures": pictures}}
        node(prompt, title)["clip"] = [f"model {title}", 0]
    video, outputs = run(client, prompt, tmp_path)
    check(video)
    assert outputs["Fused prompt"]["text"] == [stand_ins.FUSED] and "Text fusion" not in outputs, "it warned"


def test_pose_with_text_by_a_network(client: Client, shelf: Path, tmp_path: Path) -> None:
    """The host's own Generate Text and a Qwen3-VL of its own, small: only the loader differs, which knows large ones alone.

    It can say no word twice, and so cannot keep to the form.
    """
    answers = {"motion": "The right arm rises and waves.", "appearance": "A blue robot", "fusion": "In this video, one droid hops"}
    asked = load_prompts("en").texts
    write_talker(shelf / "text_encoders" / "talker.safetensors", {asked[task]: text for task, text in answers.items()})
    prompt = workflow("pose_text_local")
    prompt[id_by_title(prompt, "Language model")].update(
        class_type="ToyLanguageModelLoader", inputs={"clip_name": "talker.safetensors"}
    )
    for task, title in (("motion", "Motion text"), ("appearance", "Appearance text")):
        prompt[task] = {"class_type": "PreviewAny", "inputs": {"source": link(prompt, title)}, "_meta": {"title": task}}
    with pytest.raises(PromptFailed, match="given fused_prompt does not keep to the form"):
        client.run(prompt)
    node(prompt, "Text fusion")["on_bad_answer"] = "warn"
    video, outputs = run(client, prompt, tmp_path)
    check(video)
    assert [outputs[title]["text"] for title in ("motion", "appearance", "Fused prompt")] == [[text] for text in answers.values()]
    assert all("does not keep to the form" in warning for warning in outputs["Text fusion"]["text"])
    made, typed = told(client, prompt, answers["fusion"], tmp_path)
    assert torch.equal(made, typed)
    made, typed = told(client, prompt, answers["fusion"].replace("hops", "waves"), tmp_path)
    assert not torch.equal(made, typed), "another motion is the same to the network"


@pytest.mark.parametrize(("mode", "expected"), [("none", ""), ("concatenated", "A human. In the video, the character's")])
def test_pose_without_a_model_for_text(client: Client, mode: str, expected: str, tmp_path: Path) -> None:
    prompt = workflow("pose_no_text")
    assert node(prompt, "Text fusion")["mode"] == "none"
    node(prompt, "Text fusion")["mode"] = mode
    video, outputs = run(client, prompt, tmp_path)
    check(video)
    (text,) = outputs["Fused prompt"]["text"]
    assert text.startswith(expected) and bool(text) == bool(expected)


def test_pose_of_two_people(client: Client, tmp_path: Path) -> None:
    prompt = workflow("pose_people")
    video, _ = run(client, prompt, tmp_path)
    check(video, width=96)
    skeleton = link(prompt, "Skeleton")
    drawn = saved(client, prompt, tmp_path, skeleton=skeleton)["skeleton"].amax(-1) > 0
    for t, frame in enumerate(drawn):
        columns = frame.any(0)
        assert columns[:48].any() and columns[48:].any(), f"in frame {t} one of the two is missing"
    standing = replace_links(prompt, {tuple(link(prompt, "Driving poses")): link(prompt, "Reference poses")})
    own = saved(client, standing, tmp_path, skeleton=skeleton)["skeleton"].amax(-1) > 0
    floor, feet = (int(shown.any(-1).any(0).nonzero().max()) for shown in (own, drawn))
    assert abs(floor - feet) <= 2, "they do not stand where the characters stand"
