"""What code and documents say is written elsewhere is written there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
REFERENCE = re.compile(r"docs/([\w-]+\.md)(?:,?\s+\(?\"([^\"]+)\"\)?)?")
NUMBERED = re.compile(r"[\w-]+\.md,?\s+(?:sections?\s+)?\d")


def texts() -> Iterator[tuple[str, str]]:
    """Code and documents, with lines and comment marks joined: a reference may be broken across two lines."""
    files = [*(ROOT / "agseg").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for path in sorted(files):
        yield path.relative_to(ROOT).as_posix(), re.sub(r"\n\s*(?:#\s*)?", " ", path.read_text())


def headings(name: str) -> set[str]:
    """The headings of a document."""
    return set(re.findall(r"^#+ (.+)$", (ROOT / "docs" / name).read_text(), re.MULTILINE))


def test_every_reference_to_a_document_is_to_one_that_exists_and_to_a_heading_of_it() -> None:
    found = [(path, *match) for path, text in texts() for match in REFERENCE.findall(text)]
    assert len(found) > 20
    for path, name, heading in found:
        assert (ROOT / "docs" / name).is_file(), f"{path}: {name}"
        assert not heading or heading in headings(name), f"{path}: {name} has no heading {heading!r}"


def test_no_reference_is_to_a_numbered_section() -> None:
    """Headings have no numbers."""
    assert [path for path, text in texts() if NUMBERED.search(text)] == []
