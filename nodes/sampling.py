"""What the network sees of the driver's half while a stock sampler works: the driver, at the sampler's noise level.

That is what it saw in training. The sampler sees to it itself (the LATENT has a noise mask), but for two cases. A sampler whose
network lacks the LoRA that our loader put on a Wan network is stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import comfy.model_base
import torch
from comfy.patcher_extension import WrappersMP

from . import unseen

_KEY = "dreamactor_m2"


def keep_driver_in_sight(model: Any) -> None:
    """Patch a MODEL that has a DreamActor LoRA, so that it takes conditionings with `joint_values`, and for the two cases:

    a second stage, whose sampler takes the noisy latent that it goes on from for the driver itself (Wan2.2's low-noise
    expert would see ever more noise there), and HunyuanVideo, whose known parts the host shows without noise.
    """
    model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, _KEY, _go_on_from_first_stage)
    noisy = comfy.model_base.BaseModel.scale_latent_inpaint
    if type(model.model).scale_latent_inpaint is not noisy:
        model.add_object_patch("scale_latent_inpaint", MethodType(noisy, model.model))
    if isinstance(model.model, comfy.model_base.WAN21):
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, _KEY, unseen.see_joint)


def joint_values(model: Any) -> dict[str, Any]:
    """What a conditioning must hold for a MODEL that was patched by `keep_driver_in_sight`: where another is sampled, it stops."""
    if not model.get_wrappers(WrappersMP.DIFFUSION_MODEL, _KEY):
        return {}  # HunyuanVideo, or a LoRA of the stock loader
    return {"model_conds": unseen.constants(**{unseen.KEY: unseen.JOINT})}


def _driver_of(guider: Any, channels: int) -> torch.Tensor | None:
    """The conditioning latents among a guider's conditionings, as the network takes them."""
    for conditionings in guider.conds.values():
        for conditioning in conditionings:
            if "c_concat" in conditioning.get("model_conds", {}):
                concat = conditioning["model_conds"]["c_concat"].cond
                hunyuan = isinstance(guider.inner_model, comfy.model_base.HunyuanVideo15)  # latents, mask
                return concat[:, :channels] if hunyuan else concat[:, -channels:]
    return None


def _go_on_from_first_stage(
    sample: Callable[..., torch.Tensor],
    guider: Any,
    sigmas: torch.Tensor,
    extra_args: dict[str, Any],
    callback: Any,
    noise: torch.Tensor,
    latent_image: torch.Tensor | None = None,
    denoise_mask: torch.Tensor | None = None,
    disable_pbar: bool = False,
) -> torch.Tensor:
    """Around a sampler: where it adds no noise of its own, tell the driver from the noise that lies on it."""
    sigma = sigmas[0]
    if latent_image is not None and denoise_mask is not None and 0 < sigma < 1 and not noise.any():
        driver = _driver_of(guider, latent_image.shape[1])
        if driver is not None and driver.shape == latent_image.shape:
            # the first stage left ((1 - s) driver + s noise) / (1 - s)
            driver = driver.to(latent_image)
            left = (latent_image - driver) * (1 - sigma) / sigma
            known = denoise_mask == 0
            noise, latent_image = torch.where(known, left, noise), torch.where(known, driver, latent_image)
    return sample(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)
