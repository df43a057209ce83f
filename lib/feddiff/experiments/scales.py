"""The three scales of every notebook, and the folders that belong to each.

| scale | for | kept in git |
|---|---|---|
| `quick` | Run All, `./run_all.sh`, continuous integration | no |
| `standard` | the committed results, at least 3 seeds | yes |
| `paper` | the papers' own sizes, one GPU | yes, where someone ran it |

`FEDDIFF_RESULTS`, when set, is the folder that holds `results/` and `figures/` in place of the checkout.
"""

import os
from pathlib import Path

SCALES = ("quick", "standard", "paper")


def check(scale: str) -> str:
    """Return `scale` if it is one of SCALES, else raise ValueError."""
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    return scale


def pick(scale: str, *, quick, standard, paper):
    """Return the value of `scale`; all three are given, so that no scale silently runs another's setting."""
    return {"quick": quick, "standard": standard, "paper": paper}[check(scale)]


def checkout() -> Path:
    """Return the root of the checkout (the folder of `lib/` and `notebooks/`); FileNotFoundError outside of one."""
    root = Path(__file__).resolve().parents[3]
    if not (root / "notebooks").is_dir():
        raise FileNotFoundError(
            "feddiff does not run from a checkout (no notebooks/ folder beside lib/); "
            "install it with `pip install -e .` or set FEDDIFF_RESULTS to a folder for results/ and figures/"
        )
    return root


def _home() -> Path:
    chosen = os.environ.get("FEDDIFF_RESULTS")
    return Path(chosen).expanduser().resolve() if chosen else checkout()


def records_folder(scale: str) -> Path:
    """Return results/<scale>/records."""
    return _home() / "results" / check(scale) / "records"


def tables_folder(scale: str) -> Path:
    """Return results/<scale>/tables."""
    return _home() / "results" / check(scale) / "tables"


def notebooks_folder(scale: str) -> Path:
    """Return results/<scale>/notebooks, where executed notebooks go."""
    return _home() / "results" / check(scale) / "notebooks"


def figures_folder(scale: str) -> Path:
    """Return figures/<scale>."""
    return _home() / "figures" / check(scale)
