"""The parts of an image denoiser: residual block, attention, resampling; all of them in reach of per-record clipping.

Every parameter sits in a Conv2d, Linear, Embedding or GroupNorm that is used once a forward pass, nothing is computed
across the records of a batch, nothing is overwritten in place, and every random number comes from a generator that is
passed in, dropout masks included.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import skip_init

from feddiff.diffusion.denoisers import linear_layer


def conv_layer(
    d_in: int, d_out: int, generator: torch.Generator, *, kernel: int = 3, stride: int = 1, zero: bool = False
) -> nn.Conv2d:
    """Return a Conv2d that keeps the side (or divides it by `stride`), weights and bias U(+-1/sqrt(fan in)).

    That is torch's default law; Glorot weights needed more images to the same loss. zero: all weights 0 instead, so
    that the branch starts silent (Ho et al. 2020, their code).
    """
    layer = skip_init(nn.Conv2d, d_in, d_out, kernel, stride=stride, padding=kernel // 2)
    with torch.no_grad():
        bound = 0.0 if zero else 1 / math.sqrt(d_in * kernel**2)
        for parameter in (layer.weight, layer.bias):
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


class Dropout(nn.Module):
    """Dropout whose masks come from `generator`, which whoever trains sets (on the device of the activations).

    torch's own dropout draws from the global generator: a run with it could not be repeated or resumed.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate, self.generator = rate, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x in evaluation; in training each value is 0 with probability `rate`, else divided by 1 - rate."""
        if not self.training or self.rate == 0:
            return x
        if self.generator is None:
            raise ValueError(
                "a network with dropout needs a generator for its masks: call network.set_dropout_generator(generator) "
                "before training it, or network.eval()"
            )
        keep = 1 - self.rate
        return x * torch.empty_like(x).bernoulli_(keep, generator=self.generator).div(keep)


class ResidualBlock(nn.Module):
    """skip(h) + conv(dropout(SiLU(norm(conv(SiLU(norm(h))) + shift)))), shift = linear(SiLU(condition)).

    h (n, d_in, side, side), condition (n or 1, d_condition) -> (n, d_out, side, side) (Ho et al. 2020, appendix B).
    scale: the condition also scales, SiLU(norm(.) (1 + scale) + shift) (Dhariwal & Nichol 2021, section 3). Starts as
    its skip alone.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        d_condition: int,
        generator: torch.Generator,
        *,
        groups: int,
        dropout: float = 0.0,
        scale: bool = False,
    ):
        super().__init__()
        self.scale = scale
        self.norm_in = nn.GroupNorm(groups, d_in)
        self.inner = conv_layer(d_in, d_out, generator)
        self.condition = linear_layer(d_condition, 2 * d_out if scale else d_out, generator)
        self.norm_out = nn.GroupNorm(groups, d_out)
        self.dropout = Dropout(dropout)
        self.outer = conv_layer(d_out, d_out, generator, zero=True)
        self.skip = nn.Identity() if d_in == d_out else conv_layer(d_in, d_out, generator, kernel=1)

    def forward(self, h: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        inner = self.inner(functional.silu(self.norm_in(h)))
        asked = self.condition(functional.silu(condition)).unsqueeze(2).unsqueeze(3)
        if self.scale:
            scale, shift = asked.chunk(2, dim=1)
            inner = self.norm_out(inner) * (1 + scale) + shift
        else:
            inner = self.norm_out(inner + asked)
        return self.skip(h) + self.outer(self.dropout(functional.silu(inner)))


class Attention(nn.Module):
    """h + output(softmax(q k^T / sqrt(width)) v) over the positions of one picture, one head (Ho et al. 2020).

    Query, key and value come from one Linear layer over the positions.
    """

    def __init__(self, width: int, generator: torch.Generator, *, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.inputs = linear_layer(width, 3 * width, generator)
        self.output = linear_layer(width, width, generator, init="zero")

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        positions = self.norm(h).flatten(2).transpose(1, 2)
        query, key, value = self.inputs(positions).chunk(3, dim=2)
        scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[2])
        mixed = self.output(scores.softmax(dim=2) @ value)
        return h + mixed.transpose(1, 2).reshape(h.shape)


class Upsample(nn.Module):
    """Double the side by repeating every position; `conv`: followed by a convolution (Ho et al. 2020)."""

    def __init__(self, width: int, generator: torch.Generator, *, conv: bool):
        super().__init__()
        self.conv = conv_layer(width, width, generator) if conv else nn.Identity()

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.conv(functional.interpolate(h, scale_factor=2, mode="nearest"))


class Cell(nn.Module):
    """A residual block, followed by attention where `attention` is set."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        d_condition: int,
        generator: torch.Generator,
        *,
        groups: int,
        dropout: float,
        scale: bool,
        attention: bool,
    ):
        super().__init__()
        self.block = ResidualBlock(d_in, d_out, d_condition, generator, groups=groups, dropout=dropout, scale=scale)
        self.attention = Attention(d_out, generator, groups=groups) if attention else nn.Identity()

    def forward(self, h: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return self.attention(self.block(h, condition))
