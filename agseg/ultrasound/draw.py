"""Pictures of a result: the timeline, and frames with label, box and map. Pillow only, and no metadata in any of them."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from agseg.io.video.frames import Box
from agseg.ultrasound.localise import Map
from agseg.ultrasound.timeline import BACKGROUND_CLASS, FrameState, Timeline

Rgb = tuple[int, int, int]

_GREY: Rgb = (150, 150, 150)
_UNSURE: Rgb = (90, 90, 90)
_MAP_STRENGTH = 0.45
_BOX_COLOUR: Rgb = (255, 220, 60)

_WIDTH, _LEFT, _LANE, _TOP, _BOTTOM = 1200, 120, 26, 34, 40


def class_colour(classes: tuple[str, ...], name: str) -> Rgb:
    """A colour of its own for each plane, grey for Background."""
    if name == BACKGROUND_CLASS:
        return _GREY
    hue = classes.index(name) / len(classes)
    red, green, blue = colorsys.hls_to_rgb(hue, 0.45, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_timeline(timeline: Timeline) -> Image.Image:
    """One lane per class, shaded by its smoothed probability, and a lane with what was decided.

    Long clips have several frames per column: the largest probability among them is drawn.
    """
    classes = timeline.classes
    height = _TOP + _LANE * (len(classes) + 1) + _BOTTOM
    image = Image.new("RGB", (_WIDTH, height), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    draw.text(
        (8, 8), "Planes over time (smoothed probability); not for clinical decisions without review", fill="black", font=font
    )
    span = _WIDTH - _LEFT - 12
    for lane, name in enumerate(classes):
        y = _TOP + lane * _LANE
        draw.text((8, y + 5), name, fill="black", font=font)
        strip = _shades(_columns_max(timeline.smoothed[:, lane], span), class_colour(classes, name))
        image.paste(Image.fromarray(np.repeat(strip[None], _LANE - 4, axis=0)), (_LEFT, y + 2))
    y = _TOP + len(classes) * _LANE
    draw.text((8, y + 5), "decided", fill="black", font=font)
    _draw_decided(draw, timeline, y + 2, span)
    _draw_axis(draw, timeline, y + _LANE + 4, span, font)
    return image


def annotate(
    pixels: NDArray[np.uint8],
    *,
    label: str,
    state: FrameState,
    probability: float,
    box: Box | None,
    heat: Map | None,
    view: Box,
) -> NDArray[np.uint8]:
    """A frame with what was seen in it.

    Parameters
    ----------
    pixels
        uint8 (row, column, 3), already masked outside the fan.
    box
        In source pixels.
    heat
        float32 (row, column) in [0, 1] at the input's shape, or None.
    view
        The part of the frame that ``heat`` covers; may reach beyond the frame.
    """
    image = Image.fromarray(pixels)
    if heat is not None:
        image = _with_heat(image, heat, view)
    draw = ImageDraw.Draw(image)
    size = max(12, image.width // 45)
    font = ImageFont.load_default(size)
    if box is not None:
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=_BOX_COLOUR, width=max(2, image.width // 320))
    text = f"{label}  {probability:.2f}" if state is not FrameState.UNSURE else f"unsure  ({label} {probability:.2f})"
    left, top, right, bottom = draw.textbbox((size // 2, size // 2), text, font=font)
    draw.rectangle((left - 4, top - 4, right + 4, bottom + 4), fill=(0, 0, 0))
    colour = {FrameState.PLANE: _BOX_COLOUR, FrameState.BACKGROUND: _GREY, FrameState.UNSURE: (230, 140, 90)}[state]
    draw.text((size // 2, size // 2), text, fill=colour, font=font)
    return np.asarray(image)


def _with_heat(image: Image.Image, heat: Map, view: Box) -> Image.Image:
    """The map laid over the picture in red to yellow, as strong as it is."""
    level = Image.fromarray(np.round(np.clip(heat, 0, 1) * 255).astype(np.uint8))
    level = level.resize((view[2] - view[0], view[3] - view[1]), Image.Resampling.BILINEAR)
    placed = Image.new("L", image.size)
    placed.paste(level, (view[0], view[1]))
    strength = placed.point([round(_MAP_STRENGTH * value) for value in range(256)])
    colour = Image.merge("RGB", (Image.new("L", image.size, 255), placed, Image.new("L", image.size)))
    return Image.composite(colour, image, strength)


_FEW_FRAMES = 12
"""A timeline of so many has the room to name each."""


def _columns_max(values: NDArray[np.float32], span: int) -> NDArray[np.float32]:
    """The largest value that falls on each of ``span`` columns."""
    edges = np.linspace(0, len(values), span + 1)
    first = np.minimum(edges[:-1].astype(int), len(values) - 1)
    last = np.maximum(np.ceil(edges[1:]).astype(int), first + 1)
    return np.array([values[a:b].max() for a, b in zip(first, last, strict=True)], dtype=np.float32)


def _shades(values: NDArray[np.float32], colour: Rgb) -> NDArray[np.uint8]:
    """White for 0 to the colour for 1; uint8 (column, 3)."""
    share = np.clip(values, 0, 1)[:, None]
    return np.asarray(np.round(255 * (1 - share) + np.array(colour) * share), dtype=np.uint8)


def _draw_decided(draw: ImageDraw.ImageDraw, timeline: Timeline, y: int, span: int) -> None:
    count = len(timeline.states)
    for index, (state, label) in enumerate(zip(timeline.states, timeline.smoothed_labels, strict=True)):
        colour = _UNSURE if state is FrameState.UNSURE else class_colour(timeline.classes, label)
        x0, x1 = _LEFT + index * span // count, _LEFT + (index + 1) * span // count
        draw.rectangle((x0, y, max(x1 - 1, x0), y + _LANE - 4), fill=colour)


def _draw_axis(
    draw: ImageDraw.ImageDraw, timeline: Timeline, y: int, span: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont
) -> None:
    """Ticks with times, or with frame numbers where there are no times: six, or one for each of a few frames."""
    count = len(timeline.indices)
    steps = max(count - 1, 1) if count <= _FEW_FRAMES else 5
    for tick in range(steps + 1):
        index = round(tick * (count - 1) / steps)
        x = _LEFT + round((index + 0.5) * span / count)
        time_s = timeline.times_s[index]
        text = f"#{timeline.indices[index]}" if time_s is None else f"{int(time_s // 60)}:{time_s % 60:05.2f}"
        draw.line((x, y - 6, x, y - 2), fill="black")
        draw.text((min(x - 14, _WIDTH - 52), y), text, fill="black", font=font)
