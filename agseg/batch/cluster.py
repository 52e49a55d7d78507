"""Where a cluster is: a Dask scheduler that runs already, workers of our own on this machine, or jobs of a Slurm queue.

A plain ``tcp://`` scheduler has no authentication: whoever reaches its port can run code as the user of its workers. What agseg
starts itself speaks TLS with certificates made for the run.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

from agseg.batch.output import temporary_name
from agseg.errors import UsageError
from agseg.extras import require

CONNECT_S = 20.0
"""How long a scheduler may take to answer."""

_LOOPBACK = "127.0.0.1"
_OWN_SETTINGS: dict[str, Any] = {
    # Dask opens an HTTP port in any case; what we start serves nothing there.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


class ClusterKind(StrEnum):
    """What ``--cluster`` names."""

    SCHEDULER = "scheduler"
    LOCAL = "local"
    SLURM = "slurm"


@dataclass(frozen=True)
class Cluster:
    """A cluster to connect to or to start.

    Parameters
    ----------
    kind
        See :class:`ClusterKind`.
    address
        ``tcp://host:port`` or ``tls://host:port`` of a scheduler.
    workers
        Worker processes of a local cluster.
    settings
        From ``--cluster-config``: arguments of ``dask_jobqueue.SLURMCluster`` and ``jobs`` or ``adapt``; or, for a scheduler,
        arguments of ``distributed.Security``.
    use_gpus
        Where workers announce a resource ``GPU``, only those get work.
    """

    kind: ClusterKind
    address: str = ""
    workers: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    use_gpus: bool = True

    @classmethod
    def parse(cls, text: str, *, config: Path | None = None, use_gpus: bool = True) -> Cluster:
        """Understand ``--cluster`` and ``--cluster-config``.

        Raises
        ------
        UsageError
            For another form, a configuration that is not a mapping, or one where none is used.
        """
        settings = _settings(config)
        name, _, rest = text.partition(":")
        if name in ("tcp", "tls") and rest.startswith("//") and rest.rpartition(":")[2].isdigit():
            return cls(ClusterKind.SCHEDULER, address=text, settings=settings, use_gpus=use_gpus)
        if text == "slurm":
            if not settings:
                raise UsageError(
                    "a Slurm cluster needs its arguments",
                    hint="Give --cluster-config FILE: YAML with cores, memory, queue, walltime and jobs; see docs/scale.md.",
                )
            return cls(ClusterKind.SLURM, settings=settings, use_gpus=use_gpus)
        if name == "local" and (text == "local" or (rest.isdigit() and int(rest) > 0)):
            if settings:
                raise UsageError("--cluster-config does not go with a local cluster", path=config)
            return cls(ClusterKind.LOCAL, workers=int(rest or os.cpu_count() or 1), use_gpus=use_gpus)
        expected = "tcp://HOST:PORT, tls://HOST:PORT, local, local:N or slurm"
        raise UsageError("invalid value for --cluster", value=text, expected=expected)

    @contextmanager
    def connect(self, shared: Path) -> Iterator[Any]:
        """A ``distributed.Client``; what was started for it ends with it.

        Parameters
        ----------
        shared
            A folder that all workers see; certificates of a Slurm cluster lie in it, in a private folder, as long as it runs.

        Raises
        ------
        UsageError
            If a package is missing, nothing answers, or the configuration does not fit.
        """
        dask, distributed = (require(name, purpose="a cluster") for name in ("dask", "distributed"))
        # Dask tells much of its own life; here it is heard where something is wrong.
        logging.getLogger("distributed").setLevel(max(logging.WARNING, logging.getLogger("agseg").getEffectiveLevel()))
        with ExitStack() as held:
            if self.kind is not ClusterKind.SCHEDULER:
                held.enter_context(dask.config.set(_OWN_SETTINGS))
            target, security = self._target(held, shared)
            try:
                client = held.enter_context(
                    distributed.Client(target, security=security, set_as_default=False, timeout=CONNECT_S)
                )
            except (OSError, TypeError, ValueError) as error:
                raise UsageError(
                    "no Dask scheduler answers there",
                    value=self.address,
                    hint="Start one with `dask scheduler`, or see --cluster.",
                ) from error
            yield client

    def _target(self, held: ExitStack, shared: Path) -> tuple[Any, Any]:
        """What the client connects to, and its security."""
        if self.kind is ClusterKind.SCHEDULER:
            return self.address, _security(self.settings) if self.settings else None
        security = _own_security()
        if self.kind is ClusterKind.LOCAL:
            return held.enter_context(_local(self.workers, security)), security
        return held.enter_context(_slurm(self.settings, security, shared)), security


def _settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    from agseg.binding import bind_node
    from agseg.yaml_nodes import read

    settings: dict[str, Any] = bind_node(read(path, error=UsageError), dict[str, Any])
    return settings


def _security(settings: dict[str, Any]) -> Any:
    try:
        return import_module("distributed").Security(**settings)
    except (TypeError, ValueError, FileNotFoundError) as error:
        raise UsageError(
            "the cluster's configuration does not fit a scheduler",
            value=", ".join(settings),
            expected="arguments of distributed.Security, e.g. tls_ca_file, tls_client_cert, tls_client_key",
        ) from error


def _own_security() -> Any:
    """Certificates for this run alone: other users of the machine or network cannot speak to what we start."""
    require("cryptography", purpose="a cluster of our own")
    return import_module("distributed").Security.temporary()


def _in_files(security: Any, folder: Path) -> Any:
    """The same certificates where jobs on other machines find them.

    dask-jobqueue would write them too, but takes its files away only when it is collected, long after the run's folder is gone.
    """
    settings: dict[str, Any] = {"require_encryption": True}
    for role in ("client", "scheduler", "worker"):
        for name, text in security.get_tls_config_for_role(role).items():
            if name in ("ca_file", "cert", "key"):
                path = folder / f"{role}-{name}.pem"
                path.touch(mode=0o600)
                path.write_text(text, encoding="ascii")
                settings["tls_ca_file" if name == "ca_file" else f"tls_{role}_{name}"] = str(path)
    return import_module("distributed").Security(**settings)


@contextmanager
def _local(workers: int, security: Any) -> Iterator[Any]:
    """Worker processes on this machine that listen on the loopback alone, and share its cores."""
    with tempfile.TemporaryDirectory(prefix="agseg-dask-") as scratch:
        cluster = import_module("distributed").LocalCluster(
            n_workers=workers,
            threads_per_worker=max(1, (os.cpu_count() or 1) // workers),
            processes=True,
            host=_LOOPBACK,
            dashboard_address=f"{_LOOPBACK}:0",
            scheduler_kwargs={"dashboard": False},
            security=security,
            protocol="tls://",
            local_directory=scratch,
            preload=["agseg.batch.dask_preload"],
        )
        with cluster:
            yield cluster


@contextmanager
def _slurm(settings: dict[str, Any], security: Any, shared: Path) -> Iterator[Any]:
    """Workers in jobs of a Slurm queue."""
    jobqueue = require("dask_jobqueue", purpose="a Slurm cluster")
    given = dict(settings)
    jobs, adapt = given.pop("jobs", None), given.pop("adapt", None)
    if (jobs is None) == (adapt is None):
        raise UsageError("a Slurm cluster needs either 'jobs' or 'adapt' in its configuration")
    private = shared / temporary_name()
    private.mkdir(mode=0o700)
    try:
        secured = {"security": _in_files(security, private), "protocol": "tls://", "shared_temp_directory": str(private)}
        options = {"dashboard_address": ":0", "dashboard": False, **given.pop("scheduler_options", {})}
        try:
            cluster = jobqueue.SLURMCluster(**{**secured, **given}, scheduler_options=options)
        except (TypeError, ValueError) as error:
            raise UsageError("the cluster's configuration does not fit Slurm", value=type(error).__name__) from error
        with cluster:
            if adapt is None:
                cluster.scale(jobs=int(jobs))
            else:
                cluster.adapt(**adapt)
            yield cluster
    finally:
        shutil.rmtree(private, ignore_errors=True)
