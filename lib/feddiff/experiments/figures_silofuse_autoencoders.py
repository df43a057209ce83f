"""Figures of the silos' autoencoders (notebook 34), each a function of a records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import half, means, runs
from feddiff.experiments.figures_silofuse_parts import ACROSS
from feddiff.experiments.frames import order

# (metrics with their colour, marker and name, axis label)
PANELS = (
    ((("reconstruction_mean", "#0072B2", "o", "mean of columns"), ("reconstruction_worst", "#56B4E9", "v", "worst")),
     "reconstruction\n(1 is perfect)"),
    ((("resemblance", "#0072B2", "o", ""),), "resemblance (0–100,\nhigher is better)"),
    (((ACROSS, "#0072B2", "o", ""),), "association error across\nsilos, equal rows"),
    ((("known_rows_leak", "#D55E00", "s", ""),), "read by one who knows\na few rows (1: all)"),
)
WIDTHS = {"half": "half", "columns": "s = d", "double": "double", "budget": "32 in all"}
VARIANTS = {"plain": "plain", "vae": "VAE", "denoising": "denoising"}
# What real rows score, and rows that are real inside each silo and shuffled between silos.
LINES = {"real": ("real rows", style.GREY, (2, 2)), "shuffled_silos": ("real silos, shuffled", style.GREY, (6, 2))}
ROWS = {"training": ("rows it was trained on", "#0072B2", "o"), "held_out": ("rows held out", "#D55E00", "s")}


@style.styled
def widths(frame: pd.DataFrame) -> Figure:
    """Draw reconstruction, quality and leakage against the width of the latents (S15, S19, S49)."""
    return _series(frame, "latent", WIDTHS, "width of the latents")


@style.styled
def variants(frame: pd.DataFrame) -> Figure:
    """Draw the same for kinds of autoencoders (S28)."""
    return _series(frame, "variant", VARIANTS, "autoencoder", joined=False)


@style.styled
def steps(frame: pd.DataFrame) -> Figure:
    """Draw the same for autoencoders trained for ever more steps (S20)."""
    counts = sorted(set(means(frame, "resemblance", ["series", "choice"], series="ae_steps")["choice"]), key=order)
    return _series(frame, "ae_steps", {count: f"{int(count):,}" for count in counts}, "autoencoder's steps")


def _series(frame: pd.DataFrame, series: str, choices: dict[str, str], label: str, joined: bool = True) -> Figure:
    """Draw a row of panels a data set; joined: the choices have an order, and lines follow it."""
    tables = {name: means(frame, name, ["series", "choice"], series=series)
              for metrics, _ in PANELS for name, *_ in metrics}
    names = sorted(set(tables["resemblance"]["dataset"]))
    choices = {name: text for name, text in choices.items() if (tables["resemblance"]["choice"] == name).any()}
    figure, axes = style.canvas(style.WIDTH, 1.95 * len(names) + 0.75, len(names), len(PANELS))
    for number, (line, dataset) in enumerate(zip(axes, names, strict=True)):
        for panel, (metrics, title) in zip(line, PANELS, strict=True):
            for index, (name, colour, marker, _) in enumerate(metrics):
                own = tables[name][(tables[name]["dataset"] == dataset) & tables[name]["choice"].isin(list(choices))]
                own = own.assign(place=[list(choices).index(text) for text in own["choice"]]).sort_values("place")
                shift = 0.1 * (index - (len(metrics) - 1) / 2)
                panel.errorbar(own["place"] + shift, own["mean"], yerr=[half(row) for row in own.itertuples()],
                               color=colour, marker=marker, linewidth=0.8 if joined else 0, elinewidth=1.4)
                _lines(panel, frame, name, dataset)
            crowded = len("".join(choices.values())) > 12
            panel.set_xticks(range(len(choices)), list(choices.values()), rotation=30 if crowded else 0)
            panel.set_xlim(-0.4, len(choices) - 0.6)
            if number == 0:
                panel.set_title(title, fontsize="small", fontweight="normal")
        line[0].set_ylabel(dataset, fontweight="bold")
    for panel in axes[-1]:
        panel.set_xlabel(label)
    handles = [Line2D([], [], color=c, marker=m, label=text) for name, c, m, text in PANELS[0][0]]
    handles += [Line2D([], [], color=c, dashes=dashes, linewidth=0.9, label=text) for text, c, dashes in LINES.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(*tables.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _lines(panel, frame: pd.DataFrame, metric: str, dataset: str) -> None:
    if metric.startswith(("reconstruction", "known")):
        return
    for method, (_, colour, dashes) in LINES.items():
        own = means(frame, metric, ["method"], method=method)
        for row in own[own["dataset"] == dataset].itertuples():
            panel.axhline(row.mean, color=colour, dashes=dashes, linewidth=0.9)


@style.styled
def generalisation(frame: pd.DataFrame) -> Figure:
    """Draw loss and reconstruction on rows seen and unseen, and membership, against the hidden width (S44)."""
    losses = {rows: means(frame, f"nll_{rows}", ["hidden"]) for rows in ROWS}
    scores = {rows: means(frame, f"reconstruction_{rows}", ["hidden"]) for rows in ROWS}
    told = means(frame, "membership_auc", ["hidden"])
    names, hidden = sorted(set(told["dataset"])), sorted(set(told["hidden"]), key=order)
    figure, axes = style.canvas(style.WIDTH, 2.1 * len(names) + 0.6, len(names), 3)
    for line, dataset in zip(axes, names, strict=True):
        for rows, (_, colour, marker) in ROWS.items():
            for panel, table in zip(line, (losses[rows], scores[rows])):
                _by_width(panel, table[table["dataset"] == dataset], hidden, colour, marker)
        _by_width(line[2], told[told["dataset"] == dataset], hidden, "black", "D")
        line[2].axhline(0.5, color=style.GREY, dashes=(2, 2), linewidth=0.9)
        titles = ("loss (nats a row,\nlower is better)", "reconstruction\n(mean, 1 is perfect)",
                  "seen or unseen, by the loss\n(AUC, 0.5: cannot tell)")
        for panel, title in zip(line, titles, strict=True):
            panel.set_xticks(range(len(hidden)), hidden)
            panel.set_xlim(-0.4, len(hidden) - 0.6)
            panel.set_ylabel(title)
        line[0].set_title(f"{dataset}, few rows", loc="left")
    for panel in axes[-1]:
        panel.set_xlabel("hidden width")
    handles = [Line2D([], [], color=c, marker=m, label=text) for text, c, m in ROWS.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(told)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _by_width(panel, own: pd.DataFrame, hidden: list[str], colour: str, marker: str) -> None:
    own = own.assign(place=[hidden.index(text) for text in own["hidden"]]).sort_values("place")
    panel.errorbar(own["place"], own["mean"], yerr=[half(row) for row in own.itertuples()], color=colour,
                   marker=marker, linewidth=0.8, elinewidth=1.4)
