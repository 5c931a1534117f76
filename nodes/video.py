"""Driving videos: frames by their timestamps, and the audio that goes with them.

The host would start the audio of a file wherever its stream starts, and would decode all pictures of it first.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import av
import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import InputImpl

from ..dreamactor_core.clips import resample_rate
from .frames import damaged, open_frames

Audio = dict[str, Any]
Prepare = Callable[[torch.Tensor], torch.Tensor]
"""IMAGE (n, H, W, 3) in [0, 1] to frames of a clip, (n, 3, h, w): done piece by piece, as a driver may be large."""

_PIECE = 16
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
"""By number of channels, those that the host can save."""
_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
"""Samples a second that AAC knows, in which the host saves."""
_WHAT = "the driving video"


def prepare_frames(images: torch.Tensor, prepare: Prepare) -> torch.Tensor:
    """`prepare` on all of an IMAGE."""
    return torch.cat([prepare(piece) for piece in images.split(_PIECE)])


def read_driver(video: Any, fps: float, count: int, prepare: Prepare) -> tuple[torch.Tensor, Audio | None]:
    """The first `count` frames of a VIDEO at `fps`, and its audio, which begins with the first frame.

    Returns:
        Prepared frames (N, 3, h, w), N at most `count`, and the AUDIO or None. Raises ValueError for a video without
        frames.
    """
    if isinstance(video, InputImpl.VideoFromFile):
        stream = open_frames(video, fps, _WHAT)
        frames = [prepare(torch.from_numpy(frame)[None].float() / 255) for frame in islice(stream.frames, count)]
        return torch.cat(frames), sound_of(video, stream.start, len(frames) / fps, _WHAT)
    components = video.get_components()
    images = components.images
    if images.shape[0] == 0:
        raise ValueError(f"{_WHAT} has zero frames, expected at least one")
    chosen = images[resample_rate(images.shape[0], float(components.frame_rate), fps)[:count]]
    return prepare_frames(chosen, prepare), components.audio


def sound_of(video: Any, start: float, seconds: float, what: str) -> Audio | None:
    """AUDIO of a VIDEO, at least `seconds` from its file's time `start` on where it lasts so long; no picture is decoded for it.

    None for one without sound. Raises ValueError for a damaged file.
    """
    if not isinstance(video, InputImpl.VideoFromFile):
        return video.get_components().audio
    try:
        with av.open(video.get_stream_source()) as container:
            return _audio(container, start, seconds)
    except av.error.FFmpegError as error:
        raise damaged(error, what) from error


def _audio(container: Any, start: float, seconds: float) -> Audio | None:
    """AUDIO from the file's time `start` on, silence where its stream begins later."""
    stream = next((s for s in container.streams.audio if s.codec_context is not None), None)
    if stream is None:
        return None
    resampler: av.AudioResampler | None = None
    rate, chunks, first = 0, [], None
    for frame in container.decode(stream):
        comfy.model_management.throw_exception_if_processing_interrupted()
        if resampler is None:  # only now is it known what comes
            wanted = frame.sample_rate if frame.sample_rate in _RATES else 48000
            resampler = av.AudioResampler("fltp", _LAYOUTS.get(frame.layout.nb_channels, "stereo"), wanted)
        for part in resampler.resample(frame):
            if part.time is not None and part.time + part.samples / part.sample_rate <= start:
                continue  # of a trimmed file this may be hours
            if first is None:
                first, rate = float(part.time or 0.0), part.sample_rate
            chunks.append(part.to_ndarray())
        if first is not None and frame.time is not None and frame.time > start + seconds:
            break
    if not chunks:
        return None
    waveform = torch.from_numpy(np.concatenate(chunks, 1)).float()
    shift = round((first - start) * rate)
    waveform = torch.nn.functional.pad(waveform, (shift, 0)) if shift > 0 else waveform[:, -shift:]
    return {"waveform": waveform[None], "sample_rate": rate}


def cut_audio(audio: Audio | None, seconds: float) -> Audio | None:
    """The first `seconds` of an AUDIO, to the sample."""
    if audio is None:
        return None
    samples = round(seconds * audio["sample_rate"])
    return {"waveform": audio["waveform"][..., :samples], "sample_rate": audio["sample_rate"]}
