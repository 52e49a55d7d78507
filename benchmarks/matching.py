"""Agreement of labels at a matched grid, once per size.

MONAI's model grid is agseg's (first voxel centre kept), so its masks of the timed runs are compared directly. nnU-Net and
TotalSegmentator put theirs at the edges and the corners; they are compared on a volume that already lies on the model grid,
where nobody resamples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from agreement import compare
from cases import AGSEG, MODES, SIZES, Case
from workshop import BUILD, OUTPUTS, matched_volume

DIRECT_PEERS = ("monai",)
MATCHED_PEERS = ("nnunet", "totalseg")


def agreement_file(rounds: Path) -> Path:
    return BUILD / f"agreement-{rounds.stem}.json"


def measure_agreement(rounds: Path, sizes: Iterable[str], run_case: Callable[[Case, Path], dict[str, Any]]) -> None:
    """Compare what can be compared of these sizes and add it to the agreement file."""
    file = agreement_file(rounds)
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for size in sizes:
        for peer in DIRECT_PEERS:
            for mode in MODES:
                pair = [OUTPUTS / f"{Case(size, *who, True).name}.nii.gz" for who in ((peer, "exact"), (AGSEG, mode))]
                if all(path.exists() for path in pair):
                    known[key(size, mode, peer)] = _entry(*pair)
        if not SIZES[size].peers_have_network:
            continue
        if any(key(size, mode, peer) not in known for mode in MODES for peer in MATCHED_PEERS):
            known |= _on_matched_volume(size, run_case)
    file.write_text(json.dumps(known, indent=1) + "\n")


def key(size: str, mode: str, peer: str) -> str:
    return f"{size}/{mode}/{peer}"


def _on_matched_volume(size: str, run_case: Callable[[Case, Path], dict[str, Any]]) -> dict[str, Any]:
    """Run everyone once on the matched volume and compare; the timed runs' masks are kept aside meanwhile."""
    masks: dict[tuple[str, str], Path] = {}
    for pipeline, mode in [*((AGSEG, mode) for mode in MODES), *((peer, "exact") for peer in MATCHED_PEERS)]:
        case = Case(size, pipeline, mode, network=True)
        written, kept = OUTPUTS / f"{case.name}.nii.gz", OUTPUTS / f"{case.name}.timed.nii.gz"
        if written.exists():
            written.replace(kept)
        run_case(case, matched_volume(size))
        masks[pipeline, mode] = written.replace(OUTPUTS / f"{case.name}.matched.nii.gz")
        if kept.exists():
            kept.replace(written)
    return {key(size, mode, peer): _entry(masks[peer, "exact"], masks[AGSEG, mode]) for peer in MATCHED_PEERS for mode in MODES}


def _entry(reference: Path, other: Path) -> dict[str, Any]:
    agreement, dice = compare(reference, other)
    return {"agreement": round(agreement, 5), "dice": [round(value, 4) for value in dice]}
