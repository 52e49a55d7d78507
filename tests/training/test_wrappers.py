import pytest
import torch

from agseg.errors import RecipeError
from agseg.models.registry import build
from agseg.models.slice_wise import SliceWise
from agseg.training.loop import Batch
from agseg.training.objective import objective
from agseg.training.recipe import LossName
from agseg.training.wrappers import KeptLogits, fold_kept

WIDTHS = [4, 8, 12]


def network(classes, architecture="attention-unet"):
    torch.manual_seed(1)
    built = build(architecture, {"classes": classes, "widths": WIDTHS})
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return built.eval()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["unet", "attention-unet"])
@pytest.mark.parametrize("kept", [(0, 2), (0, 3, 1)])
def test_a_folded_network_gives_the_kept_logits(architecture, kept):
    full = network(4, architecture)
    small = fold_kept(full, kept, build(architecture, {"classes": len(kept), "widths": WIDTHS})).eval()
    x = torch.randn(2, 1, 16, 8, 12)
    with torch.no_grad():
        expected = KeptLogits(full, kept)(x)
        assert torch.equal(expected, full(x)[:, list(kept)])
        assert torch.allclose(small(x), expected, atol=1e-4 * float(expected.abs().max()))


def test_dropped_logits_get_no_gradient_and_do_not_move():
    trained = network(4).train()
    batch = Batch(torch.randn(1, 1, 16, 16, 8), torch.randint(0, 4, (1, 16, 16, 8)))
    logits = trained(batch.image)
    logits.retain_grad()
    objective(LossName.SOFT_DICE, kept=(0, 2))(logits, batch).backward()
    assert torch.count_nonzero(logits.grad[:, [1, 3]]) == 0
    assert torch.count_nonzero(logits.grad[:, [0, 2]]) > 0
    assert torch.count_nonzero(trained.head.weight.grad[[1, 3]]) == 0
    assert torch.count_nonzero(trained.head.bias.grad[[1, 3]]) == 0


def test_only_soft_dice_drops_logits():
    with pytest.raises(RecipeError, match="drop logits"):
        objective(LossName.DICE_CROSS_ENTROPY, kept=(0, 1))


def test_slices_are_seen_one_by_one():
    flat = build("unet", {"dims": 2, "classes": 1, "widths": [4, 8]}).eval()
    x = torch.randn(2, 1, 8, 12, 3)
    with torch.no_grad():
        found = SliceWise(flat)(x)
        assert found.shape == (2, 1, 8, 12, 3)
        for k in range(3):
            assert torch.allclose(found[..., k], flat(x[..., k]), atol=1e-5)


def test_other_networks_cannot_be_folded():
    with pytest.raises(RecipeError, match="only U-Nets"):
        fold_kept(torch.nn.Conv3d(1, 4, 1), (0, 1), torch.nn.Conv3d(1, 2, 1))
