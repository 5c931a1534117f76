"""Bad input: each case is a valid workflow with one thing wrong, and is refused before anything is sampled."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toys import (
    FPS,
    HUNYUAN_FEED_FORWARD,
    LENGTH,
    SIZE,
    contract,
    images,
    link,
    lora,
    node,
    person,
    pose_frame,
    poses,
    replace_links,
    run_saved,
    save,
    small_feed_forward,
    toy_pose,
    toy_rgb,
    workflow,
    write_wan,
)

from headless.client import Client, Prompt, PromptFailed, PromptRejected
from headless.server import HostServer

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


def linked(name: str, text: str) -> Change:
    """Leads a number of any value into an input of In-Context Conditioning, past the widget's range."""

    def change(prompt: Prompt) -> None:
        prompt["number"] = {"class_type": "ToyFloat", "inputs": {"text": text}}
        node(prompt, CONDITIONING)[name] = ["number", 0]

    return change


def vae(file: str) -> Change:
    """Gives In-Context Conditioning the VAE of a file."""

    def change(prompt: Prompt) -> None:
        prompt["vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": file}}
        node(prompt, CONDITIONING)["vae"] = ["vae", 0]

    return change


def model(file: str) -> Change:
    """Gives the LoRA loader the network of a file."""

    def change(prompt: Prompt) -> None:
        prompt["model"] = {"class_type": "UNETLoader", "inputs": {"unet_name": file, "weight_dtype": "default"}}
        node(prompt, LORA)["model"] = ["model", 0]

    return change


def two_experts(high: str, low: str) -> Change:
    """Loads a pair of LoRAs onto the small backbone twice."""

    def change(prompt: Prompt) -> None:
        names = {"lora_name": high, "low_noise_lora_name": low}
        node(prompt, LORA).update(low_noise_model=node(prompt, LORA)["model"], **names)

    return change


def without_lora(prompt: Prompt) -> None:
    replace_links(prompt, {tuple(link(prompt, LORA)): link(prompt, "Small backbone")})


def with_stock_lora_loader(file: str) -> Change:
    def change(prompt: Prompt) -> None:
        inputs = {"model": node(prompt, LORA)["model"], "lora_name": file, "strength_model": 1.0}
        instead(LORA, {"class_type": "LoraLoaderModelOnly", "inputs": inputs})(prompt)

    return change


def decode_of_another_latent(prompt: Prompt) -> None:
    prompt["empty"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    node(prompt, "Decode")["samples"] = ["empty", 0]


def decode_with_another_vae(prompt: Prompt) -> None:
    prompt["vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": "sd.safetensors"}}
    node(prompt, "Decode").update(samples=link(prompt, CONDITIONING, 2), vae=["vae", 0])


def decode_after(class_type: str, **inputs: Any) -> Change:
    """Leads the latent of In-Context Conditioning through a stock node straight into Decode."""

    def change(prompt: Prompt) -> None:
        prompt["between"] = {"class_type": class_type, "inputs": {"samples": link(prompt, CONDITIONING, 2), **inputs}}
        node(prompt, "Decode")["samples"] = ["between", 0]

    return change


def text_of(width: int) -> Change:
    """Gives In-Context Conditioning a prompt as wide as another text encoder's."""

    def change(prompt: Prompt) -> None:
        prompt["text"] = {"class_type": "ToyConditioning", "inputs": {"tokens": 3, "dim": width, "seed": 0}}
        node(prompt, CONDITIONING)["positive"] = ["text", 0]

    return change


def pose_file() -> Prompt:
    """The shipped pose workflow at toy size, its driver read from a file."""
    prompt = toy_pose()
    shipped = workflow("pose")
    prompt[link(prompt, "Driving poses")[0]] = shipped[link(shipped, "Driving poses")[0]]
    node(prompt, CONDITIONING)["driving_fps"] = link(prompt, "Driving poses", 1)
    return prompt


def video_file() -> Prompt:
    """The shipped rgb workflow at toy size, its driver read from a file."""
    prompt = toy_rgb()
    shipped = workflow("rgb")
    prompt[link(prompt, DRIVER)[0]] = shipped[link(shipped, DRIVER)[0]]
    return prompt


def poses_of(data: Any) -> Change:
    return instead("Driving poses", poses(data))


def _channels(title: str, what: str, frames: int) -> list[Case]:
    return [
        Case(
            f"{what} with {channels} channel(s)", instead(title, images(frames, channels=channels)),
            f"the {what} has {channels} channel", "expected 3 (RGB)", fix,
        )
        for channels, fix in ((1, "convert it to RGB"), (2, "convert it to RGB"), (4, "remove the alpha channel"))
    ]  # fmt: skip


MULTIPLE, NOT_WHOLE = "must be divisible by 16", "expected 0.1 to 240 frames per second"
PAIR = ("high.safetensors", "low.safetensors")

CASES = [
    # sizes
    Case("width not divisible by 16", at(CONDITIONING, width=40), "width is 40", MULTIPLE, "nearest are 32 and 48"),
    Case("height not divisible by 16", at(CONDITIONING, height=99), "height is 99", MULTIPLE, "nearest are 96 and 112"),
    Case("skeleton not divisible by 16", at("Skeleton", width=30), "width is 30", MULTIPLE, "16 and 32", toy_pose),
    Case("no width at all", at(CONDITIONING, width=0), "Value 0", "smaller than min of 16"),
    # frames
    Case("zero driving frames", instead(DRIVER, images(0)), "the driver has zero frames", "at least one"),
    Case("zero reference images", instead(REFERENCE, images(0)), "the reference has zero frames", "at least one"),
    Case("two reference images", instead(REFERENCE, images(2)), "got 2 reference images", "expected one", "pick one"),
    Case("one driving frame", instead(DRIVER, images(1)), "got 1 driving frame at", "expected 3", "a longer driver"),
    Case("length 1", at(CONDITIONING, length=1), "length is 1 frame", "at least 5", "raise it"),
    Case("length not 4n+1", at(CONDITIONING, length=6), "got 6 frames", "expected 4n+1", "nearest are 5 and 9"),
    Case(
        "fewer driving frames than length",
        lambda prompt: (instead(DRIVER, images(8))(prompt), at(CONDITIONING, length=21)(prompt)),
        "got 8 driving frames at 12 fps", "expected 19", "set length to at most 9 or use a longer driver",
    ),
    # pictures
    *_channels(REFERENCE, "reference", 1),
    *_channels(DRIVER, "driver", LENGTH),
    Case("NaN in the reference", instead(REFERENCE, images(1, nan=True)), "the reference holds NaN", "", "look there"),
    Case("NaN in the driver", instead(DRIVER, images(LENGTH, nan=True)), "the driver holds NaN", "", "look there"),
    # poses
    Case("nobody", poses_of([pose_frame()] * 5), "nobody in any of the 5", "expected a person", "check", toy_pose),
    Case(
        "everybody below the threshold", poses_of([pose_frame(person(confidence=0.2))] * LENGTH),
        "nothing can be seen in any of the 5 frames", "not above the threshold of 0.3", "lower it", toy_pose,
    ),
    Case("poses that are no list", poses_of(5), "got int", "expected a list with one dict per frame", "", toy_pose),
    Case("zero pose frames", poses_of([]), "got zero frames", "at least one", "", toy_pose),
    Case("a pose frame that is null", poses_of([None]), "frame 0", "expected a dict with the keys", "", toy_pose),
    Case(
        "another skeleton", poses_of([pose_frame({"pose_keypoints_2d": [1.0] * 75})]),
        "got 75 numbers", "expected 54 (18 joints", "must be converted", toy_pose,
    ),
    Case(
        "strings for joints", poses_of([pose_frame({"pose_keypoints_2d": ["a"] * 54})]),
        "holds something that is not a number", "expected numbers or null", "", toy_pose,
    ),
    Case("no canvas", poses_of([{"people": [person()]}]), "frame 0", "must be whole numbers", "canvas_width", toy_pose),
    Case("a canvas of nothing", poses_of([pose_frame(person(), width=0)]), "0x32", "must be positive", "", toy_pose),
    Case(
        "mixed canvases", poses_of([pose_frame(person()), pose_frame(person(), width=64)]),
        "2 different canvas sizes", "expected one", "", toy_pose,
    ),
    Case(
        "a pose file that is not JSON", at("Driving poses", poses="torn.json"),
        "torn.json cannot be read as JSON", "expected a list of POSE_KEYPOINT frames", "", pose_file,
    ),
    Case(
        "a pose file of no known rate", at("Driving poses", poses="list.json"),
        "list.json does not say how fast", "", "set fps", pose_file,
    ),
    Case(
        "a pose file of an impossible rate", at("Driving poses", poses="rate.json"),
        "frame_ms is 'fast'", "expected a positive number", "", pose_file,
    ),
    Case("no pose file", at("Driving poses", poses="gone.json"), "no pose file 'gone.json'", base=pose_file),
    # rates and lead-in
    Case("fps next to nothing", at(CONDITIONING, fps=0.0001), "fps is 0.0001", NOT_WHOLE, "correct it"),
    Case("fps without end", at(CONDITIONING, fps=1e9), "Value 1000000000.0", "bigger than max of 240"),
    Case("negative fps", at(CONDITIONING, fps=-1.0), "Value -1.0", "smaller than min of 0"),
    Case("fps not a number", linked("fps", "nan"), "fps is nan", NOT_WHOLE, "correct it"),
    Case("fps without end from another node", linked("fps", "inf"), "fps is inf", NOT_WHOLE, "correct it"),
    Case("driver's fps next to nothing", at(CONDITIONING, driving_fps=0.001), "the driver's fps is 0.001", NOT_WHOLE),
    Case(
        "a lead-in longer than the clip", at(CONDITIONING, lead_in=10.0),
        "lead-in of 120 frames", "leaves nothing of a clip of 5 frames", "lengthen the clip or shorten the lead-in",
    ),
    Case("a lead-in not a number", linked("lead_in", "nan"), "lead-in is nan", "expected 0 or more seconds"),
    # videos
    Case("a driving file that is no video", at(DRIVER, file="torn.mp4"), "cannot be read", "", "re-encode", video_file),
    Case("a driving file without pictures", at(DRIVER, file="sound.mp4"), "no video stream", "", "", video_file),
    # LoRA files
    Case(
        "LoRA of another architecture", at(LORA, lora_name="hunyuan.safetensors"),
        "hunyuan.safetensors is for HunyuanVideo-1.5", "the model has none of its feed-forward layers",
        "load a HunyuanVideo-1.5 I2V model",
    ),
    Case(
        "LoRA of another width", at(LORA, lora_name="wide.safetensors"),
        "blocks.0.ffn.0 is (2048, 4) x (4, 512)", "expected (1024, rank) x (rank, 256)", "another width",
    ),
    Case("LoRA of another depth", at(LORA, lora_name="deep.safetensors"), "covers 80", "has 16", "another depth"),
    Case(
        "LoRA on attention", at(LORA, lora_name="attention.safetensors"),
        "touches 'blocks.0.self_attn.q'", "outside the video branch's feed-forward layers", "re-export",
    ),
    Case(
        "LoRA of diffusers' names", at(LORA, lora_name="diffusers.safetensors"),
        "for instance 'transformer.blocks.0.ffn", "not named diffusion_model.<module>", "must be exported",
    ),
    Case(
        "LoRA without one half", at(LORA, lora_name="no_b.safetensors"),
        "blocks.0.ffn.0.lora_B.weight is missing", "incomplete", "get it again",
    ),
    Case(
        "LoRA without alpha", at(LORA, lora_name="no_alpha.safetensors"),
        "blocks.0.ffn.0.alpha is missing", "scale is unknown", "export it again",
    ),
    Case(
        "LoRA of two ranks", at(LORA, lora_name="ranks.safetensors"),
        "blocks.0.ffn.0 is (1024, 3) x (4, 256)", "expected (1024, rank) x (rank, 256)", "halves differ in rank",
    ),
    Case(
        "LoRA of an unknown layout", at(LORA, lora_name="layout.safetensors"),
        "dreamactor_m2.layout is 'diagonal'", "expected one of spatial, temporal", "update the pack",
    ),
    Case(
        "LoRA of an unknown variant", at(LORA, lora_name="variant.safetensors"),
        "dreamactor_m2.variant is 'audio'", "expected one of pose, rgb", "pick another LoRA",
    ),
    Case(
        "LoRA of an impossible clip", at(LORA, lora_name="clip.safetensors"),
        "80 frames", "expected 0.1 to 240 fps, a lead-in of 0 to 60 s and 4n+1 frames", "re-export",
    ),
    Case(
        "half of a pair", at(LORA, lora_name="high.safetensors"),
        "only the high_noise half of a pair for Wan2.2", "connect low_noise_model", "pick the other file",
    ),
    Case(
        "half of a pair that says nothing of it", at(LORA, lora_name="both.safetensors"),
        "only one half of a pair for Wan2.2", "connect low_noise_model", "pick the other file",
    ),
    Case(
        "LoRA of Wan2.1 on a network like Wan2.2", at(LORA, lora_name="wan21.safetensors"),
        "is for Wan2.1-I2V-14B, which has an image embedding", "it looks like Wan2.2", "load a Wan2.1-I2V-14B model",
    ),
    Case(
        "half of a pair with both networks",
        lambda prompt: node(prompt, LORA).update(low_noise_model=node(prompt, LORA)["model"]),
        "low_noise_model is given without low_noise_lora_name", "Wan2.2 needs both", "other models neither",
    ),
    Case(
        "a pair in the wrong order", two_experts(*reversed(PAIR)),
        "low.safetensors is the low_noise half", "in the high_noise place", "swap the two files",
    ),
    Case(
        "a pair of two rates", two_experts("high.safetensors", "low_16.safetensors"),
        "not a pair: fps is 12.0 in high.safetensors", "16.0 in low_16.safetensors",
    ),
    Case(
        "LoRA without a contract", at(LORA, lora_name="bare.safetensors"),
        "bare.safetensors carries no dreamactor_m2.* metadata", "not trained for this method", "allow_missing_contract",
    ),
    Case(
        "LoRA without a contract in the stock loader", with_stock_lora_loader("bare.safetensors"),
        "carries no DreamActor-M2 metadata", "", "load the DreamActor one with 'DreamActor LoRA Loader'",
    ),
    Case(
        "half a pair in the stock loader", with_stock_lora_loader("high.safetensors"),
        "was loaded by the stock loader", "expected 'DreamActor LoRA Loader'", "it takes noise for the driver",
    ),
    Case(
        "a contract where none is assumed", at(LORA, lora_name="good.safetensors", allow_missing_contract=True),
        "good.safetensors has a contract of its own", "", "turn allow_missing_contract off",
    ),
    Case(
        "a LoRA cut short", at(LORA, lora_name="short.safetensors"),
        "short.safetensors cannot be read as safetensors", "cut short or damaged", "get it again",
    ),
    Case(
        "a LoRA that is a pickle", at(LORA, lora_name="pickle.pt"),
        "pickle.pt is not a safetensors file", "can run code", "are not read",
    ),
    # models
    Case(
        "no DreamActor LoRA", without_lora,
        "the model has no DreamActor-M2 LoRA", "does not follow a driver", "put 'DreamActor LoRA Loader' between",
    ),
    Case(
        "a text-to-video model", model("t2v.safetensors"),
        "takes 16 input channels", "expected 36", "load the image-to-video one",
    ),
    Case(
        "the VAE of Stable Diffusion", vae("sd.safetensors"),
        "4-channel latents of 2 dimensions", "needs 16 channels of 3 dimensions", "load the VAE that belongs to it",
    ),
    Case(
        "the tiny VAE of Wan 2.2's 5B model", vae("wan22.safetensors"),
        "48-channel latents", "needs 16 channels of 3 dimensions", "load the VAE that belongs to it",
    ),
    Case(
        "the first HunyuanVideo's VAE, of as many channels", vae("hunyuan.safetensors"),
        "of another family", "needs the one of Wan 2.1", "load the VAE that belongs to it",
    ),
    Case(
        "Wan's VAE on the small backbone", vae("wan21.safetensors"),
        "the VAE is Wan 2.1's", "the model needs Marionette's", "load the VAE that belongs to it",
    ),
    Case(
        "text of another encoder", text_of(4096),
        "the positive conditioning is 4096 wide", "takes 32", "load the one that belongs to this model",
    ),
    Case(
        "Decode of a batch", decode_after("RepeatLatentBatch", amount=2),
        "a batch of 2 latents", "expected one clip", "queue the graph once for each seed",
    ),
    Case(
        "Decode of a part of the clip", decode_after("LatentCut", dim="t", index=0, amount=1),
        "decodes to 1 frames", "expected the 5 of its clip", "connect the sampler's output",
    ),
    Case(
        "Decode of another LATENT", decode_of_another_latent,
        "does not come from 'DreamActor In-Context Conditioning'", "connect the sampler's output", "stock VAE Decode",
    ),
    Case(
        "Decode with another VAE", decode_with_another_vae,
        "latents of shape (1, 16, 2, 4, 8) for a VAE of 4 channels", "", "use the VAE that In-Context Conditioning was given",
    ),
]  # fmt: skip


def write_loras(folder: Path) -> None:
    """The LoRA files of the cases, and `good.safetensors`, of which each is a small change."""
    modules = small_feed_forward()
    good, says = lora(modules), contract("marionette")
    first = "diffusion_model.blocks.0.ffn.0"
    save_file(good, folder / "good.safetensors", says)
    save_file(good, folder / "bare.safetensors", {"modelspec.title": "something else"})
    save_file(lora(HUNYUAN_FEED_FORWARD), folder / "hunyuan.safetensors", contract("hunyuanvideo-1.5-i2v"))
    wide = {name: (2 * rows, 2 * columns) for name, (rows, columns) in modules.items()}
    save_file(lora(wide), folder / "wide.safetensors", says)
    deep = {f"blocks.{i}.ffn.{k}": (8, 8) for i in range(40) for k in (0, 2)}
    save_file(lora(deep), folder / "deep.safetensors", says)
    save_file(lora({**modules, "blocks.0.self_attn.q": (256, 256)}), folder / "attention.safetensors", says)
    native, other = ("diffusion_model.", ".ffn.0."), ("transformer.", ".ffn.net.0.proj.")
    renamed = {key.replace(native[0], other[0]).replace(native[1], other[1]): value for key, value in good.items()}
    save_file(renamed, folder / "diffusers.safetensors", says)
    save_file({k: v for k, v in good.items() if k != f"{first}.lora_B.weight"}, folder / "no_b.safetensors", says)
    save_file({k: v for k, v in good.items() if k != f"{first}.alpha"}, folder / "no_alpha.safetensors", says)
    narrower = good[f"{first}.lora_B.weight"][:, :3].contiguous()
    save_file({**good, f"{first}.lora_B.weight": narrower}, folder / "ranks.safetensors", says)
    for name, value in (("layout", "diagonal"), ("variant", "audio"), ("frames", 80)):
        file = "clip" if name == "frames" else name
        save_file(good, folder / f"{file}.safetensors", contract("marionette", **{name: value}))
    for file, expert, fps in (("high", "high_noise", FPS), ("low", "low_noise", FPS), ("low_16", "low_noise", 16.0)):
        save_file(good, folder / f"{file}.safetensors", contract("wan2.2-i2v-a14b", expert=expert, fps=fps))
    save_file(good, folder / "both.safetensors", contract("wan2.2-i2v-a14b", expert="both"))
    save_file(good, folder / "wan21.safetensors", contract("wan2.1-i2v-14b"))
    whole = (folder / "good.safetensors").read_bytes()
    (folder / "short.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save(good, folder / "pickle.pt")


def write_vaes(folder: Path) -> None:
    """Files that hold just what the host tells VAEs apart by; it leaves the other weights as they are in memory."""
    save_file({"decoder.conv_in.weight": torch.zeros(512, 4, 3, 3)}, folder / "sd.safetensors")
    wan22 = {"decoder.1.weight": torch.zeros(256, 48, 3, 3), "decoder.22.bias": torch.zeros(12)}
    save_file(wan22, folder / "wan22.safetensors")
    wan21 = {
        "decoder.middle.0.residual.0.gamma": (384, 1, 1, 1), "decoder.head.0.gamma": (96, 1, 1, 1),
        "encoder.conv1.weight": (96, 3, 3, 3, 3), "decoder.head.2.weight": (3, 96, 3, 3, 3),
    }  # fmt: skip
    save_file({key: torch.zeros(shape) for key, shape in wan21.items()}, folder / "wan21.safetensors")
    hunyuan = {"decoder.conv_in.conv.weight": (512, 16, 3, 3, 3), "post_quant_conv.weight": (16, 16, 1, 1, 1)}
    save_file({key: torch.zeros(shape) for key, shape in hunyuan.items()}, folder / "hunyuan.safetensors")


def write_sound(path: Path) -> None:
    """An mp4 with a second of silence and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def files(shelf: Path, server: HostServer) -> None:
    """All files that the cases name."""
    write_loras(shelf / "loras")
    write_vaes(shelf / "vae")
    write_wan(shelf / "diffusion_models" / "t2v.safetensors", in_channels=16)
    frames = [pose_frame(person()) for _ in range(LENGTH)]
    (server.input_dir / "torn.json").write_text('[{"people": [')
    (server.input_dir / "list.json").write_text(json.dumps(frames))
    (server.input_dir / "rate.json").write_text(json.dumps({"frames": frames, "frame_ms": "fast"}))
    (server.input_dir / "torn.mp4").write_bytes(b"no video")
    write_sound(server.input_dir / "sound.mp4")


def test_there_are_enough_cases_of_different_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 28


@pytest.mark.parametrize("base", [toy_rgb, toy_pose])
def test_the_unchanged_workflow_is_sampled(client: Client, files: None, base: Callable[[], Prompt]) -> None:
    """Otherwise the cases would prove nothing."""
    seen: list[str] = []
    client.run(base(), lambda progress: seen.append(progress.title))
    assert "Sampler" in seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_before_sampling(client: Client, files: None, case: Case) -> None:
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


def test_people_may_be_missing_in_some_frames(client: Client, tmp_path: Path) -> None:
    prompt = toy_pose()
    shown = [pose_frame(person(8.0 + t)) if t % 2 else pose_frame() for t in range(LENGTH)]
    shown[0]["people"] = None
    poses_of(shown)(prompt)
    wanted = {"skeleton": link(prompt, "Skeleton"), "frames": link(prompt, "Decode")}
    found = run_saved(client, save(prompt, **wanted), tmp_path)
    assert [bool(frame.any()) for frame in found["skeleton"]] == [t % 2 == 1 for t in range(LENGTH)]
    assert found["frames"].isfinite().all()


def test_a_lora_without_a_contract_is_used_when_asked(client: Client, files: None, tmp_path: Path) -> None:
    prompt = toy_rgb()
    node(prompt, LORA).update(lora_name="bare.safetensors", allow_missing_contract=True, assume_backbone="marionette")
    found = run_saved(client, save(prompt, frames=link(prompt, "Decode")), tmp_path)
    known = toy_rgb()
    node(known, LORA)["lora_name"] = "good.safetensors"
    again = run_saved(client, save(known, frames=link(known, "Decode")), tmp_path)
    assert found["frames"].shape[1:] == (SIZE, SIZE, 3)
    assert torch.equal(found["frames"], again["frames"])
