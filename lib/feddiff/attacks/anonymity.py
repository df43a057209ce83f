"""The three anonymity games of the Article 29 Working Party (2014), as anonymeter plays them (Giomi et al., 2023).

Singling out, linkability and attribute inference, each against the original rows, against control rows that the
release never saw, and blindly.

Threat model: the attacker sees the synthetic table only, no model, and knows some columns of the target in the last two
games: of linkability two sets of columns in tables without a common key, of attribute inference all but the secret.

The games find no leak that these attacks cannot use: a low risk is no proof of privacy, and none at all
where `too_weak` is set.

Differences from anonymeter 1.1.0, all where its numbers would mislead: rates are out of the attacks really made, not
those asked for; a control of another size is corrected by counts that were measured; a blind guess takes a random row,
not the row of the same index label; negative numbers need a close guess too; a value missing on both sides is no
difference.
"""

import numbers
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from feddiff.attacks import attribute_inference as inference_game
from feddiff.attacks import linkability as linkability_game
from feddiff.attacks import singling_out as singling_out_game
from feddiff.attacks.games import Counts, Result, judge, mean_of
from feddiff.attacks.mixed_rows import MixedRows, mixed_rows

__all__ = ["GAMES", "Counts", "Result", "attack_risk", "attribute_inference", "linkability", "singling_out"]

GAMES = ("singling-out-univariate", "singling-out-multivariate", "linkability", "attribute-inference")
COLUMNS = ("game", "risk", "low", "high", "attack_rate", "control_rate", "baseline_rate", "attacks", "too_weak")
MAX_ATTEMPTS = 100_000


def singling_out(
    original: pd.DataFrame,
    synthetic: pd.DataFrame,
    control: pd.DataFrame,
    *,
    generator: np.random.Generator,
    attacks: int = 500,
    columns: int = 3,
    kinds: Mapping[str, str] | None = None,
    max_attempts: int = MAX_ATTEMPTS,
    stratify: bool = False,
    confidence: float = 0.95,
) -> Result:
    """Return the risk that the release describes exactly one original person (`attacks.singling_out`).

    columns: conditions per predicate; 1 is the univariate game. attacks: predicates wanted; those found are reported.
    max_attempts: predicates tried (columns > 1). stratify: as many predicates of every column (columns = 1), so that a
    column of many values does not decide alone. Repeated rows count once. kinds: column -> kind, as in `fidelity`.
    """
    rows = _checked(original, synthetic, control, kinds, generator, attacks, confidence)
    columns = _whole("columns", columns, len(rows.names))
    max_attempts = _whole("max_attempts", max_attempts)
    if stratify and columns > 1:
        raise ValueError(f"stratify applies to the univariate game, columns=1; got columns={columns}")
    counts = singling_out_game.play(
        rows, generator=generator, attacks=attacks, columns=columns, max_attempts=max_attempts, stratify=stratify
    )
    return judge(GAMES[columns > 1], counts, confidence)


def linkability(
    original: pd.DataFrame,
    synthetic: pd.DataFrame,
    control: pd.DataFrame,
    *,
    generator: np.random.Generator,
    attacks: int = 500,
    views: tuple[Sequence[str], Sequence[str]] | None = None,
    neighbours: int = 1,
    kinds: Mapping[str, str] | None = None,
    confidence: float = 0.95,
) -> Result:
    """Return the risk that the release joins two partial views of an original person (`attacks.linkability`).

    views: the columns of either view, disjoint; by default the first and the second half of the original's columns.
    neighbours: nearest synthetic rows looked up in either view. attacks: rows attacked, at most all.
    """
    rows = _checked(original, synthetic, control, kinds, generator, attacks, confidence)
    sides = _views(rows, views)
    neighbours = _whole("neighbours", neighbours, len(synthetic))
    counts = linkability_game.play(rows, generator=generator, attacks=attacks, views=sides, neighbours=neighbours)
    return judge("linkability", counts, confidence)


def attribute_inference(
    original: pd.DataFrame,
    synthetic: pd.DataFrame,
    control: pd.DataFrame,
    *,
    generator: np.random.Generator,
    attacks: int = 500,
    secrets: Sequence[str] | str | None = None,
    known: Sequence[str] | str | None = None,
    tolerance: float = 0.05,
    kinds: Mapping[str, str] | None = None,
    confidence: float = 0.95,
) -> Result:
    """Return the risk that the release tells a secret of an original person (`attacks.attribute_inference`).

    secrets: columns to guess; by default each column in turn (of those that are not in `known`), the attacked rows
    shared evenly. known: columns the attacker holds of its targets, none of them a secret; by default all but the
    secret. tolerance: relative error at which a guessed number counts as right. attacks: rows attacked, at most all.
    """
    rows = _checked(original, synthetic, control, kinds, generator, attacks, confidence)
    held = None if known is None else rows.positions(known, "known")
    if held is not None and secrets is None:
        secrets = [name for place, name in enumerate(rows.names) if place not in held]
    chosen = _secrets(rows, secrets)
    both = [] if held is None else [rows.names[place] for place in np.intersect1d(chosen, held)]
    if both:
        raise ValueError(f"a secret cannot be known, known and secrets both name {both}")
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance must be a finite number >= 0, got {tolerance!r}")
    counts = inference_game.play(
        rows, generator=generator, attacks=attacks, secrets=chosen, tolerance=tolerance, known=held
    )
    return judge("attribute-inference", counts, confidence)


def attack_risk(
    original: pd.DataFrame,
    synthetic: pd.DataFrame,
    control: pd.DataFrame,
    *,
    generator: np.random.Generator,
    attacks: int = 500,
    kinds: Mapping[str, str] | None = None,
    games: Sequence[str] = GAMES,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Play `games` (of `GAMES`) with their defaults and return one row per game, then their mean.

    Columns: those of `Result` without the counts; the row "mean" as `games.mean_of`. Each game has its own
    stream of `generator`: leaving one out changes no other. Tables are never changed.
    """
    games = [games] if isinstance(games, str) else list(games)
    if not games or len(set(games)) < len(games) or not set(games) <= set(GAMES):
        raise ValueError(f"games must be distinct names of {GAMES}, at least one; got {games}")
    rows = _checked(original, synthetic, control, kinds, generator, attacks, confidence)
    streams = dict(zip(GAMES, generator.spawn(len(GAMES))))
    width = min(3, len(rows.names))
    if len(rows.names) == 1 and games != [GAMES[0]]:
        raise ValueError(f"a table of one column allows only games=({GAMES[0]!r},), got {games}")
    results = []
    for game in games:
        shared = {"generator": streams[game], "attacks": attacks}
        if game in GAMES[:2]:
            columns = 1 if game == GAMES[0] else width
            counts = singling_out_game.play(rows, columns=columns, max_attempts=MAX_ATTEMPTS, **shared)
        elif game == "linkability":
            counts = linkability_game.play(rows, views=_views(rows, None), **shared)
        else:
            counts = inference_game.play(rows, secrets=_secrets(rows, None), tolerance=0.05, **shared)
        results.append(judge(game, counts, confidence))
    played = [{name: getattr(result, name) for name in COLUMNS} for result in results]
    return pd.DataFrame([*played, mean_of(results, confidence)], columns=COLUMNS)


def _checked(
    original: pd.DataFrame, synthetic: pd.DataFrame, control: pd.DataFrame, kinds: Mapping[str, str] | None,
    generator: np.random.Generator, attacks: int, confidence: float,
) -> MixedRows:
    if not isinstance(generator, np.random.Generator):
        raise TypeError(
            f"generator must be a numpy.random.Generator, such as feddiff.seeds.numpy_generator(seed, 'attack'); "
            f"got {type(generator).__name__}"
        )
    _whole("attacks", attacks)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}")
    return mixed_rows(original, synthetic, control, kinds)


def _whole(name: str, value: int, most: int | None = None) -> int:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        raise ValueError(f"{name} must be an integer >= 1{'' if most is None else f' and <= {most}'}, got {value!r}")
    return int(value)


def _views(rows: MixedRows, views: tuple[Sequence[str], Sequence[str]] | None) -> tuple[np.ndarray, np.ndarray]:
    if len(rows.names) < 2:
        raise ValueError("linkability needs two views: the tables have one column only")
    if views is None:
        half = len(rows.names) // 2
        return np.arange(half), np.arange(half, len(rows.names))
    if isinstance(views, str) or len(views) != 2:
        raise ValueError(f"views must be two lists of columns, got {views!r}")
    first, second = (rows.positions(view, f"views[{side}]") for side, view in enumerate(views))
    common = [rows.names[place] for place in np.intersect1d(first, second)]
    if common:
        raise ValueError(f"views must be disjoint, both name {common}: a shared key links without the release")
    return first, second


def _secrets(rows: MixedRows, secrets: Sequence[str] | str | None) -> np.ndarray:
    if len(rows.names) < 2:
        raise ValueError("attribute inference needs a known column beside the secret: the tables have one column only")
    return rows.positions(rows.names if secrets is None else secrets, "secrets")
