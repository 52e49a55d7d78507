"""Laws of reading at points."""

from __future__ import annotations

import pytest
import torch

from agseg.training.lattice import nearest, sampled, turned


@pytest.mark.parametrize(("grid", "tile"), [((9, 8, 7), (6, 6, 6)), ((9, 8, 1), (6, 6, 1)), ((9, 8), (12, 6))])
def test_labels_come_from_the_voxel_that_the_image_is_nearest_to(grid, tile):
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 256, grid, generator=generator, dtype=torch.uint8)
    for number in range(20):
        points = torch.rand((*tile, len(grid)), generator=generator) * 12 - 2
        points = (points * 2).round() / 2 if number % 2 else points  # on voxels and halfway between two
        if grid[-1] == 1:
            points[..., -1] = 0
        size = torch.tensor(grid, dtype=torch.float32)
        there = (points * (2.0 / (size - 1).clamp_min(1.0)) - 1.0).flip(-1)
        if grid[-1] == 1:
            there[..., 0] = 0
        wanted = torch.nn.functional.grid_sample(labels[None, None].float(), there[None], mode="nearest", align_corners=True)
        assert torch.equal(nearest(labels, points.unbind(-1)), wanted[0, 0].to(torch.uint8))


def test_a_linear_image_is_read_exactly_and_beyond_it_lies_nothing_or_its_edge():
    ramp = torch.arange(9.0)[:, None, None] + 2 * torch.arange(8.0)[:, None] + 3 * torch.arange(7.0)
    points = [torch.tensor([[[1.5]], [[-4.0]]]), torch.tensor([[[2.25]], [[1.0]]]), torch.tensor([[[3.0]], [[1.0]]])]
    assert sampled(ramp[None], points).flatten().tolist() == pytest.approx([15.0, 0.0], abs=1e-4)
    assert sampled(ramp[None], points, edge=True).flatten().tolist() == pytest.approx([15.0, 5.0], abs=1e-4)


def test_offsets_of_single_axes_and_whole_blocks_are_turned_as_a_matrix_product():
    generator = torch.Generator().manual_seed(0)
    tile, matrix = (5, 4, 3), torch.randn((3, 3), generator=generator)
    axes = [torch.randn([n if a == k else 1 for k in range(3)], generator=generator) for a, n in enumerate(tile)]
    whole = torch.stack([axis.expand(tile) for axis in axes], dim=-1)
    for offsets in (axes, list(whole.unbind(-1))):
        found = torch.stack([turned(offsets, matrix[:, k]).expand(tile) for k in range(3)], dim=-1)
        torch.testing.assert_close(found, whole @ matrix)


def test_an_axis_that_nothing_turns_stays_short_and_gives_the_same_values():
    generator = torch.Generator().manual_seed(0)
    tile, matrix = (5, 4, 3), torch.tensor([[0.8, 0.6, 0.0], [-0.6, 0.8, 0.0], [0.0, 0.0, 1.25]])
    offsets = [torch.randn([n if a == k else 1 for k in range(3)], generator=generator) for a, n in enumerate(tile)]
    points = [turned(offsets, matrix[:, k]) + 3.0 for k in range(3)]
    assert [tuple(at.shape) for at in points] == [(5, 4, 1), (5, 4, 1), (1, 1, 3)]
    blocks = [at.expand(tile).contiguous() for at in points]
    labels = torch.randint(0, 256, (7, 6, 7), generator=generator, dtype=torch.uint8)
    assert torch.equal(nearest(labels, points), nearest(labels, blocks))
    assert torch.equal(sampled(labels[None].float(), points), sampled(labels[None].float(), blocks))
