"""benchmarks/more.json: what is measured besides the comparison, one key per script, with when and under what load."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

MORE = Path(__file__).with_name("more.json")


def record(name: str, content: dict[str, Any], *, load_before: float) -> None:
    """Replace one key."""
    from machine import commit, machine

    known = json.loads(MORE.read_text()) if MORE.exists() else {}
    loads = [round(load_before, 1), round(os.getloadavg()[0], 1)]
    when = {"measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "load_before_and_after": loads, "commit": commit()}
    known[name] = when | {"machine": machine()} | content
    MORE.write_text(json.dumps(known, indent=1) + "\n")
    print(json.dumps({name: content}, indent=1))
