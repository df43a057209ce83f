"""Figures of attacks on uploads (notebook 44), each a function of a long records frame."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from feddiff.experiments import style
from feddiff.experiments.figures_pfdm import chosen, ends, epsilon, first_record, half, means, runs, sheet_height, tiles
from feddiff.experiments.frames import order

CELL = ["side", "t0", "C"]
# Steps at which the papers quote an epsilon or run an experiment: no clipping, or C = 10.
QUOTED = (("100", "none"), ("400", "none"), ("400", "10"), ("690", "10"))
# Label `attacker` of `recovery` -> what a reader sees, colour, marker.
ATTACKERS = {
    "none": ("the upload as it is", "#5F5F5F", "x"),
    "uploads": ("all uploads, nothing else", "#0072B2", "o"),
    "public_moments": ("public pictures: mean and covariance", "#009E73", "^"),
    "public_pictures": ("public pictures as the only possible ones", "#56B4E9", "v"),
    "pool": ("a pool that holds the picture", "#D55E00", "s"),
    "seed": ("the seed of the noise", "#000000", "*"),
}
# Rows of the sheet of reconstructions.
ROWS = {
    "truth": "the picture", "none": "its upload", "blind": "guess without it", "uploads": "all uploads",
    "public_moments": "public moments", "public_pictures": "public pictures", "pool": "a pool with it",
}


@style.styled
def matched(frame: pd.DataFrame) -> Figure:
    """Draw the share of uploads matched to their picture against epsilon of one value and of the picture (headline)."""
    hits, names = means(frame, "matched", CELL), sorted(set(chosen(frame, "matched")["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 2.5 * len(names) + 1.0, len(names), 2, sharey=True, sharex="col")
    for line, dataset in zip(axes, names, strict=True):
        own, looks = hits[hits["dataset"] == dataset], _sides(hits, dataset)
        for panel, (metric, title) in zip(line, _BUDGETS, strict=True):
            where = {"repeats": "1"} if metric == "epsilon_image" else {}
            spent = means(frame, metric, CELL, dataset=dataset, **where)
            at = {(row.side, row.t0, row.C): row.mean for row in spent.itertuples()}
            for side, (colour, marker) in looks.items():
                for clipped in (False, True):
                    part = own[(own["side"] == side) & ((own["C"] != "none") == clipped)]
                    points = sorted((at[row.side, row.t0, row.C], row) for row in part.itertuples())
                    if points:
                        panel.errorbar([x for x, _ in points], [row.mean for _, row in points],
                                       yerr=ends(*(row for _, row in points)), color=colour, marker=marker,
                                       dashes=(3, 1.5) if clipped else (1, 0), mfc="white" if clipped else colour)
            panel.axhline(means(frame, "matched_chance", CELL, dataset=dataset)["mean"].max(), color=style.GREY,
                          linewidth=0.8, dashes=(1, 2))
            panel.set_xscale("log")
            panel.set_ylim(-0.03, 1.03)
            panel.set_title(dataset)
            if dataset == names[-1]:
                panel.set_xlabel(title)
            if metric == "epsilon_value":
                for t0 in ("100", "400"):
                    _mark(panel, at, t0, "none", f"$t_0$={t0}")
            else:
                _mark(panel, at, "690", "10", "$t_0$=690, C=10")
        line[0].set_ylabel("share of uploads matched")
    handles = [Line2D([], [], color=c, marker=m, label=f"{side} × {side} pixels")
               for side, (c, m) in _sides(hits, None).items()]
    handles += [Line2D([], [], color="black", label="not clipped"),
                Line2D([], [], color="black", dashes=(3, 1.5), marker="o", mfc="white", label="clipped to norm 10"),
                Line2D([], [], color=style.GREY, dashes=(1, 2), linewidth=0.8, label="blind guess"),
                Line2D([], [], linestyle="none", label=runs(hits))]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


@style.styled
def reconstructed(frame: pd.DataFrame) -> Figure:
    """Draw the error of every reconstruction, over that of a guess without the upload, against epsilon of a picture."""
    found = means(frame, "recovery", ["attacker", *CELL])
    found = found[found["attacker"].isin(ATTACKERS)]
    names = sorted(set(found["dataset"]))
    # Noise that an attacker does not take off has an error far above 1, and no curve is cut.
    reach = max(row.mean + half(row) for row in found.itertuples())
    figure, axes = style.canvas(style.WIDTH, 2.6 * len(names) + 0.9, len(names), 2, sharey=True)
    for line, dataset in zip(axes, names, strict=True):
        spent = means(frame, "epsilon_image", CELL, dataset=dataset, repeats="1")
        at = {(row.side, row.t0, row.C): row.mean for row in spent.itertuples()}
        for panel, clipped in zip(line, (False, True), strict=True):
            part = found[(found["dataset"] == dataset) & ((found["C"] != "none") == clipped)]
            for attacker, (_, colour, marker) in ATTACKERS.items():
                points = sorted((at[row.side, row.t0, row.C], row) for row in part.itertuples()
                                if row.attacker == attacker)
                if points:
                    panel.errorbar([x for x, _ in points], [max(row.mean, _FLOOR) for _, row in points],
                                   yerr=[half(row) for _, row in points], color=colour, marker=marker)
            panel.axhline(1, color="black", linewidth=0.7)
            panel.set(xscale="log", yscale="log", ylim=(_FLOOR / 1.6, 1.4 * max(reach, 1)),
                      xlabel="ε of a picture, exact (log scale)")
            panel.set_title(f"{dataset}, {'clipped to norm 10' if clipped else 'not clipped'}")
        line[0].set_ylabel("squared error, 1: no better\nthan without the upload")
    handles = [Line2D([], [], color=c, marker=m, label=name) for name, c, m in ATTACKERS.values()]
    handles.append(Line2D([], [], linestyle="none", label=f"below {_FLOOR:g} drawn there; {runs(found)}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, title="what the attacker has beside its upload")
    return figure


@style.styled
def repeated(frame: pd.DataFrame) -> Figure:
    """Draw what k uploads of one picture give away: share matched and error of reconstruction, epsilon beside (P49)."""
    panels = (("matched_repeated", "share of uploads matched"),
              ("recovery_repeated", "squared error, 1: no\nbetter than without"),
              ("epsilon_image", "ε of a picture, exact\n(log scale)"))
    held = means(frame, "matched_repeated", [*CELL, "repeats"])
    cells = sorted({(row.t0, row.C) for row in held.itertuples()}, key=lambda cell: order(cell[0]))
    names = sorted(set(held["dataset"]))
    figure, axes = style.canvas(style.WIDTH, 2.0 * len(names) + 0.7, len(names), 3, sharex=True)
    looks = dict(zip(cells, zip(style.PALETTE, style.MARKERS)))
    for line, dataset in zip(axes, names, strict=True):
        sides = set(held[held["dataset"] == dataset]["side"])
        for panel, (metric, title) in zip(line, panels, strict=True):
            part = means(frame, metric, [*CELL, "repeats"], dataset=dataset)
            for cell, (colour, marker) in looks.items():
                own = part[(part["t0"] == cell[0]) & (part["C"] == cell[1]) & part["side"].isin(sides)]
                own = own.assign(k=own["repeats"].astype(int)).sort_values("k")
                own = own[own["k"].isin(held["repeats"].astype(int))]
                most = 1.0 if metric == "matched_repeated" else math.inf
                panel.errorbar(own["k"], own["mean"], yerr=ends(*own.itertuples(), high=most), color=colour,
                               marker=marker)
            panel.set(xscale="log", ylabel=title, yscale="log" if metric == "epsilon_image" else "linear")
            ticks = sorted(set(held["repeats"].astype(int)))
            panel.set_xticks(ticks, [str(k) for k in ticks])
            panel.minorticks_off()
            if metric != "epsilon_image":
                panel.set_ylim(-0.03, 1.08)
            if dataset == names[-1]:
                panel.set_xlabel("uploads of each picture")
        line[0].set_title(dataset)
    handles = [Line2D([], [], color=c, marker=m, label=f"$t_0$={t0}" + (f", C={C}" if C != "none" else ""))
               for (t0, C), (c, m) in looks.items()]
    handles.append(Line2D([], [], linestyle="none", label=runs(held)))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


@style.styled
def pictures(frame: pd.DataFrame) -> Figure:
    """Draw the first uploaded picture of each class, its upload and what attackers make of it, a cell a row."""
    names = sorted(set(frame["dataset"]))
    cells = [cell for cell in QUOTED if _has(frame, names[0], cell)]
    sheets = {(dataset, cell): first_record(frame, _sheet(cell), dataset) for dataset in names for cell in cells}
    heights = [sheet_height(sheet, 0.32 * style.WIDTH) + 0.42 for sheet in sheets.values()]
    lines = -(-len(sheets) // 2)
    figure, axes = style.canvas(style.WIDTH, lines * max(heights) + 0.1, lines, 2)
    for panel, ((dataset, (t0, C)), sheet) in zip(axes.flat, sheets.items()):
        tiles(panel, np.stack(list(sheet.values())))
        panel.set_xticks([])
        panel.set_yticks(panel.get_yticks(), [_short(name) for name in sheet], fontsize=6.5)
        where = dict(dataset=dataset, t0=t0, C=C, side=str(next(iter(sheet.values())).shape[1]))
        spent = epsilon(chosen(frame, "epsilon_image", repeats="1", **where)["value"].max())
        value = epsilon(chosen(frame, "epsilon_value", **where)["value"].max())
        cell = f"$t_0$={t0}" + (f", C={C}" if C != "none" else "")
        panel.set_title(f"{dataset}, {cell}:\nε {value} a value, {spent} a picture", fontsize=7)
    for panel in axes.flat[len(sheets):]:
        panel.set_visible(False)
    return figure


_BUDGETS = (("epsilon_value", "ε of one value, Theorem 5.1 (the papers' “pixel”)"),
            ("epsilon_image", "ε of a picture, exact"))
_FLOOR = 1e-3


def _sides(hits: pd.DataFrame, dataset: str | None) -> dict[str, tuple[str, str]]:
    """Return side -> (colour, marker), the same for every data set; those that one data set has."""
    looks = dict(zip(sorted(set(hits["side"]), key=order), zip(style.PALETTE, style.MARKERS)))
    present = set(hits["side"] if dataset is None else hits[hits["dataset"] == dataset]["side"])
    return {side: look for side, look in looks.items() if side in present}


def _mark(panel, at: dict, t0: str, C: str, text: str) -> None:
    """Name a cell at the top of a panel: the largest epsilon that any side has there."""
    found = [value for (_, step, clip), value in at.items() if (step, clip) == (t0, C)]
    if found:
        panel.axvline(max(found), color=style.GREY, linewidth=0.7, dashes=(1, 1))
        panel.annotate(text, (max(found), 0.5), (-9, 0), textcoords="offset points", rotation=90, fontsize=6.5,
                       va="center", color=style.GREY)


def _sheet(cell: tuple[str, str]) -> str:
    return f"reconstructed_{cell[0]}_{cell[1]}"


def _has(frame: pd.DataFrame, dataset: str, cell: tuple[str, str]) -> bool:
    try:
        first_record(frame, _sheet(cell), dataset)
    except style.NothingToDraw:
        return False
    return True


def _short(name: str) -> str:
    return ROWS[name]
