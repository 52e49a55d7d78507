"""What weights cannot do is refused before anything is locked, fetched or read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agseg.errors import UsageError, WeightsError
from agseg.labels import LabelSet
from agseg.weights.input_spec import Carry
from agseg.weights.manifest import Manifest
from agseg.workflows.capabilities import check_capabilities, check_mirror

MANIFEST = Manifest.load()
GATED = MANIFEST.entry("attention-unet-abdomen")
NESTED = MANIFEST.entry("anu-net-abdomen")


def test_every_entry_of_the_manifest_can_do_what_is_usual():
    for entry in MANIFEST.entries:
        check_capabilities(entry, manifest=MANIFEST)


def test_published_names_are_pruned_as_their_family_is():
    second = replace(NESTED, architecture="anu-net-l2", config={"dims": 3, "classes": 6})
    check_capabilities(second, manifest=MANIFEST, prune_depth=2)
    with pytest.raises(UsageError, match="expected 1 to 2"):
        check_capabilities(second, manifest=MANIFEST, prune_depth=3)


def test_three_levels_have_two_depths():
    three = replace(NESTED, config={"dims": 3, "classes": 6, "widths": [8, 16, 32]})
    with pytest.raises(UsageError, match="found 4, expected 1 to 2"):
        check_capabilities(three, manifest=MANIFEST, prune_depth=4)


def test_weights_that_can_are_named():
    with pytest.raises(UsageError) as refused:
        check_capabilities(GATED, manifest=MANIFEST, prune_depth=2)
    assert refused.value.hint == "Weights that can: anu-net-abdomen."
    with pytest.raises(UsageError, match="no attention gates") as refused:
        check_capabilities(MANIFEST.entry("obelisk-tcia"), manifest=MANIFEST, attention=True)
    hint = str(refused.value.hint)
    assert all(name in hint for name in ("attention-unet-abdomen", "attention-unet-3mm", "anu-net-abdomen"))
    check_capabilities(GATED, manifest=MANIFEST, attention=True)


def test_a_tile_that_does_not_go_through_the_network_is_refused():
    odd = replace(GATED, input=replace(GATED.input, tile=(112, 80, 60)))
    with pytest.raises(WeightsError, match="expected multiples of 16"):
        check_capabilities(odd, manifest=MANIFEST)


def test_mirroring_that_would_do_nothing_is_said():
    untrained = replace(GATED.input, carry=Carry.LOGITS, mirror_axes=())
    plain = replace(GATED, id="nnunet", input=untrained)
    check_mirror([GATED])
    check_mirror([plain, GATED])
    check_mirror([replace(plain, input=replace(untrained, mirror_axes=(0, 2)))])
    with pytest.raises(UsageError, match="nnunet: trained without mirror images"):
        check_mirror([plain])
    with pytest.raises(UsageError, match="obelisk-tcia"):
        check_mirror([MANIFEST.entry("obelisk-tcia")])


def test_mirroring_without_a_label_for_the_other_side_is_refused():
    bare = replace(GATED, default_for=(), cleanup={}, largest_of=())
    alone = replace(bare, labels=LabelSet.from_mapping({1: "liver", 2: "kidney-left"}))
    with pytest.raises(UsageError, match="kidney-left has no label for its other side"):
        check_mirror([alone])
    check_mirror([replace(alone, labels=LabelSet.from_mapping({1: "kidney-right", 2: "kidney-left"}))])
    trained = replace(alone, input=replace(alone.input, carry=Carry.LOGITS, mirror_axes=(0,)))
    check_mirror([trained])  # nnU-Net mirrored its scans under the same labels
