"""A run on packaged weights names better tested ones; nothing is swapped."""

from __future__ import annotations

from dataclasses import replace

from agseg.weights.manifest import Manifest
from agseg.workflows.better_weights import better_weights

MANIFEST = Manifest.load()
PACKAGED = MANIFEST.entry("attention-unet-abdomen")


def test_the_best_published_score_that_covers_all_organs_is_named_with_its_command():
    found = better_weights(MANIFEST, [PACKAGED], PACKAGED.labels.names)
    assert found is not None
    assert (found.id, found.mean_dice) == ("totalsegmentator-total", 0.943)
    assert found.command == "agseg weights fetch totalsegmentator-total"
    assert "0.943" in found.sentence()
    assert found.command in found.sentence()
    alone = better_weights(MANIFEST, [PACKAGED], ["spleen"])
    assert alone is not None
    assert alone.id == "monai-spleen"


def test_weights_that_somebody_chose_and_organs_that_nobody_else_knows_are_passed_over():
    assert better_weights(MANIFEST, [MANIFEST.entry("obelisk-tcia")], ["liver"]) is None
    assert better_weights(MANIFEST, [PACKAGED], ["liver", "no_such_organ"]) is None
    assert better_weights(replace(MANIFEST, published={}), [PACKAGED], ["liver", "pancreas"]).id.startswith("monai-wholebody")
