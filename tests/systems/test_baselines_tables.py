"""Histogram floors: exact counts, sensitivity on neighbouring tables, the noise from both sides, and the statement."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from feddiff.data.codec import LabelCodec, TableCodec
from feddiff.evaluation import fidelity
from feddiff.privacy.accounting import gaussian_epsilon, gaussian_noise
from feddiff.privacy.noise import SecureGaussianNoise
from feddiff.systems import baselines_tables as baselines

KINDS = {"age": "integer", "income": "numeric", "colour": "categorical", "member": "boolean", "label": "categorical"}
FEATURES = ["age", "income", "colour", "member"]


def table(rows, seed):
    g = np.random.default_rng(seed)
    label = g.random(rows) < 0.3
    frame = pd.DataFrame({
        "age": g.integers(20, 60, rows) + 25 * label,
        "label": np.where(label, "yes", "no"),
        "income": np.where(g.random(rows) < 0.4, 0.0, np.exp(g.normal(size=rows)).round(2)),
        "colour": np.where(label, g.choice(["red", "blue"], rows), g.choice(["red", "green"], rows)),
        "member": g.random(rows) < 0.5,
    })
    frame.loc[g.random(rows) < 0.1, "income"] = np.nan
    return frame


@pytest.fixture(scope="module")
def federation():
    frame = table(6000, 0)
    clients = [frame.iloc[start : start + 2000].reset_index(drop=True) for start in (0, 2000, 4000)]
    codec = TableCodec.fit(frame, KINDS, columns=FEATURES, numerics="quantile-ties")
    return frame, clients, codec, LabelCodec.fit(frame["label"])


class FixedRanks:
    """Gives row i the same rank in every column and call, so that removing the last row moves no other row."""

    def random(self, count):
        return np.random.default_rng(0).random(count)


def distance(one, two):
    return np.sqrt(sum(np.square(one[key] - two[key]).sum() for key in one))


@pytest.mark.parametrize("given_label", [True, False])
@pytest.mark.parametrize("numerics", ["quantile", "quantile-ties", "standard"])
def test_sensitivity_on_neighbouring_tables(federation, numerics, given_label):
    frame, _, _, labels = federation
    codec = TableCodec.fit(frame, KINDS, columns=FEATURES, numerics=numerics)
    rows = frame.iloc[:40]

    def histograms(part):
        return baselines.client_histograms(part, codec, labels, given_label=given_label, ranks=FixedRanks())

    for count in range(2, 40):
        moved = distance(histograms(rows.iloc[:count]), histograms(rows.iloc[: count - 1]))
        assert moved == pytest.approx(baselines.sensitivity(codec)) and moved == pytest.approx(5**0.5)


def test_exact_counts_are_sums_over_clients(federation):
    frame, clients, codec, labels = federation
    release = baselines.marginals_given_label(clients, codec, labels, seed=0)
    assert release.noise_std == 0 and release.privacy is None
    assert release.label_counts.tolist() == frame["label"].value_counts()[["no", "yes"]].tolist()
    colour = release.counts[codec.names.index("colour")]
    np.testing.assert_array_equal(colour, pd.crosstab(frame["label"], frame["colour"]).to_numpy())
    income = release.counts[codec.names.index("income")]
    assert income.shape == (2, baselines.BINS + 1)
    assert income[:, -1].sum() == frame["income"].isna().sum()
    marginal = baselines.independent_marginals(clients, codec, labels, seed=0)
    for one, both in zip(marginal.counts, release.counts):
        assert one.shape == (1, both.shape[1])
        np.testing.assert_array_equal(one[0], both.sum(axis=0))


def test_bins_are_equally_probable_where_the_codec_is_normal(federation):
    _, clients, codec, labels = federation
    age = baselines.independent_marginals(clients, codec, labels, seed=0).counts[codec.names.index("age")][0]
    assert stats.chisquare(age).pvalue > 1e-4


def test_samples_resemble_the_table_and_keep_its_form(federation):
    frame, clients, codec, labels = federation
    independent = baselines.independent_marginals(clients, codec, labels, seed=0)
    given = baselines.marginals_given_label(clients, codec, labels, seed=0)
    draws = [release.sample(6000, np.random.default_rng(1)) for release in (independent, given)]
    for drawn in draws:
        assert list(drawn.columns) == list(frame.columns) and (drawn.dtypes == frame.dtypes).all()
        assert fidelity.column_shapes(frame, drawn) > 0.975
        assert drawn["income"].isna().mean() == pytest.approx(0.1, abs=0.02)
        assert set(drawn["colour"]) <= {"red", "blue", "green"} and drawn["age"].between(20, 84).all()
    pairs = [
        fidelity.pair_scores_quantile(frame, drawn).set_index(["column_1", "column_2"])["score"] for drawn in draws]
    # With the label each column follows it; without, none does; between features only what the label carries.
    assert pairs[1]["label", "colour"] > 0.97 and pairs[0]["label", "colour"] < 0.85
    assert pairs[1]["age", "label"] > 0.95 and pairs[0]["age", "label"] < 0.85
    assert pairs[0].mean() < pairs[1].mean()


def test_noise_has_the_stated_scale_from_both_sides(federation):
    _, clients, codec, labels = federation
    exact = baselines.marginals_given_label(clients, codec, labels, seed=5)
    private = baselines.dp_marginals_given_label(clients, codec, labels, epsilon=0.5, delta=1e-5, seed=5)
    assert private.noise_std == pytest.approx(gaussian_noise(target_epsilon=0.5, delta=1e-5) * 5**0.5)
    noise = np.concatenate(
        [private.label_counts - exact.label_counts]
        + [(one - two).ravel() for one, two in zip(private.counts, exact.counts)])
    assert len(noise) > 200
    # Three clients add independent noise; variance from both sides, and every histogram is reached.
    ratio = np.square(noise / (private.noise_std * 3**0.5)).sum()
    assert stats.chi2.ppf(1e-5, len(noise)) < ratio < stats.chi2.ppf(1 - 1e-5, len(noise))
    assert (noise != 0).all() and stats.kstest(noise / (private.noise_std * 3**0.5), "norm").pvalue > 1e-4


def test_epsilon_of_the_noise_is_the_target(federation):
    _, clients, codec, labels = federation
    for release in (baselines.dp_marginals, baselines.dp_marginals_given_label):
        private = release(clients, codec, labels, epsilon=1.0, delta=1e-5, seed=0)
        spent = gaussian_epsilon(noise_over_sensitivity=private.noise_std / baselines.sensitivity(codec), delta=1e-5)
        assert 0.999 < spent <= 1.0 + 1e-9


def test_statement_names_unit_budget_and_what_is_outside(federation):
    _, clients, codec, labels = federation
    statement = baselines.dp_marginals_given_label(clients, codec, labels, epsilon=1.0, delta=1e-5, seed=0).privacy
    assert statement["epsilon"] == pytest.approx(1.0, abs=0.01)
    text = str(statement)
    assert all(word in text for word in ("record", "add-remove", "1e-05", "client 2", "pooled", "histograms"))
    public = TableCodec(codec.columns, provenance="public")
    statement = baselines.dp_marginals(clients, public, labels, epsilon=1.0, delta=1e-5, seed=0).privacy
    assert "fitted on private rows" not in str(statement)


def test_more_budget_is_nearer_to_the_exact_release(federation):
    frame, clients, codec, labels = federation
    shapes = []
    for epsilon in (0.01, 0.1, 10.0):
        release = baselines.dp_marginals_given_label(clients, codec, labels, epsilon=epsilon, delta=1e-5, seed=0)
        shapes.append(fidelity.column_shapes(frame, release.sample(4000, np.random.default_rng(0))))
    assert shapes[0] < shapes[1] < shapes[2]


def test_noise_alone_still_samples():
    """At a hopeless budget some rows of counts are all negative: they are uniform, never an error or a NaN."""
    frame = table(30, 3)
    codec = TableCodec.fit(frame, KINDS, columns=FEATURES, numerics="quantile-ties")
    labels = LabelCodec.fit(frame["label"])
    for seed in range(30):
        release = baselines.dp_marginals_given_label([frame], codec, labels, epsilon=1e-3, delta=1e-9, seed=seed)
        assert len(release.sample(50, np.random.default_rng(seed))) == 50


def test_same_seed_same_rows_and_another_seed_other_noise(federation):
    _, clients, codec, labels = federation

    def draw(seed, noise=None):
        release = baselines.dp_marginals_given_label(
            clients, codec, labels, epsilon=1.0, delta=1e-5, seed=seed, noise=noise)
        return release, release.sample(100, np.random.default_rng(0))

    (one, rows), (two, again), (other, _) = draw(0), draw(0), draw(1)
    pd.testing.assert_frame_equal(rows, again)
    assert (one.label_counts == two.label_counts).all() and (one.label_counts != other.label_counts).all()
    assert (draw(0, SecureGaussianNoise())[0].label_counts != one.label_counts).all()
    cells = sum(counts.size for counts in one.counts) + 2
    assert 3 * 8 * cells < one.nbytes < 3 * 8 * cells + 3 * 3000


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c[0], "sequence of at least one table"),
    (lambda c: [], "sequence of at least one table"),
    (lambda c: [c[0], c[1].drop(columns="age")], r"client 1 lacks the columns \['age'\]"),
    (lambda c: [c[0], c[1].assign(extra=1)], r"client 1 .* has \['extra'\] beside"),
    (lambda c: [c[0], c[1].iloc[:0]], "client 1 has no rows"),
    (lambda c: [c[0], c[1].assign(colour="mauve")], "'colour'.*'mauve'"),
])
def test_bad_clients_are_named(federation, change, message):
    _, clients, codec, labels = federation
    with pytest.raises(ValueError, match=message):
        baselines.dp_marginals_given_label(change(clients), codec, labels, epsilon=1.0, delta=1e-5, seed=0)


def test_bad_arguments_are_named(federation):
    frame, clients, codec, labels = federation
    for epsilon, delta in ((0.0, 1e-5), (-1.0, 1e-5), (1.0, 0.0), (1.0, 1.0)):
        with pytest.raises(ValueError):
            baselines.dp_marginals(clients, codec, labels, epsilon=epsilon, delta=delta, seed=0)
    with pytest.raises(ValueError, match="rows must be a positive integer"):
        baselines.independent_marginals(clients, codec, labels, seed=0).sample(0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="'label' is also a column of the codec"):
        baselines.independent_marginals(clients, TableCodec.fit(frame, KINDS), labels, seed=0)
