"""Everything that the model process of ``agseg segment`` imports; imported there alone.

It is one module so that the process can begin with it before it is told what to do (:mod:`agseg.spawn`).
"""

from __future__ import annotations

from agseg.inference.lean_torch import import_torch

import_torch()

from agseg.workflows.study_segmenter import StudySegmenter as StudySegmenter  # noqa: E402
