"""Shadow models: what it costs the adversary to train one, and to score with it, beside the training of the target.

The game of notebook 40 at its quick size. Nothing comes from the cache of trained runs: every round trains anew.
"""

import numpy as np
from interleaved import Benchmark, Goal

from feddiff.attacks.membership_tables import Shadow
from feddiff.data import partitions
from feddiff.data.tables import load
from feddiff.experiments import attack_membership
from feddiff.seeds import numpy_generator
from feddiff.systems import findiff

RECORDS, CLIENTS, ROUNDS, DRAWS, SHADOWS = 500, 2, 8, 4, 2
TARGET, SHADOW, SCORING, ALONE = "target training", "one shadow", "scores of all attacks", "scores without shadows"


def shadows(rounds: int) -> Benchmark:
    """Compare one DP training of the target (epsilon = 1), one shadow on as many reference rows, and scoring."""
    played = attack_membership.game(load("bank-marketing"), size=RECORDS, clients=CLIENTS, seed=0)
    config = attack_membership.recipe("1", scale="quick", rounds=ROUNDS)
    members = int(played.inside.sum())
    order = numpy_generator(0, "shadow").permutation(len(played.reference))
    own, others = played.reference.select(order[:members]), played.reference.select(order[members:])
    parts = [own.select(np.sort(rows)) for rows in partitions.iid(members, CLIENTS, numpy_generator(0, "partition"))]

    def train(clients) -> findiff.FinDiffRun:
        return findiff.train(clients, config, public=played.codec, progress=False)

    target = train(played.setting.clients)
    known = [Shadow(train(parts).loss_per_record, own.frame, others.frame)] * SHADOWS

    def run_target() -> None:
        train(played.setting.clients)

    def run_shadow() -> None:
        train(parts)

    def run_scoring() -> None:
        attack_membership.white_box(played, target, known, draws=DRAWS, seed=0)

    def run_alone() -> None:
        attack_membership.white_box(played, target, [], draws=DRAWS, seed=0)

    return Benchmark(
        title=f"a shadow model for {RECORDS} records, {ROUNDS} rounds of DP training",
        variants={TARGET: run_target, SHADOW: run_shadow, SCORING: run_scoring, ALONE: run_alone},
        goals=[
            Goal("one shadow against the target's training", SHADOW, TARGET),
            Goal(f"scores with {SHADOWS} shadows against the target's training", SCORING, TARGET),
            Goal("scores without shadows against the target's training", ALONE, TARGET),
        ],
        rounds=rounds,
        facts={
            "records asked about": RECORDS, "records a shadow": members, "shadows a target": SHADOWS,
            "noises a record and timestep": DRAWS, "local steps of a training": ROUNDS * config.S * CLIENTS,
        },
    )
