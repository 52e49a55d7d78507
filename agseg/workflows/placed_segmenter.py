"""The segmenter as a worker of a cluster makes it: with the weights found, or fetched, on that machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agseg.weights.cache import WeightsCache
from agseg.workflows.segmenter_config import NetworkConfig, SegmenterConfig
from agseg.workflows.segmenter_factory import SegmenterFactory

if TYPE_CHECKING:
    from agseg.workflows.study_segmenter import StudySegmenter


@dataclass(frozen=True)
class PlacedSegmenter:
    """Makes a :class:`StudySegmenter` on another machine.

    Parameters
    ----------
    config
        As on one machine; its paths are those of the run's own machine.
    home, offline, allowed_hosts
        Of the weights cache: the same folder if workers see it, else a folder of the same name on their machine.
    threads
        Threads of the network on a CPU; None leaves it to torch. Dask sets one thread per process for its workers, so what
        the worker was given is said here.
    """

    config: SegmenterConfig
    home: Path
    offline: bool = False
    allowed_hosts: tuple[str, ...] = ()
    threads: int | None = None

    def on_node(self, threads: int) -> PlacedSegmenter:
        """The same for a worker with so many threads."""
        return replace(self, threads=threads)

    def __call__(self) -> StudySegmenter:
        """Check or fetch the weights, load the network; called once per worker."""
        cache = WeightsCache(self.home, offline=self.offline, allowed_hosts=self.allowed_hosts)
        networks = tuple(_placed(network, cache) for network in self.config.networks)
        second = None if self.config.second is None else _placed(self.config.second, cache)
        threads = self.config.threads if self.threads is None else self.threads
        return SegmenterFactory(replace(self.config, networks=networks, threads=threads, second=second))()


def _placed(network: NetworkConfig, cache: WeightsCache) -> NetworkConfig:
    """The same network with the files of this machine."""
    scout = None if network.scout is None else _placed(network.scout, cache)
    return replace(network, paths=cache.ensure(network.entry), scout=scout)
