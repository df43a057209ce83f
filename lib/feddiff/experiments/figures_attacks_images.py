"""Figures of membership attacks on PFDM's parts (notebook 41), each a function of a long records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import ends, half, means, runs
from feddiff.experiments.frames import order

# Label `view` of membership_auc -> what a reader sees, from what the papers attack to what they do not.
VIEWS = {
    "global": "global model, clean queries (the papers')",
    "global_noised": "global model, noised queries",
    "uploads": "the uploads",
    "local_other": "local model, other client's pictures",
    "local": "local model, own pictures",
    "samples": "composed synthetic pictures",
    "centralised": "centralised model, equal epochs",
    "centralised_long": "centralised model, 10/3 of the epochs",
}
# Views that (epsilon, delta) of a picture covers: a noised query is an upload, which whoever asks already holds.
COVERED = ("global", "uploads")
# Label `attack` -> what a reader sees, colour, marker.
ATTACKS = {
    "loss": ("loss, fixed noises", "#0072B2", "o"),
    "secmi": ("SecMI", "#E69F00", "s"),
    "pia": ("PIA", "#009E73", "^"),
    "ratio": ("loss, likelihood ratio from shadows", "#000000", "*"),
    "posterior": ("likelihood ratio of the uploads", "#D55E00", "D"),
    "nearest": ("distance to the nearest sample", "#CC79A7", "P"),
    "permuted": ("membership dealt out anew", "#C8C8C8", "x"),
}
GROUPS = {"majority": ("classes with many pictures", "#56B4E9", "o"),
          "minority": ("classes with few pictures", "#D55E00", "s")}
SAMPLERS = {"global": "global model, against uploads", "local": "local model alone", "composed": "PFDM, composed"}
CRITERIA = {"ratio": "d1 / d2 < 1/3", "extraction": "d1 < ½ mean of 50 nearest"}


@style.styled
def views(frame: pd.DataFrame) -> Figure:
    """Draw the AUC of every attack on every view, a panel a cell; beside it the bound that the guarantee gives."""
    figure = _dots(frame, "membership_auc", "AUC of membership (0.5: chance)", 0.5, "bound_auc")
    for panel in figure.axes:
        panel.set_xlim(right=1.03)
    return figure


@style.styled
def power(frame: pd.DataFrame) -> Figure:
    """Draw the true positive rate at 1 % false positives of every attack on every view (10 % in a small game)."""
    metric, rate = "tpr_at_1_percent", 0.01
    if not (frame["name"] == metric).any():
        metric, rate = "tpr_at_10_percent", 0.1
    words = f"members found at {100 * rate:.0f} % false positives"
    return _dots(frame, metric, words, rate, "bound_tpr" if rate == 0.01 else None)


@style.styled
def groups(frame: pd.DataFrame) -> Figure:
    """Draw the AUC of the loss attack for classes with many and with few pictures, by view, a panel a cell."""
    found = means(frame, "membership_auc", ["view", "t0", "group"], attack="loss")
    found = found[found["group"].isin(GROUPS)]
    names, cells = sorted(set(found["dataset"])), _cells(found)
    shown = [view for view in VIEWS if (found["view"] == view).any()]
    figure, axes = style.canvas(style.WIDTH, len(names) * (0.24 * len(shown) + 0.7) + 0.6, len(names), len(cells),
                                sharey=True, sharex=True)
    for line, dataset in zip(axes, names, strict=True):
        for panel, t0 in zip(line, cells, strict=True):
            own = found[(found["dataset"] == dataset) & found["t0"].isin(["", t0])]
            for index, (group, (_, colour, marker)) in enumerate(GROUPS.items()):
                for row in own[own["group"] == group].itertuples():
                    panel.errorbar(row.mean, shown.index(row.view) + 0.16 * (2 * index - 1), xerr=ends(row),
                                   color=colour, marker=marker, linestyle="none")
            _finish(panel, f"{dataset}, $t_0$={t0}", shown, 0.5)
            panel.set_xlabel("AUC of the loss attack")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, c, m in GROUPS.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(found)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def memorised(frame: pd.DataFrame) -> Figure:
    """Draw the share of samples that count as memorised, beside that against pictures that no model saw (P21)."""
    sides = {"memorised": ("against training pictures", "#D55E00"),
             "memorised_control": ("against as many that it never saw", "#5F5F5F")}
    found = {metric: means(frame, metric, ["sampler", "criterion", "t0"]) for metric in sides}
    names, cells = sorted(set(found["memorised"]["dataset"])), _cells(found["memorised"])
    rows = [(sampler, t0) for t0 in cells for sampler in SAMPLERS]
    reach = max(row.mean + half(row) for table in found.values() for row in table.itertuples())
    figure, axes = style.canvas(style.WIDTH, len(names) * (0.34 * len(rows) + 0.6) + 0.5, len(names), len(CRITERIA),
                                sharey=True, sharex=True)
    for line, dataset in zip(axes, names, strict=True):
        for panel, (criterion, words) in zip(line, CRITERIA.items(), strict=True):
            for index, (metric, (_, colour)) in enumerate(sides.items()):
                part = found[metric]
                own = part[(part["dataset"] == dataset) & (part["criterion"] == criterion)]
                for row in own.itertuples():
                    place = rows.index((row.sampler, row.t0)) + 0.36 * (index - 0.5)
                    panel.barh(place, row.mean, height=0.34, color=colour, xerr=ends(row) if half(row) else None)
                    panel.annotate(f"{row.mean:.3f}", (row.mean + half(row), place), (3, 0), va="center",
                                   textcoords="offset points", fontsize=6.5)
            panel.set_title(f"{dataset}: {words}")
            panel.set_xlabel("share of samples")
            panel.set_xlim(0, max(0.02, 1.25 * reach))
        line[0].set_yticks(range(len(rows)), [f"{SAMPLERS[sampler]}, $t_0$={t0}" for sampler, t0 in rows])
        line[0].set_ylim(len(rows) - 0.5, -0.5)
    handles = [Line2D([], [], color=colour, linewidth=5, label=name) for name, colour in sides.values()]
    handles.append(Line2D([], [], linestyle="none", label=runs(found["memorised"])))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _dots(frame: pd.DataFrame, metric: str, words: str, chance: float, bound: str | None) -> Figure:
    found = means(frame, metric, ["view", "attack", "t0"], group="all")
    found = found[found["attack"].isin(ATTACKS)]
    names, cells = sorted(set(found["dataset"])), _cells(found)
    shown = [view for view in VIEWS if (found["view"] == view).any()]
    allowed = None if bound is None else means(frame, bound, ["t0"])
    figure, axes = style.canvas(style.WIDTH, len(names) * (0.27 * len(shown) + 0.7) + 0.8, len(names), len(cells),
                                sharey=True, sharex=True)
    for line, dataset in zip(axes, names, strict=True):
        for panel, t0 in zip(line, cells, strict=True):
            own = found[(found["dataset"] == dataset) & found["t0"].isin(["", t0])]
            for row in own.itertuples():
                _, colour, marker = ATTACKS[row.attack]
                panel.errorbar(row.mean, shown.index(row.view), xerr=ends(row), color=colour, marker=marker,
                               linestyle="none", zorder=2 if row.attack == "permuted" else 3)
            if allowed is not None:
                limit = allowed[(allowed["dataset"] == dataset) & (allowed["t0"] == t0)]["mean"]
                for value in limit:
                    for place in (shown.index(view) for view in COVERED if view in shown):
                        panel.vlines(value, place - 0.35, place + 0.35, color="black", linewidth=1.6)
            _finish(panel, f"{dataset}, $t_0$={t0}", shown, chance)
            panel.set_xlabel(words)
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name)
               for key, (name, c, m) in ATTACKS.items() if (found["attack"] == key).any()]
    if allowed is not None:
        handles.append(Line2D([], [], color="black", linewidth=1.4, label="the most that (ε, δ) of a picture allows"))
    handles.append(Line2D([], [], linestyle="none", label=runs(found)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _finish(panel, title: str, shown: list[str], chance: float) -> None:
    panel.axvline(chance, color=style.GREY, linewidth=0.8, dashes=(2, 2))
    panel.set_yticks(range(len(shown)), [VIEWS[view] for view in shown])
    panel.set_ylim(len(shown) - 0.5, -0.5)
    panel.set_title(title)


def _cells(found: pd.DataFrame) -> list[str]:
    return sorted(set(found["t0"]) - {""}, key=order)
