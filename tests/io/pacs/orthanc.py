"""A real Orthanc for tests, in a network namespace of its own, because Debian's listens on every interface."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

HTTP, DICOM, OURS = 8042, 4242, 11113
PLUGINS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")
ROOT = f"http://127.0.0.1:{HTTP}"
LOGIN = ("tester", "test-only")


@contextmanager
def orthanc(folder: Path) -> Iterator[None]:
    """Run it until the context ends; to be called inside the namespace."""
    plugin = next(p for where in PLUGINS for p in Path(where).glob("libOrthancDicomWeb.so*"))
    config = {
        "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "index"), "Plugins": [str(plugin)],
        "HttpPort": HTTP, "DicomPort": DICOM, "DicomAet": "ORTHANC", "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True, "RegisteredUsers": {LOGIN[0]: LOGIN[1]}, "DicomCheckCalledAet": True,
        "DicomModalities": {"agseg": {"AET": "AGSEG", "Host": "127.0.0.1", "Port": OURS, "AllowGet": True, "AllowMove": True}},
        "UnknownSopClassAccepted": True, "OverwriteInstances": False,
    }  # fmt: skip
    folder.mkdir()
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            for _ in range(100):
                try:
                    if httpx2.get(f"{ROOT}/system", auth=LOGIN, timeout=1).is_success:
                        break
                except httpx2.TransportError:
                    time.sleep(0.1)
            else:
                raise RuntimeError((folder / "log.txt").read_text())
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


def in_a_namespace(script: Path, folder: Path, *, timeout_s: float) -> dict[str, Any]:
    """What a script prints as JSON, run where only it and its Orthanc are on the network; the test is skipped elsewhere."""
    for tool in ("Orthanc", "unshare", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (.ci/install-test-tools)")
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not permit network namespaces")
    command = 'ip link set lo up && exec "$0" "$1" "$2"'
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-c", command, sys.executable, str(script), str(folder)],
        capture_output=True, text=True, timeout=timeout_s, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout)
    return found
