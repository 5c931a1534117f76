"""ONNX networks whose answer is known, and the pictures they read: the detector finds rectangles, the pose network finds dots.

The detector sees BGR in 0-255, the pose network RGB with mean and standard deviation taken out, which it undoes: only what is
fed as the real networks are fed shows them the colours that they look for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PEOPLE = ((120, 30, 60), (20, 110, 40), (30, 50, 120), (110, 100, 10), (10, 100, 110), (100, 20, 115))
"""RGB of rectangles. No channel is bright: a dot's colour does not come up where the two blend."""
PERSON, DOG = 0, 16


def dot_colours(count: int) -> np.ndarray:
    """RGB (count, 3), far from each other, all with a channel of 255: where one blends with black or dark, it is none of them."""
    levels = np.linspace(0, 255, 8).round()
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    bright = grid[(grid == 255).any(1)]
    return bright[np.linspace(0, len(bright) - 1, count).round().astype(int)]


class Graph:
    """Nodes that are added one by one; every value is known by its name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: object, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        name = name or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def over(self, kind: str, value: str, axes: Sequence[int], keep: int = 1) -> str:
        return self.add(kind, value, self.const(axes, np.int64), keepdims=keep)

    def save(self, path: Path, shape: Sequence[int | str], outputs: dict[str, tuple[int, Sequence[int | str]]]) -> Path:
        made = helper.make_graph(
            self.nodes,
            "markers",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, list(shape))],
            [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in outputs.items()],
            self.constants,
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        return path


def rectangle_detector(
    path: Path,
    side: int = 640,
    colours: Sequence[Sequence[int]] = PEOPLE,
    kinds: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    packed: bool = False,
    open_size: bool = False,
) -> Path:
    """A YOLOX that finds, for each colour, the box around all its pixels.

    Args:
        kinds: Class of each colour in COCO's numbering; all people if not given.
        scores: Score of each, 0.9 if not given.
        packed: With boxes and labels as its outputs, as exported with the selection of boxes inside; else with the bare
            (1, rows, 85) of YOLOX.
        open_size: The file does not say how large the input is.
    """
    graph, count = Graph(), len(colours)
    bgr = np.array(colours, np.float32)[:, ::-1].reshape(count, 3, 1, 1)
    off = graph.over("ReduceMax", graph.add("Abs", graph.add("Sub", "input", graph.const(bgr))), [1])
    mask = graph.add("Cast", graph.add("Less", off, graph.const(14.0)), to=TensorProto.FLOAT)  # (count, 1, side, side)
    ramp, lines = np.arange(side, dtype=np.float32), []

    def edges(away: int, shape: tuple[int, ...]) -> tuple[str, str]:
        # a few pixels are where a dot blends with what it lies on, and no rectangle
        enough = graph.add("Less", graph.const(7.5), graph.over("ReduceSum", mask, [away]))
        line = graph.add("Cast", enough, to=TensorProto.FLOAT)
        lines.append(line)
        high = graph.over("ReduceMax", graph.add("Mul", line, graph.const((ramp + 1).reshape(shape))), [1, 2, 3])
        low = graph.over("ReduceMax", graph.add("Mul", line, graph.const((side - ramp).reshape(shape))), [1, 2, 3])
        return tuple(
            graph.add("Reshape", value, graph.const([count, 1], np.int64))
            for value in (graph.add("Sub", graph.const(float(side)), low), high)
        )

    x0, x1 = edges(2, (1, 1, 1, side))
    y0, y1 = edges(3, (1, 1, side, 1))
    both = graph.add("Mul", *(graph.over("ReduceMax", line, [1, 2, 3]) for line in lines))
    there = graph.add("Reshape", both, graph.const([count, 1], np.int64))
    score = graph.add("Mul", there, graph.const(np.reshape(scores or [0.9] * count, (count, 1))))
    shape = [1, 3, "height", "width"] if open_size else [1, 3, side, side]
    labels = np.array(kinds or [PERSON] * count)
    if packed:
        rows = graph.add("Concat", x0, y0, x1, y1, score, axis=1)
        graph.add("Reshape", rows, graph.const([1, count, 5], np.int64), name="dets")
        graph.add("Identity", graph.const(labels.reshape(1, count), np.int64), name="labels")
        return graph.save(path, shape, {"dets": (TensorProto.FLOAT, (1, count, 5)), "labels": (TensorProto.INT64, (1, count))})
    centre, size = [], []
    # the row of colour k is the cell (k, 0) of the grid of stride 8
    for low, high, cell in ((x0, x1, np.arange(count)), (y0, y1, np.zeros(count))):
        middle = graph.add("Div", graph.add("Add", low, high), graph.const(16.0))
        centre.append(graph.add("Sub", middle, graph.const(cell.reshape(count, 1))))
        length = graph.add("Max", graph.add("Sub", high, low), graph.const(1.0))
        size.append(graph.add("Log", graph.add("Div", length, graph.const(8.0))))
    classes = graph.const(np.eye(80)[labels])
    rows = graph.add("Concat", *centre, *size, score, classes, axis=1)
    cells = sum((side // stride) ** 2 for stride in (8, 16, 32))
    every = graph.add("Concat", rows, graph.const(np.zeros((cells - count, 85))), axis=0)
    graph.add("Reshape", every, graph.const([1, cells, 85], np.int64), name="output")
    return graph.save(path, shape, {"output": (TensorProto.FLOAT, (1, cells, 85))})


def dot_network(
    path: Path,
    joints: int = 133,
    size: tuple[int, int] = (384, 288),
    peaks: tuple[float, float] = (0.9, 0.9),
    poison: bool = False,
    open_size: bool = False,
) -> Path:
    """A pose network that finds, for each joint, the middle of all pixels of its colour, to half a pixel.

    Args:
        size: Height and width of its input.
        peaks: Its scores along x and along y where a dot is; 0 where none is.
        poison: The first joint's scores are NaN.
    """
    graph, (height, width) = Graph(), size
    colours = dot_colours(joints).astype(np.float32)
    std, mean = (np.array(value, np.float32).reshape(1, 3, 1, 1) for value in (STD, MEAN))
    pixels = graph.add("Add", graph.add("Mul", "input", graph.const(std)), graph.const(mean))
    # the squared distance to a colour c is p.p - (2c.p - c.c), of which the bracket is a convolution
    bracket = graph.add("Conv", pixels, graph.const(2 * colours.reshape(joints, 3, 1, 1)), graph.const(-(colours**2).sum(1)))
    own = graph.over("ReduceSum", graph.add("Mul", pixels, pixels), [1])
    mask = graph.add("Cast", graph.add("Less", graph.add("Sub", own, bracket), graph.const(12.0**2)), to=TensorProto.FLOAT)
    outputs = {}
    for name, away, count, peak in (("simcc_x", 2, width, peaks[0]), ("simcc_y", 3, height, peaks[1])):
        line = graph.over("ReduceSum", mask, [away], keep=0)  # (1, joints, count)
        total = graph.over("ReduceSum", line, [2])
        moment = graph.over("ReduceSum", graph.add("Mul", line, graph.const(np.arange(count).reshape(1, 1, count))), [2])
        middle = graph.add("Div", moment, graph.add("Max", total, graph.const(1.0)))
        bins = graph.const(np.arange(2 * count).reshape(1, 1, 2 * count))
        off = graph.add("Abs", graph.add("Sub", bins, graph.add("Mul", middle, graph.const(2.0))))
        slope = graph.add("Sub", graph.const(peak), graph.add("Mul", off, graph.const(1e-4)))
        there = graph.add("Min", graph.add("Max", graph.add("Sub", total, graph.const(2.0)), graph.const(0.0)), graph.const(1.0))
        venom = np.where(np.arange(joints) == 0, np.nan if poison else 0.0, 0.0).reshape(1, joints, 1)
        graph.add("Add", graph.add("Mul", slope, there), graph.const(venom), name=name)
        outputs[name] = (TensorProto.FLOAT, (1, joints, 2 * count))
    shape = [1, 3, "height", "width"] if open_size else [1, 3, height, width]
    return graph.save(path, shape, outputs)


@dataclass(frozen=True)
class Drawn:
    """A person in a picture: a rectangle of a colour with dots on it.

    Attributes:
        box: x0, y0, x1, y1.
        dots: Where the joints are, (joints, 2), whole pixels; NaN for those that are hidden.
        colour: Which of PEOPLE.
        radius: Of the dots.
    """

    box: tuple[int, int, int, int]
    dots: np.ndarray
    colour: int = 0
    radius: int = 4


def person(box: tuple[int, int, int, int], joints: int = 133, colour: int = 0, radius: int = 4, seed: int = 0) -> Drawn:
    """Somebody whose joints lie in random order on a grid that fills the box."""
    x0, y0, x1, y1 = box
    columns = int(np.ceil(np.sqrt(joints * (x1 - x0) / (y1 - y0))))
    rows = int(np.ceil(joints / columns))
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2)
    cells = np.random.default_rng(seed).permutation(cells)[:joints]
    room = np.array([x1 - x0, y1 - y0]) / np.array([columns, rows])
    assert room.min() > 2 * radius + 2, f"dots of radius {radius} do not fit into {room}"
    return Drawn(box, np.floor((cells + 0.5) * room + (x0, y0)), colour, radius)


def draw(height: int, width: int, people: Sequence[Drawn]) -> np.ndarray:
    """A picture, RGB uint8; later people hide earlier ones. Nothing is smoothed."""
    frame = np.zeros((height, width, 3), np.uint8)
    for one in people:
        x0, y0, x1, y1 = one.box
        frame[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = PEOPLE[one.colour]
        for dot, colour in zip(one.dots, dot_colours(len(one.dots)), strict=True):
            if np.isfinite(dot).all():
                cv2.circle(frame, dot.astype(int).tolist(), one.radius, colour.tolist(), -1)
    return frame
