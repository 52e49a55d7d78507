"""The network of the comparison: an Attention U-Net (additive gates, base 16, 5 scales, batch norm), the same weights for all.

    python benchmarks/shared_network.py --ct CT.nii.gz --labels L.nii.gz --out attunet.pt

trains it for about two minutes on a synthetic CT: plausible smooth masks, so that agreement between labels means something.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CROP = (64, 64, 64)
SPACING_MM = 2.0


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))


def projection(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1, bias=False), nn.BatchNorm3d(outputs))


class Gate(nn.Module):
    def __init__(self, g: int, x: int, inner: int) -> None:
        super().__init__()
        self.wg, self.wx, self.psi = projection(g, inner), projection(x, inner), projection(inner, 1)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.psi(F.relu(self.wg(g) + self.wx(x))))


class AttUNet(nn.Module):
    def __init__(self, classes: int = 6, base: int = 16, scales: int = 5) -> None:
        super().__init__()
        c = [base * 2**i for i in range(scales)]
        down = range(scales - 1, 0, -1)
        self.enc = nn.ModuleList(nn.Sequential(block(c[i - 1] if i else 1, c[i]), block(c[i], c[i])) for i in range(scales))
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose3d(c[i], c[i - 1], 2, 2, bias=False), nn.BatchNorm3d(c[i - 1]), nn.ReLU(inplace=True))
            for i in down
        )
        self.gate = nn.ModuleList(Gate(c[i - 1], c[i - 1], max(c[i - 1] // 2, 1)) for i in down)
        self.dec = nn.ModuleList(nn.Sequential(block(2 * c[i - 1], c[i - 1]), block(c[i - 1], c[i - 1])) for i in down)
        self.pool = nn.MaxPool3d(2)
        self.head = nn.Conv3d(c[0], classes, 1)

    def features(self, x: Tensor) -> Tensor:
        skips = []
        for i, encoder in enumerate(self.enc):
            x = encoder(self.pool(x) if i else x)
            skips.append(x)
        skips.pop()
        for up, gate, decoder in zip(self.up, self.gate, self.dec, strict=True):
            x = up(x)
            x = decoder(torch.cat([gate(x, skips.pop()), x], 1))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class FakeNetwork(nn.Module):
    """The score of a class is how near a voxel lies to its grey value: one pass over the output."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.centres = torch.linspace(-1, 0.3, classes).tolist()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([-(x - centre).abs() for centre in self.centres], 1)


def load(net: Path, *, classes: int, fake: bool) -> nn.Module:
    """The trained network; with another number of classes than it was trained for, its last layer is random."""
    if fake:
        return FakeNetwork(classes).eval()
    state = torch.load(net, map_location="cpu", weights_only=True)
    network = AttUNet(classes)
    if state["head.weight"].shape[0] != classes:
        state |= {f"head.{name}": value for name, value in network.head.state_dict().items()}
    network.load_state_dict(state)
    return network.eval()


def tile_flop(tile: tuple[int, int, int], classes: int = 6) -> int:
    """Floating-point operations of one tile (a multiplication and an addition are two)."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network, image = AttUNet(classes).eval(), torch.empty(1, 1, *tile)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops()


# -- a short training -----------------------------------------------------------------------------------------------------


class Crops:
    """Random crops of one CT at 2 mm; three of four around an organ's voxel."""

    def __init__(self, ct: Path, labels: Path) -> None:
        image = nib.load(ct)
        size = [max(1, round(n * s / SPACING_MM)) for n, s in zip(image.shape, image.header.get_zooms(), strict=True)]

        def at_spacing(path: Path, mode: str) -> Tensor:
            voxels = torch.from_numpy(np.asanyarray(nib.load(path).dataobj).astype(np.float32))
            return F.interpolate(voxels[None, None], size, mode=mode)

        self.image = at_spacing(ct, "trilinear").clamp_(-1000, 1000).div_(1000)
        self.labels = at_spacing(labels, "nearest-exact").long()[:, 0]
        self.inside = self.labels[0].nonzero()
        self.size = size
        self.generator = torch.Generator().manual_seed(0)

    def random(self, n: int) -> int:
        return int(torch.randint(n, (1,), generator=self.generator))

    def next(self) -> tuple[Tensor, Tensor]:
        near = self.random(4) > 0
        centre = self.inside[self.random(len(self.inside))].tolist() if near else [self.random(n) for n in self.size]
        window = []
        for c, extent, n in zip(centre, CROP, self.size, strict=True):
            first = max(0, min(c - extent // 2 + self.random(49) - 24, n - extent))
            window.append(slice(first, first + extent))
        return self.image[(slice(None), slice(None), *window)], self.labels[(slice(None), *window)]


def train(crops: Crops, *, classes: int, steps: int) -> AttUNet:
    torch.manual_seed(0)
    network = AttUNet(classes).train()
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    weight = torch.ones(classes)
    weight[0] = 0.2
    for _ in range(steps):
        image, labels = crops.next()
        optimizer.zero_grad()
        F.cross_entropy(network(image), labels, weight).backward()
        optimizer.step()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for _ in range(12):
            network(crops.next()[0])
    return network.eval()


def refit_head(network: AttUNet, crops: Crops, *, classes: int) -> None:
    """Logistic regression of the last layer on voxels balanced over the classes: every class then appears."""
    features, truth = [], []
    with torch.no_grad():
        for _ in range(24):
            image, labels = crops.next()
            values, flat = network.features(image)[0].flatten(1).T, labels.flatten()
            for c in range(classes):
                index = (flat == c).nonzero()[:, 0]
                index = index[torch.randperm(len(index), generator=crops.generator)[: 1000 if c else 3000]]
                features.append(values[index])
                truth.append(flat[index])
    x, y = torch.cat(features), torch.cat(truth)
    mean, deviation = x.mean(0), x.std(0) + 1e-3
    linear = nn.Linear(x.shape[1], classes)
    optimizer = torch.optim.Adam(linear.parameters(), 5e-2)
    weight = (1 / torch.bincount(y, minlength=classes).clamp_min(1).float()).sqrt()
    for _ in range(400):
        optimizer.zero_grad()
        F.cross_entropy(linear((x - mean) / deviation), y, weight).backward()
        optimizer.step()
    with torch.no_grad():
        scaled = linear.weight / deviation
        network.head.weight.copy_(scaled[:, :, None, None, None])
        network.head.bias.copy_(linear.bias - scaled @ mean)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the shared network briefly on a synthetic CT.")
    parser.add_argument("--ct", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--steps", type=int, default=90)
    chosen = parser.parse_args()
    crops = Crops(chosen.ct, chosen.labels)
    network = train(crops, classes=chosen.classes, steps=chosen.steps)
    refit_head(network, crops, classes=chosen.classes)
    torch.save(network.state_dict(), chosen.out)
    with torch.no_grad():
        right = [
            float((network(image).argmax(1) == labels).float().mean()) for image, labels in (crops.next() for _ in range(3))
        ]
    print("accuracy on three crops", [round(value, 3) for value in right])


if __name__ == "__main__":
    main()
