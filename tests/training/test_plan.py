"""The formulas of `plan` against real networks, optimizers and tensors of toy size, and against the full ones without memory."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dreamactor_core.motion_context import CONTEXTS
from tests.training.toy_backbones import GLYPH, HUNYUAN, IMAGE, LAYERS, TEXT, WAN, hunyuan_transformer, wan_transformer
from training import config
from training.__main__ import main
from training.backbones.base import quantized
from training.backbones.trimmed_attention import TrimmedAttention
from training.backbones.wan_context import show_driver_apart
from training.config import Train, load, presets, validated
from training.lora_file import add_lora, lora_state
from training.optimizer import MuonAdamW
from training.plan import costs
from training.plan.network import RELEASED, Network, empty, network
from training.plan.report import COMPUTED, made, weights
from training.train.parallel import refusal

FAMILY = {"wan2.1-i2v-14b": "wan", "wan2.2-i2v-a14b": "wan", "marionette": "wan", "hunyuanvideo-1.5-i2v": "hunyuan-video-1.5"}
NAMES = ["wan2.1-i2v-14b", "wan2.2-i2v-a14b", "hunyuanvideo-1.5-i2v"]
RANK, WORDS, PICTURE = 4, {"wan2.1-i2v-14b": 512, "wan2.2-i2v-a14b": 24, "hunyuanvideo-1.5-i2v": 24}, 5
FRAMES, HEIGHT, WIDTH = 3, 16, 24  # in latents
CONFIGS: dict[str, dict[str, Any]] = {
    "wan2.1-i2v-14b": WAN | {"image_dim": IMAGE, "added_kv_proj_dim": 64},
    "wan2.2-i2v-a14b": WAN,
    "hunyuanvideo-1.5-i2v": HUNYUAN | {"mlp_ratio": 4.0},
}


def dimensions(name: str, **changes: Any) -> Network:
    """Of a toy, with the tokens that `toy` shows it."""
    from dataclasses import replace

    net = network(name, CONFIGS[name] | changes)
    return replace(net, text=WORDS[name], image=PICTURE if name != "wan2.2-i2v-a14b" else 0)


def toy(name: str, rank: int = RANK, half: bool = False, **changes: Any) -> tuple[torch.nn.Module, list, dict[str, Any]]:
    """A toy network with a LoRA, and arguments of a call."""
    joint = name == "hunyuanvideo-1.5-i2v"
    model = hunyuan_transformer(**changes) if joint else wan_transformer(name == "wan2.1-i2v-14b", **changes)
    if half:  # what stays in float32 is small
        model = model.to(torch.bfloat16)
    if rank:
        add_lora(model, rank, FAMILY[name])
    kind = torch.bfloat16 if half else torch.float32
    x = torch.randn(1, 65 if joint else 36, FRAMES, HEIGHT, WIDTH, dtype=kind)
    words, picture = torch.randn(1, WORDS[name], TEXT, dtype=kind), torch.randn(1, PICTURE, IMAGE, dtype=kind)
    if not joint:
        picture_given = {"encoder_hidden_states_image": picture} if name == "wan2.1-i2v-14b" else {}
        return model, [x, torch.tensor([500.0]), words], {"return_dict": False, **picture_given}
    for block in model.transformer_blocks:
        block.attn.set_processor(TrimmedAttention())
    more: dict[str, Any] = {"encoder_hidden_states_2": torch.zeros(1, 1, GLYPH, dtype=kind)}
    more |= {"encoder_attention_mask_2": torch.zeros(1, 1)}
    more |= {"image_embeds": picture, "return_dict": False}
    return model, [x, torch.tensor([500.0]), words, torch.ones(1, WORDS[name])], more


def tokens_of(name: str) -> int:
    net = dimensions(name)
    return FRAMES * (HEIGHT // net.patch) * (WIDTH // net.patch)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_what_the_patch_embedding_makes(name: str) -> None:
    model, args, more = toy(name, rank=0)
    embedding = model.x_embedder.proj if name.startswith("hunyuan") else model.patch_embedding
    seen = []
    embedding.register_forward_hook(lambda module, given, out: seen.append(out.shape[2:].numel()))
    with torch.no_grad():
        model(*args, **more)
    net = dimensions(name)
    width, height, frames = WIDTH * net.stride // 2, HEIGHT * net.stride, 4 * (FRAMES - 1) + 1
    assert costs.video_tokens(net, width, height, frames) == seen[0]
    assert costs.video_tokens(net, width, height, frames, None) == seen[0] // 2
    assert costs.video_tokens(net, width, height, frames, "temporal") == seen[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rank", [1, 8])
def test_a_toys_lora_has_the_computed_parameters(name: str, rank: int) -> None:
    model, *_ = toy(name, rank)
    assert sum(p.numel() for p in lora_state(model).values()) == costs.lora_parameters(dimensions(name), rank)


@pytest.mark.parametrize("name", RELEASED)
def test_a_full_networks_lora_has_the_computed_parameters(name: str) -> None:
    """The released dimensions, without memory."""
    model = empty(name, RELEASED[name])
    inside, outside = weights(name, RELEASED[name])
    assert inside + outside == sum(p.numel() for p in model.parameters())
    with torch.device("meta"):
        add_lora(model, 256, FAMILY[name])
    assert sum(p.numel() for p in lora_state(model).values()) == costs.lora_parameters(network(name, RELEASED[name]), 256)


def test_the_released_sizes() -> None:
    """As published: 16.4 and 14.3 billion for Wan, 8.3 for HunyuanVideo-1.5; rank 256 on 14B Wan is 388M, 0.78 GB in bf16."""
    assert [round(sum(weights(name, RELEASED[name])) / 1e9, 1) for name in NAMES] == [16.4, 14.3, 8.3]
    parameters = costs.lora_parameters(network(NAMES[0], RELEASED[NAMES[0]]), 256)
    assert round(parameters / 1e6) == 388 and round(2 * parameters / 1e9, 2) == 0.78


def test_marionettes_dimensions_are_its_files() -> None:
    from training.marionette.backbone import MODEL_CONFIG, load_model

    assert {k: v for k, v in RELEASED["marionette"].items() if k != "patch_size"} == {
        k: v for k, v in MODEL_CONFIG.items() if k != "patch_size"
    }
    assert sum(weights("marionette", RELEASED["marionette"])) == sum(p.numel() for p in load_model().parameters())


def counted(model: torch.nn.Module, args: list, more: dict[str, Any], checkpointing: bool) -> tuple[int, int]:
    """Operations of the forward pass, and of all. With plain attention, as others are not counted on the CPU."""
    if checkpointing:
        model.enable_gradient_checkpointing()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = model(*args, **more)[0]
        forward = counter.get_total_flops()
        if out.requires_grad:
            out.square().mean().backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_are_those_that_are_counted(name: str, checkpointing: bool) -> None:
    """On a network whose blocks outweigh the rest as in the real ones. Plain attention goes back in twice its forward."""
    changes = {"num_layers": 4}
    model, args, more = toy(name, **changes)
    forward, total = counted(model, args, more, checkpointing)
    found = costs.flops(dimensions(name, **changes), tokens_of(name), RANK, checkpointing, attention_backward=2)
    assert found.forward == pytest.approx(forward, rel=0.03)
    assert found.total == pytest.approx(total, rel=0.05)
    assert (found.again > 0) == checkpointing


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", [name for name, context in CONTEXTS.items() if context.cached])
def test_operations_of_a_cached_motion_context(name: str, checkpointing: bool) -> None:
    backbone, context, changes = "wan2.2-i2v-a14b", CONTEXTS[name], {"num_layers": 6}
    model, (_, sigma, text), more = toy(backbone, **changes)
    show_driver_apart(model, context)
    x = torch.randn(1, 36, 6, HEIGHT, WIDTH)  # latent frames enough for a neighbourhood to be less than all
    result = x[..., : x.shape[-1] // 2]
    driver = x[..., : x.shape[-2] // context.scale, : x.shape[-1] // 2 // context.scale]
    forward, total = counted(model, [result, sigma, text], more | {"motion": driver}, checkpointing)
    net = dimensions(backbone, **changes)
    width, height, frames = result.shape[-1] * net.stride, result.shape[-2] * net.stride, 4 * (6 - 1) + 1
    apart = costs.tokens_apart(net, width, height, frames, context)
    assert apart.result == costs.video_tokens(net, width, height, frames, None) == apart.driver * context.scale**2
    found = costs.flops(net, apart.all, RANK, checkpointing, attention_backward=2, apart=apart)
    assert found.forward == pytest.approx(forward, rel=0.04)
    # of the last block the driver's own result is not used
    assert found.total == pytest.approx(total, rel=0.12)


@pytest.mark.parametrize("name", NAMES)
def test_a_base_alone_goes_forward_only(name: str) -> None:
    model, args, more = toy(name, rank=0)
    model.requires_grad_(False)
    found = costs.flops(dimensions(name), tokens_of(name), 0, True)
    assert found.total == found.forward == pytest.approx(counted(model, args, more, False)[1], rel=0.03)


def test_the_anchors_of_wan() -> None:
    """480x832 halves, 81 frames: 65.5k tokens against 32.8k of plain image-to-video, and 3.05 times its operations."""
    net = network("wan2.1-i2v-14b", RELEASED["wan2.1-i2v-14b"])
    half, composite = (costs.video_tokens(net, 832, 480, 81, layout) for layout in (None, "spatial"))
    assert (half, composite) == (32760, 65520)
    ratio = costs.flops(net, composite, 0, False).forward / costs.flops(net, half, 0, False).forward
    assert ratio == pytest.approx(3.05, abs=0.01)


def kept_bytes(model: torch.nn.Module, args: list, more: dict[str, Any], half: bool) -> int:
    """Of all tensors that the forward pass keeps for the backward pass, each counted once, the weights not."""
    def plain(tensor: torch.Tensor) -> bool:  # quantised ones are weights
        return not hasattr(tensor, "__tensor_flatten__")

    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()] if plain(p)}
    seen: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not plain(tensor):
            return tensor
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.data_ptr() not in seen:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no later one gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", torch.bfloat16, enabled=half):
        model(*args, **more)
    return sum(seen.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("half", [False, True])
def test_activations_are_what_is_kept(name: str, half: bool) -> None:
    """Of layers two and three; a constant part, of tokens of text and of single vectors, is left out by measuring two lengths."""
    per_layer = {}
    for frames in (2, 6):
        sizes = []
        for layers in (2, 3):
            model, args, more = toy(name, half=half, num_layers=layers)
            args[0] = torch.randn(1, args[0].shape[1], frames, HEIGHT, WIDTH, dtype=args[0].dtype)
            sizes.append(kept_bytes(model, args, more, half))
        per_layer[frames] = sizes[1] - sizes[0]
    added = 4 * tokens_of(name) // FRAMES
    measured = (per_layer[6] - per_layer[2]) / added
    assert costs.activations_per_token(dimensions(name), RANK, half) == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("base", ["int8", "fp8"])
@pytest.mark.parametrize("name", NAMES)
def test_a_base_in_eight_bits_is_kept_taken_apart(name: str, base: str) -> None:
    """By layer three, beside what it keeps with a full base. Its keys and values of text and picture need no gradient: they are
    taken apart too, and not kept."""
    kept = {}
    for layers in (2, 3):
        for kind in ("full", base):
            model, args, more = toy(name, rank=0, half=True, num_layers=layers)
            blocks = model.transformer_blocks if name.startswith("hunyuan") else model.blocks
            inside = sum(layer.weight.numel() for layer in blocks[0].modules() if isinstance(layer, torch.nn.Linear))
            quantized(blocks, kind)
            add_lora(model, RANK, FAMILY[name])
            kept[layers, kind] = kept_bytes(model, args, more, True)
    measured = kept[3, base] - kept[3, "full"] - (kept[2, base] - kept[2, "full"])
    net = dimensions(name, num_layers=3)
    found = costs.cast_bytes(net, 3 * inside, 0, "int8", True, True, True)
    assert 0.65 * found < measured <= found
    assert costs.cast_bytes(net, 3 * inside, 0, "int8", True, True, False) == 3 * found
    assert costs.cast_bytes(net, 3 * inside, 0, "full", True, False, True) == found, "so is a base in float32"


def test_casts_of_wan_in_eight_bits() -> None:
    """0.78 GB of a LoRA of the paper's rank, 0.8 GB of a block, and 0.57 GB of its largest matrix in float32, twice."""
    net, parameters = network(NAMES[0], RELEASED[NAMES[0]]), 388_300_800
    inside = weights(NAMES[0], RELEASED[NAMES[0]])[0]
    found = [costs.cast_bytes(net, inside, parameters, base, True, True, True) / 1e9 for base in ("full", "int8", "fp8")]
    assert [round(value, 2) for value in found] == [0.78, 1.58, 2.15]
    assert costs.cast_bytes(net, inside, parameters, "full", False, False, True) == 0


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_keeps_the_input_of_each_block(name: str) -> None:
    """Again by two lengths. What the one block that is computed again keeps comes on top: the test above."""
    measured, computed = [], []
    for frames in (2, 6):
        model, args, more = toy(name, half=True, num_layers=4)
        args[0] = torch.randn(1, args[0].shape[1], frames, HEIGHT, WIDTH, dtype=args[0].dtype)
        model.enable_gradient_checkpointing()
        measured.append(kept_bytes(model, args, more, True))
        net, tokens = dimensions(name, num_layers=4), frames * tokens_of(name) // FRAMES
        seen = tokens + (net.text + net.image if net.joint else 0)
        computed.append(costs.activations(net, tokens, RANK, True) - seen * costs.activations_per_token(net, RANK, True))
        assert costs.activations(net, tokens, RANK, True) < costs.activations(net, tokens, RANK, False)
    assert computed[1] - computed[0] == pytest.approx(measured[1] - measured[0], rel=0.05)


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "muon"])
def test_optimizer_state_is_what_the_optimizer_keeps(kind: str) -> None:
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((64, 1024), (2048, 64))]
    if kind == "adamw8bit":
        from torchao.optim import AdamW8bit

        optimizer: Any = AdamW8bit(parameters)
    elif kind == "muon":
        optimizer = MuonAdamW(torch.nn.ParameterList(parameters), 1e-3).parts["muon"]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
    else:
        optimizer = torch.optim.AdamW(parameters)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    torch.compiler.set_stance("force_eager")  # minutes of compiling, which changes no size
    try:
        optimizer.step()
    finally:
        torch.compiler.set_stance("default")
    state = [v for values in optimizer.state.values() for v in values.values() if isinstance(v, torch.Tensor) and v.ndim]
    expected = costs.optimizer_bytes(kind, sum(p.numel() for p in parameters))
    assert sum(stored_bytes(value) for value in state) == pytest.approx(expected, rel=0.02)


def stored_bytes(tensor: torch.Tensor) -> int:
    """Of a quantised tensor those of its parts; a table of 256 values that all share is left out."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.numel() * tensor.element_size()
    return sum(stored_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0] if name != "qmap")


def test_checkpoints_of_the_papers_rank() -> None:
    """On Wan's 14B: 1.55 GB a LoRA file, 4.66 GB a state with AdamW; 9.3 GB stay, and 15.5 GB are there while one is written."""
    parameters = costs.lora_parameters(network(NAMES[0], RELEASED[NAMES[0]]), 256)
    found = costs.saved(parameters, Train())
    assert [round(value / 1e9, 2) for value in (found.lora, found.state, found.stays, found.peak)] == [1.55, 4.66, 9.31, 15.52]
    assert costs.saved(parameters, Train(ema=0.99)).state == found.state + found.lora
    assert costs.saved(parameters, Train(optimizer="muon")).state == 2 * found.lora
    assert costs.saved(parameters, Train(optimizer="adamw8bit")).state == pytest.approx(found.lora * 1.508, rel=1e-3)
    assert costs.saved(parameters, Train(keep=100, steps=1001, every=500)).kept == 3, "there are no more"


@pytest.mark.parametrize("variants", [0, 1, 3])
def test_cache_bytes_are_those_of_the_tensors(variants: int) -> None:
    net = network("marionette", RELEASED["marionette"])
    target, condition = torch.zeros(16, 7, 12, 8), torch.zeros(variants, 16, 7, 12, 16)
    found = costs.cache_bytes(net, 64, 96, 25, 8, variants)
    assert found["target"] == target.half().nbytes
    assert found["context"] == torch.zeros(16, 32).half().nbytes
    if variants:
        assert found["condition"] == condition.half().nbytes and set(found) == {"target", "context", "condition"}
    else:
        assert found["reference"] == torch.zeros(3, 96, 64, dtype=torch.uint8).nbytes
        assert found["keypoints"] == torch.zeros(17, 1, 130, 3).nbytes


def test_more_devices() -> None:
    alone = costs.Memory(base=800, lora=80, gradients=80, optimizer=160, ema=80, casts=40, activations=500, workspace=100)
    assert costs.on_devices(alone, 1, False, 10) == alone
    assert costs.on_devices(alone, 4, False, 10).total == alone.total + 80
    sharded = costs.on_devices(alone, 4, True, 10)
    assert sharded.base == 200 + 20 and sharded.optimizer == 40 and (sharded.casts, sharded.activations) == (40, 500)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    """Runs the verb on a config and returns status, output and errors."""

    def call(text: str, *more: str) -> tuple[int, str, str]:
        path = tmp_path / "run.yaml"
        path.write_text(text + f"\nout: {(tmp_path / 'out').as_posix()}\n", "utf-8")
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            status = main(["plan", str(path), *more])
        return status, out.getvalue(), errors.getvalue()

    return call


def test_the_verb_prints_the_plan(run: Any, tmp_path: Path) -> None:
    status, out, _ = run("preset: wan2.1_i2v_14b")
    assert status == 0
    for words in ("65,520 with the driver's", "388M of 16.39G", COMPUTED, "2 of 80 GB (FSDP2)", "MB a clip; no manifest yet",
                  "s a validation, one every 100 steps", "without the VAE", "9.31 GB, up to 15.5 GB while one is"):  # fmt: skip
        assert words in out
    assert not (tmp_path / "out").exists(), "nothing is written"


def test_the_verb_as_json(run: Any) -> None:
    status, out, _ = run("preset: hunyuanvideo1.5_i2v\nbackbone: {base: int8}", "--json", "--tflops", "100", "--memory", "141")
    plan = json.loads(out)
    assert status == 0 and plan["suggested"]["devices"] == 1
    assert plan["seconds_per_step"] == pytest.approx(plan["flops_step"] / 100e12)
    assert plan["validation_seconds"] == pytest.approx(4 * 2 * 4 * plan["flops"]["forward"] / 100e12)
    assert plan["memory"]["base"] < 10e9


def test_what_does_not_fit_gets_advice(run: Any) -> None:
    status, out, _ = run("preset: wan2.2_i2v_a14b_low\ntrain: {checkpointing: false}", "--memory", "24")
    assert status == 0 and "does not fit into 24 GB" in out
    assert "train.checkpointing: true, backbone.base: fp8 or int8, train.optimizer: adamw8bit, train.accumulate: 2, so" in out


@pytest.mark.parametrize(
    ("backbone", "train", "memory"),
    [("{base: int8}", "{}", "50"), ("{base: fp8}", "{batch: 4}", "50"), ("{}", "{optimizer: adamw8bit}", "70"),
     ("{}", "{optimizer: muon, batch: 8}", "70"), ("{}", "{batch: 6, accumulate: 2}", "76"), ("{base: int8}", "{batch: 4}", "80"),
     ("{}", "{batch: 4}", "70"), ("{}", "{sharding: fsdp2}", "160")],
)  # fmt: skip
def test_what_is_suggested_is_what_train_takes(run: Any, tmp_path: Path, backbone: str, train: str, memory: str) -> None:
    """Set as it says, by the rules that `train` begins with. Where it finds nothing, it says what would let weights be shared."""
    text = f"preset: wan2.1_i2v_14b\nbackbone: {backbone}\ntrain: {train}"
    found = json.loads(run(text, "--json", "--memory", memory)[1])["suggested"]
    settings = load(tmp_path / "run.yaml")
    if found["devices"]:
        assert found["memory"] <= float(memory) * 1e9
        way = settings.model_copy(update={"train": settings.train.model_copy(update={"sharding": found["sharding"]})})
        assert refusal(way, found["devices"]) is None
        said = f"set train.sharding: {found['sharding']}"
        assert (said in run(text, "--memory", memory)[1]) == (found["sharding"] != settings.train.sharding)
    else:
        assert "backbone.base: full and train.optimizer: adamw, which FSDP2 can share out" in found["advice"]


def test_ways_that_train_does_not_take() -> None:
    def why(processes: int, base: str = "full", **train: Any) -> str | None:
        values = {"preset": None, "out": "x", **_preset("wan2.1_i2v_14b")} | {"train": train}
        return refusal(validated(values | {"backbone": {"name": "wan2.1-i2v-14b", "base": base}}, "x"), processes)

    assert why(1) is why(2) is why(2, "int8") is why(2, sharding="fsdp2") is why(2, batch=8, accumulate=4) is None
    assert "there is one process" in why(1, sharding="fsdp2")
    assert "base is fp8 with fsdp2" in why(2, "fp8", sharding="fsdp2")
    assert "optimizer is muon with fsdp2" in why(2, optimizer="muon", sharding="fsdp2")
    assert "batch is 6, expected a multiple of 4 processes times 1" in why(4, batch=6)
    assert "batch is 6, expected a multiple of 2 processes times 2" in why(2, batch=6, accumulate=2)


def test_every_process_loads_all_weights(run: Any) -> None:
    """Whatever they become on the device: before they are in 8 bits, or shared out, they are whole."""
    text = "preset: wan2.1_i2v_14b\nbackbone: {base: int8}\ntrain: {batch: 4}"
    found = json.loads(run(text, "--json", "--memory", "84")[1])
    processes, whole = found["suggested"]["devices"], found["host_memory"]["each"]
    assert processes > 1 and found["host_memory"] == {"processes": processes, "each": whole, "total": processes * whole}
    assert whole == pytest.approx(2 * found["weights"], rel=1e-3) and whole > 1.5 * found["memory"]["base"]
    assert f"{processes} processes load the weights, 32.8 GB each" in run(text, "--memory", "84")[1]


def test_the_folders_config_comes_first(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "wan" / "transformer"
    wan_transformer(True).save_config(folder)
    text = f"preset: wan2.1_i2v_14b\nbackbone: {{path: {folder.parent.as_posix()}}}"
    status, out, _ = run(text, "--json")
    plan = json.loads(out)
    assert status == 0 and plan["trained"]["layers"] == 2 * LAYERS and plan["dimensions"] == str(folder / "config.json")
    (folder / "config.json").write_text("{")
    status, _, errors = run(text)
    assert status == 1 and "can't be read" in errors


@pytest.mark.parametrize("option", ["--tflops", "--memory", "--max-devices"])
def test_a_speed_of_nothing_is_refused(run: Any, option: str) -> None:
    status, _, errors = run("preset: marionette", option, "0")
    assert status == 1 and f"{option} is 0, expected more than 0" in errors


def test_clips_of_the_manifest_are_counted(run: Any, tmp_path: Path) -> None:
    line = {"kind": "pose", "target_video": "a.mp4", "fps": 16, "frames": 81, "width": 832, "height": 480}
    lines = [{"id": f"a{k}", **line} for k in range(3)]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    _, out, _ = run(f"preset: wan2.1_i2v_14b\ncache: {{manifest: {manifest.as_posix()}}}", "--json")
    plan = json.loads(out)
    assert plan["clips"] == 3 and plan["disk"] == 3 * plan["disk_per_clip"]["total"]
    mirrored = f"preset: wan2.1_i2v_14b\ncache: {{manifest: {manifest.as_posix()}, validation_share: 0.3, mirror: true}}"
    assert json.loads(run(mirrored, "--json")[1])["clips"] == 5  # two of the three are trained on, and seen twice


def test_a_list_of_the_users_is_counted_until_there_are_clips(run: Any, tmp_path: Path) -> None:
    """Its lines need not say what ours do."""
    listed = tmp_path / "mine.jsonl"
    listed.write_text('{"id": "a", "target_video": "a.mp4"}\n\n{"id": "b", "target_video": "b.mp4"}\n', "utf-8-sig")
    text = f"preset: marionette\ndata: {{source: manifest, manifest: {listed.as_posix()}}}"
    status, out, errors = run(text, "--json")
    assert status == 0 and json.loads(out)["clips"] == 2, errors
    (tmp_path / "out" / "clips").mkdir(parents=True)
    one = {"id": "a", "kind": "pose", "target_video": "a.mp4", "fps": 12, "frames": 25, "width": 64, "height": 96}
    (tmp_path / "out" / "clips" / "manifest.jsonl").write_text(json.dumps(one) + "\n", "utf-8")
    assert json.loads(run(text, "--json")[1])["clips"] == 1, "some of a list are dropped"


@pytest.mark.parametrize("native", ["bfloat16", "float32"])
@pytest.mark.parametrize("preset", presets())
def test_a_presets_notes_are_what_plan_computes(preset: str, native: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they do not age. Where the machine chooses the precision, they say it of both."""
    monkeypatch.setattr(config, "native_dtype", lambda: native)
    path = tmp_path / "run.yaml"
    path.write_text(f"preset: {preset}\nout: {(tmp_path / 'out').as_posix()}\n", "utf-8")
    settings = load(path)
    plan = made(settings, 400e12, 80e9, 64)
    notes = settings.notes
    found = {"memory": f"{plan['memory_total'] / 1e9:.3g} GB", "disk_per_clip": f"{plan['disk_per_clip']['total'] / 1e6:.3g} MB"}
    for key, value in found.items():
        assert "measured" in notes[key]
        assert value in notes[key] or COMPUTED not in notes[key]
    assert "measured" in notes["seconds_per_step"]


def test_presets_split_wan22_at_its_boundary() -> None:
    high, low = (
        validated({"preset": None, "out": "x", **_preset(f"wan2.2_i2v_a14b_{name}")}, name).train for name in ("high", "low")
    )
    assert isinstance(high, Train)
    assert (high.timesteps.low, high.timesteps.high, low.timesteps.low, low.timesteps.high) == (0.9, 1.0, 0.0, 0.9)
    assert high.timesteps.shift == low.timesteps.shift == 5.0


def _preset(name: str) -> dict[str, Any]:
    import yaml

    from training.config import PRESETS

    return yaml.safe_load((PRESETS / f"{name}.yaml").read_text("utf-8"))
