"""Anonymity games: ours against anonymeter, which needs an environment of its own (numpy < 2).

FEDDIFF_ANONYMETER_PYTHON names the interpreter of an environment with anonymeter and pyarrow; without it only our
times are taken. Both sides play four games of 500 attacks on two tables, on one thread; anonymeter's compilation and
the start of its process are not counted.
"""

import os
import subprocess
import tempfile
from pathlib import Path

import pandas as pd
from interleaved import Benchmark, Goal

from feddiff.attacks.anonymity import attack_risk
from feddiff.data.tables import load
from feddiff.seeds import numpy_generator

ROWS, ATTACKS = 1000, 500
OURS, THEIRS = "our games", "anonymeter"
# Plays the games each time a line arrives, and answers with the seconds they took.
WORKER = """
import sys, time, warnings
import pandas as pd
from anonymeter.evaluators import InferenceEvaluator, LinkabilityEvaluator, SinglingOutEvaluator
warnings.simplefilter("ignore")
original, synthetic, control = (pd.read_parquet(f"{sys.argv[1]}/{side}.parquet") for side in "osc")
attacks, columns = int(sys.argv[2]), list(original.columns)
shared = {"ori": original, "syn": synthetic, "control": control, "n_attacks": attacks}
half = len(columns) // 2
for _ in sys.stdin:
    start = time.perf_counter()
    SinglingOutEvaluator(**shared, seed=0).evaluate(mode="univariate").risk()
    SinglingOutEvaluator(**shared, n_cols=3, max_attempts=100_000, seed=0).evaluate(mode="multivariate").risk()
    LinkabilityEvaluator(**shared, aux_cols=(columns[:half], columns[half:])).evaluate(n_jobs=1).risk()
    InferenceEvaluator(**shared, secret=columns[0], aux_cols=columns[1:], regression=True).evaluate(n_jobs=1).risk()
    print(time.perf_counter() - start, flush=True)
"""


def games(rounds: int) -> Benchmark:
    """Compare on 1000 + 1000 + 1000 rows of bank-marketing, 17 columns of mixed types."""
    frame = load("bank-marketing").frame
    frame = frame.astype({name: str for name in frame.select_dtypes(exclude="number")})
    frame = frame.iloc[numpy_generator(0, "data").permutation(len(frame))[: 3 * ROWS]].reset_index(drop=True)
    tables = [frame[start : start + ROWS].reset_index(drop=True) for start in range(0, 3 * ROWS, ROWS)]

    def run_ours() -> None:
        attack_risk(*tables, generator=numpy_generator(0, "attack"), attacks=ATTACKS)

    variants, goals = {OURS: run_ours}, []
    interpreter = os.environ.get("FEDDIFF_ANONYMETER_PYTHON")
    if interpreter:
        variants[THEIRS] = _worker(interpreter, tables)
        goals = [Goal("speed against anonymeter", THEIRS, OURS, at_least=20.0)]
    return Benchmark(
        title=f"anonymity games, {ATTACKS} attacks each on {ROWS} mixed rows", variants=variants, goals=goals,
        rounds=rounds,
    )


def _worker(interpreter: str, tables: list[pd.DataFrame]):
    folder = tempfile.TemporaryDirectory()
    for side, table in zip("osc", tables):
        table.to_parquet(Path(folder.name) / f"{side}.parquet")
    one_thread = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    worker = subprocess.Popen(
        [interpreter, "-c", WORKER, folder.name, str(ATTACKS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=os.environ | one_thread,
    )

    def play() -> float:
        # The folder is kept as long as the worker may still read it.
        assert folder.name
        worker.stdin.write("\n")
        worker.stdin.flush()
        return float(worker.stdout.readline())

    return play
