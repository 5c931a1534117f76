"""Text Fusion in a real ComfyUI, against stand-ins of the services; and the key, which must be nowhere afterwards."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from services import stand_ins
from toys import images, person, pose_frame, poses

from headless.client import Client, Prompt, PromptFailed, PromptInterrupted, PromptRejected
from headless.server import HostServer

KEY = "sk-host-0123456789abcdefSECRET"
OUTPUTS = ("fused", "motion", "appearance")


@pytest.fixture(scope="module", autouse=True)
def key_file(server: HostServer) -> Iterator[Path]:
    """A key for the stand-ins, where a user puts it; the server reads it at every request."""
    file = server.folder / "user" / "__dreamactor" / "keys.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"127.0.0.1 {KEY}\n")
    yield file
    file.unlink()


@pytest.fixture(params=["gemini", "openai_compatible"])
def service(request: pytest.FixtureRequest) -> Iterator[Any]:
    with stand_ins.StandIn(request.param) as running:
        yield running


def text_prompt(service: Any, seed: int, **inputs: Any) -> Prompt:
    """Reference and driver to three texts, shown, and to a picture and a video that carry the workflow."""
    given = {
        "service": service.protocol if service else "keypoints", "model": "toy", "base_url": service.url if service else "",
        "mode": "fused", "language": "en", "on_bad_answer": "error", "driving_fps": 8.0, "reference": ["reference", 0],
        "driving": ["driving", 0],
    }  # fmt: skip
    prompt: Prompt = {
        "reference": images(1, seed=seed),
        "driving": images(17, seed=seed + 1),
        "text": {"class_type": "DreamActorTextFusion", "inputs": given | inputs, "_meta": {"title": "Text"}},
        "picture": {"class_type": "SaveImage", "inputs": {"images": ["driving", 0], "filename_prefix": f"text_{seed}"}},
        "clip": {"class_type": "CreateVideo", "inputs": {"images": ["driving", 0], "fps": 8.0}},
        "video": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["clip", 0], "filename_prefix": f"text_{seed}", "format": "mp4", "codec": "h264"},
        },
    }
    for k, name in enumerate(OUTPUTS):
        prompt[name] = {"class_type": "PreviewAny", "inputs": {"source": ["text", k]}}
    return prompt


def shown(outputs: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    """The three texts."""
    return tuple(outputs[name]["text"][0] for name in OUTPUTS)


def everything(server: HostServer) -> list[tuple[str, bytes]]:
    """All that the server wrote but the key file, compressed texts in pictures unpacked, and its log."""
    found = [("log", server.log().encode())]
    for path in server.folder.rglob("*"):
        if path.is_file() and path.name != "keys.txt":
            data = path.read_bytes()
            found.append((str(path), data))
            at = data.find(b"zTXt")
            while at >= 0:  # name, 0, method, deflated text
                packed = data[data.index(b"\0", at) + 2 :]
                found.append((f"{path} text", zlib.decompressobj().decompress(packed)))
                at = data.find(b"zTXt", at + 4)
    return found


def test_three_texts_and_free_runs_after(client: Client, server: HostServer, service: Any) -> None:
    seed = 100 if service.protocol == "gemini" else 200
    expected = (stand_ins.FUSED, stand_ins.MOTION, stand_ins.APPEARANCE)
    assert shown(client.run(text_prompt(service, seed))) == expected
    assert [request.pictures for request in service.requests] == [9, 1, 0], "17 frames at 8 a second, shown at 4"
    assert shown(client.run(text_prompt(service, seed))) == expected
    client.free()
    ran: set[str] = set()
    deadline = time.monotonic() + 60
    while "text" not in ran:  # the host forgets what it has run when it finds the time
        assert time.monotonic() < deadline, "it remembers the texts for a minute"
        assert shown(client.run(text_prompt(service, seed), lambda step: ran.add(step.node_id))) == expected
    assert len(service.requests) == 3, "a run asked again"
    sent = service.requests[0].headers
    assert KEY in sent.get("authorization", "") + sent.get("x-goog-api-key", "")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (lambda s: [s.status(401)], "status 401.*keys.txt"),
        (lambda s: [s.refusal], "refused"),
        (lambda s: [s.malformed], "is not JSON"),
        (lambda s: [s.says(s.BAD_MOTION)] * 2, "does not keep to the form.*on_bad_answer"),
        (lambda s: [s.redirect("http://localhost:9/")], "send the request on to localhost"),
    ],
    ids=["401", "refusal", "malformed", "bad answer", "redirect"],
)
def test_failures_are_told(client: Client, service: Any, script: Any, told: str) -> None:
    service.script = script(stand_ins)
    with pytest.raises(PromptFailed, match=told) as caught:
        client.run(text_prompt(service, 300))
    assert caught.value.title == "Text"
    assert KEY not in str(caught.value) + caught.value.traceback


def test_a_service_is_given_up_when_the_user_says(client: Client, service: Any) -> None:
    service.script = [stand_ins.hang]
    with pytest.raises(PromptFailed, match=r"sent nothing for 1 s.*raise timeout"):
        client.run(text_prompt(service, 350, timeout=1.0), timeout=30)
    info = client.object_info("DreamActorTextFusion")["DreamActorTextFusion"]
    *_, last = info["input_order"]["optional"]
    assert last == "timeout", "a widget in front of others shifts the values of saved graphs"


def test_a_bad_answer_with_a_warning(client: Client, service: Any) -> None:
    service.script = [stand_ins.says(stand_ins.BAD_MOTION)] * 2
    outputs = client.run(text_prompt(service, 400, on_bad_answer="warn"))
    assert shown(outputs)[1] == stand_ins.BAD_MOTION
    assert "does not keep to the form" in outputs["text"]["text"][0]


def test_the_user_s_own_texts_are_taken(client: Client, service: Any) -> None:
    prompt = text_prompt(service, 500, motion_text=["mine", 0])
    prompt["mine"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "The character waves."}}
    with pytest.raises(PromptFailed, match=r"given motion_text does not keep to the form.*set on_bad_answer to warn"):
        client.run(prompt)
    assert not service.requests
    prompt["text"]["inputs"]["on_bad_answer"] = "warn"
    outputs = client.run(prompt)
    assert shown(outputs)[1] == "The character waves."
    assert "given motion_text does not keep to the form" in outputs["text"]["text"][0]
    assert [request.pictures for request in service.requests] == [1, 0]
    assert "The character waves." in service.requests[1].texts[0]
    prompt["text"]["inputs"] |= {"fused_prompt": ["mine", 0]}
    assert shown(client.run(prompt)) == ("The character waves.", "The character waves.", "")
    assert len(service.requests) == 2


def test_no_text_asks_nobody(client: Client, service: Any) -> None:
    assert shown(client.run(text_prompt(service, 500, mode="none", model=""))) == ("", "", "")
    prompt = text_prompt(service, 500, model="", fused_prompt=["mine", 0])
    prompt["mine"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": stand_ins.FUSED}}
    assert shown(client.run(prompt)) == (stand_ins.FUSED, "", "")
    assert not service.requests
    with pytest.raises(PromptFailed, match="model is empty"):
        client.run(text_prompt(service, 500, model=""))


def test_an_edited_prompt_is_asked_anew(client: Client, server: HostServer, service: Any) -> None:
    client.run(text_prompt(service, 600))
    edited = server.folder / "user" / "__dreamactor" / "prompts" / "appearance.en.txt"
    edited.parent.mkdir(exist_ok=True)
    edited.write_text(f"What is it like for {service.protocol}?")
    try:
        client.run(text_prompt(service, 600))
    finally:
        edited.unlink()
    assert f"What is it like for {service.protocol}?" in [request.texts[0] for request in service.requests]


def test_cancelling_a_hanging_service(client: Client, service: Any) -> None:
    service.script = [stand_ins.hang]
    moment: list[float] = []

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not service.requests and time.monotonic() < deadline:
            time.sleep(0.05)
        client.interrupt()
        moment.append(time.monotonic())

    asking = threading.Thread(target=interrupt, daemon=True)
    asking.start()
    with pytest.raises(PromptInterrupted):
        client.run(text_prompt(service, 700), timeout=100)
    stopped = time.monotonic()
    asking.join(60)
    assert stopped - moment[0] < 5, "a second, and the way back on a busy machine; it would hang for a minute"


def test_keypoints_need_no_service(client: Client) -> None:
    data = [pose_frame(person(8.0 + t)) for t in range(9)]
    given = {"pose_keypoint": ["poses", 0], "mode": "concatenated", "appearance_text": ["mine", 0]}
    prompt = text_prompt(None, 800, **given) | {"poses": poses(data)}
    prompt["mine"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "A cat."}}
    fused, motion, appearance = shown(client.run(prompt))
    assert motion.startswith("In the video, the character's initial pose is") and "towards the right edge of the picture" in motion
    assert (fused, appearance) == (f"A cat. {motion}", "A cat.")
    prompt["text"]["inputs"]["mode"] = "fused"
    with pytest.raises(PromptFailed, match="keypoints cannot fuse"):
        client.run(prompt)
    prompt["empty"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": " "}}
    prompt["text"]["inputs"] |= {"fused_prompt": ["empty", 0]}
    with pytest.raises(PromptFailed, match=r"fused_prompt is connected but empty.*Generate Text: max_length"):
        client.run(prompt)


def test_a_video_is_no_reference(client: Client) -> None:
    """The node takes both, as one of its tasks is about a video."""
    prompt = {
        "driving": images(9, seed=3),
        "clip": {"class_type": "CreateVideo", "inputs": {"images": ["driving", 0], "fps": 8.0}},
        "prompt": {"class_type": "DreamActorTextPrompt", "inputs": {"task": "appearance", "language": "en", "images": ["clip", 0]}},
        "out": {"class_type": "PreviewAny", "inputs": {"source": ["prompt", 0]}},
    }
    with pytest.raises(PromptFailed, match="got a VIDEO as the reference, expected one image"):
        client.run(prompt)


def test_an_empty_answer_of_a_local_model_is_told(client: Client) -> None:
    prompt = {
        "mine": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "A cat."}},
        "empty": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": ""}},
        "ask": {
            "class_type": "DreamActorTextPrompt",
            "inputs": {"task": "fusion", "language": "en", "motion_text": ["empty", 0], "appearance_text": ["mine", 0]},
        },
        "shown": {"class_type": "PreviewAny", "inputs": {"source": ["ask", 0]}},
    }
    with pytest.raises(PromptFailed, match=r"motion_text is connected but empty.*Generate Text: max_length"):
        client.run(prompt)
    del prompt["ask"]["inputs"]["motion_text"]
    with pytest.raises(PromptFailed, match="the task fusion lacks motion_text"):
        client.run(prompt)


def test_an_address_with_a_password_is_refused_before_anything_runs(client: Client, service: Any) -> None:
    with pytest.raises(PromptRejected, match="a password, a query or a fragment"):
        client.run(text_prompt(service, 900, base_url="https://me:word@example.com/v1"))


def test_stock_nodes_with_a_local_model_give_the_same_three_texts(client: Client) -> None:
    """Generate Text is the host's own; only the model is a toy, which answers what the stand-ins answer."""
    prompt = text_prompt(None, 1000, motion_text=["generate motion", 0], appearance_text=["generate appearance", 0])
    prompt["text"]["inputs"] |= {"fused_prompt": ["generate fusion", 0]}
    sources = {"motion": {"images": ["driving", 0], "driving_fps": 8.0}, "appearance": {"images": ["reference", 0]}, "fusion": {}}
    sources["fusion"] = {"motion_text": ["generate motion", 0], "appearance_text": ["generate appearance", 0]}
    answers = {"motion": stand_ins.MOTION, "appearance": stand_ins.APPEARANCE, "fusion": stand_ins.FUSED}
    for task, inputs in sources.items():
        prompt[f"ask {task}"] = {"class_type": "DreamActorTextPrompt", "inputs": {"task": task, "language": "en", **inputs}}
        prompt[f"model {task}"] = {"class_type": "ToyTalker", "inputs": {"answer": answers[task], "pictures": 9}}
        prompt[f"generate {task}"] = {
            "class_type": "TextGenerate",
            "inputs": {
                "clip": [f"model {task}", 0], "prompt": [f"ask {task}", 0], "image": [f"ask {task}", 1], "max_length": 1024,
                "sampling_mode": "off",
            },
        }  # fmt: skip
    for task, count in (("appearance", 1), ("fusion", 0)):
        prompt[f"model {task}"]["inputs"]["pictures"] = count
    expected = (stand_ins.FUSED, stand_ins.MOTION, stand_ins.APPEARANCE)
    assert shown(client.run(prompt)) == expected
    # a model whose prompt opens the tag answers with what it thought and a tag that closes it
    for task, answer in answers.items():
        prompt[f"model {task}"]["inputs"]["answer"] = f"She wears red.\n</think>\n\n{answer}"
    prompt["asked"] = {"class_type": "PreviewAny", "inputs": {"source": ["ask fusion", 0]}}
    outputs = client.run(prompt)
    assert shown(outputs) == expected
    (asked,) = outputs["asked"]["text"]
    assert stand_ins.MOTION in asked and stand_ins.APPEARANCE in asked and "She wears red" not in asked
    # beside the prompt the other two are for reading: what is wrong with one is said
    prompt["model motion"]["inputs"]["answer"] = stand_ins.BAD_MOTION
    outputs = client.run(prompt)
    assert shown(outputs) == (stand_ins.FUSED, stand_ins.BAD_MOTION, stand_ins.APPEARANCE)
    assert "given motion_text does not keep to the form" in outputs["text"]["text"][0]
    prompt["model fusion"]["inputs"]["answer"] = stand_ins.BAD_MOTION
    with pytest.raises(PromptFailed, match=r"given fused_prompt does not keep to the form.*on_bad_answer") as caught:
        client.run(prompt)
    assert caught.value.title == "Text"
    prompt["text"]["inputs"]["on_bad_answer"] = "warn"
    outputs = client.run(prompt)
    assert shown(outputs) == (stand_ins.BAD_MOTION, stand_ins.BAD_MOTION, stand_ins.APPEARANCE)
    assert "given fused_prompt does not keep to the form" in "\n".join(outputs["text"]["text"])


def test_every_input_is_explained(client: Client) -> None:
    for name in ("DreamActorTextFusion", "DreamActorTextPrompt"):
        info = client.object_info(name)[name]
        assert info["search_aliases"] and info["description"] and info["category"] == "DreamActor-M2/text"
        for group in ("required", "optional"):
            for field, (_, options) in info["input"].get(group, {}).items():
                assert options.get("tooltip"), f"{name}.{field}"
        assert (Path(__file__).resolve().parents[2] / "web" / "docs" / f"{name}.md").is_file()


def test_the_key_is_nowhere(client: Client, server: HostServer, service: Any, key_file: Path) -> None:
    """After runs that succeed and fail, with a service that repeats the key."""
    seed = 1100 if service.protocol == "gemini" else 1200
    service.script = [stand_ins.status(500)] * 4
    with pytest.raises(PromptFailed, match=r"status 500.*\*\*\*"):
        client.run(text_prompt(service, seed))
    service.script = [stand_ins.good, stand_ins.says(f"A woman called {KEY}.")]
    outputs = client.run(text_prompt(service, seed))
    assert "***" in shown(outputs)[2]
    written = everything(server)
    names = " ".join(name for name, _ in written)
    assert f"text_{seed}" in names and ".png" in names and ".mp4" in names and "text_cache" in names
    carrying = [name for name, data in written if service.url.encode() in data]
    assert any(".png" in name for name in carrying) and any(".mp4" in name for name in carrying), "nothing carries the workflow"
    assert KEY in key_file.read_text()
    assert not [name for name, data in written if KEY.encode() in data]
    history = requests.get(f"{server.url}/history", timeout=10).text
    assert service.url in history and KEY not in history
