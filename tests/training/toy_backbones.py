"""The real backbones at toy dimensions: whole folders in diffusers' layout with random weights, made on the fly."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Transformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    ByT5Tokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

TEXT, GLYPH, IMAGE, LAYERS = 32, 24, 48, 2
"""Widths of the text, glyph and image tokens, and layers of each network."""

WAN = dict(
    patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=32, in_channels=36, out_channels=16, text_dim=TEXT,
    freq_dim=32, ffn_dim=160, num_layers=LAYERS, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
)  # fmt: skip
HUNYUAN = dict(
    in_channels=65, out_channels=32, num_attention_heads=2, attention_head_dim=32, num_layers=LAYERS, num_refiner_layers=1,
    patch_size=1, patch_size_t=1, text_embed_dim=TEXT, text_embed_2_dim=GLYPH, image_embed_dim=IMAGE,
    rope_axes_dim=(8, 12, 12), target_size=32, task_type="i2v",
)  # fmt: skip
_CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and one at the end."""
    alphabet = ["<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({word: k for k, word in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", chat_template=_CHAT)


def wan_transformer(image: bool = True, **changes: object) -> WanTransformer3DModel:
    """Wan2.1-I2V-14B's network with `image`, one of Wan2.2-I2V-A14B's without."""
    chosen = WAN | changes
    width = chosen["num_attention_heads"] * chosen["attention_head_dim"]
    more = {"image_dim": IMAGE, "added_kv_proj_dim": width} if image else {}
    return WanTransformer3DModel(**more | chosen)


def wan_vae() -> AutoencoderKLWan:
    """Wan 2.1's VAE, narrow: it keeps the latents' statistics and strides of the real one."""
    return AutoencoderKLWan(base_dim=4, z_dim=16, num_res_blocks=1)


def hunyuan_transformer(**changes: object) -> HunyuanVideo15Transformer3DModel:
    """HunyuanVideo-1.5's network."""
    return HunyuanVideo15Transformer3DModel(**HUNYUAN | changes)


def hunyuan_vae() -> AutoencoderKLHunyuanVideo15:
    """HunyuanVideo-1.5's VAE, narrow: 32 channels, strides of 16 and 4."""
    return AutoencoderKLHunyuanVideo15(block_out_channels=(32, 32, 64, 64, 64), layers_per_block=1)


def write_wan(folder: Path, image: bool = True, experts: int = 1, seed: int = 0, **network: object) -> Path:
    """Wan2.1-I2V-14B (`image`), or Wan2.2-I2V-A14B (no image, 2 experts). `network`: other dimensions than `WAN`."""
    torch.manual_seed(seed)
    text = UMT5Config(vocab_size=300, d_model=TEXT, d_kv=16, d_ff=48, num_layers=2, num_heads=2, pad_token_id=0, eos_token_id=1)
    vision = CLIPVisionConfig(
        hidden_size=IMAGE, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    # as the published one: the middle of the picture, which Wan2.1 was not trained with
    processor = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    WanImageToVideoPipeline(
        tokenizer=tokenizer(),
        text_encoder=UMT5EncoderModel(text),
        vae=wan_vae(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        image_encoder=CLIPVisionModel(vision) if image else None,
        image_processor=processor if image else None,
        transformer=wan_transformer(image, **network),
        transformer_2=wan_transformer(image, **network) if experts == 2 else None,
        boundary_ratio=0.9 if experts == 2 else None,
    ).save_pretrained(folder)
    return folder


def write_hunyuan(folder: Path, seed: int = 0, **network: object) -> Path:
    """HunyuanVideo-1.5 image-to-video. `network`: other dimensions than `HUNYUAN`."""
    torch.manual_seed(seed)
    text = Qwen2_5_VLTextConfig(
        vocab_size=300, hidden_size=TEXT, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        pad_token_id=0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    glyph = T5Config(vocab_size=384, d_model=GLYPH, d_kv=12, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")
    vision = SiglipVisionConfig(
        hidden_size=IMAGE, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    HunyuanVideo15ImageToVideoPipeline(
        text_encoder=Qwen2_5_VLTextModel(text),
        tokenizer=tokenizer(),
        transformer=hunyuan_transformer(**network),
        vae=hunyuan_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_encoder_2=T5EncoderModel(glyph),
        tokenizer_2=ByT5Tokenizer(),
        guider=ClassifierFreeGuidance(guidance_scale=1.0),
        image_encoder=SiglipVisionModel(vision),
        feature_extractor=SiglipImageProcessor(size={"height": 28, "width": 28}),
    ).save_pretrained(folder)
    return folder
