"""viewer.html: every axial slice of a study with its contours, to scroll through in a browser, offline and without a server.

One self-contained file: slices as JPEG in the soft tissue window, contours as transparent PNG over them. It shows what was
found; it is no diagnostic viewer (8 bits, one window, at most 512 pixels). A page that is opened from a folder may not read the
files beside it, so a viewer of volumes (NiiVue) would need image and mask inside the page too, some 50 to 200 MB.
"""

from __future__ import annotations

import base64
import io
import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agseg.io.atomic import write_text
from agseg.io.drawing import as_ras, grey, window
from agseg.io.html.assets import policy_of
from agseg.report import DISCLAIMER
from agseg.volume import LabelMask, Volume

if TYPE_CHECKING:
    from PIL.Image import Image

VIEWER_HTML = "viewer.html"

LONGEST_SIDE_PX = 512
MOST_SLICES = 400
"""More slices are thinned out evenly: the page stays below some 20 MB."""

_JPEG_QUALITY = 70

_CONTOUR_PX = 2
_FILL = 50
"""How much of an organ's colour lies inside its contour (of 255): what is under it stays visible."""

_STYLE = """
body{margin:0;background:#111;color:#eee;font:1rem/1.4 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:60rem;margin:0 auto;padding:1rem}
h1{font-size:1.1rem;overflow-wrap:anywhere}
.stage{position:relative;width:min(100%,72vh);margin:0 auto;background:#000;outline-offset:3px}
.stage img{display:block;width:100%;height:auto}.stage .over{position:absolute;inset:0;image-rendering:pixelated}
.side{position:absolute;color:#fff;font-weight:600;text-shadow:0 0 3px #000,0 0 3px #000;pointer-events:none}
.r{left:.4rem;top:50%}.l{right:.4rem;top:50%}.a{top:.2rem;left:50%}.p{bottom:.2rem;left:50%}
.row{display:flex;flex-wrap:wrap;gap:.5rem 1.2rem;align-items:center;margin:.7rem 0}
input[type=range]{flex:1 1 20rem;min-height:1.6rem}
label{display:flex;gap:.4rem;align-items:center}
.swatch{width:1rem;height:1rem;display:inline-block;border:1px solid #888}
:focus-visible{outline:3px solid #8ab8f5}
.disclaimer{color:#ffcd5a;font-weight:600}
"""

_SCRIPT = """
(function () {
  "use strict";
  var data = JSON.parse(document.getElementById("slices").textContent);
  var base = document.getElementById("base"), over = document.getElementById("over");
  var slider = document.getElementById("slice"), shown = document.getElementById("shown");
  var opacity = document.getElementById("opacity");
  function show() {
    var slice = data[Number(slider.value)];
    base.src = "data:image/jpeg;base64," + slice.image;
    over.src = "data:image/png;base64," + slice.over;
    base.alt = "Axial slice at " + slice.position + ": " + (slice.organs || "no organ found");
    shown.textContent = (Number(slider.value) + 1) + " of " + data.length + ", " + slice.position +
      (slice.organs ? ": " + slice.organs : "");
    slider.setAttribute("aria-valuetext", shown.textContent);
  }
  function step(by) {
    slider.value = String(Number(slider.value) + by);
    show();
  }
  slider.addEventListener("input", show);
  opacity.addEventListener("input", function () { over.style.opacity = String(Number(opacity.value) / 100); });
  document.getElementById("stage").addEventListener("wheel", function (event) {
    event.preventDefault();
    step(event.deltaY > 0 ? -1 : 1);
  }, {passive: false});
  document.addEventListener("keydown", function (event) {
    if (event.target === slider || event.target === opacity) { return; }
    var by = {ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10}[event.key];
    if (by) { step(by); event.preventDefault(); }
  });
  over.style.opacity = String(Number(opacity.value) / 100);
  show();
}());
"""


def write_viewer(folder: Path, volume: Volume, mask: LabelMask, *, title: str) -> tuple[str, ...]:
    """Write the page; returns its name.

    Parameters
    ----------
    folder
        Where.
    volume, mask
        Image and labels (i, j, k) on the same grid, in any orientation.
    title
        The study's name.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    image, grid = as_ras(volume.voxels, volume.grid)
    labels, _ = as_ras(mask.labels, mask.grid)
    limits = window(image, volume.quantity)
    names = {label.index: label.title for label in mask.label_set}
    colours = np.zeros((256, 4), dtype=np.uint8)
    for label in mask.label_set:
        colours[label.index] = (*label.rgb, 255)
    numbers = np.unique(np.linspace(0, grid.shape[2] - 1, min(MOST_SLICES, grid.shape[2])).round().astype(int))
    size_px = _size_px((grid.shape[1] * grid.spacing_mm[1], grid.shape[0] * grid.spacing_mm[0]), max(grid.shape[:2]))
    slices = []
    for k in numbers:
        plane = np.asarray(image[:, :, k].T[::-1, ::-1], dtype=np.float32)
        marked = np.asarray(labels[:, :, k].T[::-1, ::-1])
        found = [names[int(value)] for value in np.unique(marked) if value]
        position_mm = float(grid.to_world([[0, 0, int(k)]])[0][2])
        slices.append(
            {
                "image": _encoded(_resized(grey(plane, limits), size_px, smooth=True), "JPEG"),
                "over": _encoded(_overlay(marked, colours, size_px), "PNG"),
                "position": f"S {position_mm:+.0f} mm",
                "organs": ", ".join(found),
            }
        )
    write_text(folder / VIEWER_HTML, _page(title, slices, mask, start=_fullest(labels, numbers)))
    return (VIEWER_HTML,)


def _overlay(marked: NDArray[np.uint8], colours: NDArray[np.uint8], size_px: tuple[int, int]) -> Image:
    """The organs of a slice (uint8, rows and columns) as contours with a tinge inside."""
    import PIL.Image

    large = np.asarray(_resized(marked, size_px, smooth=False))
    inside = np.ones(large.shape, dtype=bool)
    for axis in (0, 1):
        for by in range(1, _CONTOUR_PX + 1):
            same = large.take(range(by, large.shape[axis]), axis) == large.take(range(large.shape[axis] - by), axis)
            edge = [(0, 0), (0, 0)]
            edge[axis] = (by, 0)
            inside &= np.pad(same, edge)
            edge[axis] = (0, by)
            inside &= np.pad(same, edge)
    pixels = colours[large]
    pixels[inside & (large > 0), 3] = _FILL
    return PIL.Image.fromarray(pixels)


def _size_px(size_mm: tuple[float, float], voxels: int) -> tuple[int, int]:
    """Height and width: true to scale, and no more pixels than the scan has."""
    per_mm = min(LONGEST_SIDE_PX, max(voxels, 128)) / max(size_mm)
    return max(1, round(size_mm[0] * per_mm)), max(1, round(size_mm[1] * per_mm))


def _fullest(labels: NDArray[Any], numbers: NDArray[np.int64]) -> int:
    """Which of the slices shows most organ."""
    return int(np.argmax([np.count_nonzero(labels[:, :, k]) for k in numbers]))


def _resized(pixels: NDArray[np.uint8], size_px: tuple[int, int], *, smooth: bool) -> Image:
    import PIL.Image

    how = PIL.Image.Resampling.BILINEAR if smooth else PIL.Image.Resampling.NEAREST
    return PIL.Image.fromarray(np.ascontiguousarray(pixels)).resize((size_px[1], size_px[0]), how)


def _encoded(picture: Image, form: str) -> str:
    stream = io.BytesIO()
    if form == "JPEG":
        picture.convert("L").save(stream, format=form, quality=_JPEG_QUALITY)
    else:
        picture.quantize(256).save(stream, format=form, optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _page(title: str, slices: list[dict[str, str]], mask: LabelMask, *, start: int) -> str:
    legend = "".join(
        f'<label><svg class="swatch" role="img" aria-label="colour of {escape(label.title)}">'
        f'<rect width="16" height="16" fill="rgb{label.rgb}"/></svg>{escape(label.title)}</label>'
        for label in mask.label_set
    )
    # A data block is no script; "<" would end it early.
    data = json.dumps(slices).replace("<", "\\u003c")
    said = escape(title)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy_of(_STYLE, _SCRIPT)}">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">
<title>agseg viewer, {said}</title><style>{_STYLE}</style></head><body><main>
<h1>{said}</h1><p class="disclaimer">{DISCLAIMER}</p>
<div class="stage" id="stage" tabindex="0" role="group" aria-label="Axial slices; arrow keys and wheel go up and down">
<img id="base" alt=""><img id="over" class="over" alt="">
<span aria-hidden="true"><b class="side r">R</b><b class="side l">L</b>
<b class="side a">A</b><b class="side p">P</b></span></div>
<div class="row"><label for="slice">Slice</label>
<input id="slice" type="range" min="0" max="{len(slices) - 1}" value="{start}"></div>
<p id="shown" role="status"></p>
<div class="row"><label for="opacity">Masks</label><input id="opacity" type="range" min="0" max="100" value="90"></div>
<div class="row">{legend}</div>
<p>The patient's right is on the left. Soft tissue window; not for diagnosis.</p></main>
<script type="application/json" id="slices">{data}</script><script>{_SCRIPT}</script></body></html>
"""
