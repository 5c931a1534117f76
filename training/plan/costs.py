"""What a run costs, as formulas. Tests hold each of them against the real networks, optimizers and tensors.

Symbols: N video tokens, L context tokens, D width, F width inside the feed-forward layers, r rank. A product of (m, k) and (k, n)
is 2mkn operations. Bytes are bytes, seconds are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from dreamactor_core.layout import latent_frames
from dreamactor_core.motion_context import JOINT, MotionContext
from training.config import Train
from training.plan.network import Network

FLASH_BACKWARD = 2.5
"""Backward to forward of attention that does not keep its matrix: five products to two, one of them done anew."""


def video_tokens(net: Network, width: int, height: int, frames: int, layout: str | None = "spatial") -> int:
    """Tokens of one sample: of the composite of two halves of that size in pixels, or of one half (layout None)."""
    side = net.stride * net.patch
    half = latent_frames(frames) * (height // side) * (width // side)
    return half if layout is None else 2 * half  # beside each other or one after the other


@dataclass(frozen=True)
class Apart:
    """Tokens of one sample with a cached motion context: of the result, of the driver, and how many pairs of them attend;
    `again`: of how many the attention is computed once more in the backward pass, with checkpointing or without."""

    result: int
    driver: int
    pairs: int
    again: int

    @property
    def all(self) -> int:
        return self.result + self.driver


def tokens_apart(net: Network, width: int, height: int, frames: int, context: MotionContext) -> Apart:
    """Of a result and a driver of that size in pixels, the driver's as the context shrinks it."""
    result = video_tokens(net, width, height, frames, None)
    driver = video_tokens(net, width // context.scale, height // context.scale, frames, None)
    length = latent_frames(frames)
    part = context.near is not None and 2 * context.near + 1 < length
    seen = round(result * (result + driver * ((2 * context.near + 1) / length if part else 1)))
    return Apart(result, driver, seen + driver**2, seen if part else 0)


def lora_parameters(net: Network, rank: int) -> int:
    """Of both feed-forward layers of every block: r (D + F) each."""
    return net.layers * 2 * rank * (net.width + net.inner)


@dataclass(frozen=True)
class Flops:
    """Operations of one sample: the forward pass, the backward pass, and what gradient checkpointing computes again."""

    forward: float
    backward: float
    again: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.again


def flops(
    net: Network, tokens: int, rank: int, checkpointing: bool, text: int | None = None,
    attention_backward: float = FLASH_BACKWARD, apart: Apart | None = None,
) -> Flops:  # fmt: skip
    """Operations of a step on one sample with a LoRA of that rank on a frozen base (rank 0: no LoRA, forward pass only).

    Forward, a block of Wan: 8ND^2 (q, k, v, o) + 4N^2 D (attention) + 4ND^2 + 4LD^2 + 4NLD (cross attention) + 4NDF. Of
    HunyuanVideo, whose text goes the same way: (N+L) (8D^2 + 4DF) + 4 (N+L)^2 D. The LoRA: 4N (D+F) r. Backward: products with
    frozen weights once more, attention 2.5 times (half of that where the text's side needs no gradient), the LoRA twice; nothing
    before the first LoRA, in the first block, is needed.

    With a cached motion context (`apart`, whose tokens `tokens` counts) fewer pairs attend, the driver asks nothing of the
    text, and attention to a neighbourhood is made again for the backward pass.
    """
    n, d, f = tokens, net.width, net.inner
    text = net.text if text is None else text
    context = text + net.image
    feed, lora = 4 * n * d * f, 4 * n * (d + f) * rank
    if net.joint:
        linear = (n + context) * 8 * d * d + context * 4 * d * f  # the text branch has feed-forward layers of its own
        attention, across = 4 * (n + context) ** 2 * d, 0
        fixed = 2 * 6 * d * d * 2  # the modulation is of one vector a sample
    else:
        driver, pairs = (0, n * n) if apart is None else (apart.driver, apart.pairs)
        linear = 12 * n * d * d - 2 * driver * d * d
        attention, across, fixed = 4 * pairs * d, 4 * (n - driver) * context * d, 4 * context * d * d
    block = linear + attention + across + fixed + feed + lora
    ends = 2 * n * d * net.inputs * net.patch**2 + 2 * text * d * (net.text_width + d)  # patches and text go in
    out = 2 * n * d * net.channels * net.patch**2
    forward = net.layers * block + ends + out
    if not rank:
        return Flops(forward, 0, 0)
    first = 2 * n * d * f + 2 * lora - 2 * n * d * rank
    whole = linear + attention_backward * (attention + across / 2) + feed + 2 * lora
    again = (net.layers * block if checkpointing else 0) + (0 if apart is None else (net.layers - 1) * 4 * apart.again * d)
    return Flops(forward, first + (net.layers - 1) * whole + out, again)


def activations_per_token(net: Network, rank: int, half: bool) -> int:
    """Bytes that one block keeps of a video token for its backward pass.

    Wan: what its norms take in, in float32 (24 D: three layer norms, three of queries and keys); 6 D (7 with a picture) around its
    attentions; then of the feed-forward layers D + 2F + 2r. HunyuanVideo: 2 D, 2 D in float32 beside 2 D, 4 D, and the same.
    """
    size = 2 if half else 4
    feed = (net.width + 2 * net.inner + 2 * rank) * size
    if net.joint:
        kept = (2 + 2 + 4) * size + (8 if half else 0)
        return kept * net.width + feed
    return (24 + (6 + (net.image > 0)) * size) * net.width + feed


def activations(net: Network, tokens: int, rank: int, checkpointing: bool, half: bool = True) -> int:
    """Bytes kept between forward and backward pass at the worst moment, of one sample.

    With checkpointing: the input of each block, and all of the one block that is computed again.
    """
    seen = tokens + (net.text + net.image if net.joint else 0)
    block = seen * activations_per_token(net, rank, half)
    end = tokens * net.width * (2 if half and net.joint else 4)
    if checkpointing:
        return net.layers * seen * net.width * (2 if half else 4) + block + end
    first = tokens * (net.width + 2 * net.inner + 2 * rank) * (2 if half else 4)
    return (net.layers - 1) * block + first + end


def workspace(net: Network, tokens: int) -> int:
    """Bytes of what comes and goes inside an operation: an assumption, not derived. Attention is taken to be of the kind that never
    holds its matrix; two gradients as wide as the feed-forward layers in half precision, four of the width in float32."""
    return tokens * (2 * 2 * net.inner + 4 * 4 * net.width)


def optimizer_bytes(kind: str, parameters: int) -> int:
    """State of an optimizer: two moments in float32, two in 8 bits with a scale for every 256, or one in float32."""
    return {"adamw": 8 * parameters, "adamw8bit": 2 * parameters + 2 * 4 * parameters // 256, "muon": 4 * parameters}[kind]


@dataclass(frozen=True)
class Saved:
    """Bytes of what `train` writes: a LoRA file, a state to go on from, and how many checkpoints' LoRA files are kept."""

    lora: int
    state: int
    kept: int

    @property
    def stays(self) -> int:
        """The kept LoRA files, the newest once more under its own name, and the state."""
        return (self.kept + 1) * self.lora + self.state

    @property
    def peak(self) -> int:
        """While a checkpoint is written. Files take the place of earlier ones when they are whole: there are up to kept + 3 LoRA
        files beside one state, then kept + 1 beside two. This is more than either, as a state is larger than a LoRA file."""
        return (self.kept + 2) * self.lora + 2 * self.state


def saved(parameters: int, train: Train) -> Saved:
    """Of a LoRA of that many parameters: all in float32 but an optimizer's own 8 bits. A state has the weights, their average where
    there is one, and the optimizer's state. Headers, steps and random state, some kilobytes, are left out."""
    weights = 4 * parameters
    state = weights * (2 if train.ema else 1) + optimizer_bytes(train.optimizer, parameters)
    return Saved(weights, state, min(train.keep, -(-train.steps // train.every)))


def base_bytes(inside: int, outside: int, base: str, half: bool) -> int:
    """Frozen weights: `inside`, the matrices of the blocks' linear layers, can be in 8 bits. Scales are less than a thousandth."""
    size = 2 if half else 4
    return inside * (size if base == "full" else 1) + outside * size


def cast_bytes(net: Network, inside: int, parameters: int, base: str, half: bool, halved: bool, checkpointing: bool) -> int:
    """Bytes, at most, of weights in the precision of the arithmetic (`half`) beside those that are kept in another: the LoRA's in
    float32, the base's in 8 bits or as `halved` says.

    Of the base the matrices of the block that is computed again, as a backward pass needs them; without checkpointing those of all
    blocks. One of fp8 is in float32 twice on its way.
    """
    cast = 2 * parameters if half else 0
    if base == "full" and half == halved:
        return cast
    kept = inside // (net.layers if checkpointing else 1) * (2 if half else 4)
    return cast + kept + (2 * 4 * net.width * net.inner if base == "fp8" else 0)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by part."""

    base: int
    lora: int
    gradients: int
    optimizer: int
    ema: int
    casts: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        names = ("base", "lora", "gradients", "optimizer", "ema", "casts", "activations", "workspace")
        return {name: int(getattr(self, name)) for name in names}


def on_devices(memory: Memory, devices: int, sharded: bool, block: int) -> Memory:
    """Of each of several devices: DDP repeats all and adds buckets for the gradients; FSDP2 cuts weights and state into shards and
    holds two whole blocks of `block` bytes at a time."""
    if devices == 1:
        return memory
    if not sharded:
        return Memory(**memory.parts() | {"gradients": 2 * memory.gradients})
    share = {name: -(-value // devices) for name, value in memory.parts().items()}
    whole = {name: memory.parts()[name] for name in ("casts", "activations", "workspace")} | {"base": share["base"] + 2 * block}
    return Memory(**share | whole)


def cache_bytes(
    net: Network, width: int, height: int, frames: int, lead_in: int, variants: int, people: int = 1, context: MotionContext = JOINT
) -> dict[str, int]:
    """Bytes of one sample in the cache, in half precision: target latents, a composite for each variant (an rgb LoRA has one; with
    a cached motion context reference and driver apart), or with no variants the reference picture and keypoints of 130 joints, in
    float32; text and picture tokens."""
    half = latent_frames(frames) * net.channels * (height // net.stride) * (width // net.stride)
    made = {"target": 2 * half, "context": 2 * (net.stored_text * net.text_width + net.image * net.image_width)}
    if variants:
        return made | {"condition": 2 * (half + half // context.scale**2) * variants}
    return made | {"reference": 3 * width * height, "keypoints": 4 * 3 * 130 * people * (frames - lead_in)}
