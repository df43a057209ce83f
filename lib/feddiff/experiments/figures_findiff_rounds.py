"""Figures of local updates and rounds of DP-Fed-FinDiff (notebook 12), each a function of a long records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

from feddiff.experiments import style
from feddiff.experiments.figures_findiff_clients import ARMS, arms_legend
from feddiff.experiments.figures_pfdm import half, means, runs

REGIMES = {"steps": "R · S fixed", "rounds": "R fixed"}
SCORES = {"pair_trends": ("pair trends", {}), "roc_auc": ("ROC AUC", {"classifier": "boosting"})}
LOSSES = {
    "held_out_loss": "held-out loss at the end\n(lower is better)",
    "bytes_to_target": "bytes to the loss\nthat all reach",
}
SLOPES = {"pair_trends": "pair trends", "roc_auc": "ROC AUC", "held_out_loss": "held-out loss (left is better)"}


def _curves(panel, table: pd.DataFrame, seen: dict) -> None:
    for place, (arm, (text, colour, marker, dashed)) in enumerate(ARMS.items()):
        own = table[(table["budget"] == arm[0]) & (table["partition"] == arm[1])]
        own = own.assign(count=own["local_updates"].astype(int)).sort_values("count")
        if len(own):
            look = dict(color=colour, marker=marker, linestyle="--" if dashed else "-",
                        markerfacecolor="white" if dashed else colour)
            bars = [half(row) for row in own.itertuples()]
            panel.errorbar(own["count"] * 1.04 ** (place - 2), own["mean"], yerr=bars, **look)
            seen[arm] = Line2D([], [], label=text, **look)
    counts = sorted({int(text) for text in table["local_updates"]})
    panel.set_xscale("log")
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_locator(FixedLocator(counts))
    panel.set_xticks(counts, [str(count) for count in counts])
    panel.xaxis.set_minor_formatter(NullFormatter())


def _grid(tables: dict[str, pd.DataFrame], height: float) -> Figure:
    """Draw one row a table (title -> table), one column a data set; the panels of a row share their y axis."""
    names = sorted(set(next(iter(tables.values()))["dataset"]))
    figure, axes = style.canvas(style.WIDTH, height * len(tables) + 0.9, len(tables), len(names), sharey="row")
    seen = {}
    for line, (title, table) in zip(axes, tables.items(), strict=True):
        for panel, dataset in zip(line, names, strict=True):
            _curves(panel, table[table["dataset"] == dataset], seen)
            if title == next(iter(tables)):
                panel.set_title(dataset)
            if title == list(tables)[-1]:
                panel.set_xlabel("local updates S of a round")
        line[0].set_ylabel(title)
    arms_legend(figure, seen, tables)
    return figure


@style.styled
def updates(frame: pd.DataFrame) -> Figure:
    """Draw fidelity and utility against local updates, at fixed total steps and at fixed rounds (F7, F8, F9)."""
    by = ["budget", "partition", "local_updates"]
    return _grid(
        {f"{name}\n{text}": means(frame, metric, by, regime=regime, **where)
         for regime, text in REGIMES.items() for metric, (name, where) in SCORES.items()},
        1.3,
    )


@style.styled
def communication(frame: pd.DataFrame) -> Figure:
    """Draw the held-out loss at the end of equal steps, and the bytes to a common loss, against local updates (F24)."""
    by = ["budget", "partition", "local_updates"]
    tables = {title: means(frame, metric, by, regime="steps") for metric, title in LOSSES.items()}
    figure = _grid(tables, 1.7)
    columns = len(set(frame["dataset"]))
    for panel in figure.axes[columns:]:
        panel.set_yscale("log")
    return figure


@style.styled
def _slopes(frame: pd.DataFrame, regime: str) -> Figure:
    looks = style.colours(frame["dataset"])
    lines = {"none": "no DP", "epsilon": "ε = 1"}
    figure, axes = style.canvas(style.WIDTH, 3.9, 3, len(SLOPES), sharey=True)
    drawn = []
    rows = (("slope", "iid", "at random"), ("slope", "by_category", "by category"),
            ("interaction", "", "at random less\nby category"))
    for row, (kind, partition, title) in zip(axes, rows, strict=True):
        for panel, (metric, name) in zip(row, SLOPES.items(), strict=True):
            where = {"partition": partition} if partition else {}
            table = means(frame, f"{metric}_{kind}", ["budget"], regime=regime, **where)
            drawn.append(table)
            panel.axvline(0, color="black", linewidth=0.7)
            for index, (dataset, (colour, marker)) in enumerate(looks.items()):
                for own in table[table["dataset"] == dataset].itertuples():
                    place = list(lines).index(own.budget) + 0.2 * (index - (len(looks) - 1) / 2)
                    panel.errorbar(own.mean, place, xerr=half(own), color=colour, marker=marker, linestyle="none")
            panel.xaxis.set_major_locator(MaxNLocator(3))
            if kind == "interaction":
                panel.set_xlabel(f"{name},\nchange for ten times S")
        row[0].set_yticks(range(len(lines)), list(lines.values()))
        row[0].set_ylim(len(lines) - 0.4, -0.6)
        row[0].set_ylabel(title, fontweight="bold")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, (c, m) in looks.items()]
    handles.append(Line2D([], [], linestyle="none", label=f"{REGIMES[regime]}; {runs(*drawn)}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def interaction(frame: pd.DataFrame) -> Figure:
    """Draw the change for ten times as many local updates at R * S fixed, and its interaction with the split (F9)."""
    return _slopes(frame, "steps")


def interaction_rounds(frame: pd.DataFrame) -> Figure:
    """Draw the same at R fixed, where more local updates are more training."""
    return _slopes(frame, "rounds")
