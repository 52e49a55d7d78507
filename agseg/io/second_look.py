"""``second-look.json``: what another network made of a study's organs, beside what the result is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agseg.io.atomic import write_text
from agseg.report import DISCLAIMER

SECOND_LOOK_JSON = "second-look.json"
SECOND_LOOK_SCHEMA = "agseg.second-look/1"


def write_second_look(folder: Path, told: Mapping[str, Any]) -> None:
    """Write the file.

    Parameters
    ----------
    told
        ``weights``, the id of the other network, and ``organs``: by name, ``dice`` (null where neither found anything),
        ``volume_ml`` of the result and ``other_ml`` of the other network.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    organs = {
        organ: {key: None if value is None else round(value, 4) for key, value in seen.items()}
        for organ, seen in told["organs"].items()
    }
    content = {"schema": SECOND_LOOK_SCHEMA, "disclaimer": DISCLAIMER, "weights": told["weights"], "organs": organs}
    write_text(folder / SECOND_LOOK_JSON, json.dumps(content, indent=2) + "\n")
