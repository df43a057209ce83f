"""What the figures of SiloFuse share: marks that show a lone seed, notes on bars, ticks of a short log axis."""

import numpy as np
import pandas as pd

from feddiff.experiments.figures_pfdm import half, runs

# Association errors in figures are those of tables as long as the held-out rows: fewer rows are noisier, and held-out
# rows, the noise level, are a quarter as many as synthetic ones.
WITHIN, ACROSS = "association_within_equal_rows", "association_across_equal_rows"
_TICKS = tuple(digit * 10.0**power for power in range(-4, 1) for digit in (1, 2, 5))


def points(panel, table: pd.DataFrame, places, *, sideways: bool = False, colour: str, marker: str, **look) -> None:
    """Draw a mean and its interval at each of `places`; hollow where one seed is all there is, so no bar can be."""
    at, means, bars = np.asarray(places, dtype=float), table["mean"].to_numpy(), [half(r) for r in table.itertuples()]
    x, y = (means, at) if sideways else (at, means)
    look = {"linestyle": "none"} | look
    panel.errorbar(x, y, **{"xerr" if sideways else "yerr": bars}, color=colour, marker=marker, **look)
    lone = (table["n"] == 1).to_numpy()
    if lone.any():
        size = {"markersize": look["markersize"]} if "markersize" in look else {}
        # Above the filled ones, which `errorbar` raises.
        panel.plot(x[lone], y[lone], color=colour, marker=marker, markerfacecolor="white", linestyle="none", zorder=3,
                   **size)


def seeds(*summaries: pd.DataFrame) -> str:
    """Return what bars and hollow marks are."""
    counts = {int(n) for table in summaries for n in table["n"] if n}
    return runs(*summaries) + (";\nhollow: one seed" if 1 in counts and len(counts) > 1 else "")


def log_errors(panel, *tables: pd.DataFrame) -> None:
    """Give the panel a log scale that all means fit on, with plain numbers; bars end at the frame."""
    found = pd.concat(tables)
    found = found[found["mean"] > 0]
    low, high = 0.75 * found["mean"].min(), 1.3 * (found["mean"] + found["half_width"].fillna(0)).max()
    panel.set_yscale("log")
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.tick_params(axis="y", which="minor", left=False, labelleft=False)
    panel.set_ylim(low, high)
