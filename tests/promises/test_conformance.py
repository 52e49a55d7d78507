"""The conformance statement names what the code does, and no more."""

from __future__ import annotations

import re

from agseg.io.dicom_out.result import OWN_SOP_CLASSES
from agseg.io.pacs.contexts import IMAGE_CLASSES, IMAGE_SYNTAXES, RESULT_CLASSES, SCREEN_CLASSES
from tests.promises.conftest import ROOT

UID = re.compile(r"\b1\.2\.840\.10008(?:\.\d+)+\b")


def test_the_conformance_statement_lists_the_classes_and_syntaxes_of_the_code() -> None:
    text = (ROOT / "docs" / "conformance.md").read_text()
    sent = text[text.index("### 2.1") : text.index("### 2.2")]
    received, content = text[text.index("### 2.2") : text.index("## 3.")], text[text.index("## 3.") :]
    uncompressed = {"1.2.840.10008.1.2.1", "1.2.840.10008.1.2"}
    assert set(UID.findall(sent)) - uncompressed == {*RESULT_CLASSES, *SCREEN_CLASSES} | OWN_SOP_CLASSES
    assert set(UID.findall(received)) == {*IMAGE_CLASSES, *IMAGE_SYNTAXES}
    assert not UID.findall(content)


def test_the_pages_for_a_hospitals_lawyers_are_linked() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in ("conformance.md", "ihe.md", "regulatory.md"):
        assert f"({page})" in index
