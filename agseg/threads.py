"""How threads wait in the libraries below torch and numpy; said before these are imported."""

import os

THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}
"""Variables of the environment, for this process and its children, where the user does not set them.

By default a thread that waits for the others spins, which takes the processor from whoever it waits for: with one or two other
busy processes on two cores a network took 1.4 to 2.6 times as long, alone no less (docs/performance.md). numpy's OpenBLAS
starts threads at its import, and they spin too, for up to 0.1 s of processor time in each of a run's five processes; the only
large matrices here are torch's.
"""


_said: set[str] = set()


def settle_threads() -> None:
    """Say it, to whatever is imported or started from now on."""
    for name in THREADS.keys() - os.environ.keys():
        os.environ[name] = THREADS[name]
        _said.add(name)


def users_environment() -> dict[str, str]:
    """The environment without what was said here: for programs that are not agseg's."""
    return {name: value for name, value in os.environ.items() if name not in _said}
