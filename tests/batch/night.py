"""A whole run as a process of its own, with the fake model: ``python -m tests.batch.night IN OUT [key=value]...``."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from agseg.batch import BatchEvent, Limits, Part, claim_output, run_batch
from agseg.batch.cluster import Cluster
from agseg.batch.dask_executor import DaskExecutor
from agseg.batch.supervise import Supervisor
from agseg.errors import AgsegError
from tests.batch.fakes import job


def main() -> int:
    source, target, *pairs = sys.argv[1:]
    given = {key: json.loads(value) for key, value in (pair.split("=", 1) for pair in pairs)}
    part = Part(*given.pop("part", (0, 1)))
    limits = Limits(**{"study_timeout_s": 30.0, **given.pop("limits", {})})
    tell = given.pop("tell", False)
    cluster = given.pop("cluster", None)
    executor = Supervisor if cluster is None else partial(DaskExecutor, cluster=Cluster.parse(cluster))

    def on_event(event: BatchEvent) -> None:
        if tell:
            print(event.kind, event.study, flush=True)

    try:
        with claim_output(Path(target), part=part, dry_run=given.get("dry_run", False)) as output:
            report = run_batch(job(Path(source), limits=limits, **given), output, on_event=on_event, executor=executor)
    except AgsegError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    return int(report.exit_code)


if __name__ == "__main__":
    sys.exit(main())
