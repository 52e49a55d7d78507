"""JSON as agseg writes it."""

from __future__ import annotations

import json
from typing import Any


def json_text(content: Any) -> str:
    """JSON indented by 2, with a line end. NaN and infinity are refused."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
