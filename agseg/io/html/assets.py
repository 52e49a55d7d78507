"""Style and script of report.html, written into the page and named by their hashes in its content security policy."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root{--ink:#1b1f24;--soft:#4a5560;--line:#c9d1d9;--paper:#fff;--band:#f3f5f7;--link:#0b4f9e;--good:#0f5b2c;--bad:#9a1520;
--warn:#7a4a00;--note:#fff6dd;--field:#fff;color-scheme:light dark}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#aab4be;--line:#3a444e;--paper:#14181c;--band:#1e242a;
--link:#8ab8f5;--good:#7fd39a;--bad:#ff9b9b;--warn:#f0c060;--note:#2c2614;--field:#0e1114}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:78rem;padding:1rem 1.5rem 4rem;color:var(--ink);background:var(--paper);
font:1rem/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
a{color:var(--link)}
a:focus-visible,button:focus-visible,input:focus-visible,select:focus-visible,.wide:focus-visible{outline:3px solid var(--link);
outline-offset:2px}
.running{display:none}
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
td{overflow-wrap:break-word}.name{overflow-wrap:anywhere;min-width:7rem}td.reasons{min-width:14rem}
thead th{background:var(--band)}td.n,th.n{text-align:right;white-space:nowrap}
th button{all:unset;cursor:pointer;text-decoration:underline dotted}
th button:focus-visible{outline:3px solid var(--link)}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
.wide{overflow-x:auto;margin-bottom:1rem}
.key{color:var(--soft);font-size:.9rem}
.code{color:var(--soft);font-size:.85em}.whose{color:var(--soft);font-size:.9em;font-weight:400;overflow-wrap:anywhere}
.volumes td,.volumes th{overflow-wrap:normal}.volumes th[scope=row]{overflow-wrap:anywhere;min-width:10rem;font-weight:500}
.volumes thead th{white-space:normal}
.s-done,.s-skipped{color:var(--good)}.s-rejected,.s-failed{color:var(--bad);font-weight:600}.s-deferred{color:var(--warn)}
.look{color:var(--warn);font-weight:600}
.controls{display:flex;flex-wrap:wrap;gap:1rem;align-items:end;background:var(--band);padding:.7rem 1rem;border-radius:.4rem}
.controls{margin-top:1.5rem}
.controls[hidden]{display:none}
.controls label{display:block;font-size:.9rem;color:var(--soft)}
input,select{font:inherit;padding:.3rem .5rem;border:1px solid #6b7680;border-radius:.25rem;
background:var(--field);color:var(--ink)}
article{border:1px solid var(--line);border-radius:.4rem;padding:.8rem 1rem;margin:.8rem 0;break-inside:avoid}
article[hidden],tr[hidden]{display:none}
article img{max-width:100%;height:auto;display:block;margin:.5rem 0;background:#000}
article table{width:auto}article ul.look{margin:.3rem 0 .6rem;padding-left:1.2rem}
.seen.planes{display:flex;flex-wrap:wrap;gap:0 .6rem}.seen.planes .picture:first-child{flex-basis:100%}
.picture{display:block;width:fit-content;max-width:100%;cursor:zoom-in}
dialog{border:1px solid var(--line);background:var(--paper);color:var(--ink);max-width:96vw;max-height:96vh;padding:.6rem}
dialog img{width:min(92vw,1680px);height:auto;display:block;margin-top:.5rem}
dialog button{font:inherit;padding:.3rem .9rem}
.files{color:var(--soft);font-size:.9rem;overflow-wrap:anywhere}
.trends{display:flex;flex-wrap:wrap;gap:1.2rem}figure{margin:0}figcaption{font-weight:600}
svg{background:var(--band);border:1px solid var(--line)}svg text{font-size:11px;fill:var(--soft)}
svg .line{fill:none;stroke:var(--link);stroke-width:2}svg .dot{fill:var(--link)}
@media screen and (max-width:30rem){body{padding:.6rem .6rem 3rem}th,td{padding:.3rem .35rem}article{padding:.6rem}
.name{min-width:6.5rem}.code{font-size:.75em}}
@page{size:A4 landscape;margin:12mm 12mm 16mm}
@media print{.controls,.skip,dialog{display:none}html{font-size:11px}body{max-width:none;padding:0}
a{color:inherit;text-decoration:none}article[hidden]{display:block}tr[hidden]{display:table-row}
.wide{overflow:visible}th,td{padding:.15rem .35rem}.volumes th[scope=row],.name,td.reasons{min-width:0}
h2,h3,caption,.key{break-after:avoid}thead{display:table-header-group}tr,figure,.picture,.key{break-inside:avoid}
article img{max-height:115mm;width:auto}article{padding:.4rem .6rem}article p,article ul.look{margin:.15rem 0}
.seen.mosaic{display:grid;grid-template-columns:minmax(0,1fr) 115mm;grid-template-rows:min-content 1fr;column-gap:4mm}
.seen.mosaic .picture{grid-column:1}.seen.mosaic .picture+.picture{grid-column:2;grid-row:1/span 2}
.seen.mosaic tr>:nth-child(5){display:none}
.seen.planes .picture img{max-height:40mm}.seen.planes .picture:first-child img{max-height:55mm}
.running{display:block;position:fixed;bottom:0;left:0;right:0;text-align:center;margin:0;font-weight:600;background:#fff}
main{padding-bottom:7mm;-webkit-box-decoration-break:clone;box-decoration-break:clone}}
"""

SCRIPT = """
(function () {
  "use strict";
  var all = function (selector, inside) { return Array.prototype.slice.call((inside || document).querySelectorAll(selector)); };
  var controls = document.getElementById("controls");
  var tables = all("table.volumes");
  var text = document.getElementById("filter-text");
  var status = document.getElementById("filter-status");
  var look = document.getElementById("filter-look");
  var shown = document.getElementById("shown");
  var entries = all("[data-study]");
  controls.hidden = false;

  function filter() {
    var words = text.value.toLowerCase();
    entries.forEach(function (entry) {
      entry.hidden = !((entry.dataset.study + " " + entry.dataset.whose).toLowerCase().indexOf(words) >= 0 &&
        (!status.value || entry.dataset.status === status.value) &&
        (!look.checked || entry.dataset.look === "1"));
    });
    var rows = all(controls.dataset.counted || "article[data-study]");
    var visible = rows.filter(function (row) { return !row.hidden; });
    shown.textContent = visible.length + " of " + rows.length + " " + (controls.dataset.unit || "studies") + " shown";
  }

  function value(row, column) {
    var cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : cell.dataset.value;
  }

  function sort(table, header, column) {
    var up = header.getAttribute("aria-sort") !== "ascending";
    all("thead th", table).forEach(function (cell) { cell.removeAttribute("aria-sort"); });
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    var rows = all("tbody tr", table);
    rows.sort(function (a, b) {
      var x = value(a, column), y = value(b, column);
      if (x === "" || y === "") { return (x === "" ? 1 : 0) - (y === "" ? 1 : 0); }
      var order = header.className === "n" ? Number(x) - Number(y) : x.localeCompare(y, undefined, {numeric: true});
      return up ? order : -order;
    });
    rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
  }

  tables.forEach(function (table) {
    all("thead th", table).forEach(function (cell, column) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = cell.textContent;
      cell.textContent = "";
      cell.appendChild(button);
      button.addEventListener("click", function () { sort(table, cell, column); });
    });
  });
  text.addEventListener("input", filter);
  status.addEventListener("change", filter);
  look.addEventListener("change", filter);
  filter();

  var dialog = document.getElementById("large");
  all("a.picture").forEach(function (link) {
    link.addEventListener("click", function (event) {
      if (!dialog.showModal) { return; }
      event.preventDefault();
      var large = dialog.querySelector("img") || dialog.appendChild(document.createElement("img"));
      large.src = link.querySelector("img").src;
      large.alt = link.querySelector("img").alt;
      dialog.showModal();
    });
  });
}());
"""


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def policy_of(style: str, script: str) -> str:
    """A page's content security policy: nothing is fetched from anywhere, and only this style and this script run."""
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


POLICY = policy_of(STYLE, SCRIPT)
"""Of the report, whatever a study is called."""
