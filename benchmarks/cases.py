"""What is compared: volumes, pipelines, modes, and how often each is run."""

from __future__ import annotations

from dataclasses import dataclass

MODES = ("exact", "default", "fast")
"""agseg's: fp32; what the command takes on this machine; with ``--fast`` on top. Peers know one mode, their own (fp32)."""

PEERS = ("monai", "nnunet", "totalseg")

AGSEG = "agseg"


@dataclass(frozen=True)
class Size:
    """A synthetic CT.

    Parameters
    ----------
    shape, spacing_mm
        Columns, rows, slices and mm.
    patch, model_mm
        Tile (voxels) and spacing of the model grid (mm), the same for every pipeline.
    rounds, rounds_without_network
        How often each pipeline is run with the network, and with a cheap function in its place.
    peers_have_network
        Whether the peers are run with the network at all; at 600 slices they would take an hour.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] = (0.8, 0.8, 2.5)
    patch: tuple[int, int, int] = (160, 160, 96)
    model_mm: float = 2.0
    rounds: int = 3
    rounds_without_network: int = 3
    peers_have_network: bool = True


SIZES = {
    "76": Size((512, 512, 76), rounds=5, rounds_without_network=5),
    "200": Size((512, 512, 200)),
    "600": Size((512, 512, 600), peers_have_network=False),
    "trial": Size((96, 96, 24), (4.0, 4.0, 8.0), (64, 64, 32), 4.0, rounds=1, rounds_without_network=1),
}
"""By the name that ``--sizes`` takes. ``trial`` only tries the harness and never enters the results."""


@dataclass(frozen=True)
class Case:
    """One pipeline on one volume, with or without the network."""

    size: str
    pipeline: str
    mode: str
    network: bool

    @property
    def name(self) -> str:
        return f"{self.size}-{self.pipeline}-{self.mode}-{'network' if self.network else 'without'}"

    @property
    def rounds(self) -> int:
        size = SIZES[self.size]
        return size.rounds if self.network else size.rounds_without_network


def cases_of(size: str) -> tuple[Case, ...]:
    """All cases of a size, in the order in which a round runs them; a peer's mode is called ``exact``."""
    wanted = []
    for network in (True, False):
        wanted += [Case(size, AGSEG, mode, network) for mode in MODES]
        if not network or SIZES[size].peers_have_network:
            wanted += [Case(size, peer, "exact", network) for peer in PEERS]
    return tuple(wanted)
