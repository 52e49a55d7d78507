"""Everything that the model process of ``agseg segment`` imports; imported there alone.

It is one module so that the process can begin with it before it is told what to do (:mod:`agseg.spawn`).
"""

from __future__ import annotations

import gc

from agseg.inference.lean_torch import import_torch

gc.disable()  # imports leave nothing to collect, and looking for it takes a tenth of their time
import_torch()

from agseg.workflows.study_segmenter import StudySegmenter as StudySegmenter  # noqa: E402

gc.freeze()
gc.enable()
