"""Figures of what a step, a whole update and an upload give away (notebook 45), functions of a records frame."""

import math
from itertools import product

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import ends, means, runs
from feddiff.experiments.frames import order

ATTACKS = {"ratio": "ratio of gradients", "separation": "known time features", "bins": "planted bins (malicious)"}
METRICS = {"inputs_recovered": "network inputs recovered\n(share, to 1 %)",
           "records_recovered": "whole records recovered\n(share, every column)"}
LOOKS = dict(zip(("1", "8", "16", "256"), (("#D55E00", "o"), ("#E69F00", "^"), ("#CC79A7", "s"), ("#0072B2", "D"))))
NOISES = {"none": "none", "0": "clip", "inf": "∞"}
BUDGETS = {"inf": ("without DP", "#D55E00", "o"), "1": ("ε = 1 a record", "#0072B2", "s")}
PARTITIONS = {"by_category": ("clients that differ", "full", "-"), "iid": ("control: equal draws", "none", ":")}
SENT = {("sgd", "none"): ("SGD", "#D55E00", "o"), ("adam", "none"): ("Adam, as the system", "#009E73", "^"),
        ("sgd", "1"): ("SGD, noise multiplier 1", "#0072B2", "s")}
READ = {"separation": ("known time features", "-"), "ratio": ("ratio of gradients", ":")}
LEFT = {"update_input_error": "error of the network inputs\n(relative; 1: nothing found)",
        "update_inputs_recovered": "network inputs recovered\n(share, to 1 %)",
        "update_records_recovered": "whole records recovered\n(share, every column)"}
AUDITED = {"sgd": ("bound, SGD", "#D55E00", "o"), "adam": ("bound, Adam", "#009E73", "^")}


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
                drawn = sorted(zip(where, part.itertuples(index=False), strict=True), key=lambda point: point[0])
                if drawn:
                    x, rows = zip(*drawn, strict=True)
                    panel.errorbar(x, [row.mean for row in rows], yerr=ends(*rows), color=colour, marker=marker)
            for row in control.itertuples():
                panel.plot(noises.index(row.noise), row.mean, "_", color=style.GREY)
            panel.set_ylim(-0.25, 1.06)
            panel.set_xticks(range(len(noises)), [NOISES.get(text, text) for text in noises])
            panel.set_title(title if name == "inputs_recovered" else "batch of 1: ratio's guess" if own.empty else "")
            if panel in axes[-1]:
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
        rows = sorted(own.itertuples(), key=lambda row: noises.index(row.noise))
        panel.errorbar([noises.index(row.noise) for row in rows], [row.mean for row in rows],
                       yerr=ends(*rows, low=-1.0), color=colour, marker=marker, linestyle=line)
    panel.text(0.98, 0.9, "correlation with\nthe network input", transform=panel.transAxes, ha="right", va="top")


@style.styled
def updates(frame: pd.DataFrame) -> Figure:
    """Draw what is read out of a whole update against its local steps, by optimiser, noise and attack (F14)."""
    found = {name: means(frame, name, ["attack", "local_steps", "optimiser", "noise"]) for name in LEFT}
    controls = {name: means(frame, f"{name}_control", ["attack", "local_steps", "optimiser", "noise"]) for name in LEFT}
    some = found["update_input_error"]
    datasets, counts = sorted(set(some["dataset"])), sorted(set(some["local_steps"]), key=order)
    figure, axes = style.canvas(style.WIDTH, 1.9 * len(datasets) + 0.8, len(datasets), len(LEFT), sharex=True)
    for line, dataset in zip(axes, datasets, strict=True):
        for panel, (name, title) in zip(line, LEFT.items(), strict=True):
            most = math.inf if name == "update_input_error" else 1.0
            for index, ((optimiser, noise), (_, colour, marker)) in enumerate(SENT.items()):
                for attack, (_, dashes) in READ.items():
                    own, control = (table[(table["dataset"] == dataset) & (table["optimiser"] == optimiser)
                                          & (table["noise"] == noise) & (table["attack"] == attack)]
                                    for table in (found[name], controls[name]))
                    rows = sorted(own.itertuples(), key=lambda row: counts.index(row.local_steps))
                    if rows:
                        panel.errorbar([counts.index(row.local_steps) + 0.08 * (index - 1) for row in rows],
                                       [row.mean for row in rows], yerr=ends(*rows, high=most), color=colour,
                                       marker=marker, linestyle=dashes)
                    for row in control.itertuples():
                        panel.plot(counts.index(row.local_steps), row.mean, "_", color=style.GREY)
            panel.set_ylim(-0.06, 1.08)
            panel.set_xticks(range(len(counts)), counts)
            panel.set_title(title if panel in axes[0] else "")
            if panel in axes[-1]:
                panel.set_xlabel("local steps in the update")
        if len(datasets) > 1:
            line[0].set_ylabel(dataset)
    handles = [Line2D([], [], color=colour, marker=marker, label=name) for name, colour, marker in SENT.values()]
    handles += [Line2D([], [], color=style.GREY, linestyle=dashes, label=name) for name, dashes in READ.values()]
    handles.append(Line2D([], [], color=style.GREY, marker="_", linestyle="none", label="control: another update"))
    handles.append(Line2D([], [], linestyle="none", label=runs(*found.values())))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def canaries(frame: pd.DataFrame) -> Figure:
    """Draw the audited lower bounds of one update, its formal epsilon, and the bound had every guess been right."""
    by = ["budget", "optimiser"]
    formal, lower, ceiling, estimate = (means(frame, f"upload_epsilon{suffix}", by)
                                        for suffix in ("", "_lower", "_ceiling", "_estimate"))
    datasets, budgets = sorted(set(lower["dataset"])), sorted(set(lower["budget"]), key=order)
    figure, axes = style.canvas(max(4.4, 2.3 * len(datasets)), 2.9, 1, len(datasets), sharey=True)
    for panel, dataset in zip(axes[0], datasets, strict=True):
        for table, colour, marker, size in ((formal, "black", "_", 16), (ceiling, style.GREY, "_", 16)):
            for row in table[table["dataset"] == dataset].itertuples():
                panel.plot(budgets.index(row.budget), row.mean, marker, color=colour, markersize=size)
        for index, (optimiser, (_, colour, marker)) in enumerate(AUDITED.items()):
            shift = 0.1 * (2 * index - 1)
            own = lower[(lower["dataset"] == dataset) & (lower["optimiser"] == optimiser)]
            for row in own.itertuples():
                panel.errorbar(budgets.index(row.budget) + shift, row.mean, yerr=ends(row, high=math.inf),
                               color=colour, marker=marker)
            own = estimate[(estimate["dataset"] == dataset) & (estimate["optimiser"] == optimiser)]
            for row in own[own["budget"] != "inf"].itertuples():
                panel.plot(budgets.index(row.budget) + shift, row.mean, marker, color=colour, fillstyle="none")
        panel.set_xticks(range(len(budgets)), ["no noise" if text == "inf" else text for text in budgets])
        panel.set_xlim(-0.5, len(budgets) - 0.5)
        panel.set_ylim(bottom=-0.3)
        panel.set_title(dataset)
        panel.set_xlabel("formal ε of the update")
    axes[0, 0].set_ylabel("ε of one update")
    handles = [Line2D([], [], color="black", marker="_", linestyle="none", label="formal"),
               Line2D([], [], color=style.GREY, marker="_", linestyle="none", label="bound, every guess right")]
    handles += [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, c, m in AUDITED.values()]
    handles.append(Line2D([], [], color=style.GREY, marker="o", fillstyle="none", linestyle="none",
                          label="estimate (no bound)"))
    handles.append(Line2D([], [], linestyle="none", label=runs(lower)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


@style.styled
def owners(frame: pd.DataFrame) -> Figure:
    """Draw how often the owner of records is found from one upload of each client, by records a guess (F45).

    Clients that differ, and the same rows dealt out in equal draws (the control).
    """
    by = ["epsilon", "group", "partition"]
    found, chance = (means(frame, name, by) for name in ("source_accuracy", "source_chance"))
    datasets, sizes = sorted(set(found["dataset"])), sorted(set(found["group"]), key=order)
    figure, axes = style.canvas(max(4.4, 2.3 * len(datasets)), 2.9, 1, len(datasets), sharey=True)
    for panel, dataset in zip(axes[0], datasets, strict=True):
        panel.axhline(chance.loc[chance["dataset"] == dataset, "mean"].mean(), color=style.GREY, dashes=(2, 2))
        for index, (budget, partition) in enumerate(product(BUDGETS, PARTITIONS)):
            (_, colour, marker), (_, fill, dashes) = BUDGETS[budget], PARTITIONS[partition]
            own = found[(found["dataset"] == dataset) & (found["epsilon"] == budget)
                        & (found["partition"] == partition)]
            rows = sorted(own.itertuples(), key=lambda row: sizes.index(row.group))
            if rows:
                panel.errorbar([sizes.index(row.group) + 0.05 * (index - 1.5) for row in rows],
                               [row.mean for row in rows], yerr=ends(*rows), color=colour, marker=marker,
                               fillstyle=fill, linestyle=dashes)
        panel.set_xticks(range(len(sizes)), sizes)
        panel.set_ylim(0, 1.05)
        panel.set_title(dataset)
        panel.set_xlabel("records of one client a guess")
    axes[0, 0].set_ylabel("owner found\n(share of guesses)")
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, c, m in BUDGETS.values()]
    handles += [Line2D([], [], color=style.GREY, marker="o", fillstyle=fill, linestyle=dashes, label=name)
                for name, fill, dashes in PARTITIONS.values()]
    handles.append(Line2D([], [], color=style.GREY, dashes=(2, 2), label="chance"))
    handles.append(Line2D([], [], linestyle="none", label=runs(found)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
