"""What the exploration notebook shows, on small inputs."""

import pytest

from feddiff.data import images
from feddiff.data.codec import TableCodec
from feddiff.diffusion import schedules
from feddiff.experiments import explore
from feddiff.privacy import accounting


@pytest.fixture(scope="module")
def bank():
    from feddiff.data import tables

    return tables.load("bank-marketing").select(range(400))


def test_noised_row_starts_as_the_row_itself_and_loses_its_signal(bank):
    codec = TableCodec.fit(bank.frame, bank.kinds, columns=bank.features, numerics="quantile-ties")
    shown = explore.noised_row(bank.frame, codec, 3, schedules.linear(100, scale_betas=True))
    assert (shown.iloc[0][bank.features] == bank.frame.iloc[3][bank.features]).all()
    signal = shown["signal left"].astype(float)
    assert signal.is_monotonic_decreasing and signal.iloc[0] == 1 and signal.iloc[-1] < 0.01
    assert list(shown.index) == [0, 10, 25, 50, 75, 100]


def test_noised_picture_has_seven_panels_or_the_one_that_is_asked_for():
    digits, chain = images.load_images("digits"), schedules.linear(1000)
    assert len(explore.noised_picture(digits, 0, chain).axes) == 7
    (panel,) = explore.noised_picture(digits, 0, chain, step=100).axes
    assert "t = 100" in panel.get_title("left") and "0.90" in panel.get_title("left")


def test_epsilon_grid_is_the_accountants_and_its_figure_labels_every_sigma():
    grid = explore.epsilon_grid([1.0, 2.0], [0.01], [100], delta=1e-5)
    expected = accounting.epsilon(sample_rate=0.01, noise_multiplier=2.0, steps=100, delta=1e-5)
    assert grid["epsilon"].iloc[1] == expected
    (panel,) = explore.epsilon_curves(grid).axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["1", "2"]


def test_column_draws_shares_of_both_tables(bank):
    (panel,) = explore.column(bank.frame, bank.frame, bank.kinds, "marital").axes
    heights = [bar.get_height() for bar in panel.patches]
    half = len(heights) // 2
    assert heights[:half] == heights[half:] and sum(heights[:half]) == pytest.approx(1.0)
