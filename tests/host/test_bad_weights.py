"""Bad weights: LoRAs, networks and VAEs that do not belong to what they are loaded on are refused before sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bad_cases import CONDITIONING, LORA, Case, Change, assert_refused, at, instead, write_good
from safetensors.torch import save_file
from toys import (
    FPS,
    HUNYUAN_FEED_FORWARD,
    SIZE,
    contract,
    link,
    lora,
    node,
    replace_links,
    run_saved,
    save,
    small_feed_forward,
    toy_rgb,
    write_wan,
)

from headless.client import Client, Prompt


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


PAIR = ("high.safetensors", "low.safetensors")

CASES = [
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
        "was loaded by the stock loader", "expected 'DreamActor LoRA Loader'", "the driver is noise to it",
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
        "the previews' tiny VAE, which shows other frames", vae("tiny.safetensors"),
        "of another family (TAEHV)", "needs the one of Wan 2.1", "load the VAE that belongs to it",
    ),
    Case(
        "text of another encoder", text_of(4096),
        "the positive conditioning is 4096 wide", "takes 32", "load the one that belongs to this model",
    ),
    Case(
        "Decode of a batch", decode_after("RepeatLatentBatch", amount=2),
        "a batch of 2 latents", "expected one clip", "pick one with 'Get Latent From Batch'",
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
    """The LoRA files of the cases, each a small change of the good one."""
    modules = small_feed_forward()
    good, says = lora(modules), contract("marionette")
    first = "diffusion_model.blocks.0.ffn.0"
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
    tiny = {"decoder.1.weight": torch.zeros(256, 16, 3, 3), "decoder.22.bias": torch.zeros(3)}
    save_file(tiny, folder / "tiny.safetensors")
    wan21 = {
        "decoder.middle.0.residual.0.gamma": (384, 1, 1, 1), "decoder.head.0.gamma": (96, 1, 1, 1),
        "encoder.conv1.weight": (96, 3, 3, 3, 3), "decoder.head.2.weight": (3, 96, 3, 3, 3),
    }  # fmt: skip
    save_file({key: torch.zeros(shape) for key, shape in wan21.items()}, folder / "wan21.safetensors")
    hunyuan = {"decoder.conv_in.conv.weight": (512, 16, 3, 3, 3), "post_quant_conv.weight": (16, 16, 1, 1, 1)}
    save_file({key: torch.zeros(shape) for key, shape in hunyuan.items()}, folder / "hunyuan.safetensors")


@pytest.fixture(scope="module")
def files(shelf: Path) -> None:
    """All files that the cases name."""
    write_good(shelf / "loras")
    write_loras(shelf / "loras")
    write_vaes(shelf / "vae")
    write_wan(shelf / "diffusion_models" / "t2v.safetensors", in_channels=16)


def test_there_are_enough_cases_of_different_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 28


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_weights_are_refused_before_sampling(client: Client, files: None, case: Case) -> None:
    assert_refused(client, case)


def test_a_lora_without_a_contract_is_used_when_asked(client: Client, files: None, tmp_path: Path) -> None:
    prompt = toy_rgb()
    node(prompt, LORA).update(lora_name="bare.safetensors", allow_missing_contract=True, assume_backbone="marionette")
    found = run_saved(client, save(prompt, frames=link(prompt, "Decode")), tmp_path)
    known = toy_rgb()
    node(known, LORA)["lora_name"] = "good.safetensors"
    again = run_saved(client, save(known, frames=link(known, "Decode")), tmp_path)
    assert found["frames"].shape[1:] == (SIZE, SIZE, 3)
    assert torch.equal(found["frames"], again["frames"])
