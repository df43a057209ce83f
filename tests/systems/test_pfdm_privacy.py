"""Epsilon of PFDM's uploads: every value of the reference, by the theorem and exactly, and what a statement says."""

import math

import pytest

from feddiff.privacy.accounting import gaussian_epsilon
from feddiff.systems.pfdm_config import PFDMConfig
from feddiff.systems.pfdm_privacy import REPEATS, UploadPrivacy

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)

# t0: sigma = sqrt((1 - abar) / abar), abar
LEVELS = [
    (50, 0.1728, 0.9710), (100, 0.3388, 0.8970), (200, 0.7193, 0.6590), (300, 1.234, 0.3964), (400, 2.031, 0.1951),
    (500, 3.424, 0.0786), (600, 6.135, 0.0259), (690, 11.12, 0.00802),
]
# t0, mu, theorem, analytic, by unit and clip norm (delta 1e-5)
PIXEL = [
    (50, 11.58, 122.6, 115.5), (100, 5.903, 45.75, 41.84), (200, 2.781, 17.21, 15.12), (400, 0.985, 5.211, 4.300),
    (690, 0.180, 0.879, 0.646),
]
IMAGE = [
    (50, 115.8, 7256, 7193), (100, 59.03, 2025, 1993), (200, 27.81, 520.0, 504.2), (300, 16.21, 209.1, 199.6),
    (400, 9.848, 95.75, 89.66), (500, 5.841, 45.09, 41.22), (600, 3.260, 20.96, 18.58), (690, 1.798, 10.24, 8.774),
    (800, 0.783, 4.066, 3.307), (1000, 0.127, 0.618, 0.442),
]
UNCLIPPED = {
    MNIST: [
        (50, None, None, 5.39e4), (100, 165.3, 14450, 14360), (200, None, None, 3362), (400, 27.57, 512.5, 496.9),
        (690, 5.034, 36.83, 33.42), (1000, 0.356, 1.77, 1.366),
    ],
    CIFAR: [
        (50, 641.6, 2.09e5, 2.09e5), (100, 327.2, 55090, 54910), (200, 154.1, 12620, 12530), (400, 54.58, 1752, 1722),
        (690, 9.964, 97.46, 91.31), (1000, 0.704, 3.627, 2.930),
    ],
}
# epsilon: t0 that it takes at C = 10 by the papers' bound, exactly, and for data in [0, 1] (sqrt 2 C apart at most)
NEEDED = [(1, 952, 924, 916, 886), (5, 777, 755, 731, 708), (10, 693, 675, 643, 623), (50, 487, 476, 421, 409)]


def upload(t0, C=10.0, shape=MNIST, values="[-1, 1]", **options):
    config = PFDMConfig(t0=t0, C=C, values=values, clip_mixing=0.0)
    return UploadPrivacy(config=config, shape=shape, **options)


@pytest.mark.parametrize(("t0", "sigma", "abar"), LEVELS)
def test_levels_of_the_schedule(t0, sigma, abar):
    config = PFDMConfig(t0=t0)
    assert config.alpha_bar == pytest.approx(abar, rel=2e-3)
    assert math.sqrt((1 - config.alpha_bar) / config.alpha_bar) == pytest.approx(sigma, rel=1e-3)


@pytest.mark.parametrize(
    ("unit", "C", "shape", "row"),
    [("value", 1.0, MNIST, row) for row in PIXEL]
    + [("value", None, MNIST, row) for row in PIXEL]
    + [("image", 10.0, MNIST, row) for row in IMAGE]
    + [("image", None, shape, row) for shape, rows in UNCLIPPED.items() for row in rows],
)
def test_epsilon_table_of_the_reference(unit, C, shape, row):
    t0, mu, theorem, analytic = row
    privacy = upload(t0, C, shape)
    assert privacy.epsilon(unit=unit) == pytest.approx(analytic, rel=3e-3)
    if mu is not None:
        abar = privacy.config.alpha_bar
        assert privacy.diameter(unit) * math.sqrt(abar / (1 - abar)) == pytest.approx(mu, rel=3e-3)
        assert privacy.epsilon(unit=unit, bound="theorem") == pytest.approx(theorem, rel=3e-3)


def test_headline_of_the_cvpr_version_is_ten_by_the_exact_value_only():
    privacy = upload(690)
    assert privacy.epsilon(bound="theorem") == pytest.approx(10.243, abs=2e-3)
    assert privacy.epsilon() == pytest.approx(8.774, abs=2e-3) and privacy.epsilon() < 10


def test_epsilon_does_not_depend_on_the_picture_once_clipped():
    assert upload(690, shape=CIFAR).epsilon() == upload(690, shape=MNIST).epsilon()


@pytest.mark.parametrize(("target", "theorem", "analytic", "theorem_positive", "positive"), NEEDED)
def test_steps_that_an_epsilon_takes_at_clip_norm_ten(target, theorem, analytic, theorem_positive, positive):
    for t0, at, values in ((theorem, "theorem", "[-1, 1]"), (analytic, "analytic", "[-1, 1]"),
                           (positive, "analytic", "[0, 1]")):
        assert upload(t0, values=values).epsilon(bound=at) <= target < upload(t0 - 1, values=values).epsilon(bound=at)
    # By the theorem with the smaller diameter: a clip norm of 10 / sqrt 2 in its formula.
    assert upload(theorem_positive, C=10 / math.sqrt(2)).epsilon(bound="theorem") <= target
    assert upload(theorem_positive - 1, C=10 / math.sqrt(2)).epsilon(bound="theorem") > target


def test_only_the_ratio_of_clip_norm_and_noise_matters():
    for t0, C in ((690, 11.1), (600, 6.14), (500, 3.42), (400, 2.03), (300, 1.23), (200, 0.72), (100, 0.34)):
        assert upload(t0, C).epsilon() == pytest.approx(10, rel=0.02)


def test_pixels_in_zero_one_are_half_as_far_apart():
    assert upload(100, None, values="[0, 1]").epsilon(unit="value") == pytest.approx(16.3, rel=3e-3)
    assert upload(400, None, values="[0, 1]").epsilon(unit="value") == pytest.approx(1.96, rel=3e-3)
    assert upload(690, None, values="[0, 1]").diameter() == 28.0
    assert upload(690, 10.0, values="[0, 1]").diameter() == pytest.approx(10 * math.sqrt(2))
    assert upload(690, 1000.0, values="[0, 1]").diameter() == 28.0


def test_a_colour_pixel_is_three_values():
    assert upload(100, None, CIFAR).epsilon(unit="pixel") == pytest.approx(95.0, rel=3e-3)
    assert upload(400, None, CIFAR).epsilon(unit="pixel", bound="theorem") == pytest.approx(9.640, rel=3e-3)
    assert upload(400, 1.0, CIFAR).diameter("pixel") == 2.0


@pytest.mark.parametrize(("repeats", "expected"), [(1, 8.8), (2, 13.5), (3, 17.5), (5, 24.5), (7, 30.9), (10, 39.7),
                                                   (50, 134), (100, 237)])
def test_pictures_of_one_person_and_repeated_uploads_stack_in_squares(repeats, expected):
    assert upload(690).epsilon(repeats=repeats) == pytest.approx(expected, rel=6e-3)


def test_repeated_uploads_at_pixel_level():
    for repeats, expected in ((1, 4.300), (10, 17.504), (100, 89.664)):
        assert upload(400, None).epsilon(unit="value", repeats=repeats) == pytest.approx(expected, abs=1e-3)


def test_the_ledger_holds_the_exact_value_for_every_client_and_knows_nothing_of_sampling():
    privacy = upload(690)
    ledger = privacy.ledger(["a", "b"])
    assert ledger.unit == "image" and ledger.adjacency == "replace-one"
    abar = privacy.config.alpha_bar
    direct = gaussian_epsilon(noise_over_sensitivity=math.sqrt((1 - abar) / abar) / 20, delta=1e-5)
    for client in (None, "a", "b"):
        assert ledger.epsilon(client) == pytest.approx(direct, rel=1e-9)


def test_statement_is_complete():
    statement = upload(690).statement(["a", "b"])
    assert statement["epsilon"] == pytest.approx(8.774, abs=2e-3)
    assert statement["epsilon_theorem"] == pytest.approx(10.243, abs=2e-3)
    assert statement["epsilon_by_unit"]["value"]["analytic"] == pytest.approx(0.646, abs=2e-3)
    assert (statement["unit"], statement["adjacency"], statement["delta"]) == ("image", "replace-one", 1e-5)
    assert statement["model"].startswith("local") and "once" in statement["sampling"]
    assert {int(k) for k in statement["pictures_of_one_person"]} == set(REPEATS)
    assert statement["repeated_uploads"]["2"] == pytest.approx(13.5, rel=5e-3)
    outside = " ".join(statement["outside"])
    for word in ("labels", "sizes", "number of pictures", "local denoisers", "synthetic pictures"):
        assert word in outside
    assert statement["public"] == ["labels", "picture sizes", "number of pictures of each client"]
    assert not statement["covers_everything"] and "seeded" in statement["noise"]


def test_latent_codes_need_a_clip_norm_and_have_no_pixels():
    latent = upload(690, 4.0, (4, 4, 4), latent=True)
    assert latent.diameter() == 8.0 and set(latent.statement(["a"])["epsilon_by_unit"]) == {"image"}
    assert any("autoencoder" in what for what in latent.statement(["a"])["outside"])
    with pytest.raises(ValueError, match="no pixels"):
        latent.epsilon(unit="pixel")
    with pytest.raises(ValueError, match="latent codes have no bounds"):
        upload(690, None, latent=True)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="unit must be one of"):
        upload(690).epsilon(unit="person")
    with pytest.raises(ValueError, match="repeats must be an integer >= 1"):
        upload(690).epsilon(repeats=0)
    with pytest.raises(ValueError, match="bound"):
        upload(690).epsilon(bound="classical")


@pytest.mark.parametrize(("change", "match"), [
    (dict(t0=0), "t0 must be an integer >= 1"),
    (dict(t0=1001), r"t0 must lie in 1\.\.T = 1\.\.1000, got 1001"),
    (dict(t0=100.0), "t0 must be an integer"),
    (dict(C=0.0), "C must be a finite number > 0"),
    (dict(C=-1.0), "C must be a finite number > 0"),
    (dict(C=math.inf), "None for no clipping"),
    (dict(C=None), "clip_mixing needs a clip norm"),
    (dict(delta=1.0), "delta must lie in"),
    (dict(clip_mixing=1.5), "clip_mixing is a share"),
    (dict(stages="T"), "stages must be one of"),
    (dict(stages="T - t0", t0=1000), "no step is left"),
    (dict(local_range="all"), "local_range must be one of"),
    (dict(values="[0, 255]"), "values must be one of"),
    (dict(weight="snr"), "weight must be one of"),
    (dict(lr=0.0), "lr must be > 0"),
    (dict(ema=1.0), "ema must lie in"),
    (dict(images=0), "images must be an integer >= 1"),
    (dict(global_images=-1), "global_images must be an integer >= 0"),
])
def test_bad_configurations_are_refused_by_name(change, match):
    with pytest.raises(ValueError, match=match):
        PFDMConfig(**change)
