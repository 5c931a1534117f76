"""One YAML file a run: what is not stated comes from its preset, what is not known is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from dreamactor_core.clips import ClipSpec, check_size
from dreamactor_core.contract import BACKBONES
from dreamactor_core.motion_context import get_context
from headless.atomic import atomic
from training.errors import UserError
from training.flow import Sampler
from training.precision import native_dtype

PRESETS = Path(__file__).with_name("presets")
BackboneName = Literal["wan2.1-i2v-14b", "wan2.2-i2v-a14b", "hunyuanvideo-1.5-i2v", "marionette"]
MULTIPLE = 16
"""Pixels that sides of a clip are a multiple of: `stride` times `patch` of every backbone. A token must not hold the seam."""


class Section(BaseModel):
    """Unknown keys are refused: a misspelt one would be a setting that silently does nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _several(value: Any) -> Any:
    if isinstance(value, list | tuple) and not value:
        raise ValueError("expected a path, or a list of one at least; leave it out for the default")
    return [value] if isinstance(value, str | Path) else value


Paths = Annotated[tuple[Path, ...] | None, BeforeValidator(_several)]
"""One path or a list of them."""


class Clip(Section):
    """What a sample is. `frames` is 4n+1 with the lead-in, which is in seconds; `sizes` are width and height of one half."""

    fps: float
    frames: int
    lead_in: float
    sizes: tuple[tuple[int, int], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _can_be(self) -> Clip:
        self.spec()
        for width, height in self.sizes:
            try:
                check_size(height, width, MULTIPLE)
            except ValueError as error:
                raise ValueError(f"sizes has {width}x{height}, which tokens can't tile: {error}") from error
        return self

    def spec(self, frames: int | None = None) -> ClipSpec:
        """Of the longest clip, or of one with that many frames."""
        return ClipSpec.from_seconds(frames or self.frames, self.lead_in, self.fps)


class Backbone(Section):
    """The network that learns. `path`: a folder in diffusers' layout; of marionette, None for the networks that ship."""

    name: BackboneName
    path: Path | None = None
    expert: Literal["both", "high_noise", "low_noise"] = "both"
    dtype: Literal["bfloat16", "float32", "auto"] = "bfloat16"  # auto becomes the one that the machine computes in
    base: Literal["full", "fp8", "int8"] = "full"  # how the frozen weights are kept

    @field_validator("dtype")
    @classmethod
    def _of_this_machine(cls, value: str) -> str:
        return native_dtype() if value == "auto" else value

    @model_validator(mode="after")
    def _has_its_experts(self) -> Backbone:
        two = self.name == "wan2.2-i2v-a14b"
        if two == (self.expert == "both"):
            expected = "high_noise or low_noise: it has two experts, train one run each" if two else "both: it has one network"
            raise ValueError(f"expert is {self.expert} for {self.name}, expected {expected}")
        return self


class Augment(Section):
    """Of the skeletons of the pose variant: shares of samples, and the range of the bones' factors."""

    bones: float = Field(0.3, ge=0, le=1)
    low: float = Field(0.8, gt=0)
    high: float = Field(1.2, gt=0)
    normalise: float = Field(1.0, ge=0, le=1)
    other_bodies: float = Field(0.0, ge=0, le=1)  # the proportions of another sample of the same data
    hidden_limbs: float = Field(0.0, ge=0, le=1)  # both arms or both legs unseen, so that only the text tells of them

    @model_validator(mode="after")
    def _is_a_range(self) -> Augment:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}, expected low to be at most high: exchange them")
        return self


class World(Section):
    """Clips of Marionette's drawn world: shares of body plans, and the seed range that they are drawn from."""

    split: Literal["train", "validation", "test"] = "train"
    count: int = Field(960, gt=0)
    first: int = Field(0, ge=0)
    plans: dict[Literal["human", "cartoon", "quadruped", "bird"], float] = {"human": 0.5, "cartoon": 0.5}
    pairs: bool = False  # e2e samples of two characters that do the same: ground truth, which only a drawn world has


class Data(Section):
    """`source`: where clips come from. `folder` of videos or `manifest` (JSONL) as it says; `world` draws them."""

    source: Literal["folder", "manifest", "world"] = "folder"
    folder: Path | None = None
    manifest: Path | None = None
    world: World = World()
    shots: bool = True  # cut at changes of shot
    min_frames: int = Field(49, gt=0)
    max_frames: int = Field(121, gt=0)
    max_upscale: float = Field(1.25, ge=1)  # sources that would be enlarged more are dropped
    poses: Literal["file", "extract", "none"] = "extract"
    pose_model: Literal["dwpose", "rtmw", "animal"] = "dwpose"
    pose_weights: Path | None = None  # folder of the estimator's networks, for `extract`
    device: Literal["auto", "cuda", "cpu"] = "auto"  # of the estimator; auto: CUDA where torch has it, or an error
    captions: Literal["file", "describe", "service", "none"] = "file"
    service: Literal["gemini", "openai_compatible"] = "gemini"  # of Text Fusion, with its `model` and, if not the usual, `base_url`
    model: str = ""
    base_url: str = ""
    workers: int = Field(0, ge=0)  # processes; 0: one a core, or one where the estimator runs; 1: this one alone


class Cache(Section):
    """`variants`: times that each pose sample is augmented and encoded; 0 keeps keypoints and encodes in training."""

    manifest: Path | None = None  # None: that of `data`
    validation: Path | None = None  # held-out samples; None keeps the last of the manifest by `validation_share`
    validation_share: float = Field(0.05, ge=0, lt=1)
    variants: int = Field(1, ge=0)
    # the prompt: as `data` fused it, or the two texts that it was fused from, one after the other
    text: Literal["fused", "concatenated"] = "fused"
    mirror: bool = False  # each sample to train on a second time, left and right exchanged
    shard: int = Field(48, gt=0)
    workers: int = Field(0, ge=0)  # processes; 0: one a core on the CPU, one a GPU
    augment: Augment = Augment()


class Timesteps(Section):
    """Noise levels: sigmoid(mean + std * normal), or uniform; then shifted; then within [low, high], an expert's range."""

    kind: Literal["uniform", "logit_normal"] = "uniform"
    mean: float = 0.0
    std: float = Field(1.0, gt=0)
    shift: float = Field(1.0, gt=0)
    low: float = Field(0.0, ge=0, lt=1)
    high: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _is_a_range(self) -> Timesteps:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}, expected low to be below high: exchange them")
        return self


class Train(Section):
    """`batch` is global: of all processes and accumulated micro-batches together."""

    cache: Paths = None  # several are one together; None: that of this run
    only: Paths = None  # manifests that list which of the cached samples to train on; None: all
    init_lora: Path | None = None  # warm start: weights only; a run that was stopped goes on by itself
    rank: int = Field(256, gt=0)  # the paper's
    steps: int = Field(50_000, gt=0)  # of the optimizer
    batch: int = Field(2, gt=0)
    accumulate: int = Field(1, gt=0)  # micro-batches of a step: each holds batch / (processes x accumulate) samples in memory
    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    lr: float = Field(5e-5, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    schedule: Literal["constant", "trapezoid", "cosine"] = "constant"
    warmup: int = Field(0, ge=0)
    clip_norm: float = Field(1.0, gt=0)  # of the gradient
    ema: float = Field(0.0, ge=0, lt=1)  # of the weights that are saved; 0: none
    loss: Literal["generated", "full"] = "generated"  # over the result's half, or over the driver's too
    weighting: Literal["none", "min_snr"] = "none"
    timesteps: Timesteps = Timesteps()
    drop_text: float = Field(0.1, ge=0, le=1)  # share of samples that are shown an empty prompt, for classifier-free guidance
    checkpointing: bool = True  # gradients
    sharding: Literal["none", "fsdp2"] = "none"  # of the network over the processes of `accelerate launch`
    compile: bool = False
    every: int = Field(500, gt=0)  # steps between checkpoints and validations
    keep: int = Field(2, gt=0)  # LoRA files of earlier checkpoints to keep
    validate_on: int = Field(32, ge=0)  # held-out samples; each costs eight forward passes
    sample_sheets: int = Field(0, ge=0)  # samples on a sheet; 0: none
    sample_every: int = Field(2000, gt=0)  # a multiple of `every`
    sample_workflow: Path | None = None  # API workflow for the sheets; None: of marionette, the one that ships
    tensorboard: bool = True
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _divides(self) -> Train:
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch is {self.batch}, expected a multiple of accumulate, {self.accumulate}: it is the global batch, and "
                f"micro-batches are of one size; change one of them"
            )
        if self.sample_sheets and self.sample_every % self.every:
            raise ValueError(
                f"sample_every is {self.sample_every}, expected a multiple of every, {self.every}: a sheet is made with a "
                f"checkpoint's LoRA; change one of them, or set sample_sheets: 0"
            )
        return self


class Synthesize(Section):
    """Eq. 3. `sources`: clips with poses. `references`: whose first frames (or reference images) are the characters."""

    sources: Path | None = None  # None: the manifest of `data`
    references: Path | None = None  # None: the sources
    count: int = Field(0, ge=0)  # pairs, each source once before any again; 0: every source with every reference
    same_kind: bool = False  # only pairs whose `appearance` is of one body family; for drawn worlds
    teacher: Literal["direct", "comfyui"] = "direct"
    lora: Path | None = None  # direct: the pose LoRA
    workflow: Path | None = None  # comfyui: an API workflow
    # comfyui: `reference`, `driving_poses`, `prompt` ... to "node title.input" or a list of such, `output` to a title
    inputs: dict[str, str | tuple[str, ...]] = {}
    servers: tuple[str, ...] = ()  # comfyui: addresses; none: as many as `workers`, started here
    retarget: bool = True
    steps: int = Field(20, gt=0)
    sampler: Sampler = "euler"
    shift: float = Field(5.0, gt=0)
    cfg: float = Field(1.0, ge=0)
    batch: int = Field(1, gt=0)
    workers: int = Field(0, ge=0)  # 0: one a GPU, or one
    address: str | None = None  # of a Ray cluster; None: this machine
    seed: int = Field(0, ge=0)


Grade = Literal[
    "imaging_quality", "aesthetic_quality", "temporal_consistency", "motion_smoothness", "appearance_consistency",
    "background_consistency",
]  # fmt: skip
"""Video-Bench's dimensions, as the paper reports them."""
GRADES: tuple[Grade, ...] = get_args(Grade)


class Score(Section):
    """`service`: a service of Text Fusion that grades by the questions of Video-Bench; none: the measures alone.

    Its key comes from the environment or `key_file`, as in Text Fusion, and is never written here. `dimensions`: those of the
    paper's main table (A) by default. `motion` needs a pose estimator (`data.pose_weights`), `motion_flow` does not.
    """

    manifest: Path | None = None  # None: that of `synthesize`
    service: Literal["gemini", "openai_compatible", "none"] = "none"
    model: str = ""
    base_url: str = ""
    key_file: Path | None = None  # lines of a host and its key
    timeout: float = Field(300.0, ge=1, le=86400)  # seconds that the service may take for an answer
    prompts: Path | None = None  # folder of edited questions; what is not there is as it ships
    dimensions: tuple[Grade, ...] = ("imaging_quality", "motion_smoothness", "temporal_consistency", "appearance_consistency")
    measures: tuple[Literal["identity", "motion", "motion_flow", "flicker"], ...] = ("identity", "motion", "flicker")
    pose_model: Literal["dwpose", "rtmw", "animal"] = "dwpose"  # for `motion`; its networks are in data.pose_weights too
    workers: int = Field(0, ge=0)  # samples at once; 0: one a core

    @model_validator(mode="after")
    def _knows_its_model(self) -> Score:
        if self.service != "none" and not self.model.strip():
            raise ValueError(f"service is {self.service} and model is empty, expected the name of a model that takes pictures")
        if self.service == "none" and not self.measures:
            raise ValueError("service is none and measures is empty, expected one of them: there is nothing to score by")
        return self


class Filter(Section):
    """Samples pass whose Video-Bench mean exceeds `threshold` (4 in version C of the paper), and whose scores are at least
    `least`, at most `most`, and among the best share by `keep_best` (0.8: the best 80% of all samples)."""

    manifest: Path | None = None  # None: that of `score`
    threshold: float = Field(4.5, ge=1, le=5)
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    keep_best: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}


class Review(Section):
    """The page on which a human accepts or rejects."""

    manifest: Path | None = None  # None: that of `filter`


class Config(Section):
    """A run. `out` is the folder that all verbs write to, each in its own."""

    preset: str | None = None
    out: Path
    variant: Literal["pose", "rgb"] = "pose"
    layout: Literal["spatial", "temporal"] = "spatial"
    motion_context: Literal["joint", "cached", "cached_near", "cached_half", "cached_near_half"] = "joint"
    clip: Clip
    backbone: Backbone
    data: Data = Data()
    cache: Cache = Cache()
    train: Train = Train()
    synthesize: Synthesize = Synthesize()
    score: Score = Score()
    filter: Filter = Filter()
    review: Review = Review()
    notes: dict[str, str] = {}  # of a preset: memory, seconds a step, disk a clip, each with where it is from

    @model_validator(mode="after")
    def _context_fits(self) -> Config:
        context = get_context(self.motion_context)
        if context.cached and self.layout != "spatial":
            raise ValueError(f"motion_context is {context.name} with layout {self.layout}, expected spatial")
        if context.cached and not BACKBONES[self.backbone.name].cached_contexts:
            raise ValueError(f"motion_context is {context.name} for {self.backbone.name}, expected joint: cached ones are for Wan")
        if context.cached and self.train.loss == "full":
            raise ValueError(f"train.loss is full with motion_context {context.name}, expected generated: it has no other half")
        for width, height in self.clip.sizes:
            try:
                check_size(height, width, MULTIPLE * context.scale)
            except ValueError as error:
                raise ValueError(f"clip.sizes has {width}x{height}, with motion_context {context.name}: {error}") from error
        return self

    @model_validator(mode="after")
    def _sheets_can_be_made(self) -> Config:
        name, train = self.backbone.name, self.train
        if train.sample_sheets and name == "wan2.2-i2v-a14b":
            raise ValueError(
                f"train.sample_sheets is {train.sample_sheets} for {name}, expected 0: its workflow needs the LoRAs of both "
                f"experts, and a run makes one"
            )
        if train.sample_sheets and train.sample_workflow is None and name != "marionette":
            raise ValueError(
                f"train.sample_sheets is {train.sample_sheets} and train.sample_workflow is not given; name an API workflow of "
                f"workflows/api/ whose loaders name the files of your ComfyUI, or set sample_sheets: 0"
            )
        return self

    @field_validator("out")
    @classmethod
    def _is_a_folder(cls, value: Path) -> Path:
        if value.exists() and not value.is_dir():
            raise ValueError(f"{value} is a file, expected the name of a folder")
        return value


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` put over `under`, section by section; lists and values are replaced."""
    result = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def presets() -> list[str]:
    """Names of the presets that ship."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no {path}; write one, beginning with `preset:` and one of {', '.join(presets())}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read as YAML: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds {type(found).__name__}, expected keys and values")
    return found


def load(path: Path) -> Config:
    """Read a run's file, over its preset. Paths in it are taken from the current folder.

    Raises:
        UserError: the file, a key or a value is wrong; every one of them is named.
    """
    return from_values(_read(path), str(path))


def from_values(given: dict[str, Any], where: str) -> Config:
    """What a run's file says, put over its preset. Raises UserError."""
    preset = given.get("preset")
    if preset is not None:
        if preset not in presets():
            raise UserError(f"{where}: preset is {preset!r}, expected one of {', '.join(presets())}")
        given = merged(_read(PRESETS / f"{preset}.yaml"), given)
    return validated(given, where)


def validated(values: dict[str, Any], where: str) -> Config:
    """A config out of plain values. Raises UserError that names every wrong key."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = []
        for one in error.errors():
            key = ".".join(str(part) for part in one["loc"]) or "the file"
            known = " (unknown key)" if one["type"] == "extra_forbidden" else ""
            lines.append(f"{key}{known}: {one['msg']}, got {str(one['input'])[:80]!r}")
        raise UserError(f"{where}:\n  " + "\n  ".join(lines)) from error


def save(config: Config, folder: Path) -> Path:
    """Write the resolved config beside what was made by it."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "config.yaml") as partial:
        partial.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True), "utf-8")
    return folder / "config.yaml"
