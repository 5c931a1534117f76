"""The demo's pictures: a contact sheet, and a film with reference, driver and result side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_BACKGROUND = (24, 24, 28)
_INK = (235, 235, 235)
_GAP = 6
_LINE = 22  # height of a line of text


@dataclass(frozen=True, eq=False)
class Block:
    """One job's pictures.

    Attributes:
        title: A short line.
        reference: The character.
        rows: Label and frames; all rows are as long as `times`, and the frames of each are of one size.
        times: Seconds.
    """

    title: str
    reference: np.ndarray
    rows: Sequence[tuple[str, Sequence[np.ndarray]]]
    times: Sequence[float]


def fit_picture(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Letterbox a picture onto a cell. What grows is not smoothed, so that a small model's pixels stay visible."""
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA)
    cell = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = resized
    return cell


def cell_size(frame: np.ndarray, wanted: int) -> tuple[int, int]:
    """Height and width of a cell about `wanted` high for such frames; a whole multiple of smaller ones."""
    height, width = frame.shape[:2]
    scale = max(1, round(wanted / height)) if height <= wanted else wanted / height
    return round(height * scale), round(width * scale)


def _canvas(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), _BACKGROUND, np.uint8)


def _write(canvas: np.ndarray, text: str, x: int, y: int, size: float = 0.45) -> None:
    ascii_only = text.encode("ascii", "replace").decode()  # OpenCV's font has nothing else
    cv2.putText(canvas, ascii_only, (x, y + _LINE - 7), cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)


def _paste(canvas: np.ndarray, picture: np.ndarray, x: int, y: int) -> None:
    canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture


def _block_sheet(block: Block, columns: int, wanted: int) -> np.ndarray:
    height, width = cell_size(block.rows[-1][1][0], wanted)
    picks = np.linspace(0, len(block.times) - 1, min(columns, len(block.times))).round().astype(int)
    total_height = _LINE + len(block.rows) * (_LINE + height + _GAP) + _GAP
    canvas = _canvas(total_height, _GAP + (1 + len(picks)) * (width + _GAP) + _GAP)
    _write(canvas, block.title, _GAP, 0, 0.5)
    _write(canvas, "reference", _GAP, _LINE)
    _paste(canvas, fit_picture(block.reference, height, width), _GAP, 2 * _LINE)
    for row, (label, frames) in enumerate(block.rows):
        y = _LINE + row * (_LINE + height + _GAP)
        for column, t in enumerate(picks):
            x = 2 * _GAP + (1 + column) * (width + _GAP)
            _write(canvas, label if column == 0 else f"{block.times[t]:.2f} s", x, y)
            _paste(canvas, fit_picture(frames[t], height, width), x, y + _LINE)
    return canvas


def contact_sheet(blocks: Sequence[Block], columns: int = 8, cell: int = 192) -> np.ndarray:
    """One picture: for every block the reference, and under each other its rows at `columns` moments."""
    sheets = [_block_sheet(block, columns, cell) for block in blocks]
    canvas = _canvas(sum(s.shape[0] for s in sheets) + _GAP, max(s.shape[1] for s in sheets))
    y = _GAP
    for sheet in sheets:
        _paste(canvas, sheet, 0, y)
        y += sheet.shape[0]
    return canvas


def _side_by_side(block: Block, t: int, wanted: int) -> np.ndarray:
    height, width = cell_size(block.rows[-1][1][0], wanted)
    panels = [("reference", block.reference), *((label, frames[t]) for label, frames in block.rows)]
    canvas = _canvas(2 * _LINE + height + _GAP, _GAP + len(panels) * (width + _GAP))
    _write(canvas, block.title, _GAP, 0, 0.5)
    for k, (label, picture) in enumerate(panels):
        x = _GAP + k * (width + _GAP)
        _write(canvas, label, x, _LINE)
        _paste(canvas, fit_picture(picture, height, width), x, 2 * _LINE)
    return canvas


def film(blocks: Sequence[Block], fps: float, cell: int = 384, rounds: int = 2) -> Iterator[np.ndarray]:
    """The blocks one after another, each shown `rounds` times, as frames of one size at `fps`."""
    shapes = [_side_by_side(block, 0, cell).shape for block in blocks]
    height, width = max(s[0] for s in shapes), max(s[1] for s in shapes)
    for block in blocks:
        step = block.times[1] - block.times[0] if len(block.times) > 1 else 1 / fps
        ticks = np.arange(round(len(block.times) * step * fps)) / fps
        shown = np.clip(np.searchsorted(block.times, ticks + 1e-6, side="right") - 1, 0, len(block.times) - 1)
        for _ in range(rounds):
            for t in shown:
                canvas = _canvas(height, width)
                _paste(canvas, _side_by_side(block, int(t), cell), 0, 0)
                yield canvas
