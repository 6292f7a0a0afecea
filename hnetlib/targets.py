"""Target networks: plain modules whose weights get generated, unaware of hypernetworks."""

import math
import re

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from hnetlib.layers import relu_layers

MOST_UNITS = 1_000_000  # of a layer: more is a slip of the key


class MLP(nn.Module):
    """A dense network: images in, one logit per class out.

    `MLP((784, 300, 100, 10))` is LeNet-300-100.
    """

    pixel_weight = "layers.0.weight"  # [out, pixels]: has a column for each pixel

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes: expected at least two positive layer sizes, got {sizes}")
        self.layers = nn.Sequential(*relu_layers(sizes)[:-1])  # no ReLU on the logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of flat images [B, pixels]."""
        return self.layers(images)


class ConvLeNet(nn.Module):
    """A convolutional LeNet (LeCun et al. 1998; ReLU, max pooling) for flat square images."""

    def __init__(self, image_size: int = 28, num_classes: int = 10) -> None:
        super().__init__()
        if image_size < 4 or image_size % 4:
            raise ValueError(f"image_size: expected a positive multiple of 4, got {image_size}")
        self.image_size = image_size
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = MLP((16 * (image_size // 4) ** 2, 120, 84, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of flat images [B, image_size ** 2]."""
        square = images.unflatten(-1, (1, self.image_size, self.image_size))  # [B, 1, S, S]
        return self.classifier(self.features(square).flatten(1))


class DepthwiseCNN(nn.Module):
    """Depthwise separable convolutions with GroupNorm, for flat square images.

    Each block filters every channel by itself, then mixes them (Howard et al., 1704.04861).
    """

    def __init__(self, image_size: int = 28, num_classes: int = 10, channels: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 4, stride=4)
        block = [
            [
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
                nn.GroupNorm(4, channels),
                nn.Conv2d(channels, channels, 1),
                nn.ReLU(),
            ]
            for _ in range(2)
        ]
        self.blocks = nn.Sequential(*block[0], *block[1])
        self.classifier = nn.Linear(channels * (image_size // 4) ** 2, num_classes)
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of flat images [B, image_size ** 2]."""
        square = images.unflatten(-1, (1, self.image_size, self.image_size))  # [B, 1, S, S]
        return self.classifier(self.blocks(self.stem(square)).flatten(1))


class RowReader(nn.Module):
    """A recurrent network that reads an image row by row; the mean of its outputs is classified.

    `RowReader(nn.GRU)`, `RowReader(nn.LSTM, bidirectional=True)`.
    """

    def __init__(
        self,
        kind: type[nn.RNNBase],
        image_size: int = 28,
        num_classes: int = 10,
        hidden: int = 64,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        settings = {"batch_first": True, "bidirectional": bidirectional}
        self.recurrent = kind(image_size, hidden, **settings)
        self.classifier = nn.Linear((1 + bidirectional) * hidden, num_classes)
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of flat images [B, image_size ** 2]."""
        rows = images.unflatten(-1, (self.image_size, self.image_size))  # [B, S, S]
        outputs, _ = self.recurrent(rows)  # [B, S, hidden * directions]
        return self.classifier(outputs.mean(1))


class PatchTransformer(nn.Module):
    """A transformer encoder on patches of flat square images, the mean of which is classified."""

    def __init__(
        self, image_size: int = 28, num_classes: int = 10, patch: int = 7, dim: int = 48
    ) -> None:
        super().__init__()
        self.image_size, self.patch = image_size, patch
        self.embed = nn.Linear(patch**2, dim)
        self.places = nn.Parameter(0.2 * torch.randn((image_size // patch) ** 2, dim))
        layer = nn.TransformerEncoderLayer(
            dim, 4, 2 * dim, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of flat images [B, image_size ** 2]."""
        square = images.unflatten(-1, (1, self.image_size, self.image_size))  # [B, 1, S, S]
        patches = unfold(square, self.patch, stride=self.patch).mT  # [B, patches, patch ** 2]
        return self.classifier(self.encoder(self.embed(patches) + self.places).mean(1))


def make_target(name: str, num_pixels: int, num_classes: int = 10) -> nn.Module:
    """The target called `name`: "mlp-300-100" (any hidden sizes), "lenet-300-100" or "conv-lenet".

    Raises ValueError for any other name, and where "conv-lenet" gets no square image.
    """
    if name == "lenet-300-100":
        return make_target("mlp-300-100", num_pixels, num_classes)
    if re.fullmatch(r"mlp(-[1-9]\d*)+", name):
        hidden = tuple(int(size) for size in name.split("-")[1:])
        if max(hidden) > MOST_UNITS:
            raise ValueError(f"target: expected layers of at most {MOST_UNITS:,} units, got {name}")
        return MLP((num_pixels, *hidden, num_classes))
    if name == "conv-lenet":
        return ConvLeNet(math.isqrt(num_pixels), num_classes)
    raise ValueError(
        f'target: expected "mlp-<size>-<size>...", "lenet-300-100" or "conv-lenet", got "{name}"'
    )
