"""The ledger of claims at a glance."""

import pandas as pd
from matplotlib.figure import Figure

from feddiff.experiments import style
from feddiff.experiments.rules import VERDICTS

# Good to bad in colours that a colour-blind reader can order; what is not decided is pale.
_COLOURS = dict(zip(VERDICTS, ("#0072B2", "#56B4E9", "#D55E00", "#8C8C8C", "#E2E2E2"), strict=True))


@style.styled
def verdicts(counts: pd.DataFrame) -> Figure:
    """Draw claims by verdict, a bar a paper; `counts` as made by claims.counts."""
    figure, axes = style.canvas(style.WIDTH, 0.42 * len(counts) + 1.1)
    panel = axes[0, 0]
    left = pd.Series(0, index=counts.index)
    for verdict in VERDICTS:
        panel.barh(counts.index, counts[verdict], left=left, color=_COLOURS[verdict], height=0.62, label=verdict)
        for place, n in counts[verdict].items():
            if n:
                pale = verdict in ("partly", "pending")
                panel.text(
                    left[place] + n / 2, place, str(n), ha="center", va="center", fontsize=7,
                    color="black" if pale else "white",
                )
        left = left + counts[verdict]
    panel.set_yticks(counts.index, counts["paper"])
    panel.invert_yaxis()
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("number of claims")
    figure.legend(loc="outside lower center", ncols=len(VERDICTS), columnspacing=1.2, handlelength=1.2)
    return figure
