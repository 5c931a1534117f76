"""Driving videos: frames by their timestamps, and the audio that goes with them.

Files are read here and not by the host's `get_components`, which decodes all of a file into memory, takes the frame
rate to be constant, and starts the audio wherever its stream starts. That is also what becomes of a video that another
node trimmed or made: the host hands out its frames, at a constant rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import av
import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import InputImpl

from ..dreamactor_core.clips import resample_by_timestamp, resample_rate

Audio = dict[str, Any]
Prepare = Callable[[torch.Tensor], torch.Tensor]
"""IMAGE (n, H, W, 3) in [0, 1] to frames of a clip, (n, 3, h, w): done piece by piece, as a driver may be large."""

_PIECE = 16


def prepare_frames(images: torch.Tensor, prepare: Prepare) -> torch.Tensor:
    """`prepare` on all of an IMAGE."""
    return torch.cat([prepare(piece) for piece in images.split(_PIECE)])


def read_driver(video: Any, fps: float, count: int, prepare: Prepare) -> tuple[torch.Tensor, Audio | None]:
    """The first `count` frames of a VIDEO at `fps`, and its audio, which begins with the first frame.

    Returns:
        Prepared frames (N, 3, h, w), N at most `count`, and the AUDIO or None. Raises ValueError for a video without
        frames.
    """
    if isinstance(video, InputImpl.VideoFromFile) and video.get_active_trim_window() == (0.0, 0.0):
        try:
            return _read_file(video, fps, count, prepare)
        except av.error.FFmpegError as error:
            raise ValueError(f"the driving video cannot be read ({error}); it is damaged, re-encode it") from error
    components = video.get_components()
    images = components.images
    if images.shape[0] == 0:
        raise ValueError("the driving video has zero frames, expected at least one")
    chosen = images[resample_rate(images.shape[0], float(components.frame_rate), fps)[:count]]
    return prepare_frames(chosen, prepare), components.audio


def _read_file(video: Any, fps: float, count: int, prepare: Prepare) -> tuple[torch.Tensor, Audio | None]:
    with av.open(video.get_stream_source()) as container:
        if not container.streams.video:
            raise ValueError("the driving file has no video stream")
        times, end = timestamps(container, container.streams.video[0], fps)
    wanted = resample_by_timestamp(times, end, fps)[:count]
    with av.open(video.get_stream_source()) as container:
        kept = _decode(container, set(wanted.tolist()), prepare)
    missing = [int(i) for i in wanted if int(i) not in kept]
    if missing:
        raise ValueError(
            f"the driving video ends at frame {max(kept, default=-1) + 1}, its index says {len(times)}; it is cut short or "
            f"damaged, re-encode it"
        )
    frames = torch.stack([kept[int(i)] for i in wanted])
    with av.open(video.get_stream_source()) as container:
        audio = _audio(container, times[0], len(wanted) / fps)
    return frames, audio


def timestamps(container: Any, stream: Any, fps: float) -> tuple[list[float], float]:
    """Seconds at which each frame appears, in order, and at which the last one ends. Nothing is decoded for it."""
    # those to discard lie before the cut of a file that was cut without re-encoding: they are decoded but never shown
    packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
    if not packets:
        raise ValueError("the driving video has zero frames, expected at least one")
    usual = float(1 / stream.average_rate) if stream.average_rate else 1 / fps
    if any(packet.pts is None for packet in packets):
        return [i * usual for i in range(len(packets))], len(packets) * usual
    last = max(packets, key=lambda packet: packet.pts)
    times = sorted(float(packet.pts * packet.time_base) for packet in packets)
    return times, times[-1] + (float(last.duration * last.time_base) if last.duration else usual)


def _decode(container: Any, wanted: set[int], prepare: Prepare) -> dict[int, torch.Tensor]:
    """The wanted frames, prepared, by index in presentation order; the others are not kept."""
    kept: dict[int, torch.Tensor] = {}
    for index, frame in enumerate(container.decode(video=0)):
        comfy.model_management.throw_exception_if_processing_interrupted()
        if index in wanted:
            picture = frame.to_ndarray(format="rgb24")
            # phones store frames as the sensor lies, and how to turn them
            upright = np.rot90(picture, round(frame.rotation / 90)).copy() if frame.rotation else picture
            kept[index] = prepare(torch.from_numpy(upright)[None].float() / 255)[0]
        if index >= max(wanted):
            break
    return kept


def _audio(container: Any, start: float, seconds: float) -> Audio | None:
    """AUDIO from the file's time `start` on, silence where its stream begins later."""
    stream = next((s for s in container.streams.audio if s.codec_context is not None), None)
    if stream is None:
        return None
    resampler = av.AudioResampler(format="fltp")
    rate, chunks, first = 0, [], None
    for frame in container.decode(stream):
        for part in resampler.resample(frame):
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
