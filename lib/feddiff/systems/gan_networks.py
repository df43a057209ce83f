"""Generators and critics of the GAN rivals: linear layers on a row, convolutions on a row laid out as a square image.

Every weight comes from the generator that is passed in; there is no batch normalisation and no dropout.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import skip_init

from feddiff.diffusion.denoisers import linear_layer
from feddiff.diffusion.unet_blocks import conv_layer

SLOPE = 0.2
FIRST_SIDE = 4
# Width of the dense layer next to the convolutions, in channels at 4 x 4.
DENSE = 4


class LinearGenerator(nn.Module):
    """z (n, noise) -> raw row (n, d): each hidden layer's output is appended to its input, as in CTGAN.

    h <- [h, ReLU(LayerNorm(Linear(h)))], then Linear (Xu et al. 2019, section 4.3, who normalise over the batch).
    """

    def __init__(self, noise: int, d: int, *, width: int, layers: int, generator: torch.Generator):
        super().__init__()
        self.noise = noise
        widths = [noise + width * k for k in range(layers + 1)]
        self.hidden = nn.ModuleList(linear_layer(w, width, generator) for w in widths[:-1])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.output = linear_layer(widths[-1], d, generator)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        for layer, norm in zip(self.hidden, self.norms):
            z = torch.cat([z, norm(layer(z)).relu()], dim=1)
        return self.output(z)


class LinearCritic(nn.Module):
    """Rows (n, packing, d) -> score (n,): `packing` rows are judged together (Lin et al. 2018, as in CTGAN)."""

    def __init__(self, d: int, *, packing: int, width: int, layers: int, generator: torch.Generator):
        super().__init__()
        widths = [packing * d, *[width] * layers]
        self.hidden = nn.ModuleList(linear_layer(a, b, generator) for a, b in zip(widths, widths[1:]))
        self.output = linear_layer(widths[-1], 1, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.flatten(1)
        for layer in self.hidden:
            h = functional.leaky_relu(layer(h), SLOPE)
        return self.output(h).squeeze(1)


def side_of(d: int) -> int:
    """Return the side of the smallest square image of 8, 16, 32, ... pixels that holds d values."""
    return max(2 * FIRST_SIDE, 2 ** math.ceil(math.log2(math.sqrt(d))))


def _channels(side: int, width: int) -> list[int]:
    """Return the channels at sides 4, 8, ..., side / 2: `width` at the first, halved at each doubling, 8 at least."""
    return [max(8, width >> k) for k in range(int(math.log2(side // FIRST_SIDE)))]


class ConvGenerator(nn.Module):
    """z (n, noise) -> raw row (n, d): a 4 x 4 image that is doubled up to the square that holds the row.

    Linear to 4 * `width`, ReLU, Linear to 4 x 4, then (normalise, ReLU, double) up to one channel; the first d pixels,
    plus a bias of each, are the row (CTAB-GAN, Zhao et al. 2021, section 3.1). They double by transposed convolutions,
    this by Conv 3 x 3 on the small image to four times the channels, which become 2 x 2 pixels (Shi et al. 2016): no
    map ever has the full side and many channels. The bias spares convolutions, alike everywhere, the learning of every
    column's level.
    """

    def __init__(self, noise: int, d: int, *, width: int, generator: torch.Generator):
        super().__init__()
        self.noise, self.d = noise, d
        channels = _channels(side_of(d), width)
        self.start = linear_layer(noise, DENSE * width, generator)
        self.first = linear_layer(DENSE * width, channels[0] * FIRST_SIDE**2, generator)
        self.norms = nn.ModuleList(nn.GroupNorm(1, c) for c in channels)
        self.convs = nn.ModuleList(conv_layer(a, 4 * b, generator) for a, b in zip(channels, [*channels[1:], 1]))
        self.level = nn.Parameter(torch.zeros(d))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h = self.first(self.start(z).relu()).unflatten(1, (-1, FIRST_SIDE, FIRST_SIDE))
        for norm, conv in zip(self.norms, self.convs):
            h = functional.pixel_shuffle(conv(norm(h).relu()), 2)
        return h.flatten(1)[:, : self.d] + self.level


class ConvCritic(nn.Module):
    """Rows (n, packing, d) -> score (n,): each row a channel of a square image, halved down to 4 x 4.

    The generator's way back: 2 x 2 pixels become channels, then Conv 3 x 3. At 4 x 4, Linear to 4 * `width` and Linear,
    so that cells far apart in the image meet at every side.
    """

    def __init__(self, d: int, *, packing: int, width: int, generator: torch.Generator):
        super().__init__()
        self.side = side_of(d)
        channels = [packing, *_channels(self.side, width)[::-1]]
        self.convs = nn.ModuleList(conv_layer(4 * a, b, generator) for a, b in zip(channels, channels[1:]))
        self.meet = linear_layer(channels[-1] * FIRST_SIDE**2, DENSE * width, generator)
        self.output = linear_layer(DENSE * width, 1, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x, (0, self.side**2 - x.shape[2]))
        h = padded.unflatten(2, (self.side, self.side))
        for conv in self.convs:
            h = functional.leaky_relu(conv(functional.pixel_unshuffle(h, 2)), SLOPE)
        h = functional.leaky_relu(self.meet(h.flatten(1)), SLOPE)
        return self.output(h).squeeze(1)
