"""Figures of noise, clipping and batches (notebook 15), each a function of a records frame."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import half, means, runs
from feddiff.experiments.frames import order

CURVES = (("pair_trends", "", "Fidelity"), ("roc_auc", "boosting", "Utility"), ("attack_risk", "", "Leakage"))
_BUDGETS = {"0.2": "#D55E00", "1": "#0072B2", "10": "#009E73"}


def sweep(frame: pd.DataFrame, metric: str, name: str, by: list[str], classifier: str = "") -> pd.DataFrame:
    """Return mean and half width of one metric of one sweep by data set and the labels `by`, in their order."""
    part = frame[frame["sweep"] == name] if "sweep" in frame.columns else frame.iloc[:0]
    if classifier:
        part = part[part["classifier"] == classifier]
    table = means(part, metric, by)
    if table.empty:
        raise style.NothingToDraw(f"the records hold no {metric} of the sweep {name!r}")
    places = sorted(range(len(table)), key=lambda i: [order(table[label].iat[i]) for label in by])
    return table.iloc[places]


def _line(panel, table: pd.DataFrame, x: list[float], colour: str, marker: str) -> None:
    panel.errorbar(x, table["mean"], yerr=[half(row) for row in table.itertuples()], color=colour, marker=marker)


def _places(texts) -> dict[str, int]:
    return {text: place for place, text in enumerate(sorted(set(texts), key=order))}


def _ticks(panel, places: dict[str, int], label: str) -> None:
    panel.set_xticks(list(places.values()), list(places))
    panel.set_xlim(-0.4, len(places) - 0.6)
    panel.set_xlabel(label)


@style.styled
def noise(frame: pd.DataFrame) -> Figure:
    """Draw fidelity, utility and leakage against the noise multiplier at fixed steps (F23, F30)."""
    tables = [sweep(frame, metric, "noise", ["sigma"], classifier) for metric, classifier, _ in CURVES]
    looks = style.colours(frame["dataset"])
    places = _places(tables[0]["sigma"])
    figure, axes = style.canvas(style.WIDTH, 2.9, 1, 3)
    for panel, table, (metric, _, title) in zip(axes[0], tables, CURVES, strict=True):
        for name, (colour, marker) in looks.items():
            own = table[table["dataset"] == name]
            _line(panel, own, [places[text] for text in own["sigma"]], colour, marker)
        panel.set(title=title, ylabel=style.metric_name(metric).replace(" (", "\n("))
        _ticks(panel, places, "noise multiplier σ")
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, (c, m) in looks.items()]
    handles.append(Line2D([], [], linestyle="none", label=f"σ = 0 clips only; {runs(*tables)}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


@style.styled
def frontier(frame: pd.DataFrame) -> Figure:
    """Draw leakage against utility along the noise multiplier, one panel a data set (F23); darker is more noise."""
    risk, auc = (sweep(frame, *found) for found in (("attack_risk", "noise", ["sigma"]),
                                                    ("roc_auc", "noise", ["sigma"], "boosting")))
    names = sorted(set(risk["dataset"]))
    figure, axes = style.canvas(min(style.WIDTH, 2.5 * len(names) + 1), 2.9, 1, len(names), sharey=True)
    sigmas = sorted(set(risk["sigma"]), key=order)
    shades = {sigma: str(0.8 * (1 - place / max(len(sigmas) - 1, 1))) for place, sigma in enumerate(sigmas)}
    for panel, name in zip(axes[0], names, strict=True):
        own = risk[risk["dataset"] == name].merge(auc[auc["dataset"] == name], on="sigma", suffixes=("_risk", "_auc"))
        panel.plot(own["mean_auc"], own["mean_risk"], color=style.GREY, linewidth=0.6)
        bars = own[["half_width_auc", "half_width_risk"]].fillna(0).itertuples(index=False, name=None)
        for row, (wide, tall) in zip(own.itertuples(), bars, strict=True):
            panel.errorbar(row.mean_auc, row.mean_risk, xerr=wide, yerr=tall, color=shades[row.sigma], marker="o",
                           markeredgecolor="black", markeredgewidth=0.5, linewidth=0.8)
        panel.set(title=name, xlabel="ROC AUC of a model trained\non synthetic rows")
        style.focus(panel, own["mean_auc"], "x", low=0, high=1)
        panel.xaxis.set_major_locator(MaxNLocator(4))
    style.focus(axes[0, 0], risk["mean"], "y", spread=1.0, high=1)
    axes[0, 0].set_ylabel("attack risk, mean of games\n(0–1, lower is better)")
    handles = [Line2D([], [], color=shade, marker="o", markeredgecolor="black", markeredgewidth=0.5, linestyle="none",
                      label=f"σ = {sigma}") for sigma, shade in shades.items()]
    handles.append(Line2D([], [], linestyle="none", label=runs(risk, auc)))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


@style.styled
def clipping(frame: pd.DataFrame) -> Figure:
    """Draw fidelity, utility and the share of clipped records against C, one line a budget (F32)."""
    rows = (
        ("pair_trends", "", "pair trends"), ("roc_auc", "boosting", "ROC AUC"), ("clipped_share", "", "share clipped"),
    )
    tables = [sweep(frame, metric, "clip", ["epsilon", "clip"], classifier) for metric, classifier, _ in rows]
    names, places = sorted(set(tables[0]["dataset"])), _places(tables[0]["clip"])
    budgets = sorted(set(tables[0]["epsilon"]), key=order)
    figure, axes = style.canvas(
        min(style.WIDTH, 2.1 * len(names) + 1.6), 4.6, 3, len(names), sharex=True, sharey="row"
    )
    for line, table, (_, _, title) in zip(axes, tables, rows, strict=True):
        for panel, name in zip(line, names, strict=True):
            for index, budget in enumerate(budgets):
                own = table[(table["dataset"] == name) & (table["epsilon"] == budget)]
                colour = _BUDGETS.get(budget, style.PALETTE[3 + index])
                shift = 0.08 * (index - (len(budgets) - 1) / 2)
                _line(panel, own, [places[text] + shift for text in own["clip"]], colour, style.MARKERS[index])
        line[0].set_ylabel(title)
    for panel, name in zip(axes[0], names, strict=True):
        panel.set_title(name)
    for panel in axes[-1]:
        _ticks(panel, places, "clipping norm C")
        panel.set_ylim(-0.05, 1.05)
    handles = [Line2D([], [], color=_BUDGETS.get(b, style.PALETTE[3 + i]), marker=style.MARKERS[i], label=f"ε = {b}")
               for i, b in enumerate(budgets)]
    handles.append(Line2D([], [], linestyle="none", label=runs(*tables)))
    figure.legend(handles=handles, loc="outside lower center", ncols=2 if len(names) == 1 else len(budgets) + 1)
    return figure


@style.styled
def batches(frame: pd.DataFrame) -> Figure:
    """Draw fidelity and utility against the batch and against draws a record, at a fixed budget (F35)."""
    panels = (("batch", "expected batch B of a client"), ("draws", "noise draws a record K"))
    rows = (("pair_trends", ""), ("roc_auc", "boosting"))
    looks = style.colours(frame["dataset"])
    figure, axes = style.canvas(style.WIDTH, 3.9, 2, 2, sharex="col", sharey="row")
    drawn = []
    for line, (metric, classifier) in zip(axes, rows, strict=True):
        for panel, (name, label) in zip(line, panels, strict=True):
            table = sweep(frame, metric, name, [name], classifier)
            drawn.append(table)
            places = _places(table[name])
            for dataset, (colour, marker) in looks.items():
                own = table[table["dataset"] == dataset]
                _line(panel, own, [places[text] for text in own[name]], colour, marker)
            if metric == rows[-1][0]:
                _ticks(panel, places, label)
        line[0].set_ylabel(style.metric_name(metric).replace(" (", "\n("))
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, (c, m) in looks.items()]
    handles.append(Line2D([], [], linestyle="none", label=runs(*drawn)))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure
