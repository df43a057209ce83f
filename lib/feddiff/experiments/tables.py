"""Tables from records: mean and 95 % t-interval over seeds; CSV (full precision), Markdown and LaTeX (rounded)."""

import math
from functools import cache
from pathlib import Path

import pandas as pd
from scipy.special import stdtrit

from feddiff.experiments import files, scales
from feddiff.experiments.frames import COLUMNS, order
from feddiff.experiments.style import METHODS, METRICS, STARTS

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "∞": r"$\infty$", "ε": r"$\varepsilon$",
    "<": r"$<$", ">": r"$>$", "−": r"$-$", "–": "--", "≤": r"$\le$", "≥": r"$\ge$", "δ": r"$\delta$",
    "σ": r"$\sigma$",
}


@cache
def quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t with `freedom` degrees of freedom."""
    return float(stdtrit(freedom, 0.975))


def labels_of(frame: pd.DataFrame) -> list[str]:
    """Return the label columns of a records frame that are used at all, data set first, then method, epsilon and t0."""
    names = [c for c in frame.columns if c not in COLUMNS and not c.startswith("parameters.")]
    names = ["dataset", *sorted(names, key=lambda c: ({"method": 0, "epsilon": 1, "t0": 2}.get(c, 3), c))]
    return [name for name in names if (frame[name] != "").any()]


def summarise(frame: pd.DataFrame, by: list[str] | None = None) -> pd.DataFrame:
    """Return one row per (`by`, name): n, mean, half_width, low, high of the 95 % t-interval over seeds, reason.

    n counts the seeds with a value; the interval is NaN for n < 2. ValueError when `by` leaves out a label that varies,
    for then the rows of one seed would be averaged as if they were seeds.
    """
    by = labels_of(frame) if by is None else list(by)
    doubled = frame[frame.duplicated([*by, "name", "seed"], keep=False)]
    if len(doubled):
        first = doubled[(doubled[[*by, "name", "seed"]] == doubled[[*by, "name", "seed"]].iloc[0]).all(axis=1)]
        varying = [c for c in [*labels_of(frame), "notebook", "key"] if c not in by and first[c].nunique() > 1]
        raise ValueError(
            f"{first['name'].iloc[0]} has {len(first)} values for one seed; select or add to `by`: {', '.join(varying)}"
        )
    rows = []
    for place, group in frame.sort_values("seed", kind="stable").groupby([*by, "name"], sort=False, dropna=False):
        values = group["value"].dropna()
        n = len(values)
        mean = math.fsum(values) / n if n else math.nan
        half = quantile(n - 1) * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        reason = "" if n else "; ".join(sorted(set(group["reason"]) - {""}))
        rows.append((*place, n, mean, half, mean - half, mean + half, reason))
    columns = [*by, "name", "n", "mean", "half_width", "low", "high", "reason"]
    return sort(pd.DataFrame(rows, columns=columns), [*by, "name"])


def sort(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return `frame` in the order of `by`: methods and metrics in house order, numbers by size, texts by alphabet."""
    house = {"method": list(METHODS), "name": list(METRICS), "start": list(STARTS)}

    def rank(column: str, text: str) -> tuple:
        known = house.get(column, [])
        return (0, known.index(text), "") if text in known else (1, *order(str(text)))

    places = sorted(
        range(len(frame)), key=lambda i: tuple(rank(column, frame[column].iat[i]) for column in by)
    )
    return frame.iloc[places].reset_index(drop=True)


def number(value: float) -> str:
    """Return a value rounded for reading: three decimals below 100, none from 1,000 on, powers of ten when tiny."""
    if value != 0 and abs(value) < 0.0005:
        return f"{value:.1e}".replace("-0.0e+00", "0")
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3f}"


def cell(row, *, count: bool = False) -> str:
    """Return "mean ± half width", "mean" for one seed, "–" without a value; count: whole numbers have no decimals."""
    if row["n"] == 0:
        return "–"
    if count and (row["n"] == 1 or row["half_width"] == 0):
        return f"{row['mean']:,.0f}"
    return number(row["mean"]) + (f" ± {number(row['half_width'])}" if row["n"] > 1 else "")


def places_of(summary: pd.DataFrame) -> list[str]:
    """Return the label columns of a summary: those before "name"."""
    return list(summary.columns[: list(summary.columns).index("name")])


def wide(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the table for reading: a row per place, a column per metric, "runs" = seeds behind a row."""
    by = places_of(summary)
    if summary.empty:
        return pd.DataFrame(columns=[*by, "runs"])
    metrics = list(sort(summary[["name"]].drop_duplicates(), ["name"])["name"])
    means = summary[summary["n"] > 0].groupby("name")["mean"]
    counts = {name for name, values in means if (values % 1 == 0).all() and values.abs().max() > 1}
    rows = []
    for place, group in summary.groupby(by, sort=False) if by else [((), summary)]:
        cells = {row["name"]: cell(row, count=row["name"] in counts) for row in group.to_dict("records")}
        runs = sorted(set(group["n"]) - {0})
        text = "–".join(str(n) for n in ([runs[0], runs[-1]] if len(runs) > 1 else runs)) or "0"
        rows.append([*place, *(cells.get(metric, "") for metric in metrics), text])
    return pd.DataFrame(rows, columns=[*by, *metrics, "runs"])


def blocks(table: pd.DataFrame, by: list[str]) -> list[pd.DataFrame]:
    """Return a table cut into one for each set of labels `by` that rows have, in order, without their empty columns.

    A notebook of many small experiments has a label for each; in one table most cells would be blank.
    """
    used = (table[by] != "").apply(tuple, axis=1)
    parts = [table[used == pattern] for pattern in dict.fromkeys(used)]
    return [part.loc[:, (part != "").any()].reset_index(drop=True) for part in parts]


def _title(column: str) -> str:
    return column.replace("_", " ")


def markdown(table: pd.DataFrame) -> str:
    """Return a GitHub table; pipes and line ends inside cells are escaped."""
    def line(cells) -> str:
        return "| " + " | ".join(str(c).replace("|", r"\|").replace("\n", " ") for c in cells) + " |"

    head = [line(map(_title, table.columns)), "|" + "---|" * len(table.columns)]
    return "\n".join([*head, *(line(row) for row in table.itertuples(index=False))]) + "\n"


def _escape(text) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in str(text).replace("\n", " "))


def latex(table: pd.DataFrame) -> str:
    """Return a booktabs tabular; special characters are escaped."""
    def line(cells) -> str:
        return " & ".join(map(_escape, cells)) + r" \\"

    head = [r"\begin{tabular}{" + "l" * len(table.columns) + "}", r"\toprule", line(map(_title, table.columns))]
    body = [r"\midrule", *(line(row) for row in table.itertuples(index=False)), r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*head, *body]) + "\n"


def write(
    full: pd.DataFrame, short: pd.DataFrame | list[pd.DataFrame], notebook: str, name: str, scale: str
) -> list[Path]:
    """Write results/<scale>/tables/<notebook>--<name>.csv (`full`), .md and .tex (`short`); return the three paths.

    short: the table for reading, or several of them, one below another.
    """
    stem = scales.tables_folder(scale) / f"{notebook}--{name}"
    read = [short] if isinstance(short, pd.DataFrame) else short
    texts = {
        ".csv": full.to_csv(index=False, lineterminator="\n"),
        ".md": "\n".join(map(markdown, read)), ".tex": "\n".join(map(latex, read)),
    }
    return [files.write_text(stem.with_name(stem.name + suffix), text) for suffix, text in texts.items()]


def pinned(frame: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """Return the rows whose labels are absent or as in `labels`, those labels taken off: one row a method."""
    for label, text in labels.items():
        if label in frame.columns:
            frame = frame[frame[label].isin(["", text])].assign(**{label: ""})
    return frame
