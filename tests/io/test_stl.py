"""A mesh encloses its organ, in patient space, whatever the grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agseg.grid import Grid
from agseg.io.obj import write_objs
from agseg.io.stl import surface, write_meshes
from agseg.labels import LabelSet
from agseg.volume import LabelMask
from tests import phantoms

SHAPE, SPACING_MM = (40, 36, 30), (1.5, 2.0, 2.5)
CENTRE_MM, RADII_MM = np.array([4.0, -6.0, 5.0]), np.array([15.0, 20.0, 18.0])


def ellipsoid(grid: Grid) -> np.ndarray:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    return np.linalg.norm((grid.to_world(index.astype(np.float64)) - CENTRE_MM) / RADII_MM, axis=-1) <= 1


def read_stl(path: Path) -> np.ndarray:
    """Corners (n, 3, 3), by the format's own description."""
    content = path.read_bytes()
    count = int.from_bytes(content[80:84], "little")
    assert len(content) == 84 + 50 * count
    facets = np.frombuffer(content[84:], dtype=np.dtype([("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")]))
    edges = np.cross(facets["v"][:, 1] - facets["v"][:, 0], facets["v"][:, 2] - facets["v"][:, 0])
    assert np.all(np.einsum("ni,ni->n", edges, facets["n"]) > 0), "normals point to where the corners run anticlockwise"
    return np.array(facets["v"], dtype=np.float64)


def volume_ml(corners: np.ndarray) -> float:
    return float(np.einsum("ni,ni->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6000)


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAL", "PIR"])
def test_a_mesh_is_closed_and_holds_the_organs_ml_where_the_organ_is(codes: str, tmp_path: Path) -> None:
    grid = Grid(SHAPE, phantoms.coded_affine(codes, SHAPE, SPACING_MM))
    inside = ellipsoid(grid)
    labels = inside.astype(np.uint8) * 5
    mask = LabelMask(labels, grid, LabelSet.from_mapping({5: "liver", 9: "spleen"}))
    assert write_meshes(tmp_path, mask) == ("liver.stl",)
    corners = read_stl(tmp_path / "liver.stl")
    # Each edge is run along once in each direction: no hole, and every facet faces outwards.
    points, index = np.unique(corners.reshape(-1, 3).round(4), axis=0, return_inverse=True)
    faces = index.reshape(-1, 3)
    edges = {(int(face[a]), int(face[(a + 1) % 3])) for face in faces for a in range(3)}
    assert len(edges) == 3 * len(faces)
    assert all((b, a) in edges for a, b in edges)
    assert volume_ml(corners) == pytest.approx(inside.sum() * grid.voxel_volume_ml, rel=0.02)
    lps_to_ras = np.array([-1.0, -1.0, 1.0])
    assert np.allclose(points.mean(axis=0) * lps_to_ras, CENTRE_MM, atol=1.0)
    assert b"SPACE=LPS" in (tmp_path / "liver.stl").read_bytes()[:80]


def test_an_organ_at_the_edge_of_the_field_of_view_is_closed_there() -> None:
    grid = Grid((6, 5, 4), np.diag([1.0, 2, 3, 1]))
    corners = surface(np.ones((6, 5, 4), dtype=bool), grid)
    # The whole box, voxels and not only their centres, but for its cut edges.
    assert 0.8 * 120 * 6 / 1000 < volume_ml(corners) < 120 * 6 / 1000


def test_an_obj_is_the_same_surface_with_shared_corners(tmp_path: Path) -> None:
    grid = Grid(SHAPE, phantoms.coded_affine("LPI", SHAPE, SPACING_MM))
    mask = LabelMask(ellipsoid(grid).astype(np.uint8), grid, LabelSet.from_mapping({1: "liver", 2: "spleen"}))
    assert write_objs(tmp_path, mask) == ("liver.obj",)
    rows = [line.split() for line in (tmp_path / "liver.obj").read_text().splitlines()]
    vertices = np.array([[float(value) for value in row[1:]] for row in rows if row[0] == "v"])
    faces = np.array([[int(value) for value in row[1:]] for row in rows if row[0] == "f"]) - 1
    assert len(np.unique(vertices, axis=0)) == len(vertices) < 3 * len(faces)
    assert volume_ml(vertices[faces]) == pytest.approx(volume_ml(surface(mask.of("liver"), grid)), rel=1e-4)
