"""Style and script of report.html, written into the page and named by their hashes in its content security policy."""

from __future__ import annotations

import base64
import hashlib

__all__ = ["POLICY", "SCRIPT", "STYLE"]

STYLE = """
:root{--ink:#1b1f24;--soft:#4a5560;--line:#c9d1d9;--paper:#fff;--band:#f3f5f7;--link:#0b4f9e;--good:#0f5b2c;--bad:#9a1520;
--warn:#7a4a00;--note:#fff6dd}
*{box-sizing:border-box}
body{margin:0 auto;max-width:78rem;padding:1rem 1.5rem 4rem;color:var(--ink);background:var(--paper);
font:1rem/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
a{color:var(--link)}
a:focus-visible,button:focus-visible,input:focus-visible,select:focus-visible,.wide:focus-visible{outline:3px solid var(--link);
outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;background:var(--paper);padding:.5rem}
h1{font-size:1.6rem;margin:.5rem 0}h2{font-size:1.25rem;margin:2.2rem 0 .6rem;border-bottom:2px solid var(--line)}
h3{font-size:1.05rem;margin:0 0 .3rem;overflow-wrap:anywhere}
.disclaimer{background:var(--note);border-left:.4rem solid var(--warn);padding:.6rem 1rem;font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:.6rem 0}dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
.counts{display:flex;flex-wrap:wrap;gap:.6rem;padding:0;list-style:none}
.counts li{border:1px solid var(--line);border-radius:.4rem;padding:.4rem 1rem;min-width:6.5rem}
.counts strong{display:block;font-size:1.5rem;line-height:1.2}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding:.3rem 0}
th,td{border:1px solid var(--line);padding:.3rem .6rem;text-align:left;vertical-align:top}
td{overflow-wrap:anywhere}
thead th{background:var(--band)}td.n,th.n{text-align:right;white-space:nowrap}
th button{all:unset;cursor:pointer;text-decoration:underline dotted}
th button:focus-visible{outline:3px solid var(--link)}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
.wide{overflow-x:auto}
.s-done,.s-skipped{color:var(--good)}.s-rejected,.s-failed{color:var(--bad);font-weight:600}.s-deferred{color:var(--warn)}
.look{color:var(--warn);font-weight:600}
.controls{display:flex;flex-wrap:wrap;gap:1rem;align-items:end;background:var(--band);padding:.7rem 1rem;border-radius:.4rem}
.controls[hidden]{display:none}
.controls label{display:block;font-size:.9rem;color:var(--soft)}
input,select{font:inherit;padding:.3rem .5rem;border:1px solid #6b7680;border-radius:.25rem;background:#fff;color:var(--ink)}
article{border:1px solid var(--line);border-radius:.4rem;padding:.8rem 1rem;margin:.8rem 0;break-inside:avoid}
article[hidden],tr[hidden]{display:none}
article img{max-width:100%;height:auto;display:block;margin:.5rem 0;background:#000}
article table{width:auto}
.files{color:var(--soft);font-size:.9rem;overflow-wrap:anywhere}
.trends{display:flex;flex-wrap:wrap;gap:1.2rem}figure{margin:0}figcaption{font-weight:600}
svg{background:var(--band);border:1px solid var(--line)}svg text{font-size:11px;fill:var(--soft)}
svg .line{fill:none;stroke:var(--link);stroke-width:2}svg .dot{fill:var(--link)}
@media print{.controls,.skip{display:none}body{max-width:none;padding:0;font-size:.8rem}a{color:inherit;text-decoration:none}
article[hidden]{display:block}tr[hidden]{display:table-row}}
"""

SCRIPT = """
(function () {
  "use strict";
  var controls = document.getElementById("controls");
  var table = document.getElementById("volumes");
  if (!controls || !table) { return; }
  var text = document.getElementById("filter-text");
  var status = document.getElementById("filter-status");
  var look = document.getElementById("filter-look");
  var shown = document.getElementById("shown");
  var entries = Array.prototype.slice.call(document.querySelectorAll("[data-study]"));
  var rows = Array.prototype.slice.call(table.tBodies[0].rows);
  controls.hidden = false;

  function filter() {
    var words = text.value.toLowerCase();
    var count = 0;
    entries.forEach(function (entry) {
      var fits = entry.dataset.study.toLowerCase().indexOf(words) >= 0 &&
        (!status.value || entry.dataset.status === status.value) &&
        (!look.checked || entry.dataset.look === "1");
      entry.hidden = !fits;
      if (fits && entry.tagName === "TR") { count += 1; }
    });
    shown.textContent = count + " of " + rows.length + " studies shown";
  }

  function value(row, column) {
    var cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : cell.dataset.value;
  }

  function sort(header, column) {
    var up = header.getAttribute("aria-sort") !== "ascending";
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell) { cell.removeAttribute("aria-sort"); });
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    rows.sort(function (a, b) {
      var x = value(a, column), y = value(b, column);
      if (x === "" || y === "") { return (x === "" ? 1 : 0) - (y === "" ? 1 : 0); }
      var order = header.className === "n" ? Number(x) - Number(y) : x.localeCompare(y, undefined, {numeric: true});
      return up ? order : -order;
    });
    rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
  }

  Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell, column) {
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent;
    cell.textContent = "";
    cell.appendChild(button);
    button.addEventListener("click", function () { sort(cell, column); });
  });
  text.addEventListener("input", filter);
  status.addEventListener("change", filter);
  look.addEventListener("change", filter);
  filter();
}());
"""


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


POLICY = (
    f"default-src 'none'; img-src data:; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; "
    "base-uri 'none'; form-action 'none'"
)
"""Nothing is fetched from anywhere; only this style and this script run, whatever a study is called."""
