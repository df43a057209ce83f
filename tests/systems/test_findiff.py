"""DP-Fed-FinDiff end to end on small tables: contracts, privacy statement, determinism, resume, bad input."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from feddiff.data.codec import TableCodec
from feddiff.data.partitions import iid
from feddiff.data.tables import Table
from feddiff.privacy import accounting
from feddiff.seeds import numpy_generator
from feddiff.systems import findiff

SMALL = dict(T=30, R=3, S=2, B=32, hidden=(16,))


def table(rows=300, seed=0, target="label"):
    g = numpy_generator(seed, "table")
    label = g.choice(["no", "yes"], rows, p=[0.7, 0.3])
    shift = (label == "yes").astype(float)
    frame = pd.DataFrame(
        {
            "amount": np.round(g.normal(10 + 5 * shift, 2), 2),
            "colour": pd.Categorical(g.choice(["red", "green", "blue"], rows), categories=["red", "green", "blue"]),
            "count": g.poisson(3 + 4 * shift),
            "member": g.random(rows) < 0.5,
            "label": label,
        }
    )
    kinds = dict(amount="numeric", colour="categorical", count="integer", member="boolean", label="categorical")
    return Table(frame, target, kinds, name="toy", source="file", sha256="0" * 64)


def clients(n=3, rows=300, target="label"):
    whole = table(rows, target=target)
    return [whole.select(part) for part in iid(rows, n, numpy_generator(0, "partition"))]


def train(config, members=None, **options):
    return findiff.train(members or clients(), config, progress=False, **options)


@pytest.mark.parametrize("recipe", [findiff.ours, findiff.paper])
@pytest.mark.parametrize("epsilon", [None, 2.0])
def test_sample_has_the_schema_of_the_training_table(recipe, epsilon):
    sample = train(recipe(epsilon=epsilon, **SMALL)).sample(50, seed=1)
    real = table().frame
    assert list(sample.columns) == list(real.columns) and len(sample) == 50
    assert (sample.dtypes == real.dtypes).all()
    for name in ("colour", "label", "member"):
        assert set(sample[name]) <= set(real[name])
    assert sample["amount"].between(real["amount"].min(), real["amount"].max()).all()
    assert (sample["amount"].round(2) == sample["amount"]).all()


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    one, two = (train(findiff.ours(epsilon=2.0, **SMALL)).sample(40, seed=3) for _ in range(2))
    assert one.to_csv() == two.to_csv()
    assert train(findiff.ours(epsilon=2.0, seed=1, **SMALL)).sample(40, seed=3).to_csv() != one.to_csv()


def test_the_global_generators_are_never_drawn_from():
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    train(findiff.ours(epsilon=2.0, **SMALL)).sample(10, seed=0)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_rows_are_drawn_with_the_given_labels_or_the_label_marginals():
    run = train(findiff.ours(**SMALL))
    wanted = ["yes"] * 20 + ["no"] * 10
    assert list(run.sample(30, seed=0, labels=wanted)["label"]) == wanted
    share = (run.sample(4000, seed=0)["label"] == "yes").mean()
    assert abs(share - (table().frame["label"] == "yes").mean()) < 0.03
    with pytest.raises(ValueError, match="labels has 2 entries for 3 rows"):
        run.sample(3, seed=0, labels=["yes", "no"])


@pytest.mark.slow
def test_conditioning_and_columns_are_learnt():
    run = train(findiff.ours(T=50, R=40, S=10, B=64, hidden=(64,), lr=1e-2), clients(2, 1500))
    sample = run.sample(1500, seed=0)
    real = table(1500).frame
    for label in ("no", "yes"):
        ours, truth = sample[sample["label"] == label], real[real["label"] == label]
        assert abs(ours["count"].mean() - truth["count"].mean()) < 0.7
        assert abs(ours["amount"].mean() - truth["amount"].mean()) < 0.7
    first, last = run.history["loss"].iloc[0], run.history["loss"].iloc[-1]
    assert last < first


def test_numeric_target_or_none_is_modelled_as_a_column():
    for target in (None, "amount"):
        members = clients(2, target=target)
        run = train(findiff.ours(**SMALL), members)
        assert list(run.sample(5, seed=0).columns) == list(table().frame.columns)
        assert run.prepared.label_codec is None
        with pytest.raises(ValueError, match="no categorical target"):
            run.sample(2, seed=0, labels=["no", "yes"])


def test_privacy_statement_is_complete_and_meets_the_target_on_the_whole_horizon():
    members = [table().select(np.arange(0, 100)), table().select(np.arange(100, 300))]
    config = findiff.ours(epsilon=2.0, **SMALL)
    run = train(config, members)
    for k, rows in enumerate((100, 200)):
        sigma = run.prepared.noise_multipliers[k]
        spent = accounting.epsilon(sample_rate=32 / rows, noise_multiplier=sigma, steps=6, delta=1e-5)
        assert 0.98 * 2.0 < spent <= 2.0
        assert run.federation.ledger.epsilon(f"client-{k}") == pytest.approx(spent, rel=1e-6)
    statement = run.privacy
    assert 1.96 < statement["epsilon"] <= 2.0
    for entry in ("unit", "adjacency", "delta", "accountant", "sampling"):
        assert entry in statement
    outside = " ".join(statement["outside"])
    assert "codec" in outside and "label marginals" in outside and "history" in outside


def test_run_without_dp_states_epsilon_infinity():
    assert train(findiff.ours(**SMALL)).privacy["epsilon"] == math.inf


def test_given_noise_stops_before_the_target_is_passed():
    config = findiff.ours(epsilon=1.0, **{**SMALL, "R": 30}, noise_multiplier=6.0)
    run = train(config)
    spent = run.federation.ledger.epsilon()
    allowed = accounting.max_steps(
        target_epsilon=1.0, sample_rate=0.32, noise_multiplier=6.0, steps=60, delta=1e-5
    )
    assert spent <= 1.0 and 0 < allowed < 60
    assert run.federation.clients[0].steps_taken == allowed and run.federation.stopped


def test_all_parameters_are_trained_under_dp():
    run = train(findiff.paper(epsilon=2.0, **SMALL))
    start = findiff._model(run.config, run.prepared)[1]
    for (name, p), q in zip(run._trained().named_parameters(), start.parameters()):
        assert not torch.equal(p, q), f"{name} was frozen"


def test_resumed_training_equals_uninterrupted_and_a_foreign_checkpoint_is_refused(tmp_path):
    config = findiff.ours(epsilon=2.0, **{**SMALL, "R": 4})
    whole = train(config)
    file = tmp_path / "run.pt"
    train(config, checkpoint=file, checkpoint_every=2)
    run = train(config, checkpoint=file)
    assert torch.equal(run.federation.weights(), whole.federation.weights())
    assert run.federation.ledger == whole.federation.ledger
    with pytest.raises(ValueError, match="another training"):
        train(replace(config, lr=1e-3), checkpoint=file)
    with pytest.raises(ValueError, match="another training"):
        train(config, clients(3, 240), checkpoint=file)


def test_saved_state_gives_back_the_run_and_the_same_samples():
    members = clients()
    config = findiff.ours(epsilon=2.0, **SMALL)
    run = train(config, members)
    again = findiff.from_state(run.to_state(), members, config)
    assert again.sample(30, seed=5).to_csv() == run.sample(30, seed=5).to_csv()
    assert again.privacy == run.privacy and again.nbytes == run.nbytes


@pytest.mark.parametrize("preprocessing", ["pooled", "client"])
def test_what_the_codec_was_fitted_on_is_stated(preprocessing):
    run = train(findiff.ours(preprocessing=preprocessing, **SMALL))
    assert run.prepared.codecs[0].provenance == preprocessing
    assert (run.prepared.codecs[0] is run.prepared.codecs[1]) == (preprocessing == "pooled")
    sample = run.sample(200, seed=0)
    assert sample.index.equals(pd.RangeIndex(200)) and sample["colour"].dtype == "category"


def test_public_codec_is_used_as_given():
    members = clients()
    public = TableCodec.fit(table(50, seed=9).frame, members[0].kinds, columns=members[0].features, provenance="public")
    run = train(findiff.ours(preprocessing="public", **SMALL), members, public=public)
    assert run.prepared.codecs[0] is public
    assert not any("codec" in what for what in run.privacy["outside"])


def test_loss_per_record_prefers_what_the_model_saw_at_the_same_draws():
    run = train(findiff.ours(**SMALL))
    frame = table(20).frame
    t, g = np.zeros((20, 2), dtype=np.int64), numpy_generator(0, "noise")
    noise = g.normal(size=(20, 2, run.head.space.dim)).astype(np.float32)
    losses = run.loss_per_record(frame, t, noise)
    assert losses.shape == (20,) and np.isfinite(losses).all()
    assert np.array_equal(losses, run.loss_per_record(frame, t, noise))


def test_history_has_a_row_a_round_and_the_held_out_loss():
    run = train(findiff.ours(**SMALL), monitor=table(60, seed=4))
    assert list(run.history["round"]) == [0, 1, 2]
    assert run.history[["loss", "move_norm", "bytes", "held_out_loss"]].notna().all().all()
    assert run.nbytes == run.history["bytes"].sum()


@pytest.mark.parametrize("strategy", ["FedAvg", "FedProx", "FedAdam", "FedYogi"])
def test_every_strategy_runs_and_partial_participation_spends_less(strategy):
    chosen = findiff.Strategy(name=strategy, proximal=0.1 if strategy == "FedProx" else 0.0)
    run = train(findiff.ours(strategy=chosen, participation=0.5, noise_multiplier=1.0, **SMALL))
    taken = [client.steps_taken for client in run.federation.clients]
    assert sum(taken) == 3 * 2 * 2 and max(taken) <= 6
    for client in run.federation.clients:
        assert sum(event.steps for event in run.federation.ledger.events(client.name)) == client.steps_taken


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (dict(T=0), "T must be an integer"),
        (dict(S=1.5), "S must be an integer"),
        (dict(lr=0.0), "lr must be > 0"),
        (dict(C=-1.0), "C must be > 0"),
        (dict(delta=0.0), "delta must lie in"),
        (dict(epsilon=0.0), "epsilon must be a finite number"),
        (dict(epsilon=math.inf), "None for no DP"),
        (dict(noise_multiplier=-1.0), "noise_multiplier must be >= 0"),
        (dict(preprocessing="magic"), "preprocessing must be one of"),
        (dict(timesteps="early"), "timesteps must be one of"),
        (dict(timesteps="adaptive", T=1), "needs T >= 2"),
        (dict(label_marginals="copied"), "label_marginals must be one of"),
        (dict(prior_share=1.0), "prior_share must lie in"),
        (dict(prior_share=0.2), "needs a target"),
        (dict(label_marginals="private"), "needs a target"),
    ],
)
def test_bad_configurations_are_refused_by_name(change, match):
    with pytest.raises(ValueError, match=match):
        findiff.FinDiffConfig(**change)


def _broken(kind):
    members = clients()
    if kind == "columns":
        members[1] = replace(members[1], frame=members[1].frame.rename(columns={"count": "n"}),
                             kinds={("n" if k == "count" else k): v for k, v in members[1].kinds.items()})
    elif kind == "target":
        members[2] = replace(members[2], target="colour")
    elif kind == "few rows":
        members[0] = members[0].select(np.arange(10))
    elif kind == "none":
        members = []
    return members


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("columns", "client-1 differs from client-0"),
        ("target", "client-2 has target 'colour'"),
        ("few rows", "client-0 has 10 rows, fewer than B=32"),
        ("none", "at least one client"),
    ],
)
def test_bad_clients_are_refused_by_name(kind, match):
    with pytest.raises(ValueError, match=match):
        findiff.train(_broken(kind), findiff.ours(**SMALL), progress=False)


def test_bad_sampling_and_codec_arguments_are_refused():
    run = train(findiff.ours(**SMALL))
    with pytest.raises(ValueError, match="rows must be an integer"):
        run.sample(0, seed=0)
    with pytest.raises(ValueError, match="sampling steps"):
        run.sample(5, seed=0, steps=31)
    with pytest.raises(ValueError, match="takes public=TableCodec"):
        train(findiff.ours(preprocessing="public", **SMALL))


@pytest.mark.parametrize("options", [dict(prior_share=0.3), dict(label_marginals="private"), dict(prior_share=0.2, label_marginals="private")])
def test_private_releases_and_training_together_stay_within_the_target(options):
    run = train(findiff.ours(epsilon=1.5, **SMALL, **options))
    ledger = run.federation.ledger
    for client in ledger.clients:
        assert {event.kind for event in ledger.events(client)} == {"gaussian", "sgm"}
        assert 0.98 * 1.5 < ledger.epsilon(client) <= 1.5
    assert ("label marginals" in " ".join(run.privacy["outside"])) == ("label_marginals" not in options)


def test_prior_starts_the_categories_at_their_histogram_given_the_label():
    run = train(findiff.bias_only(epsilon=5.0, T=30, B=32, hidden=(8,)), clients(2, 4000))
    sample, real = run.sample(6000, seed=0), table(4000).frame
    for name in ("colour", "member"):
        gap = sample[name].value_counts(normalize=True) - real[name].value_counts(normalize=True)
        assert gap.abs().max() < 0.03
    for label in ("no", "yes"):
        bias = run.head.bias[list(run.prepared.label_codec.classes).index(label)]
        assert torch.allclose(bias[:3].exp().sum(), torch.tensor(1.0), atol=1e-5)


def test_private_codec_is_inside_the_budget_and_nothing_but_class_names_and_history_is_outside():
    public = findiff.PublicKnowledge(bounds={"amount": (0, 30), "count": (0, 30)}, vocabulary={"colour": ["red", "green", "blue"]})
    config = findiff.ours(epsilon=3.0, preprocessing="private", label_marginals="private", **SMALL)
    run = train(config, clients(2, 1000), public=public)
    assert run.prepared.codecs[0].provenance == "private"
    assert all(0.98 * 3.0 < run.federation.ledger.epsilon(name) <= 3.0 for name in ("client-0", "client-1"))
    outside = run.privacy["outside"]
    assert len(outside) == 2 and "class" in outside[0] and "history" in outside[1]
    sample = run.sample(100, seed=0)
    assert sample["count"].between(0, 30).all() and (sample.dtypes == table().frame.dtypes).all()
    with pytest.raises(ValueError, match="takes public=PublicKnowledge"):
        train(config, clients(2, 1000))


def test_secure_mode_spends_the_same_and_never_repeats():
    config = findiff.ours(epsilon=2.0, secure=True, prior_share=0.2, label_marginals="private", **SMALL)
    one, two = train(config), train(config)
    assert one.privacy == two.privacy and one.privacy["epsilon"] <= 2.0
    assert not torch.equal(one.federation.weights(), two.federation.weights())
    seeded = train(replace(config, secure=False))
    assert seeded.privacy == one.privacy


def test_microbatches_do_not_change_the_update_and_per_layer_clipping_does():
    config = findiff.ours(epsilon=2.0, **SMALL)
    whole = train(config).federation.weights()
    assert torch.allclose(train(replace(config, microbatch=7)).federation.weights(), whole, atol=1e-4)
    assert not torch.allclose(train(replace(config, clipping="per-layer")).federation.weights(), whole, atol=1e-4)
