"""What `01_explore` shows: each function returns a frame or a figure, so it serves a widget and a plain cell alike."""

import itertools

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from feddiff.data.codec import Encoded, TableCodec
from feddiff.data.images import ImageSet
from feddiff.diffusion.process import q_sample
from feddiff.diffusion.schedules import Schedule
from feddiff.diffusion.table_space import table_space
from feddiff.experiments import style
from feddiff.experiments.figures_quickstart import shares
from feddiff.privacy import accounting
from feddiff.seeds import numpy_generator, torch_generator


def noised_row(frame: pd.DataFrame, codec: TableCodec, row: int, schedule: Schedule, seed: int = 0) -> pd.DataFrame:
    """Return one row of a table as it decodes after 0, 10, 25, 50, 75 and 100 % of the steps of the forward process."""
    encoded = codec.encode(frame.iloc[[row]], numpy_generator(seed, "ties"))
    generator = torch_generator(seed, "explore", "row")
    space = table_space(codec.levels, len(codec.number_columns), embedding="circle", generator=generator)
    x0 = space.embed(torch.from_numpy(encoded.codes), torch.from_numpy(encoded.numbers))
    noise = torch.randn(x0.shape, generator=generator)
    rows, steps = [codec.decode(encoded)], [0]
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        t = max(round(share * schedule.T) - 1, 0)
        codes, numbers = space.nearest(q_sample(x0, torch.tensor([t]), noise, schedule))
        rows.append(codec.decode(Encoded(codes.numpy(), numbers.numpy())))
        steps.append(t + 1)
    shown = pd.concat(rows, ignore_index=True)
    kept = [1.0, *(float(schedule.alpha_bar[step - 1]) for step in steps[1:])]
    shown.insert(0, "signal left", [f"{value:.3f}" for value in kept])
    return shown.set_index(pd.Index(steps, name="step"))


@style.styled
def noised_picture(
    images: ImageSet, picture: int, schedule: Schedule, step: int | None = None, seed: int = 0
) -> Figure:
    """Draw one picture through the forward process: at seven steps, or at the one `step` (1..T) that is given."""
    grid = np.linspace(1, schedule.T, 7).round().astype(int) if step is None else [step]
    x0 = torch.from_numpy(images.images[picture].astype(np.float32)).mean(dim=-1) / 127.5 - 1
    noise = torch.randn(x0.shape, generator=torch_generator(seed, "explore", "picture"))
    figure, axes = style.canvas(style.WIDTH if step is None else 2.2, 1.35 if step is None else 2.3, 1, len(grid))
    for panel, t in zip(axes[0], grid):
        xt = q_sample(x0[None], torch.tensor([int(t) - 1]), noise[None], schedule)[0]
        panel.imshow(xt.numpy(), cmap="gray", vmin=-1.5, vmax=1.5)
        panel.set_title(f"t = {t}\nsignal {float(schedule.alpha_bar[t - 1]):.2f}", fontsize=7)
        panel.set_axis_off()
    return figure


def epsilon_grid(sigmas, sample_rates, steps, *, delta: float) -> pd.DataFrame:
    """Return epsilon (PLD, add-remove, Poisson) for every combination of noise multiplier, sample rate and steps."""
    rows = [
        (sigma, q, T, accounting.epsilon(sample_rate=q, noise_multiplier=sigma, steps=T, delta=delta))
        for sigma, q, T in itertools.product(sigmas, sample_rates, steps)
    ]
    return pd.DataFrame(rows, columns=["sigma", "sample_rate", "steps", "epsilon"])


@style.styled
def epsilon_curves(frame: pd.DataFrame) -> Figure:
    """Draw epsilon against sigma from a frame of `epsilon_grid`: a line per sample rate, a panel per step count."""
    panels = sorted(set(frame["steps"]))
    figure, axes = style.canvas(style.WIDTH, 2.6, 1, len(panels), sharey=True)
    for panel, steps in zip(axes[0], panels):
        for place, (q, part) in enumerate(frame[frame["steps"] == steps].groupby("sample_rate")):
            panel.plot(
                part["sigma"], part["epsilon"], color=style.PALETTE[place], marker=style.MARKERS[place],
                label=f"q = {q:g}",
            )
        panel.axhline(1.0, color=style.GREY, linewidth=0.8, dashes=(4, 2))
        panel.set(xscale="log", yscale="log", title=f"{steps:,} steps", xlabel="noise multiplier σ")
        sigmas = sorted(set(frame["sigma"]))
        panel.set_xticks(sigmas, [f"{sigma:g}" for sigma in sigmas])
        panel.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].set_ylabel("ε per record")
    axes[0, 0].legend()
    return figure


@style.styled
def column(real: pd.DataFrame, synthetic: pd.DataFrame, kinds: dict[str, str], name: str) -> Figure:
    """Draw one column of two tables side by side: shares of its bins or levels."""
    part = shares(real[[name]], synthetic[[name]], kinds)
    figure, axes = style.canvas(style.COLUMN + 1.0, 2.3, 1, 1)
    place = np.arange(len(part))
    axes[0, 0].bar(place - 0.2, part["share_real"], width=0.4, color=style.GREY, label="real, held out")
    axes[0, 0].bar(place + 0.2, part["share_synthetic"], width=0.4, color=style.PALETTE[0], label="synthetic")
    axes[0, 0].set_xticks(place, part["level"], rotation=45, ha="right")
    axes[0, 0].set(title=name, ylabel="share of rows")
    axes[0, 0].legend()
    return figure
