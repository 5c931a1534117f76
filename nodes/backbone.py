"""What our nodes need to know of a loaded MODEL or VAE: its contract, its shapes, whether it fits."""

from __future__ import annotations

from typing import Any

import comfy.ldm.models.autoencoder
import comfy.ldm.wan.vae
import comfy.model_base

from ..dreamactor_core.contract import BACKBONES, Contract, ContractError, has_contract
from ..dreamactor_core.motion_context import CONTEXTS

CONTRACT_KEY = "dreamactor_m2"
"""Attachment of a MODEL under which our loader leaves the contract."""

STOCK = "the LoRA of the stock loader that was loaded last"


def contract_of(model: Any) -> Contract:
    """The contract that a LoRA left on a MODEL: by our loader, or in the metadata that the stock one attaches.

    Raises ContractError when there is none, or when the stock loader put one on top by which the driver is seen in another way; of
    those it put there, the host tells of the last one with metadata only.
    """
    contract, metadata = model.get_attachment(CONTRACT_KEY), model.get_attachment("lora_metadata")
    if contract is not None:
        if metadata is not None and has_contract(metadata):
            check_alike(contract, Contract.from_metadata(metadata, STOCK), STOCK)
        return contract
    try:
        contract = Contract.from_metadata(metadata)
    except ContractError as error:
        if metadata is not None and has_contract(metadata):
            raise
        if metadata is not None:
            raise ContractError(
                "the LoRA that was loaded last carries no DreamActor-M2 metadata, and the stock loader keeps only the last "
                "LoRA's; load the DreamActor one with 'DreamActor LoRA Loader', then the order does not matter"
            ) from error
        raise ContractError(
            "the model has no DreamActor-M2 LoRA, and a stock image-to-video model does not follow a driver; "
            "put 'DreamActor LoRA Loader' between the model loader and this node"
        ) from error
    cached = CONTEXTS[contract.motion_context].cached
    if cached or contract.expert != "both" or isinstance(model.model, comfy.model_base.HunyuanVideo15):
        raise ContractError(
            f"the LoRA for {BACKBONES[contract.backbone].title} was loaded by the stock loader, expected 'DreamActor LoRA Loader': "
            f"with it the network has to be changed too, or the driver is noise to it, or not seen at all"
        )
    return contract


def check_alike(there: Contract, other: Contract, name: str) -> None:
    """Raises ContractError unless the LoRAs of two contracts can be on one network: each sees its driver in one way."""
    ways = [f"layout {one.layout} and motion context {one.motion_context}" for one in (there, other)]
    if ways[0] != ways[1]:
        raise ContractError(
            f"{name} has {ways[1]}, and the model has a DreamActor LoRA of {ways[0]} already: a network sees its driver "
            f"in one way; take one of the two out"
        )


def weight_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the network's weights by native name."""
    # not the state dict: of quantised weights (nvfp4, GGUF) it holds packed bytes in shapes of their own
    return {key: tuple(value.shape) for key, value in model.model.diffusion_model.named_parameters()}


def check_image_to_video(model: Any) -> None:
    """Raises ValueError unless the MODEL takes conditioning latents and a mask next to its noise."""
    base = model.model
    network = base.diffusion_model
    channels = base.latent_format.latent_channels
    # of its kinds that show a network more (Animate, Camera, SCAIL), some take as many channels
    if type(base) is comfy.model_base.WAN21 and hasattr(network, "patch_embedding"):
        got, expected = network.patch_embedding.weight.shape[1], 2 * channels + 4
    elif isinstance(base, comfy.model_base.HunyuanVideo15):
        got, expected = network.img_in.proj.weight.shape[1], 2 * channels + 1
    else:
        raise ValueError(
            f"the model is a {type(base).__name__}, expected Wan2.1-I2V, Wan2.2-I2V-A14B, HunyuanVideo-1.5 I2V or the small "
            f"backbone: only those take the composite and its mask"
        )
    if got != expected:
        raise ValueError(
            f"the model takes {got} input channels, expected {expected} (noise, mask and conditioning latents): it looks like a "
            f"{'text-to-video' if got == channels else 'control or inpainting'} model; load the image-to-video one"
        )


_REAL_VAE, _REAL_NETWORK = 64, 1024
"""Widths from which on a Wan VAE (96) and a Wan network (1536 and more) are real ones; the small backbone has 16 and 256."""


def check_vae(model: Any, vae: Any) -> None:
    """Raises ValueError when the VAE's latents are not the ones that the MODEL was trained on."""
    base = model.model
    wanted = base.latent_format.latent_channels
    if vae.latent_dim != 3 or vae.latent_channels != wanted:
        raise ValueError(
            f"the VAE makes {vae.latent_channels}-channel latents of {vae.latent_dim} dimensions, the model "
            f"({type(base).__name__}) needs {wanted} channels of 3 dimensions; load the VAE that belongs to it"
        )
    first_stage = vae.first_stage_model
    # others have as many channels (HunyuanVideo's first, Cosmos'): nothing fails with them, the result is noise
    if isinstance(base, comfy.model_base.HunyuanVideo15):
        title, kind = "HunyuanVideo 1.5", comfy.ldm.models.autoencoder.AutoencodingEngine
    else:
        title, kind = "Wan 2.1", comfy.ldm.wan.vae.WanVAE
    # nor the previews' (TAEHV): its latents show other frames, the first not one alone
    if not isinstance(first_stage, kind) or getattr(vae, "not_video", False):
        raise ValueError(
            f"the VAE is of another family ({type(first_stage).__name__}), the model ({type(base).__name__}) "
            f"needs the one of {title}; load the VAE that belongs to it"
        )
    if kind is comfy.ldm.wan.vae.WanVAE:
        small_vae, small_model = first_stage.dim < _REAL_VAE, base.diffusion_model.dim < _REAL_NETWORK
        if small_vae != small_model:
            got, wanted = ("Marionette's", "Wan 2.1's") if small_vae else ("Wan 2.1's", "Marionette's")
            raise ValueError(f"the VAE is {got}, the model needs {wanted}: their latents differ; load the VAE that belongs to it")


def size_multiple(model: Any, vae: Any) -> int:
    """Pixels that width and height must be a multiple of: one patch of the network."""
    return vae.spacial_compression_encode() * model.model.diffusion_model.patch_size[-1]


def check_clip_vision(model: Any, output: Any) -> None:
    """Raises ValueError when a network with a branch for CLIP vision is not given what that was trained with."""
    shapes = weight_shapes(model)
    layer = next((name for name in ("img_emb.proj.0.weight", "vision_in.proj.0.weight") if name in shapes), None)
    if layer is None:
        return
    title, width = type(model.model).__name__, shapes[layer][0]
    if output is None:
        raise ValueError(
            f"clip_vision_output is not connected, and the model ({title}) was trained with it: without, it takes the text for the "
            f"reference, or sees none; connect 'CLIP Vision Encode' of the reference"
        )
    last = isinstance(model.model, comfy.model_base.HunyuanVideo15)
    hidden = output.last_hidden_state if last else output.penultimate_hidden_states
    if hidden.shape[-1] != width:
        raise ValueError(
            f"clip_vision_output is {hidden.shape[-1]} wide, the model ({title}) takes {width}: it comes from another CLIP vision "
            f"model; load the one that belongs to this model"
        )


def check_text(model: Any, positive: list, negative: list) -> None:
    """Raises ValueError when a conditioning is as wide as another text encoder's."""
    shapes = weight_shapes(model)
    layer = next((name for name in ("text_embedding.0.weight", "txt_in.input_embedder.weight") if name in shapes), None)
    if layer is None:
        return
    for name, conditioning in (("positive", positive), ("negative", negative)):
        for embedding, *_ in conditioning:
            if embedding.shape[-1] != shapes[layer][1]:
                raise ValueError(
                    f"the {name} conditioning is {embedding.shape[-1]} wide, the model ({type(model.model).__name__}) takes "
                    f"{shapes[layer][1]}: it comes from another model's text encoder; load the one that belongs to this model"
                )
