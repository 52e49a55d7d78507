"""Tests of networks: tiny ones, which run fastest on one thread."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread): ...
