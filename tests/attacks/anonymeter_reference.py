"""The tables on which our anonymity games are compared with anonymeter, and how its results were obtained.

anonymeter needs numpy < 2 and therefore an environment of its own:
    python tests/attacks/anonymeter_reference.py write FOLDER    # with feddiff: the tables as Parquet
    python tests/attacks/anonymeter_reference.py run FOLDER      # with anonymeter, scikit-learn, pyarrow: the results
The second command writes reference_anonymeter.json beside this file. The tests make the same tables anew.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

RESULTS = Path(__file__).with_name("reference_anonymeter.json")
SEED = 7
MULTIVARIATE = {"attacks": 300, "columns": 3}
SECRETS = {"breast-cancer": ["mean radius", "mean compactness"], "bank-marketing": ["age", "job"]}
SIDES = ("original", "synthetic", "control")


def cases() -> dict[str, dict[str, pd.DataFrame]]:
    """Return "<table> <release>" -> the three tables, each row labelled by its own index."""
    from sklearn.datasets import load_breast_cancer

    from feddiff.data.tables import load

    cancer = load_breast_cancer(as_frame=True).data.iloc[:, :8].round(2)
    bank = load("bank-marketing").frame
    bank = bank.astype({name: str for name in bank.select_dtypes(exclude="number")})
    made = {}
    for name, frame, rows, third in (("breast-cancer", cancer, 280, 189), ("bank-marketing", bank, 1000, 1000)):
        generator = np.random.default_rng(SEED)
        frame = frame.iloc[generator.permutation(len(frame))].reset_index(drop=True)
        original, control = frame[:rows], frame[rows : 2 * rows]
        releases = {
            "copy": original,
            "permuted": pd.DataFrame({column: generator.permutation(original[column]) for column in frame}),
            "noisy copy": noisy(original, generator),
        }
        for release, synthetic in releases.items():
            made[f"{name} {release}"] = (original, synthetic, control)
        made[f"{name} fresh"] = (frame[:third], frame[third : 2 * third], frame[2 * third : 3 * third])
    return {
        case: {side: table.reset_index(drop=True) for side, table in zip(SIDES, tables)}
        for case, tables in made.items()
    }


def noisy(frame: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """Return a copy with noise of .1 standard deviations on numbers; one category in ten is drawn anew."""
    columns = {}
    for name, column in frame.items():
        if pd.api.types.is_numeric_dtype(column):
            noise = generator.normal(0, 0.1 * column.std(), len(frame))
            moved = (column + noise).round(0 if pd.api.types.is_integer_dtype(column) else 2)
            columns[name] = moved.astype(column.dtype).to_numpy()
        else:
            anew = generator.random(len(frame)) < 0.1
            columns[name] = np.where(anew, generator.permutation(column.to_numpy()), column.to_numpy())
    return pd.DataFrame(columns)


def halves(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the columns at even and at odd places: both halves hold numbers and categories."""
    return list(frame.columns[::2]), list(frame.columns[1::2])


def fingerprint(frame: pd.DataFrame) -> str:
    return hashlib.sha256(frame.to_csv(index=False, lineterminator="\n").encode()).hexdigest()[:16]


def run(folder: Path) -> dict:
    """Return anonymeter's counts and risks on the stored tables; every row is attacked, every univariate query asked."""
    from importlib.metadata import version

    from anonymeter.evaluators import InferenceEvaluator, LinkabilityEvaluator, SinglingOutEvaluator
    from anonymeter.evaluators.singling_out_evaluator import univariate_singling_out_queries

    def entry(result, attacks):
        risk = result.risk()
        return {
            "attacks": int(attacks), "successes": int(result.n_success), "control": int(result.n_control),
            "baseline": int(result.n_baseline), "risk": risk.value, "low": risk.ci[0], "high": risk.ci[1],
        }

    stored = {}
    for path in sorted(folder.glob("*.original.parquet")):
        case = path.name.split(".")[0]
        original, synthetic, control = (pd.read_parquet(folder / f"{case}.{side}.parquet") for side in SIDES)
        start, attacks = time.perf_counter(), min(len(original), len(control))
        np.random.seed(SEED)
        singler = SinglingOutEvaluator(ori=original, syn=synthetic, control=control, n_attacks=1, seed=SEED)
        queries = len(univariate_singling_out_queries(singler._syn, 10**6, np.random.default_rng(SEED)))
        univariate = SinglingOutEvaluator(
            ori=original, syn=synthetic, control=control, n_attacks=queries, seed=SEED
        ).evaluate(mode="univariate")
        multivariate = SinglingOutEvaluator(
            ori=original, syn=synthetic, control=control, n_attacks=MULTIVARIATE["attacks"],
            n_cols=MULTIVARIATE["columns"], max_attempts=100_000, seed=SEED,
        ).evaluate(mode="multivariate")
        linker = LinkabilityEvaluator(
            ori=original, syn=synthetic, control=control, aux_cols=halves(original), n_attacks=attacks
        ).evaluate(n_jobs=1)
        entries = {
            "singling-out-univariate": entry(univariate.results(), queries),
            "singling-out-multivariate": entry(multivariate.results(), MULTIVARIATE["attacks"]),
            "linkability": entry(linker.results(), attacks),
        }
        for secret in SECRETS[case.split()[0]]:
            evaluator = InferenceEvaluator(
                ori=original, syn=synthetic, control=control, secret=secret, n_attacks=attacks,
                aux_cols=[column for column in original if column != secret],
                regression=pd.api.types.is_numeric_dtype(original[secret]),
            ).evaluate(n_jobs=1)
            entries[f"attribute-inference {secret}"] = entry(evaluator.results(), attacks)
        print(case, f"{time.perf_counter() - start:.1f} s", {name: round(e["risk"], 3) for name, e in entries.items()})
        tables = {side: fingerprint(table) for side, table in zip(SIDES, (original, synthetic, control))}
        stored[case] = {"tables": tables, "games": entries}
    versions = {name: version(name) for name in ("anonymeter", "numpy", "pandas", "polars", "scikit-learn")}
    return {"versions": versions, "seed": SEED, "multivariate": MULTIVARIATE, "confidence": 0.95, "cases": stored}


if __name__ == "__main__":
    command, place = sys.argv[1], Path(sys.argv[2])
    if command == "write":
        place.mkdir(parents=True, exist_ok=True)
        for case_name, sides in cases().items():
            for side_name, rows in sides.items():
                rows.to_parquet(place / f"{case_name}.{side_name}.parquet")
    else:
        RESULTS.write_text(json.dumps(run(place), indent=1) + "\n", encoding="utf-8")
