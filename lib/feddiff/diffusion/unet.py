"""The U-Net that denoises pictures, from 0.2M parameters (16 x 16, one core) to the 35.7M of Ho et al. (2020).

Initial weights come from the generator that is passed in; torch's global generator is never drawn from.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from feddiff.diffusion.denoisers import embedding_layer, linear_layer, sinusoid
from feddiff.diffusion.schedules import Schedule
from feddiff.diffusion.unet_blocks import Cell, Dropout, Upsample, conv_layer

SKIPS = ("level", "all")
MODULATIONS = ("scale-shift", "shift")

# name -> what UNet takes beside the pictures' shape, the classes and the schedule
SIZES = {
    "tiny": dict(widths=(16, 32, 32)),
    "patch": dict(widths=(32, 64), patch=2),
    "mnist": dict(widths=(64, 128, 128), blocks=2, skips="all"),
    "ddpm": dict(
        widths=(128, 256, 256, 256), blocks=2, skips="all", modulation="shift", attention=(16,), groups=32, dropout=0.1
    ),
}


class UNet(nn.Module):
    """Noise predictor eps_hat(x_t, t, label[, flag]) of the shape of x_t.

    x (n, channels, size, size); t (n,) int64 in {0, ..., T-1}, or (1,) when all records share it: the time branch then
    runs once; label (n,) int64 in {0, ..., classes-1}; flag (n,) bool exactly when the network was built with
    flag=True (PFDM's clipped / unclipped).

    widths: channels of each level, every next one at half the side, multiples of `groups`. patch: p x p pixels enter
    as p^2 channels (pixel_unshuffle), so the widest level has side size / p. blocks: residual blocks a level.
    skips: "all" is the layout of Ho et al. (2020), every activation of the way down is handed across and upsampling
    ends in a convolution; "level" hands one across a level (Ronneberger et al. 2015), at about half the cost.
    attention: sides of the feature maps that get self-attention; with any, the middle gets it too.
    modulation: how time and label act in a block, "shift" of the activations (Ho et al. 2020) or "scale-shift" of the
    normalised ones (Dhariwal & Nichol 2021), which learns classes from fewer images.
    condition_dim: width of the time, label and flag embeddings (None: 4 * widths[0]). groups: of every GroupNorm.
    input_skip: eps_hat = sqrt(1 - alpha_bar_t) x_t + sqrt(alpha_bar_t) F(x_t, t, ...), so that the body F predicts the
    velocity of Salimans & Ho (2022) and the silent start F = 0 is the optimum for white data; else eps_hat = F.

    ValueError for a size, widths, attention or option that do not fit together.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        widths: Sequence[int],
        classes: int,
        schedule: Schedule,
        generator: torch.Generator,
        patch: int = 1,
        blocks: int = 1,
        skips: str = "level",
        modulation: str = "scale-shift",
        attention: Sequence[int] = (),
        condition_dim: int | None = None,
        flag: bool = False,
        groups: int = 8,
        dropout: float = 0.0,
        input_skip: bool = True,
    ):
        super().__init__()
        counts = {"channels": channels, "size": size, "classes": classes, "patch": patch, "blocks": blocks}
        _check(counts | {"groups": groups}, widths, dropout)
        for option, value, allowed in (("skips", skips, SKIPS), ("modulation", modulation, MODULATIONS)):
            if value not in allowed:
                raise ValueError(f"{option} must be one of {allowed}, got {value!r}")
        self.sides = _sides(size, patch, len(widths), attention)
        self.channels, self.size, self.classes, self.patch = channels, size, classes, patch
        self.widths, self.input_skip, self.every = tuple(widths), input_skip, skips == "all"
        # No buffer: Opacus, which the private step is measured against, refuses modules that have one.
        self.schedule = schedule

        width = condition_dim or 4 * widths[0]
        self.time = nn.Sequential(
            linear_layer(widths[0], width, generator),
            nn.SiLU(),
            linear_layer(width, width, generator),
        )
        self.label = embedding_layer(classes, width, generator)
        self.flag = embedding_layer(2, width, generator) if flag else None

        def cell(d_in: int, d_out: int, attends: bool) -> Cell:
            return Cell(
                d_in,
                d_out,
                width,
                generator,
                groups=groups,
                dropout=dropout,
                scale=modulation == "scale-shift",
                attention=attends,
            )

        self.enter = conv_layer(channels * patch**2, widths[0], generator)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        kept, h = [widths[0]] if self.every else [], widths[0]
        for level, w in enumerate(widths):
            attends = self.sides[level] in attention
            self.down.append(nn.ModuleList(cell(h if i == 0 else w, w, attends) for i in range(blocks)))
            kept += [w] * (blocks if self.every else 1)
            h = w
            if level < len(widths) - 1:
                self.shrink.append(conv_layer(w, w, generator, stride=2))
                kept += [w] if self.every else []
        self.middle = nn.ModuleList([cell(h, h, bool(attention)), cell(h, h, False)])
        for level, w in reversed(list(enumerate(widths))):
            attends, cells = self.sides[level] in attention, nn.ModuleList()
            for i in range(blocks + self.every):
                cells.append(cell(h + (kept.pop() if self.every or i == 0 else 0), w, attends))
                h = w
            self.up.append(cells)
            if level:
                self.grow.append(Upsample(w, generator, conv=self.every))
        self.leave = nn.Sequential(
            nn.GroupNorm(groups, h), nn.SiLU(), conv_layer(h, channels * patch**2, generator, zero=True)
        )

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor, flag: torch.Tensor | None = None
    ) -> torch.Tensor:
        if (flag is None) != (self.flag is None):
            had, given = ("no flag", "one was given") if self.flag is None else ("a flag", "none was given")
            raise ValueError(f"this network was built with {had}, but {given}; flag must be a bool tensor (n,) or None")
        condition = self.time(sinusoid(t, self.widths[0]).to(x.dtype)) + self.label(label)
        if self.flag is not None:
            condition = condition + self.flag(flag.long())
        body = self._body(x, condition).to(x.dtype)
        if not self.input_skip:
            return body
        return self.schedule.noise(t, x) * x + self.schedule.signal(t, x) * body

    def _body(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        h = self.enter(functional.pixel_unshuffle(x, self.patch))
        kept = [h] if self.every else []
        for level, cells in enumerate(self.down):
            for i, cell in enumerate(cells):
                h = cell(h, condition)
                kept += [h] if self.every or i == len(cells) - 1 else []
            if level < len(self.shrink):
                h = self.shrink[level](h)
                kept += [h] if self.every else []
        for cell in self.middle:
            h = cell(h, condition)
        for level, cells in enumerate(self.up):
            for i, cell in enumerate(cells):
                h = cell(torch.cat([h, kept.pop()], dim=1) if self.every or i == 0 else h, condition)
            if level < len(self.grow):
                h = self.grow[level](h)
        return functional.pixel_shuffle(self.leave(h), self.patch)

    def follows(self, schedule: Schedule) -> bool:
        """Tell whether `schedule` is the one that the network was built with."""
        return self.schedule.T == schedule.T and torch.allclose(self.schedule.alpha_bar, schedule.alpha_bar)

    def set_dropout_generator(self, generator: torch.Generator | None) -> None:
        """Let the dropout masks of every block come from `generator` (on the network's device)."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator


def unet(
    name: str,
    *,
    channels: int,
    size: int,
    classes: int,
    schedule: Schedule,
    generator: torch.Generator,
    flag: bool = False,
) -> UNet:
    """Return a network of a named size.

    "tiny": 0.2M parameters, sides 16 x 16 and 8 x 8 on a CPU; "patch": 0.5M, 2 x 2 pixels a position, the one that
    learns 16 x 16 digits in a minute on one core; "mnist": 6M for 28 x 28 on a GPU; "ddpm": the 35.7M of Ho et al.
    (2020) for 32 x 32 colour, with a label table beside. ValueError for another name or a size that it cannot take.
    """
    if name not in SIZES:
        raise ValueError(f"no U-Net is named {name!r}; known are {', '.join(SIZES)}")
    return UNet(channels, size, classes=classes, schedule=schedule, generator=generator, flag=flag, **SIZES[name])


def _check(counts: dict[str, int], widths: Sequence[int], dropout: float) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    groups = counts["groups"]
    if not widths or any(w < 1 or w % groups or w % 2 for w in widths):
        raise ValueError(f"widths must be even multiples of groups={groups}, one a level, got {tuple(widths)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout!r}")


def _sides(size: int, patch: int, levels: int, attention: Sequence[int]) -> list[int]:
    """Return the side of the feature maps of each level."""
    divisor = patch * 2 ** (levels - 1)
    if size % divisor:
        below, above = size - size % divisor, size + divisor - size % divisor
        raise ValueError(
            f"pictures of size {size} do not fit this network: {levels} levels on {patch} x {patch} patches need a "
            f"multiple of {divisor}; resize them to {f'{below} or ' if below else ''}{above}, or take fewer levels"
        )
    sides = [size // patch // 2**level for level in range(levels)]
    if missing := set(attention) - set(sides):
        raise ValueError(
            f"attention={tuple(attention)} asks for feature maps of side {min(missing)}, but this network has the "
            f"sides {', '.join(map(str, sides))}"
        )
    return sides
