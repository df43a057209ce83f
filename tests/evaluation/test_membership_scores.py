"""Area under the curve and power at a small false-positive rate: definitions, ties, and what a sample can resolve."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from feddiff.evaluation import membership


def test_perfect_inverted_constant():
    high, low = np.arange(10.0) + 100, np.arange(20.0)
    assert membership.auc(high, low) == 1.0 and membership.auc(low, high) == 0.0
    assert membership.auc(np.ones(5), np.ones(7)) == 0.5
    assert membership.tpr_at_fpr(high, low, 0.05) == 1.0
    assert membership.tpr_at_fpr(low, high, 0.1) == 0.0
    assert membership.tpr_at_fpr(np.ones(50), np.ones(100), 0.1) == 0.0
    assert membership.tpr_at_fpr(np.ones(50), np.ones(100), 1.0) == 1.0


def test_auc_is_the_pairwise_definition_with_ties_half():
    g = np.random.default_rng(0)
    members, others = g.integers(0, 6, 80), g.integers(0, 5, 50)
    pairs = np.sign(members[:, None] - others[None, :])
    assert membership.auc(members, others) == pytest.approx(((pairs + 1) / 2).mean(), abs=1e-12)
    labels = np.r_[np.ones(80), np.zeros(50)]
    assert membership.auc(members, others) == pytest.approx(roc_auc_score(labels, np.r_[members, others]))
    assert membership.auc(np.exp(members), np.exp(others)) == membership.auc(members, others)
    assert membership.auc(others, members) == pytest.approx(1 - membership.auc(members, others))


def test_tpr_counts_members_above_the_allowed_number_of_others():
    others = np.arange(100.0)
    members = np.array([98.5, 97.5, 50.0, 99.5])
    assert membership.tpr_at_fpr(members, others, 0.01) == 0.5  # one other may pass: threshold 98
    assert membership.tpr_at_fpr(members, others, 0.019) == 0.5  # still one: rounded down
    assert membership.tpr_at_fpr(members, others, 0.02) == 0.75


def test_a_tie_at_the_threshold_lets_nobody_pass():
    others = np.r_[np.zeros(90), np.ones(10)]
    # Ten non-members share the top score: at 5 % none may pass, so a member with that score does not either.
    assert membership.tpr_at_fpr(np.ones(10), others, 0.05) == 0.0
    assert membership.tpr_at_fpr(np.ones(10), others, 0.10) == 1.0


@pytest.mark.parametrize(("fpr", "count"), [(0.07, 100), (0.29, 100), (0.001, 1000), (0.57, 100), (1 / 3, 3)])
def test_rounding_does_not_lose_an_allowed_false_positive(fpr, count):
    allowed = round(fpr * count)
    others = np.arange(float(count))
    assert membership.tpr_at_fpr(np.array([count - allowed - 0.5]), others, fpr) == 1.0
    assert membership.tpr_at_fpr(np.array([count - allowed - 1.0]), others, fpr) == 0.0


def test_realised_false_positive_rate_never_exceeds_the_nominal():
    g = np.random.default_rng(1)
    for _ in range(200):
        others = g.integers(0, 12, 60).astype(float)
        fpr = g.uniform(1 / 60, 0.999)
        assert membership.tpr_at_fpr(others, others, fpr) <= fpr + 1e-12


def test_unresolvable_rates_and_bad_scores_are_refused():
    scores = np.arange(50.0)
    with pytest.raises(ValueError, match="use at least 1000 non-members"):
        membership.tpr_at_fpr(scores, scores, 0.001)
    for fpr in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="fpr must lie in"):
            membership.tpr_at_fpr(scores, scores, fpr)
    with pytest.raises(ValueError, match="member_scores must be a non-empty vector"):
        membership.auc([], scores)
    with pytest.raises(ValueError, match="nonmember_scores holds 1 scores that are not numbers"):
        membership.auc(scores, [1.0, np.nan])
    assert membership.auc([np.inf], [-np.inf]) == 1.0
