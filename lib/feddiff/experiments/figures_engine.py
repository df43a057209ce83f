"""Figures of the accounting notebooks (16, 17, 47, 48), each a function of a long records frame."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.tables import pinned, summarise

# What a noise multiplier was calibrated for (label `calibration`), in the order of the figure; only the first is right.
CALIBRATIONS = {
    "whole_run": "whole run (correct)", "per_round": "each round anew", "one_epoch": "one epoch only",
    "wrong_rate": "rate of pooled rows",
}
# What a codec was made from (label `codec`), in the order of the figures.
CODECS = {
    "pooled": "pooled rows", "pooled_ties": "pooled rows, ties broken", "client": "each client's rows",
    "private": "private (labels too)", "private_numbers": "private numbers, public labels", "public": "public",
}
SAMPLINGS = {
    "poisson": "Poisson (what is quoted)", "shuffled": "shuffled, at least", "fixed": "the same batches always",
}
BOUNDS = {
    "gaussian": "lower bound, Gaussian trade-off", "one_run": "lower bound, one run",
    "counting": "lower bound, counting", "one_run_fdp": "lower bound, one run, Gaussian trade-off",
}
QUALITY = (("pair_trends", "pair trends"), ("roc_auc", "ROC AUC"))


def _chosen(frame: pd.DataFrame, metric: str, by: list[str]) -> pd.DataFrame:
    part = frame[frame["name"] == metric]
    if part.empty:
        known = ", ".join(sorted(set(frame["name"]))) or "nothing"
        raise style.NothingToDraw(f"the records hold no {metric}; they hold {known}")
    missing = [label for label in by if label not in part.columns or (part[label] == "").all()]
    if missing:
        raise style.NothingToDraw(f"{metric} lacks the label {', '.join(missing)}, which this figure draws")
    return summarise(part, by)


def _half(row) -> float:
    return 0.0 if math.isnan(row.half_width) else row.half_width


def _lines(summary: pd.DataFrame, label: str, house: dict[str, str] | None = None) -> list[str]:
    found = list(dict.fromkeys(summary[label]))
    return [name for name in house if name in found] + [n for n in found if n not in house] if house else found


def _ordered_by_value(summary: pd.DataFrame, label: str) -> list[str]:
    return list(summary.groupby(label, sort=True)["mean"].mean().sort_values(kind="stable").index)


def _write(panel, text: str, x: float, y: float, gap: float = 3) -> None:
    panel.annotate(text, (x, y), (gap, 0), textcoords="offset points", va="center", fontsize=7)


@style.styled
def horizon(frame: pd.DataFrame) -> Figure:
    """Draw true epsilon and quality per calibration of one nominal epsilon, a row of panels per data set (F37).

    Metrics true_epsilon, pair_trends, roc_auc with the label `calibration` (CALIBRATIONS); nominal_epsilon without one.
    """
    by = ["dataset", "calibration"]
    spent = _chosen(frame, "true_epsilon", by)
    names, datasets = _lines(spent, "calibration", CALIBRATIONS), _lines(spent, "dataset")
    scored = pinned(frame, {"classifier": "boosting"})
    quality = [(title, _chosen(scored, metric, by)) for metric, title in QUALITY if (scored["name"] == metric).any()]
    height = len(datasets) * (0.35 * len(names) + 0.6) + 0.7
    figure, axes = style.canvas(style.WIDTH, height, len(datasets), 1 + len(quality), sharex="col", sharey=True)
    nominal = frame.loc[frame["name"] == "nominal_epsilon", "value"]
    for panels, dataset in zip(axes, datasets, strict=True):
        for panel, (_, summary) in zip(panels, [("", spent), *quality], strict=True):
            for row in summary[summary["dataset"] == dataset].itertuples():
                place = names.index(row.calibration)
                colour = style.PALETTE[0] if row.calibration == "whole_run" else style.PALETTE[1]
                if summary is spent:
                    panel.barh(place, row.mean, color=colour, height=0.55)
                    _write(panel, f"{row.mean:.3g}", row.mean, place)
                else:
                    panel.errorbar(row.mean, place, xerr=_half(row), color=colour, marker="o", linestyle="none")
        panels[0].set_xscale("log")
        panels[0].set_yticks(range(len(names)), [CALIBRATIONS.get(name, name.replace("_", " ")) for name in names])
        panels[0].set_title(f"{dataset}: what is spent")
        if quality and dataset == datasets[0]:
            panels[1].set_title("what it seems to buy")
        if len(nominal):
            panels[0].axvline(nominal.iloc[0], color="black", linewidth=0.9, linestyle=(0, (4, 2)))
    axes[0, 0].set_xlim(min(0.5, spent["mean"].min() / 2), spent["mean"].max() * 2.5)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    axes[-1, 0].set_xlabel("true ε (log scale)")
    for panel, (title, _) in zip(axes[-1, 1:], quality, strict=True):
        panel.set_xlabel(f"{title} (0–1, higher is better)")
    if len(nominal):
        label = f"reported ε = {nominal.iloc[0]:.3g}"
        handle = Line2D([], [], color="black", linewidth=0.9, dashes=(4, 2), label=label)
        figure.legend(handles=[handle], loc="outside lower left")
    return figure


@style.styled
def leaks(frame: pd.DataFrame) -> Figure:
    """Draw audited lower bounds of what pre-processing gives away, per channel and codec (F39).

    Metric leak_epsilon_lower with labels `channel` (what is watched) and `codec` (pooled, client, public, private).
    """
    summary = _chosen(frame, "leak_epsilon_lower", ["dataset", "channel", "codec"])
    datasets, channels = _lines(summary, "dataset"), _lines(summary, "channel")
    codecs = _lines(summary, "codec", CODECS)
    size = 0.2 * len(channels) * (len(codecs) + 1) + 1.0
    figure, axes = style.canvas(style.WIDTH, size, 1, len(datasets), sharex=True, sharey=True)
    for panel, dataset in zip(axes[0], datasets, strict=True):
        own = summary[summary["dataset"] == dataset]
        for place, channel in enumerate(channels):
            rows = {row.codec: row for row in own[own["channel"] == channel].itertuples()}
            present = [codec for codec in codecs if codec in rows]
            for index, codec in enumerate(present):
                row, where = rows[codec], place + 0.8 * (index - (len(present) - 1) / 2) / len(codecs)
                colour = style.PALETTE[codecs.index(codec)]
                error = dict(xerr=_half(row) or None, ecolor="black")
                panel.barh(where, row.mean, 0.68 / len(codecs), color=colour, **error)
                _write(panel, f"{row.mean:.2f}", row.mean + _half(row), where)
        panel.set_title(dataset)
        panel.set_xlabel("ε that an attacker proves, at least")
    axes[0, 0].set_yticks(range(len(channels)), [name.replace("_", " ") for name in channels])
    axes[0, 0].set_ylim(len(channels) - 0.5, -0.5)
    axes[0, 0].set_xlim(0, max(1.0, 1.15 * (summary["mean"] + summary["half_width"].fillna(0)).max()))
    names = [CODECS.get(codec, codec) for codec in codecs]
    handles = [Line2D([], [], color=style.PALETTE[i], linewidth=5, label=name) for i, name in enumerate(names)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(codecs)))
    return figure


@style.styled
def codec_cost(frame: pd.DataFrame) -> Figure:
    """Draw fidelity and utility under each codec.

    Metrics column_shapes, pair_trends, roc_auc with the label `codec` (CODECS).
    """
    wanted = (("column_shapes", "column shapes"), *QUALITY)
    frame = pinned(frame, {"classifier": "boosting"})
    parts = [(text, _chosen(frame, metric, ["dataset", "codec"])) for metric, text in wanted]
    codecs = _lines(parts[0][1], "codec", CODECS)
    datasets = style.colours(parts[0][1]["dataset"])
    figure, axes = style.canvas(style.WIDTH, 0.3 * len(codecs) + 1.2, 1, len(parts), sharey=True)
    for panel, (text, summary) in zip(axes[0], parts, strict=True):
        for row in summary.itertuples():
            colour, marker = datasets[row.dataset]
            place = codecs.index(row.codec)
            panel.errorbar(row.mean, place, xerr=_half(row), color=colour, marker=marker, linestyle="none")
        panel.set_title(text)
        panel.set_xlabel("0–1, higher is better")
    axes[0, 0].set_yticks(range(len(codecs)), [CODECS.get(name, name) for name in codecs])
    axes[0, 0].set_ylim(len(codecs) - 0.5, -0.5)
    handles = [Line2D([], [], color=c, marker=m, linewidth=0, label=name) for name, (c, m) in datasets.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


@style.styled
def audit(frame: pd.DataFrame) -> Figure:
    """Draw audited lower bounds beside the accounted epsilon, a line per variant of the step.

    Metrics epsilon_lower and epsilon with the labels `variant` ("correct..." or the planted fault) and `sigma`.
    """
    found = _chosen(frame, "epsilon_lower", ["variant", "sigma"])
    stated = _chosen(frame, "epsilon", ["variant", "sigma"])
    variants = sorted(_lines(found, "variant"), key=lambda name: not name.startswith("correct"))
    sigmas = list(dict.fromkeys(found["sigma"]))
    figure, axes = style.canvas(style.WIDTH, 0.24 * len(variants) + 1.35, 1, len(sigmas), sharey=True)
    for panel, sigma in zip(axes[0], sigmas, strict=True):
        for place, variant in enumerate(variants):
            told = stated[(stated["variant"] == variant) & (stated["sigma"] == sigma)]["mean"]
            for row in found[(found["variant"] == variant) & (found["sigma"] == sigma)].itertuples():
                caught = len(told) and row.mean > told.iloc[0]
                colour, marker = (style.PALETTE[1], "X") if caught else (style.PALETTE[0], "o")
                panel.errorbar(row.mean, place, xerr=_half(row), color=colour, marker=marker, linestyle="none")
            if len(told):
                panel.plot([told.iloc[0]] * 2, [place - 0.35, place + 0.35], color="black", linewidth=1.4)
        panel.set_title(f"noise multiplier {sigma}")
        panel.set_xlabel("ε")
        panel.set_xlim(left=min(0.0, panel.get_xlim()[0]))
    axes[0, 0].set_yticks(range(len(variants)), [name.replace("_", " ") for name in variants])
    axes[0, 0].set_ylim(len(variants) - 0.5, -0.5)
    handles = [
        Line2D([], [], color="black", linewidth=0, marker="|", markersize=10, label="stated ε"),
        Line2D([], [], color=style.PALETTE[0], linewidth=0, marker="o", label="audited lower bound, below it"),
        Line2D([], [], color=style.PALETTE[1], linewidth=0, marker="X", label="above it: a violation"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def audit_run(frame: pd.DataFrame) -> Figure:
    """Draw the lower bounds of a whole run against its accounted epsilon, over the noise multiplier.

    Metrics run_epsilon with the label `sigma`, run_epsilon_lower with `sigma` and `bound` (BOUNDS).
    """
    stated = _chosen(frame, "run_epsilon", ["sigma"])
    found = _chosen(frame, "run_epsilon_lower", ["bound", "sigma"])
    figure, axes = style.canvas(style.COLUMN * 1.5, 3.1)
    panel = axes[0, 0]
    panel.plot(stated["sigma"].astype(float), stated["mean"], color="black", marker="|", label="accounted ε (PLD)")
    for index, (bound, text) in enumerate(BOUNDS.items()):
        part = found[found["bound"] == bound]
        panel.errorbar(
            part["sigma"].astype(float), part["mean"], yerr=[_half(row) for row in part.itertuples()], label=text,
            color=style.PALETTE[index], marker=style.MARKERS[index], linestyle="none",
        )
    panel.set(xlabel="noise multiplier", ylabel="ε of the whole run", xscale="log", yscale="symlog")
    panel.set_ylim(bottom=0)
    panel.set_xticks(stated["sigma"].astype(float), stated["sigma"], minor=False)
    panel.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@style.styled
def meanings(frame: pd.DataFrame) -> Figure:
    """Draw what one training costs under each reading of its number, sorted.

    Metric epsilon with the label `meaning`; stated_epsilon, if there, is drawn as the line of what was reported.
    """
    summary = _chosen(frame, "epsilon", ["meaning"])
    names = _ordered_by_value(summary, "meaning")
    figure, axes = style.canvas(style.WIDTH, 0.25 * len(names) + 0.8)
    panel = axes[0, 0]
    for place, name in enumerate(names):
        for row in summary[summary["meaning"] == name].itertuples():
            panel.plot([summary["mean"].min(), row.mean], [place, place], color=style.PALE, linewidth=1)
            panel.plot(row.mean, place, color=style.PALETTE[0], marker="o")
            _write(panel, f"{row.mean:.3g}", row.mean, place, gap=6)
    panel.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    panel.set_ylim(-0.6, len(names) - 0.4)
    if summary["mean"].min() > 0:
        panel.set_xscale("log")
        panel.set_xlim(summary["mean"].min() / 1.3, summary["mean"].max() * 1.8)
    stated = frame.loc[frame["name"] == "stated_epsilon", "value"]
    if len(stated):
        label = f"stated: ε = {stated.iloc[0]:.3g}"
        panel.axvline(stated.iloc[0], color="black", linewidth=0.9, linestyle=(0, (4, 2)), label=label)
        panel.legend(loc="lower right")
    panel.set_xlabel("ε of the same training (log scale)")
    return figure


@style.styled
def batches(frame: pd.DataFrame) -> Figure:
    """Draw epsilon of one epoch against the number of batches, a panel a noise multiplier.

    Metric batch_epsilon with the labels `sampling` (SAMPLINGS), `batches` and `sigma`.
    """
    summary = _chosen(frame, "batch_epsilon", ["sampling", "batches", "sigma"])
    sigmas = list(dict.fromkeys(summary["sigma"]))
    figure, axes = style.canvas(style.WIDTH, 2.5, 1, len(sigmas), sharey=True)
    for panel, sigma in zip(axes[0], sigmas, strict=True):
        for index, (sampling, text) in enumerate(SAMPLINGS.items()):
            part = summary[(summary["sampling"] == sampling) & (summary["sigma"] == sigma)]
            panel.plot(
                part["batches"].astype(int), part["mean"], color=style.PALETTE[index], marker=style.MARKERS[index],
                label=text,
            )
        panel.set(xscale="log", yscale="log", xlabel="batches in the epoch")
        panel.set_title(f"noise multiplier {sigma}")
    axes[0, 0].set_ylabel("ε (log scale)")
    figure.legend(handles=axes[0, 0].get_lines(), loc="outside lower center", ncols=len(SAMPLINGS))
    return figure
