"""The networks that are known: where each file comes from, how to tell it, and how it is fed and read.

The input sizes are those of the files; a file that states its own is believed. The sha256 values are those that the
publishers' pages and archives give; they are what a download must have. All weights are under Apache-2.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PERSON = frozenset({0})
"""The class of people, in COCO's numbering and in that of detectors that know nothing else."""
ANIMALS = frozenset(range(14, 24))
"""COCO's bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe."""

_OPENMMLAB = "https://download.openmmlab.com/mmpose/v1/projects/"
_MIRROR = "https://huggingface.co/Tau-J/RTMPose/resolve/main/"  # of the same files, by the networks' author
_DWPOSE = "https://huggingface.co/yzd-v/DWPose/resolve/main/"

Layout = Literal["coco_wholebody", "ap10k"]


@dataclass(frozen=True)
class Source:
    """Where a file comes from.

    Attributes:
        url: https, of the file itself or of a zip that holds it as `end2end.onnx`.
        archive_sha256: Of the zip; empty when the address is the file's own.
    """

    url: str
    archive_sha256: str = ""


@dataclass(frozen=True)
class WeightFile:
    """One ONNX file.

    Attributes:
        name: Its name in the model folder.
        sha256: Of the ONNX file.
        size: Its bytes.
        sources: The first that gives it is taken.
        aliases: Names under which other programs keep the same file.
    """

    name: str
    sha256: str
    size: int
    sources: tuple[Source, ...]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class PoseModel:
    """A detector and a pose network that go together.

    Attributes:
        title: For people.
        detector: Finds whoever has one of `classes`; square input of `detector_side` pixels, BGR in 0-255.
        network: Finds the joints in a crop; `input_size` is its height and width, RGB.
        layout: What its joints are.
        beta: The factor with which training turned the network's peaks into probabilities. A peak times beta / 10 is on the
            scale of the networks that everybody knows, on which a joint that is plainly seen is near 1.
    """

    title: str
    detector: WeightFile
    network: WeightFile
    layout: Layout
    input_size: tuple[int, int]
    beta: float
    classes: frozenset[int] = PERSON
    detector_side: int = 640


def _zips(path: str, sha256: str) -> tuple[Source, ...]:
    return tuple(Source(site + path, sha256) for site in (_OPENMMLAB, _MIRROR))


YOLOX_L = WeightFile(
    "yolox_l.onnx",
    "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
    216_746_733,
    (Source(_DWPOSE + "yolox_l.onnx"),),
)
YOLOX_M_HUMAN_ART = WeightFile(
    "yolox_m_8xb8-300e_humanart-c2c7a14a.onnx",
    "3dea6513388889f0fff4b77bf7a26013600321b9eb9ceb0e9a400a82572f5f23",
    101_400_344,
    _zips(
        "rtmposev1/onnx_sdk/yolox_m_8xb8-300e_humanart-c2c7a14a.zip",
        "a000224fd8ba283202bc62d4a5fcdfe353adb9f468777dbac1ea2ada2093adde",
    ),
)
DWPOSE_L = WeightFile(
    "dw-ll_ucoco_384.onnx",
    "724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
    134_399_116,
    (Source(_DWPOSE + "dw-ll_ucoco_384.onnx"),),
)
RTMW_L = WeightFile(
    "rtmw-dw-x-l_simcc-cocktail14_270e-384x288_20231122.onnx",
    "bd033156e5104c4f5d2edfe0453e02661e30a2f3da453ec93c8764d561b83054",
    229_320_930,
    _zips(
        "rtmw/onnx_sdk/rtmw-dw-x-l_simcc-cocktail14_270e-384x288_20231122.zip",
        "a87e1af41a0a067776dba7d46e1c21c8f6e9f18e247e0e606718dd1f31e96ffd",
    ),
)
AP10K_M = WeightFile(
    "rtmpose-m_ap10k_256.onnx",
    "1cfd1c86e0d9e5d5f95178bcd95ee9a4e8386a624cd3c57519f27ff58cac7f28",
    54_478_120,
    (
        Source("https://huggingface.co/hr16/UnJIT-DWPose/resolve/main/rtmpose-m_ap10k_256.onnx"),
        Source(
            _OPENMMLAB + "rtmposev1/onnx_sdk/rtmpose-m_simcc-ap10k_pt-aic-coco_210e-256x256-7a041aa1_20230206.zip",
            "2d75445331cf2f21d6e164430f96ffa765cd874872965ae1736932dda03987f0",
        ),
    ),
    aliases=("rtmpose-m_simcc-ap10k_pt-aic-coco_210e-256x256-7a041aa1_20230206.onnx",),
)

MODELS = {
    "dwpose": PoseModel("DWPose-l, whole body", YOLOX_L, DWPOSE_L, "coco_wholebody", (384, 288), beta=10.0),
    # its detector and itself have seen drawn people in training too
    "rtmw": PoseModel("RTMW-l, whole body", YOLOX_M_HUMAN_ART, RTMW_L, "coco_wholebody", (384, 288), beta=1.0),
    "animal": PoseModel("RTMPose-m AP-10K, animals", YOLOX_L, AP10K_M, "ap10k", (256, 256), beta=10.0, classes=ANIMALS),
}
"""By the name that the node offers."""
