"""A language model of toy size in the files of a real one, which says a sentence of ours for each of the three prompts.

It is a whole Qwen3-VL of the host, two layers deep: real tokenizer, vision tower, attention, cache and decoding. Its
weights are set by hand. Attention is even, so the last token sees a mean over the prompt; each word that only one of
the prompts has adds to that prompt's direction. A token's own direction leads to the token that follows it in an answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from toys import random_state

CONFIG = {"hidden_size": 64, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 1, "num_key_value_heads": 1}
"""Of the language model."""
VISION = {
    "hidden_size": 32, "intermediate_size": 32, "depth": 1, "num_heads": 2, "deepstack_visual_indexes": [0],
    "num_position_embeddings": 16,
}  # fmt: skip
"""Of the vision tower."""
TYPE = "qwen3vl_8b"  # what the host takes it for, by its names and widths
_LED, _FELT = 10.0, 100.0  # what the token before and the prompt add to the tokens that may follow
_STOP = 151645


def _tokens(text: str) -> list[int]:
    from comfy.text_encoders.qwen3vl import Qwen3VLTokenizer

    (pairs,) = Qwen3VLTokenizer(model_type=TYPE).tokenize_with_weights(text, skip_template=True)[TYPE]
    return [token for token, *_ in pairs]


def write_talker(path: Path, answers: Mapping[str, str]) -> None:
    """Write the model's file.

    Args:
        answers: What it says, by the prompt (any part of one that tells it from the others). No token may be in two
            answers or twice in one.
    """
    import comfy.ops
    from comfy.text_encoders import qwen3vl

    said = [_tokens(answer) for answer in answers.values()]
    flat = [token for tokens in said for token in tokens]
    if len(set(flat)) < len(flat) or len(flat) + len(said) + 1 > CONFIG["hidden_size"]:
        raise ValueError(f"{flat} has a token twice, or more tokens than the model is wide; choose other answers")
    read = [set(_tokens(prompt)) - set(flat) for prompt in answers]

    original = qwen3vl.QWEN3VL_VISION[TYPE]
    qwen3vl.QWEN3VL_VISION[TYPE] = VISION
    try:
        network = qwen3vl._make_qwen3vl_model(TYPE)(dict(CONFIG), torch.float32, "cpu", comfy.ops.disable_weight_init)
    finally:
        qwen3vl.QWEN3VL_VISION[TYPE] = original
    state = random_state(network)
    embed, head = (torch.zeros_like(state[f"model.{name}.weight"]) for name in ("embed_tokens", "lm_head"))
    last = CONFIG["hidden_size"] - 1
    embed[:, last] = 1  # whatever is no answer's token: where an answer begins
    value, out = (torch.zeros_like(state[f"model.layers.0.self_attn.{name}_proj.weight"]) for name in "vo")
    place = {token: k for k, token in enumerate(flat)}
    for task, (tokens, words) in enumerate(zip(said, read, strict=True)):
        felt = len(flat) + task
        embed[list(words - set().union(*(other for other in read if other is not words))), felt] = 1
        value[task, felt], out[felt, task] = 1, _FELT
        head[tokens, felt] = 1
        head[tokens[0], last] = _LED
        for token, follower in zip(tokens, [*tokens[1:], _STOP], strict=True):
            embed[token] = 0
            embed[token, place[token]] = 1
            head[follower, place[token]] = _LED
    state |= {"model.embed_tokens.weight": embed, "model.lm_head.weight": head, "model.norm.weight": torch.ones(last + 1)}
    first, second = "model.layers.0.", "model.layers.1."
    state |= {f"{first}self_attn.v_proj.weight": value, f"{first}self_attn.o_proj.weight": out}
    state[f"{first}input_layernorm.weight"] = torch.ones(last + 1)
    for name in (f"{first}self_attn.q_proj", f"{first}mlp.down_proj", f"{second}self_attn.o_proj", f"{second}mlp.down_proj"):
        state[f"{name}.weight"] = torch.zeros_like(state[f"{name}.weight"])
    head[_STOP, len(flat) : len(flat) + len(said)] = 1
    # what it sees says nothing: pictures are looked at, and their number does not tell the prompts apart
    for part in ("weight", "bias"):
        state[f"visual.merger.linear_fc2.{part}"][len(flat) : len(flat) + len(said)] = 0
    names = {"visual.": "model.visual.", "model.lm_head.": "lm_head.", "model.": "model.language_model."}
    filed = {}
    for key, tensor in state.items():
        prefix = next(prefix for prefix in names if key.startswith(prefix))
        filed[names[prefix] + key.removeprefix(prefix)] = tensor.half()
    save_file(filed, path, {"language": json.dumps(CONFIG), "vision": json.dumps(VISION)})
