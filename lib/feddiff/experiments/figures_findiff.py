"""Figures of DP-Fed-FinDiff, each a function of a long records frame (see records.load_records)."""

import math
from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.frames import order
from feddiff.experiments.style import NothingToDraw
from feddiff.experiments.tables import summarise

# One axis of the paper -> (metric, classifier or "", panel title).
AXES = (
    ("pair_trends", "", "Fidelity"),
    ("roc_auc", "boosting", "Utility"),
    ("attack_risk", "", "Leakage"),
)
# Claims F3, F2, F1: change from the non-DP twin to eps = 1, in per cent (2412.16083, by its summary and notes).
CLAIMED = {"Fidelity": -14.0, "Utility": -15.0, "Privacy": 34.0}
# Per cent; a ratio of two small risks can have an interval of hundreds, which would flatten everything else.
CHANGE_LIMIT = 60.0
_FREE = ("real", "given_label", "independent", "majority")


def points(frame: pd.DataFrame, metric: str, classifier: str = "") -> pd.DataFrame:
    """Return one row per data set, method and epsilon with n, mean, half_width for one metric of one classifier.

    Methods that spend no budget have epsilon "". NothingToDraw when the records hold nothing for this metric.
    """
    part = frame[frame["name"] == metric]
    if "classifier" in part.columns:
        part = part[part["classifier"] == classifier]
    if part.empty:
        known = ", ".join(sorted(set(frame["name"]))) or "nothing"
        of = f" of classifier {classifier!r}" if classifier else ""
        raise NothingToDraw(f"the records hold no {metric}{of}; they hold {known}")
    part = part.assign(epsilon=part["epsilon"].where(~part["method"].isin(_FREE), ""))
    return summarise(part, ["dataset", "method", "epsilon"])


def has(frame: pd.DataFrame, metric: str, classifier: str = "") -> bool:
    """Say whether the records hold this metric (of this classifier) at all."""
    part = frame[frame["name"] == metric]
    return bool(len(part[part["classifier"] == classifier] if "classifier" in part.columns else part))


def _bars(row) -> float:
    return 0.0 if math.isnan(row.half_width) else row.half_width


def _curve(axes, rows, positions, shift, colour, marker, **look) -> None:
    x = [positions[row.epsilon] + shift for row in rows.itertuples()]
    axes.errorbar(
        x, rows["mean"], yerr=[_bars(row) for row in rows.itertuples()], color=colour, marker=marker, **look
    )


def _budgets(frame: pd.DataFrame) -> dict[str, int]:
    texts = sorted(set(frame["epsilon"]) - {""}, key=order)
    return {text: place for place, text in enumerate(texts)}


def _budget_axis(axes, positions: dict[str, int]) -> None:
    axes.set_xticks(list(positions.values()), [style.epsilon_name(text) for text in positions])
    axes.set_xlim(-0.35, len(positions) - 0.65)
    axes.set_xlabel("privacy budget ε (per record)")


def _two_lines(metric: str) -> str:
    return style.metric_name(metric).replace(" (", "\n(")


def _runs(tables: list[pd.DataFrame]) -> str:
    counts = sorted({int(n) for table in tables for n in table["n"] if n})
    if counts == [1] or not counts:
        return "one run, no interval"
    span = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    return f"bars: 95 % interval over {span} seeds"


@style.styled
def budget(frame: pd.DataFrame, method: str = "ours") -> Figure:
    """Draw fidelity, utility and leakage against epsilon, one line a data set, with floor and ceiling (F5)."""
    summaries = [points(frame, metric, classifier) for metric, classifier, _ in AXES]
    positions = _budgets(frame[frame["method"] == method])
    figure, axes = style.canvas(style.WIDTH, 3.2, 1, 3)
    looks = style.colours(frame["dataset"])
    shifts = {name: 0.07 * (place - (len(looks) - 1) / 2) for place, name in enumerate(looks)}
    for panel, (metric, _, title), summary in zip(axes[0], AXES, summaries, strict=True):
        for name, (colour, marker) in looks.items():
            own = summary[summary["dataset"] == name]
            _curve(panel, own[own["method"] == method], positions, shifts[name], colour, marker, zorder=3)
            for reference, dashes in (("independent", (4, 2)), ("real", (1, 1.4))):
                for row in own[own["method"] == reference].itertuples():
                    panel.axhline(row.mean, color=colour, linewidth=0.9, dashes=dashes, alpha=0.8, zorder=2)
        panel.set_title(title)
        panel.set_ylabel(_two_lines(metric))
        _budget_axis(panel, positions)
        if metric == "attack_risk":
            top = max([row.mean + _bars(row) for row in summary[summary["method"] == method].itertuples()], default=0)
            panel.set_ylim(-0.04 * max(top, 0.01), max(1.25 * top, 0.01))
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, (c, m) in looks.items()]
    for label, dashes in (("real training rows (ceiling)", (1, 1.4)), ("independent marginals (floor)", (4, 2))):
        handles.append(Line2D([], [], color=style.GREY, linewidth=0.9, dashes=dashes, label=label))
    handles.append(Line2D([], [], linestyle="none", label=_runs(summaries)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.6)
    return figure


@style.styled
def methods(frame: pd.DataFrame, name_of: Callable[[str], str] = style.method_name) -> Figure:
    """Draw every method that spends a budget against epsilon; rows are metrics, columns data sets.

    name_of: what a reader sees for a method.
    """
    wanted = [axis for axis in (*AXES[:1], ("pair_trends_quantile", "", ""), AXES[1]) if has(frame, *axis[:2])]
    if not wanted:
        raise NothingToDraw("the records hold no pair_trends and no roc_auc of boosting")
    names = sorted(set(frame["dataset"]))
    figure, axes = style.canvas(
        style.WIDTH * max(1.0, len(names) / 2.6), 1.75 * len(wanted) + 0.7, len(wanted), len(names), sharex=True,
        sharey="row",
    )
    positions = _budgets(frame[~frame["method"].isin(_FREE)])
    seen: dict[str, Line2D] = {}
    drawn = []
    for row, (metric, classifier, _) in zip(axes, wanted, strict=True):
        summary = points(frame, metric, classifier)
        drawn.append(summary)
        for panel, name in zip(row, names, strict=True):
            own = summary[summary["dataset"] == name]
            present = [m for m in style.METHODS if (own["method"] == m).any()]
            spending = [m for m in present if m not in _FREE]
            apart = min(0.08, 0.56 / max(len(spending), 1))
            for place, method in enumerate(spending):
                _, colour, marker = style.METHODS[method]
                shift = apart * (place - (len(spending) - 1) / 2)
                _curve(panel, own[own["method"] == method], positions, shift, colour, marker, zorder=3)
                seen[method] = Line2D([], [], color=colour, marker=marker, label=name_of(method))
            for method, dashes in (("real", (1, 1.4)), ("given_label", (6, 2, 1, 2)), ("independent", (4, 2))):
                for reference in own[own["method"] == method].itertuples():
                    panel.axhline(reference.mean, color=style.GREY, linewidth=0.9, dashes=dashes, zorder=2)
                    label = f"{style.METHODS[method][0]}, no DP"
                    seen[method] = Line2D([], [], color=style.GREY, linewidth=0.9, dashes=dashes, label=label)
            if metric == wanted[0][0]:
                panel.set_title(name)
            if metric == wanted[-1][0]:
                _budget_axis(panel, positions)
        row[0].set_ylabel(_two_lines(metric))
        style.focus(row[0], summary["mean"], "y", spread=0.1, low=0, high=1)
    handles = [seen[m] for m in style.METHODS if m in seen]
    handles.append(Line2D([], [], linestyle="none", label=_runs(drawn)))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@style.styled
def floors(frame: pd.DataFrame, epsilon: str = "1") -> Figure:
    """Draw every method between its floors and its ceiling at one budget; rows are data sets, columns metrics."""
    known = (("column_shapes", ""), ("pair_trends", ""), ("pair_trends_quantile", ""), ("roc_auc", "boosting"))
    wanted = [axis for axis in known if has(frame, *axis)]
    if not wanted:
        raise NothingToDraw(f"the records hold no {', '.join(metric for metric, _ in known)}")
    names = sorted(set(frame["dataset"]))
    summaries = [points(frame, *axis) for axis in wanted]
    present = [m for m in style.METHODS if any((s["method"] == m).any() for s in summaries)]
    figure, axes = style.canvas(
        style.WIDTH, 0.75 + len(names) * (0.4 + 0.19 * (len(present) + 1)), len(names), len(wanted), sharey="row",
        sharex="col",
    )
    lines = [(m, e) for m in present for e in (["inf", epsilon] if m in ("ours", "paper") else
                                               [""] if m in _FREE else [epsilon])]
    for row, name in zip(axes, names, strict=True):
        for panel, (metric, _), summary in zip(row, wanted, summaries, strict=True):
            for place, (method, budget_) in enumerate(lines):
                found = summary[
                    (summary["dataset"] == name) & (summary["method"] == method) & (summary["epsilon"] == budget_)
                ]
                for point in found.itertuples():
                    colour, marker = style.METHODS[method][1:]
                    panel.errorbar(
                        point.mean, place, xerr=_bars(point), color=colour, marker=marker, linestyle="none",
                        markerfacecolor="white" if budget_ == "inf" else colour,
                    )
            panel.set_ylim(len(lines) - 0.4, -0.6)
            if name == names[-1]:
                panel.set_xlabel(style.metric_name(metric, direction=False).replace(", ", ",\n"))
        row[0].set_yticks(range(len(lines)), [_line_name(m, e) for m, e in lines])
        row[0].set_title(name)
    figure.supxlabel(f"all between 0 and 1, higher is better; {_runs(summaries)}", fontsize=7.5)
    return figure


def _line_name(method: str, epsilon: str) -> str:
    short = style.method_name(method)
    if epsilon == "":
        return short
    return f"{short}, no DP" if epsilon == "inf" else f"{short}, ε = {epsilon}"


def changes(frame: pd.DataFrame, method: str = "ours", epsilon: str = "1") -> pd.DataFrame:
    """Return the change in per cent from the non-DP twin to `epsilon` per axis, data set and seed (long records frame).

    Privacy is the fall of the attack risk: positive is better, as in the claim. A twin of exactly 0 gives None.
    """
    rows = []
    for (metric, classifier, _), axis in zip(AXES, CLAIMED, strict=True):
        part = frame[(frame["name"] == metric) & (frame["method"] == method)]
        if "classifier" in part.columns:
            part = part[part["classifier"] == classifier]
        for (dataset, seed), group in part.groupby(["dataset", "seed"], sort=True):
            value = group.set_index("epsilon")["value"]
            if epsilon in value.index and "inf" in value.index:
                base = value["inf"]
                change = math.nan if base == 0 else 100 * (value[epsilon] - base) / base
                reason = "the non-DP twin is exactly 0" if base == 0 else ""
                rows.append((dataset, seed, axis, -change if axis == "Privacy" else change, reason))
    return pd.DataFrame(rows, columns=["dataset", "seed", "name", "value", "reason"])


@style.styled
def relative_change(frame: pd.DataFrame, method: str = "ours", epsilon: str = "1") -> Figure:
    """Draw the change at `epsilon` against the non-DP twin beside what the paper is said to report (F1–F3)."""
    change = changes(frame, method, epsilon)
    if change.empty:
        raise NothingToDraw(f"the records hold no pair of epsilon {epsilon} and inf of method {method!r} to compare")
    summary = summarise(change, ["dataset"])
    figure, axes = style.canvas(style.WIDTH * 0.78, 3.1)
    panel = axes[0, 0]
    looks = style.colours(frame["dataset"])
    for place, axis in enumerate(CLAIMED):
        panel.hlines(CLAIMED[axis], place - 0.3, place + 0.3, color=style.GREY, linewidth=1.2, linestyle=(0, (4, 2)))
        panel.annotate(
            f"{CLAIMED[axis]:+.0f} %".replace("-", "−"), (place + 0.31, CLAIMED[axis]), va="center", fontsize=7,
            color=style.GREY,
        )
        for index, (name, (colour, marker)) in enumerate(looks.items()):
            x = place + 0.13 * (index - (len(looks) - 1) / 2)
            for point in summary[(summary["name"] == axis) & (summary["dataset"] == name)].itertuples():
                if point.n:
                    panel.errorbar(x, point.mean, yerr=_bars(point), color=colour, marker=marker, linestyle="none")
                    if abs(point.mean) + _bars(point) > CHANGE_LIMIT:
                        # The interval leaves the axis: its half-width stands beside it instead.
                        panel.annotate(
                            f"±{_bars(point):.0f}", (x, -CHANGE_LIMIT), (-2, 4), textcoords="offset points",
                            ha="right", va="bottom", rotation=90, color=colour, fontsize=7,
                        )
                else:
                    panel.annotate(
                        "0/0", (x, 0), (0, 3), textcoords="offset points", ha="center", color=colour, fontsize=7
                    )
    panel.axhline(0, color="black", linewidth=0.7)
    titles = ("fidelity\n(pair trends)", "utility\n(ROC AUC)", "privacy\n(fall of the attack risk)")
    panel.set_xticks(range(3), titles)
    panel.set_xlim(-0.5, 2.6)
    panel.set_ylim(-CHANGE_LIMIT, CHANGE_LIMIT)
    panel.set_ylabel(f"change at ε = {epsilon} against\nthe twin without DP (%)")
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, (c, m) in looks.items()]
    handles.append(Line2D([], [], color=style.GREY, linewidth=1.2, dashes=(4, 2), label="claimed for the paper"))
    handles.append(Line2D([], [], linestyle="none", label=_runs([summary])))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
