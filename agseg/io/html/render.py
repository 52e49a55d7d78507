"""A page from its template: every value is escaped, and a name that the template does not know is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agseg.io.html.assets import POLICY, SCRIPT, STYLE
from agseg.report import DISCLAIMER

if TYPE_CHECKING:
    import jinja2


def render(template: str, **values: Any) -> str:
    """The page that a template of this folder makes of values; style, script, policy and disclaimer are the same for all."""
    return load(template).render(policy=POLICY, style=STYLE, script=SCRIPT, disclaimer=DISCLAIMER, **values)


@cache
def load(template: str) -> jinja2.Template:
    """The compiled template."""
    # Imported here: a run's process needs it once, at the end.
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.get_template(template)
