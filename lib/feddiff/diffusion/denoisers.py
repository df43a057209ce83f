"""MLP denoisers for tables; every parameter sits in a Linear or an Embedding, so per-record clipping covers it all.

Initial weights come from the generator that is passed in; torch's global generator is never drawn from.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils import skip_init

CONDITIONING = ("added", "concatenated", "features")


def linear_layer(d_in: int, d_out: int, generator: torch.Generator, *, init: str = "uniform") -> nn.Linear:
    """Return a Linear layer with weights from `generator`.

    init: "uniform" (U(+-1/sqrt(d_in)), torch's default law), "xavier" (Glorot uniform, bias 0) or "zero".
    """
    layer = skip_init(nn.Linear, d_in, d_out)
    with torch.no_grad():
        if init == "uniform":
            bound = 1 / math.sqrt(d_in)
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
        elif init == "xavier":
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            layer.bias.zero_()
        elif init == "zero":
            layer.weight.zero_()
            layer.bias.zero_()
        else:
            raise ValueError(f"init must be 'uniform', 'xavier' or 'zero', got {init!r}")
    return layer


def embedding_layer(levels: int, dim: int, generator: torch.Generator) -> nn.Embedding:
    """Return an Embedding with N(0, 1) rows from `generator` (torch's default law)."""
    layer = skip_init(nn.Embedding, levels, dim)
    with torch.no_grad():
        layer.weight.normal_(generator=generator)
    return layer


def sinusoid(t: torch.Tensor, dim: int, max_period: float = 1e4) -> torch.Tensor:
    """Return the time features (n, dim), cosines then sines (Vaswani et al. 2017; layout of Ho et al. 2020's code)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) / half * torch.arange(half, device=t.device))
    angles = t.reshape(-1, 1).float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class _Residual(nn.Module):
    """h + L2(SiLU(L1(h)))."""

    def __init__(self, width: int, generator: torch.Generator):
        super().__init__()
        self.inner = linear_layer(width, width, generator)
        self.outer = linear_layer(width, width, generator)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.outer(nn.functional.silu(self.inner(h)))


class MLPDenoiser(nn.Module):
    """Denoiser f(x_t, t, label) -> (n, d_out) for x_t of shape (n, d_in), t and label of shape (n,) int64.

    t may have shape (1,) when all rows share it, as in sampling: the time branch then runs once, not once a row.

    conditioning: how time and label enter.
      "added": x through Linear-SiLU-Linear to `condition_dim`, plus a time MLP, plus a label embedding (FinDiff,
        FedTabDiff);
      "concatenated": [x, time MLP + label embedding] (the rebuilt DP-FedTabDiff);
      "features": [x, sinusoid(t), label_scale * one-hot(label)]: no time MLP and no label table, so that few
        parameters take noise under DP-SGD.
    body: "plain" (Linear-activation stack of the widths in `hidden`) or "residual" (one block for each width, all
        widths equal).
    uniform_output: without `zero_output`, torch's default law for the output layer in place of Glorot's.
    freeze_condition: time MLP and label embedding keep their initial weights.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        hidden: Sequence[int],
        classes: int,
        generator: torch.Generator,
        conditioning: str = "features",
        body: str = "plain",
        condition_dim: int = 64,
        time_dim: int = 32,
        label_scale: float = 1.0,
        zero_output: bool = True,
        uniform_output: bool = False,
        freeze_condition: bool = False,
    ):
        super().__init__()
        if conditioning not in CONDITIONING:
            raise ValueError(f"conditioning must be one of {CONDITIONING}, got {conditioning!r}")
        if body not in ("plain", "residual"):
            raise ValueError(f"body must be 'plain' or 'residual', got {body!r}")
        if body == "residual" and len(set(hidden)) != 1:
            raise ValueError(f"a residual body needs equal widths, got hidden={tuple(hidden)}")
        self.conditioning, self.classes, self.label_scale = conditioning, classes, label_scale
        self.time_dim = time_dim if conditioning == "features" else condition_dim
        if conditioning != "features":
            self.label = embedding_layer(classes, condition_dim, generator)
            self.time = nn.Sequential(
                linear_layer(condition_dim, condition_dim, generator),
                nn.SiLU(),
                linear_layer(condition_dim, condition_dim, generator),
            )
            for part in (self.label, self.time):
                part.requires_grad_(not freeze_condition)
        if conditioning == "added":
            self.project = nn.Sequential(
                linear_layer(d_in, condition_dim, generator),
                nn.SiLU(),
                linear_layer(condition_dim, condition_dim, generator),
            )
        width = {
            "added": condition_dim,
            "concatenated": d_in + condition_dim,
            "features": d_in + time_dim + classes,
        }[conditioning]
        layers: list[nn.Module] = []
        if body == "residual":
            layers = [linear_layer(width, hidden[0], generator), *[_Residual(h, generator) for h in hidden]]
            width = hidden[0]
        else:
            # The authors' stack is Xavier + LeakyReLU(0.4); ours is torch's default + SiLU.
            init, activation = ("xavier", nn.LeakyReLU(0.4)) if conditioning == "added" else ("uniform", nn.SiLU())
            for h in hidden:
                layers += [linear_layer(width, h, generator, init=init), activation]
                width = h
        self.body = nn.Sequential(*layers)
        law = "zero" if zero_output else "uniform" if uniform_output else "xavier"
        self.output = linear_layer(width, d_out, generator, init=law)

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        times = sinusoid(t, self.time_dim).to(x.dtype)
        if self.conditioning == "features":
            one_hot = nn.functional.one_hot(label, self.classes).to(x.dtype) * self.label_scale
            h = torch.cat([x, times.expand(len(x), -1), one_hot], dim=1)
        else:
            condition = self.time(times) + self.label(label)
            h = self.project(x) + condition if self.conditioning == "added" else torch.cat([x, condition], dim=1)
        return self.output(self.body(h))
