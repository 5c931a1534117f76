"""The plan of a run, put together and put into words."""

from __future__ import annotations

from typing import Any

from dreamactor_core.motion_context import get_context
from training import manifest
from training.config import Config
from training.lora_file import FEED_FORWARD
from training.plan import costs
from training.plan.network import config_of, empty, network

COMPUTED = "computed by `python -m training plan`, not measured"


def weights(name: str, config: dict[str, Any]) -> tuple[int, int]:
    """Weights of the network: of the matrices of the blocks' linear layers, and all others. Counted on the network itself."""
    import torch

    model = empty(name, config)
    blocks = model.transformer_blocks if name == "hunyuanvideo-1.5-i2v" else model.blocks
    inside = sum(layer.weight.numel() for layer in blocks.modules() if isinstance(layer, torch.nn.Linear))
    return inside, sum(p.numel() for p in model.parameters()) - inside


def clips(settings: Config) -> int | None:
    """Samples of the run's manifest, those to train on twice with `cache.mirror`; before there is one, those that `data` is to
    make; None where only `data` can count them."""
    listed, cache = _listed(settings), settings.cache
    if listed is None or not cache.mirror:
        return listed
    return 2 * listed - (0 if cache.validation else round(cache.validation_share * listed))


def _listed(settings: Config) -> int | None:
    path = settings.cache.manifest or settings.out / "clips" / "manifest.jsonl"
    if path.is_file():
        return len(manifest.read(path))
    if settings.data.source == "world":
        return settings.data.world.count
    listed = settings.data.manifest
    if settings.data.source != "manifest" or listed is None or not listed.is_file():
        return None
    # a list of the user's, where less is required than in a manifest of ours: which lines are right is for `data` to say
    return sum(bool(line.strip()) for line in listed.read_text("utf-8-sig", errors="replace").splitlines())


def made(settings: Config, speed: float, card: float, most: int) -> dict[str, Any]:
    """The plan as plain values.

    Args:
        speed: Operations a second of a device. card: bytes of its memory. most: the most devices to look at.
    """
    from training.train.validation import LEVELS  # with all that trains

    train, backbone = settings.train, settings.backbone
    config, source = config_of(backbone)
    net = network(backbone.name, config)
    spec = settings.clip.spec()
    width, height = max(settings.clip.sizes, key=lambda size: size[0] * size[1])
    context, apart = get_context(settings.motion_context), None
    half = costs.video_tokens(net, width, height, spec.frames, None)
    tokens = costs.video_tokens(net, width, height, spec.frames, settings.layout)
    if context.cached:
        apart = costs.tokens_apart(net, width, height, spec.frames, context)
        tokens = apart.all
    inside, outside = weights(backbone.name, config)
    computed_half = backbone.dtype == "bfloat16"
    halved = computed_half and backbone.name != "marionette"  # the small one is kept in float32
    parameters = costs.lora_parameters(net, train.rank)
    base = costs.base_bytes(inside, outside, backbone.base, halved)
    per_sample = costs.flops(net, tokens, train.rank, train.checkpointing, apart=apart)
    plain = costs.flops(net, half, train.rank, train.checkpointing)

    def memory(devices: int, sharded: bool) -> costs.Memory:
        micro = max(1, -(-train.batch // (train.accumulate * devices)))
        kept = costs.activations(net, tokens, train.rank, train.checkpointing, computed_half)
        alone = costs.Memory(
            base=base, lora=4 * parameters, gradients=4 * parameters, ema=4 * parameters if train.ema else 0,
            optimizer=costs.optimizer_bytes(train.optimizer, parameters),
            casts=costs.cast_bytes(net, inside, parameters, backbone.base, computed_half, halved, train.checkpointing),
            activations=micro * kept, workspace=micro * costs.workspace(net, tokens),
        )  # fmt: skip
        return costs.on_devices(alone, devices, sharded, base // net.layers)

    suggestion = suggested(settings, memory, card, most)
    devices = suggestion["devices"] or 1
    loaded = costs.base_bytes(inside, outside, "full", halved)  # they become 8 bits, or a shard, when they are there
    seconds = per_sample.total * train.batch / speed / devices
    validation = train.validate_on * 2 * len(LEVELS) * per_sample.forward / speed / devices
    variants = settings.cache.variants if settings.variant == "pose" else 1
    disk = costs.cache_bytes(net, width, height, spec.frames, spec.lead_in, variants, context=context)
    count = clips(settings)
    saved = costs.saved(parameters, train)
    return {
        "backbone": backbone.name,
        "dimensions": source,
        "clip": {"size": [width, height], "frames": spec.frames, "fps": spec.fps, "layout": settings.layout,
                 "motion_context": settings.motion_context},
        "tokens": {"half": half, "composite": tokens, "step": tokens * train.batch},
        "weights": inside + outside,
        "trained": {"rank": train.rank, "layers": 2 * net.layers, "parameters": parameters, "file_bytes_bf16": 2 * parameters},
        "layers": FEED_FORWARD["hunyuan-video-1.5" if net.joint else "wan"],
        "memory": {"micro_batch": max(1, train.batch // train.accumulate), **memory(1, False).parts()},
        "memory_total": memory(1, False).total,
        "host_memory": {"processes": devices, "each": loaded, "total": devices * loaded},
        "flops": {"forward": per_sample.forward, "backward": per_sample.backward, "again": per_sample.again},
        "flops_step": per_sample.total * train.batch,
        "over_one_half": per_sample.total / plain.total,
        "sharding": train.sharding,
        "suggested": suggestion,
        "speed": speed,
        "card": card,
        "seconds_per_step": seconds,
        "hours": seconds * train.steps / 3600,
        "validation_seconds": validation,
        "steps": train.steps,
        "batch": train.batch,
        "every": train.every,
        "encodes": settings.variant == "pose" and not settings.cache.variants,
        "disk_per_clip": {"total": sum(disk.values()), **disk},
        "clips": count,
        "disk": None if count is None else count * sum(disk.values()),
        "saved": {"lora": saved.lora, "state": saved.state, "kept": saved.kept, "stays": saved.stays, "peak": saved.peak},
        "notes": settings.notes,
    }


def suggested(settings: Config, memory: Any, card: float, most: int) -> dict[str, Any]:
    """The fewest devices that the run fits on, in a way that `train` takes: DDP where a device holds all, else FSDP2."""
    from training.train.parallel import refusal  # with all that trains

    train, base = settings.train, settings.backbone.base
    for devices in range(1, min(train.batch, most) + 1):
        for sharding, how in (("none", "DDP" if devices > 1 else "one process"), ("fsdp2", "FSDP2")):
            way = settings.model_copy(update={"train": train.model_copy(update={"sharding": sharding})})
            each = memory(devices, sharding == "fsdp2").total
            if each <= card and refusal(way, devices) is None:
                return {"devices": devices, "how": how, "sharding": sharding, "memory": each, "advice": ""}
    ways = []
    if not train.checkpointing:
        ways.append("train.checkpointing: true")
    if base == "full":
        ways.append("backbone.base: fp8 or int8")
    if train.optimizer == "adamw":
        ways.append("train.optimizer: adamw8bit")
    if train.batch > train.accumulate:
        ways.append(f"train.accumulate: {train.batch}, so that samples go through one by one")
    ways += ["a smaller clip.sizes or clip.frames", "a smaller train.rank", "a train.batch that more devices can share"]
    if most > 1 and (base != "full" or train.optimizer != "adamw"):
        ways.append("backbone.base: full and train.optimizer: adamw, which FSDP2 can share out")
    return {"devices": None, "how": "", "sharding": "", "memory": memory(1, False).total, "advice": ", ".join(ways)}


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def printed(plan: dict[str, Any]) -> str:
    """The plan in words."""
    tokens, trained, work, found = plan["tokens"], plan["trained"], plan["flops"], plan["suggested"]
    (width, height), clip, host, saved = plan["clip"]["size"], plan["clip"], plan["host_memory"], plan["saved"]
    lines = [
        f"{plan['backbone']}, dimensions {plan['dimensions']}. Everything here is {COMPUTED}.",
        f"clip          two halves of {width}x{height}, {clip['frames']} frames at {clip['fps']:g} fps, {clip['layout']}, "
        f"motion context {clip['motion_context']}",
        f"tokens        {tokens['half']:,} a half, {tokens['composite']:,} with the driver's, {tokens['step']:,} a step of batch "
        f"{plan['batch']}",
        f"trained       {trained['parameters'] / 1e6:.4g}M of {plan['weights'] / 1e9:.4g}G parameters: rank {trained['rank']} on "
        f"{trained['layers']} feed-forward layers; {size(trained['file_bytes_bf16'])} as a bf16 file",
        f"operations    {plan['flops_step']:.3g} a step: forward {work['forward']:.3g}, backward {work['backward']:.3g}, again for "
        f"checkpointing {work['again']:.3g} a sample; {plan['over_one_half']:.3g} times those of one half alone",
        f"memory        {size(plan['memory_total'])} on one device, micro-batch {plan['memory']['micro_batch']}:",
        *(f"  {name:<12}{size(value)}" for name, value in plan["memory"].items() if name != "micro_batch"),
        "  (workspace is an assumption: attention that never holds its matrix, and a few gradients at a time)",
    ]
    if found["devices"]:
        other = "" if found["sharding"] == plan["sharding"] else f"; set train.sharding: {found['sharding']}"
        lines.append(
            f"devices       {found['devices']} of {size(plan['card'])} ({found['how']}), {size(found['memory'])} on each{other}"
        )
    else:
        lines.append(f"devices       does not fit into {size(plan['card'])}: {size(found['memory'])}; try {found['advice']}")
    processes = f"{host['processes']} process{'es' * (host['processes'] > 1)}"
    lines += [
        f"host memory   {size(host['total'])} while {processes} load{'s' * (host['processes'] == 1)} the weights, "
        f"{size(host['each'])} each",
        f"time          {plan['seconds_per_step']:.3g} s a step at {plan['speed'] / 1e12:g}e12 operations a second, "
        f"{plan['hours']:.3g} h for {plan['steps']:,} steps; {plan['validation_seconds']:.3g} s a validation, one every "
        f"{plan['every']:,} steps",
        *(["  (without the VAE, which encodes the skeletons of every step: cache.variants is 0)"] * plan["encodes"]),
        f"cache         {size(plan['disk_per_clip']['total'])} a clip; "
        + ("no manifest yet" if plan["clips"] is None else f"{size(plan['disk'])} for {plan['clips']:,} clips"),
        f"checkpoints   {size(saved['stays'])}, up to {size(saved['peak'])} while one is written: {saved['kept']} + 1 LoRA files "
        f"of {size(saved['lora'])}, a state of {size(saved['state'])}",
        *(f"note          {key}: {value}" for key, value in plan["notes"].items()),
    ]
    return "\n".join(lines)
