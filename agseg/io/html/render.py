"""A page from its template: every value is escaped, and a name that the template does not know is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agseg.io.html.assets import POLICY, SCRIPT, STYLE
from agseg.report import DISCLAIMER


def render(template: str, **values: Any) -> str:
    """The page that a template of this folder makes of values; style, script, policy and disclaimer are the same for all."""
    # Imported here: a run's process needs it once, at the end.
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page: str = environment.get_template(template).render(
        policy=POLICY, style=STYLE, script=SCRIPT, disclaimer=DISCLAIMER, **values
    )
    return page
