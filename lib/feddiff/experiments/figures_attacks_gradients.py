"""Figures of what one step and one upload give away (notebook 45), functions of a records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import half, means, runs
from feddiff.experiments.frames import order

ATTACKS = {"ratio": "ratio of gradients", "separation": "known time features", "bins": "planted bins (malicious)"}
METRICS = {"inputs_recovered": "network inputs recovered\n(share, to 1 %)",
           "records_recovered": "whole records recovered\n(share, every column)"}
LOOKS = dict(zip(("1", "8", "16", "256"), (("#D55E00", "o"), ("#E69F00", "^"), ("#CC79A7", "s"), ("#0072B2", "D"))))
NOISES = {"none": "none", "0": "clip", "inf": "∞"}
BUDGETS = {"inf": ("without DP", "#D55E00", "o"), "1": ("ε = 1 a record", "#0072B2", "s")}


def _noises(texts) -> list[str]:
    """Return noise labels in order: no clipping, clipping alone, then rising noise."""
    return sorted(set(texts), key=lambda text: (text != "none", 0.0 if text == "none" else float(text)))


@style.styled
def steps(frame: pd.DataFrame) -> Figure:
    """Draw the share recovered from one step by each attack against the noise, a line for each batch size (F14)."""
    found = {name: means(frame, name, ["attack", "batch", "noise"]) for name in METRICS}
    controls = {name: means(frame, f"{name}_control", ["attack", "batch", "noise"]) for name in METRICS}
    datasets, noises = sorted(set(found["inputs_recovered"]["dataset"])), _noises(found["inputs_recovered"]["noise"])
    batches = sorted(set(found["inputs_recovered"]["batch"]), key=order)
    shown = [(name, dataset) for dataset in datasets for name in METRICS]
    figure, axes = style.canvas(style.WIDTH, 1.9 * len(shown) + 0.7, len(shown), len(ATTACKS), sharey=True, sharex=True)
    for line, (name, dataset) in zip(axes, shown, strict=True):
        for panel, (attack, title) in zip(line, ATTACKS.items(), strict=True):
            own, control = (table[(table["dataset"] == dataset) & (table["attack"] == attack)]
                            for table in (found[name], controls[name]))
            if own.empty:
                _one_guess(panel, frame, dataset, noises)
            for index, batch in enumerate(batches):
                part, (colour, marker) = own[own["batch"] == batch], LOOKS[batch]
                where = [noises.index(text) + 0.08 * (index - (len(batches) - 1) / 2) for text in part["noise"]]
                drawn = sorted(zip(where, part["mean"], map(half, part.itertuples()), strict=True))
                if drawn:
                    x, y, error = zip(*drawn, strict=True)
                    panel.errorbar(x, y, yerr=error, color=colour, marker=marker)
            for row in control.itertuples():
                panel.plot(noises.index(row.noise), row.mean, "_", color=style.GREY)
            panel.set_ylim(-0.25, 1.06)
            panel.set_xticks(range(len(noises)), [NOISES.get(text, text) for text in noises])
            panel.set_title(title if name == "inputs_recovered" else "batch of 1: ratio's guess" if own.empty else "")
            if line is axes[-1]:
                panel.set_xlabel("noise multiplier")
        line[0].set_ylabel(METRICS[name] if len(datasets) == 1 else f"{dataset}\n{METRICS[name]}")
    handles = [Line2D([], [], color=LOOKS[batch][0], marker=LOOKS[batch][1], label=f"batch of {batch}")
               for batch in batches]
    handles.append(Line2D([], [], color=style.GREY, marker="_", linestyle="none", label="control: another batch"))
    handles.append(Line2D([], [], linestyle="none", label=runs(*found.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _one_guess(panel, frame: pd.DataFrame, dataset: str, noises: list[str]) -> None:
    """Draw the correlation of the one guess at batch 1 with the input: what is left where nothing is exact any more."""
    for name, colour, marker, line in (("correlation", LOOKS["1"][0], LOOKS["1"][1], "-"),
                                       ("correlation_control", style.GREY, "_", "none")):
        own = frame[(frame["name"] == name) & (frame["dataset"] == dataset)]
        if own.empty:
            continue
        own = means(own, name, ["noise"])
        drawn = sorted(zip(map(noises.index, own["noise"]), own["mean"], map(half, own.itertuples()), strict=True))
        x, y, error = zip(*drawn, strict=True)
        panel.errorbar(x, y, yerr=error, color=colour, marker=marker, linestyle=line)
    panel.text(0.98, 0.9, "correlation with\nthe network input", transform=panel.transAxes, ha="right", va="top")


@style.styled
def owners(frame: pd.DataFrame) -> Figure:
    """Draw how often the owner of records is found from one upload of each client, by records a guess (F45)."""
    found, chance = (means(frame, name, ["epsilon", "group"]) for name in ("source_accuracy", "source_chance"))
    datasets, sizes = sorted(set(found["dataset"])), sorted(set(found["group"]), key=order)
    figure, axes = style.canvas(max(style.COLUMN, 2.3 * len(datasets)), 2.9, 1, len(datasets), sharey=True)
    for panel, dataset in zip(axes[0], datasets, strict=True):
        panel.axhline(chance.loc[chance["dataset"] == dataset, "mean"].mean(), color=style.GREY, dashes=(2, 2))
        for index, (budget, (_, colour, marker)) in enumerate(BUDGETS.items()):
            own = found[(found["dataset"] == dataset) & (found["epsilon"] == budget)]
            drawn = sorted((sizes.index(row.group) + 0.06 * (2 * index - 1), row.mean, half(row))
                           for row in own.itertuples())
            if drawn:
                x, y, error = zip(*drawn, strict=True)
                panel.errorbar(x, y, yerr=error, color=colour, marker=marker)
        panel.set_xticks(range(len(sizes)), sizes)
        panel.set_ylim(0, 1.05)
        panel.set_title(dataset)
        panel.set_xlabel("records of one client a guess")
    axes[0, 0].set_ylabel("owner found\n(share of guesses)")
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, c, m in BUDGETS.values()]
    handles.append(Line2D([], [], color=style.GREY, dashes=(2, 2), label="chance"))
    handles.append(Line2D([], [], linestyle="none", label=runs(found)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
