"""Laws of the cache: the same samples with and without it, another file for whatever changes a case, damage is mended."""

from __future__ import annotations

import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agseg.errors import RecipeError
from agseg.training.batches import DrawBatches
from agseg.training.case_cache import CaseCache
from agseg.training.cases import IGNORE, Case
from agseg.training.draws import Affine, VolumeDraws
from agseg.weights.input_spec import ChannelSpec, InputSpec, Normalisation

SPEC = InputSpec("MR", axis_codes="RAS", spacing_mm=(1.0, 1.0, 1.0), normalisation=Normalisation.ZSCORE, tile=(6, 6, 6))
FACTS = {"input": SPEC.identity(), "labels": {1: "liver"}}
LARGE = 10**9


def case(seed: int = 0, *, channels: int = 1) -> Case:
    generator = torch.Generator().manual_seed(seed)
    image, *more = torch.randn((channels, 9, 8, 7), generator=generator) * 50
    labels = (image > 20).to(torch.uint8)
    labels[0] = IGNORE
    spec = replace(SPEC, channels=tuple(ChannelSpec(f"{n}", "MR", Normalisation.ZSCORE) for n in range(channels - 1)))
    return Case(f"c{seed}", image, labels, more=tuple(more)).as_input(spec)


def source(folder: Path, name: str = "a", content: bytes = b"scan") -> tuple[Path, ...]:
    (folder / name).write_bytes(content)
    return (folder / name,)


def cached(
    cache: CaseCache, files: tuple[Path, ...], seed: int = 0, facts: dict = FACTS, channels: int = 1
) -> tuple[Case, bool]:
    """The case, and whether it had to be made."""
    made = []

    def make() -> Case:
        made.append(seed)
        return case(seed, channels=channels)

    return cache.case(f"c{seed}", files=files, facts=facts, make=make), bool(made)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.case"))


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_the_same_with_the_cache_as_without_for_one_process_and_for_several(tmp_path, channels) -> None:
    files = source(tmp_path)
    plain = case(channels=channels)
    first, made = cached(CaseCache(tmp_path / "cache", LARGE), files, channels=channels)
    again, made_again = cached(CaseCache(tmp_path / "cache", LARGE), files, channels=channels)
    assert (made, made_again) == (True, False)

    def drawn(one: Case, workers: int) -> list[torch.Tensor]:
        draws = VolumeDraws([one], SPEC, Affine((0,), 15, 0.1, (0.8, 1.2)), seed=1, organ_share=0.5)
        return [part for b in DrawBatches(draws, size=2, workers=workers).batches(0, 3) for part in (b.image, b.target)]

    wanted = drawn(plain, 0)
    for one, workers in ((first, 0), (again, 0), (again, 2)):
        assert all(torch.equal(a, b) for a, b in zip(wanted, drawn(one, workers), strict=True))
    assert len(again.more) == channels - 1
    assert again.normalised


def test_a_scan_is_mapped_and_writing_to_it_changes_no_file(tmp_path) -> None:
    files, cache = source(tmp_path), CaseCache(tmp_path / "cache", LARGE)
    one, _ = cached(cache, files)
    content = kept(tmp_path / "cache")[0].read_bytes()
    one.stacked().zero_()
    assert kept(tmp_path / "cache")[0].read_bytes() == content
    assert torch.equal(cached(cache, files)[0].image, case().image)


def test_whatever_a_case_follows_from_gives_it_another_file(tmp_path) -> None:
    cache = CaseCache(tmp_path / "cache", LARGE)
    assert cached(cache, source(tmp_path, "a", b"scan"))[1]
    assert not cached(cache, source(tmp_path, "b", b"scan"))[1]  # a copy under another name
    assert cached(cache, source(tmp_path, "a", b"scaN"))[1]
    assert cached(cache, source(tmp_path, "b"), facts=FACTS | {"labels": {1: "spleen"}})[1]
    assert len(kept(tmp_path / "cache")) == 3


@pytest.mark.parametrize("harm", ["a byte", "the end", "all", "the header", "text"])
def test_a_damaged_file_is_told_and_made_anew(tmp_path, caplog, harm) -> None:
    files = source(tmp_path)
    cached(CaseCache(tmp_path / "cache", LARGE), files)
    (path,) = kept(tmp_path / "cache")
    sound = path.read_bytes()
    broken: dict[str, bytes] = {
        "a byte": sound[:900] + bytes([sound[900] ^ 1]) + sound[901:],
        "the end": sound[:-40],
        "all": b"",
        "the header": sound[:14] + b"\xff" * 8 + sound[22:],
        "text": b"hello" * 99,
    }
    path.write_bytes(broken[harm])
    with caplog.at_level(logging.WARNING):
        again, made = cached(CaseCache(tmp_path / "cache", LARGE), files)
    assert made
    assert "made anew" in caplog.text
    assert torch.equal(again.image, case().image)
    assert path.read_bytes() == sound


def test_several_runs_at_once_leave_one_sound_file_and_nothing_else(tmp_path) -> None:
    files = source(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cached(CaseCache(tmp_path / "cache", LARGE), files)[0], range(16)))
    assert all(torch.equal(one.image, case().image) for one in found)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert not cached(CaseCache(tmp_path / "cache", LARGE), files)[1]


def test_files_are_their_owners_alone(tmp_path) -> None:
    cached(CaseCache(tmp_path / "cache", LARGE), source(tmp_path))
    assert stat.S_IMODE(kept(tmp_path / "cache")[0].stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_beyond_the_limit_what_was_not_used_for_longest_goes_but_never_what_this_run_uses(tmp_path, caplog) -> None:
    size = len(b"".join(_parts(case())))
    names = [source(tmp_path, name, name.encode()) for name in "abcd"]
    for number, files in enumerate(names[:3]):
        cached(CaseCache(tmp_path / "cache", LARGE), files, number)
    for number, path in enumerate(sorted(kept(tmp_path / "cache"), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (number, number))
    run = CaseCache(tmp_path / "cache", 3 * size)
    assert not cached(run, names[0], 0)[1]  # the oldest is used, and no longer the one to go
    assert cached(run, names[3], 3)[1]
    assert len(kept(tmp_path / "cache")) == 3
    assert not cached(run, names[0], 0)[1]
    assert cached(CaseCache(tmp_path / "cache", LARGE), names[1], 1)[1]
    full = CaseCache(tmp_path / "small", 2 * size)
    for number, files in enumerate(names):
        assert np.array_equal(cached(full, files, number)[0].image, case(number).image)
    assert len(kept(tmp_path / "small")) == 2
    assert "kept in memory" in caplog.text


def _parts(one: Case) -> list[bytes]:
    from agseg.training.case_cache import _content

    return _content(one)


def test_a_place_that_cannot_be_written_costs_the_cache_not_the_run(tmp_path, caplog, monkeypatch) -> None:
    def full(*_args, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agseg.training.case_cache.replacing", full)
    one, made = cached(CaseCache(tmp_path / "cache", LARGE), source(tmp_path))
    assert made
    assert torch.equal(one.image, case().image)
    assert "not cached" in caplog.text


def test_a_file_in_the_caches_place_is_refused(tmp_path) -> None:
    with pytest.raises(RecipeError, match="the cache is a file"):
        CaseCache(source(tmp_path)[0], LARGE)


def test_a_digest_is_noted_and_a_damaged_note_is_made_anew(tmp_path) -> None:
    files, cache, made = source(tmp_path), CaseCache(tmp_path / "cache", LARGE), []

    def make() -> str:
        made.append(1)
        return "0" * 64

    def noted(modality: str) -> int:
        assert cache.digest(files=files, facts={"image": (modality,)}, make=make) == "0" * 64
        return len(made)

    assert (noted("CT"), noted("CT"), noted("MR"), noted("CT")) == (1, 1, 2, 2)
    for note in (tmp_path / "cache").glob("*.sha256"):
        note.write_bytes(b"\xff" * 64)
    assert (noted("CT"), noted("CT")) == (3, 3)
