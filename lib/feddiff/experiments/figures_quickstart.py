"""Real against synthetic, column by column: shares of bins and levels, kept in the record, and their figure."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from feddiff.experiments import style

# Levels beyond this many are one bar: a column of 2,932 surnames is not a picture.
LEVELS = 8


def shares(real: pd.DataFrame, synthetic: pd.DataFrame, kinds: dict[str, str], bins: int = 12) -> pd.DataFrame:
    """Return (column, place, level, share_real, share_synthetic): bins of numerics, levels of categories.

    Bin edges span the central 98 % of the real column and the outer bins take the rest, so both sides sum to 1. Record
    it with `run.metrics(shares(...), labels=["column", "place", "level"])`.
    """
    rows = []
    for column in real.columns:
        if column not in synthetic.columns:
            raise ValueError(f"column {column!r} is in the real frame but not in the synthetic one")
        numeric = kinds[column] in ("numeric", "integer")
        cut = _bins(real[column], synthetic[column], bins) if numeric else _levels(real[column], synthetic[column])
        for place, (level, a, b) in enumerate(cut):
            rows.append((column, f"{place:02d}", level, a, b))
    return pd.DataFrame(rows, columns=["column", "place", "level", "share_real", "share_synthetic"])


def _levels(real: pd.Series, synthetic: pd.Series) -> list[tuple[str, float, float]]:
    a = real.astype("string").fillna("(missing)").value_counts(normalize=True)
    b = synthetic.astype("string").fillna("(missing)").value_counts(normalize=True)
    names = sorted(a.index, key=lambda name: (-a[name], name))
    kept = names if len(names) <= LEVELS else names[: LEVELS - 1]
    rows = [(name, float(a[name]), float(b.get(name, 0.0))) for name in kept]
    rest_a, rest_b = 1 - sum(row[1] for row in rows), 1 - sum(row[2] for row in rows)
    if len(names) > LEVELS or rest_b > 1e-9:
        rows.append(("(all others)", max(rest_a, 0.0), max(rest_b, 0.0)))
    return rows


def _bins(real: pd.Series, synthetic: pd.Series, bins: int) -> list[tuple[str, float, float]]:
    a, b = real.to_numpy(dtype=float), synthetic.to_numpy(dtype=float)
    known = a[~np.isnan(a)]
    low, high = np.quantile(known, [0.01, 0.99])
    if low == high:
        low, high = known.min() - 0.5, known.max() + 0.5
    edges = np.linspace(low, high, bins + 1)
    inner = edges[1:-1]

    def share(values: np.ndarray) -> np.ndarray:
        counts = np.bincount(np.searchsorted(inner, values[~np.isnan(values)], side="right"), minlength=bins)
        return counts / len(values)

    rows = [(f"{m:.4g}", float(x), float(y)) for m, x, y in zip((edges[:-1] + edges[1:]) / 2, share(a), share(b))]
    if np.isnan(a).any() or np.isnan(b).any():
        rows.append(("(missing)", float(np.isnan(a).mean()), float(np.isnan(b).mean())))
    return rows


@style.styled
def columns(frame: pd.DataFrame) -> Figure:
    """Draw share_real and share_synthetic of every column of one run (labels column, place, level)."""
    part = frame[frame["name"].isin(["share_real", "share_synthetic"])]
    if part.empty:
        raise style.NothingToDraw("the records hold no share_real and share_synthetic; record `shares` first")
    # One picture shows one run: the first data set and seed.
    part = part[part["key"] == sorted(set(part["key"]))[0]]
    names = list(dict.fromkeys(part["column"]))
    across = 4
    figure, axes = style.canvas(style.WIDTH, 1.45 * -(-len(names) // across) + 0.35, -(-len(names) // across), across)
    for panel, name in zip(axes.flat, names, strict=False):
        own = part[part["column"] == name].sort_values("place")
        real = own[own["name"] == "share_real"]
        synthetic = own[own["name"] == "share_synthetic"]
        place = np.arange(len(real))
        panel.bar(place - 0.2, real["value"], 0.4, color=style.GREY, label="real")
        panel.bar(place + 0.2, synthetic["value"], 0.4, color=style.PALETTE[0], label="synthetic")
        panel.set_title(name.replace("_", " "), fontsize=7.5)
        panel.grid(axis="x", visible=False)
        step = 1 if len(real) <= 4 else -(-len(real) // 3)
        # About 21 letters of this size fit under one panel.
        room = 21 // len(place[::step])
        texts = [text if len(text) <= room else text[: room - 1] + "…" for text in real["level"]]
        panel.set_xticks(place[::step], texts[::step], fontsize=6)
        panel.tick_params(axis="y", labelsize=6)
    for panel in axes.flat[len(names):]:
        panel.set_visible(False)
    figure.supylabel("share of rows", fontsize=8)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
