"""Figures of membership attacks on DP-Fed-FinDiff (notebook 40), each a function of a long records frame."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import ends, means, runs

# Label `attack` of membership_auc -> what a reader sees, colour, marker.
WHITE = {
    "loss": ("loss, fixed noises", "#0072B2", "o"),
    "calibrated": ("loss less that of shadows", "#56B4E9", "s"),
    "shadow": ("learned on shadows", "#000000", "*"),
    "gradient": ("gradient norm", "#009E73", "^"),
}
BLACK = {
    "closest": ("distance to closest (DCR)", "#CC79A7", "P"),
    "closer": ("DCR less reference's", "#CC79A7", "o"),
    "domias": ("DOMIAS, kernels", "#D55E00", "D"),
    "domias_neighbours": ("DOMIAS, neighbours", "#D55E00", "s"),
    "gen_lra": ("Gen-LRA", "#E69F00", "v"),
    "ball": ("Monte Carlo ball", "#5F5F5F", "X"),
    "classifier": ("classifier (LOGAN)", "#009E73", "^"),
    "attributes": ("prediction errors (EPT)", "#56B4E9", "*"),
}
PANELS = (("white", WHITE, "weights"), ("black", BLACK, "release"))
GROUPS = {"all": "all records", "outliers": "outliers (10 %)"}
# Label `bound` of epsilon_lower -> what a reader sees, colour, marker.
BOUNDS = {"white": ("from the weights", "#0072B2", "o"), "black": ("from the release", "#D55E00", "D"),
          "outlier": ("one outlier, many trainings", "#000000", "*")}
METRICS = {"white_auc": "white box (AUC)", "domias_auc": "DOMIAS (AUC)", "distance_auc": "DCR attack (AUC)",
           "closer_to_train": "share nearer to train", "attack_risk": "anonymity risk"}


@style.styled
def budgets(frame: pd.DataFrame) -> Figure:
    """Draw the AUC of every attack against the budget: weights, release; all records, outliers (F14, F25)."""
    found = means(frame, "membership_auc", ["view", "attack", "group", "epsilon", "release"], release="ours")
    names, places = sorted(set(found["dataset"])), _places(found)
    lines = [(name, group) for name in names for group in GROUPS]
    figure, axes = style.canvas(style.WIDTH, 1.75 * len(lines) + 1.1, len(lines), 2, sharex=True, sharey="row")
    for line, (name, group) in zip(axes, lines, strict=True):
        for panel, (view, attacks, words) in zip(line, PANELS, strict=True):
            own = found[(found["dataset"] == name) & (found["group"] == group) & (found["view"] == view)]
            for index, (attack, (_, colour, marker)) in enumerate(attacks.items()):
                shift = 0.5 * (index - (len(attacks) - 1) / 2) / len(attacks)
                for row in own[own["attack"] == attack].itertuples():
                    panel.errorbar(places[row.epsilon] + shift, row.mean, yerr=ends(row), color=colour, marker=marker)
            panel.axhline(0.5, color=style.GREY, dashes=(2, 2), linewidth=0.9)
            panel.set_title(f"{name}: {words}, {GROUPS[group]}", fontsize=7.5)
            panel.set_xticks(list(places.values()), [_budget(text) for text in places])
        line[0].set_ylabel("membership AUC\n(0.5: cannot tell)")
    for panel in axes[-1]:
        panel.set_xlabel("privacy budget ε of a record")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=text)
               for _, attacks, _ in PANELS for text, c, m in attacks.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(found)))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1.0)
    return figure


@style.styled
def bounds(frame: pd.DataFrame) -> Figure:
    """Draw the proved lower bounds on epsilon beside the accounted one, by budget (F29)."""
    found = means(frame, "epsilon_lower", ["bound", "epsilon"])
    spent = means(frame, "epsilon_spent", ["bound", "epsilon"])
    names, places = sorted(set(found["dataset"])), _places(found)
    figure, axes = style.canvas(style.WIDTH, 2.9, 1, len(names), sharey=True)
    for panel, name in zip(axes[0], names, strict=True):
        for index, (bound, (_, colour, marker)) in enumerate(BOUNDS.items()):
            own = found[(found["dataset"] == name) & (found["bound"] == bound)]
            for row in own.itertuples():
                panel.errorbar(places[row.epsilon] + 0.2 * (index - 1), row.mean, yerr=ends(row, high=math.inf),
                               color=colour, marker=marker)
        for row in spent[(spent["dataset"] == name) & (spent["bound"] == "white")].itertuples():
            panel.hlines(row.mean, places[row.epsilon] - 0.4, places[row.epsilon] + 0.4, color="black", linewidth=1.4)
        panel.set_yscale("symlog", linthresh=0.1)
        panel.set_ylim(-0.02, 20)
        panel.set_xticks(list(places.values()), [_budget(text) for text in places])
        panel.set_xlabel("budget ε asked for")
        panel.set_title(name)
    axes[0, 0].set_ylabel("ε at δ (below 0.1 linear)")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=f"lower bound, {text}")
               for text, c, m in BOUNDS.values()]
    handles.append(Line2D([], [], color="black", linewidth=1.4, label="accounted"))
    handles.append(Line2D([], [], linestyle="none", label=runs(found)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def ranks(frame: pd.DataFrame) -> Figure:
    """Draw how alike the metrics rank the trained releases: Kendall's tau of each pair (S26)."""
    found = means(frame, "rank_agreement", ["metric", "other"])
    names = sorted(set(found["dataset"]))
    pairs = list(dict.fromkeys(zip(found["metric"], found["other"], strict=True)))
    looks = style.colours(names)
    figure, axes = style.canvas(style.WIDTH * 0.75, 0.24 * len(pairs) + 1.2)
    panel = axes[0, 0]
    for index, name in enumerate(names):
        colour, marker = looks[name]
        for row in found[found["dataset"] == name].itertuples():
            place = pairs.index((row.metric, row.other)) + 0.2 * (index - (len(names) - 1) / 2)
            panel.errorbar(row.mean, place, xerr=ends(row, low=-1.0), color=colour, marker=marker)
    panel.axvline(0, color=style.GREY, dashes=(2, 2), linewidth=0.9)
    panel.set_yticks(range(len(pairs)), [f"{METRICS[one]} – {METRICS[other]}" for one, other in pairs])
    panel.set_ylim(len(pairs) - 0.5, -0.5)
    panel.set_xlim(-1.05, 1.05)
    panel.set_xticks([-1, -0.5, 0, 0.5, 1])
    panel.set_xlabel("agreement of ranks (Kendall's τ)")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, (c, m) in looks.items()]
    handles.append(Line2D([], [], linestyle="none", label=runs(found)))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _places(found: pd.DataFrame) -> dict[str, int]:
    return {text: place for place, text in enumerate(sorted(set(found["epsilon"]), key=_order))}


def _order(text: str) -> tuple:
    return (1, 0.0, text) if text == "inf_long" else (0, float(text), text)


def _budget(text: str) -> str:
    return "∞, long" if text == "inf_long" else style.epsilon_name(text)
