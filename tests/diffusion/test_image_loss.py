"""The loss of pictures, one value a record, and the prediction of x_0 from a noise prediction."""

import pytest
import torch

from feddiff.diffusion.image_loss import LARGEST_WEIGHT, loss_per_record, predict_x0
from feddiff.diffusion.process import q_sample, velocity
from feddiff.diffusion.schedules import linear
from feddiff.diffusion.unet import UNet
from feddiff.seeds import torch_generator

SCHEDULE = linear(1000)


def network(**options):
    model = UNet(
        1, 8, widths=(8, 16), groups=4, classes=4, schedule=SCHEDULE, generator=torch_generator(0, "init"), **options
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=torch_generator(1, "weights", p.numel())))
    return model.double()


def draws(n=5, K=3):
    g = torch_generator(0, "draws")
    x0 = torch.randn(n, 1, 8, 8, generator=g, dtype=torch.float64)
    t = torch.randint(1000, (n, K), generator=g)
    return x0, torch.arange(n) % 4, t, torch.randn(n, K, 1, 8, 8, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("weight", ["eps", "v"])
@pytest.mark.parametrize("flagged", [False, True])
def test_loss_is_the_mean_over_pixels_and_draws_of_each_record_alone(weight, flagged):
    model, (x0, labels, t, noise) = network(flag=flagged), draws()
    flag = torch.tensor([True, False, True, True, False]) if flagged else None
    together = loss_per_record(model, x0, labels, t, noise, SCHEDULE, weight=weight, flag=flag).detach()
    assert together.shape == (5,)
    for i in range(5):
        values = []
        for k in range(3):
            step, extra = t[i, k].view(1), (flag[i : i + 1],) if flagged else ()
            xt = q_sample(x0[i : i + 1], step, noise[i, k][None], SCHEDULE)
            error = ((model(xt, step, labels[i : i + 1], *extra) - noise[i, k]) ** 2).mean()
            bar = float(SCHEDULE.alpha_bar[step])
            values.append(float(error.detach()) * (min(1 / bar, 50.0) if weight == "v" else 1.0))
        assert float(together[i]) == pytest.approx(sum(values) / 3, rel=1e-12)


def test_v_weight_is_the_squared_error_of_the_velocity_up_to_its_bound():
    model, (x0, labels, t, noise) = network(), draws(K=1)
    t = torch.tensor([[0], [100], [400], [690], [999]])
    ours = loss_per_record(model, x0, labels, t, noise, SCHEDULE, weight="v")
    t, noise = t[:, 0], noise[:, 0]
    xt = q_sample(x0, t, noise, SCHEDULE)
    bar = SCHEDULE.alpha_bar[t].view(-1, 1, 1, 1)
    v_hat = (model(xt, t, labels) - (1 - bar).sqrt() * xt) / bar.sqrt()
    wanted = (v_hat - velocity(x0, t, noise, SCHEDULE)).square().mean((1, 2, 3))
    assert torch.allclose(ours[:3], wanted[:3], rtol=1e-9)
    assert torch.allclose(ours[3:], (wanted * bar.flatten() * LARGEST_WEIGHT)[3:], rtol=1e-9)


def test_loss_is_zero_for_the_true_noise_and_one_on_average_for_silence():
    x0, labels, t, noise = draws(n=400, K=1)
    assert float(loss_per_record(lambda x, t, y: noise[:, 0], x0, labels, t, noise, SCHEDULE).max()) == 0
    silent = loss_per_record(lambda x, t, y: torch.zeros_like(x), x0, labels, t, noise, SCHEDULE)
    assert float(silent.mean()) == pytest.approx(1.0, abs=4 * (2 / (400 * 64)) ** 0.5)


def test_the_floor_of_white_data_is_the_mean_alpha_bar():
    # x_0 ~ N(0, I): the best prediction is sqrt(1 - alpha_bar) x_t, its loss alpha_bar_t; mean over t 0.2755 at T=1000.
    g, labels = torch_generator(0, "white"), torch.zeros(2000, dtype=torch.int64)
    x0, t = torch.randn(2000, 1, 8, 8, generator=g), torch.arange(1000).repeat(2).view(-1, 1)
    noise = torch.randn(2000, 1, 1, 8, 8, generator=g)
    best = UNet(1, 8, widths=(8,), groups=4, classes=1, schedule=SCHEDULE, generator=torch_generator(0, "init"))
    loss = loss_per_record(best, x0, labels, t, noise, SCHEDULE).detach()
    assert float(loss.mean()) == pytest.approx(0.2755, abs=0.003)
    assert float(SCHEDULE.alpha_bar.mean()) == pytest.approx(0.2755, abs=5e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(t=torch.zeros(5, dtype=torch.int64)), r"t must be \(n, K\)"),
        (dict(t=torch.zeros(5, 2, dtype=torch.int64)), r"noise \(n, K, c, h, w\)"),
        (dict(noise=torch.zeros(5, 3, 1, 8, 4)), r"noise \(n, K, c, h, w\)"),
        (dict(weight="snr"), "weight must be one of.*'snr'"),
    ],
)
def test_bad_draws_and_weights_are_refused(change, message):
    x0, labels, t, noise = draws()
    given = dict(t=t, noise=noise) | change
    with pytest.raises(ValueError, match=message):
        loss_per_record(network(), x0, labels, given.pop("t"), given.pop("noise"), SCHEDULE, **given)


def test_x0_is_recovered_from_the_true_noise_at_every_level():
    x0, labels, _, noise = draws()
    for t in (0, 99, 399, 999):
        step = torch.tensor([t])
        xt = q_sample(x0, step, noise[:, 0], SCHEDULE)
        found = predict_x0(lambda x, t, y: noise[:, 0], labels, SCHEDULE)(xt, t)
        assert torch.allclose(found, x0, atol=1e-9)


def test_chunks_flags_and_clamp_of_the_prediction():
    model, (x0, labels, _, _) = network(flag=True), draws()
    whole = predict_x0(model, labels, SCHEDULE, flag=False)(x0, 30)
    assert torch.allclose(predict_x0(model, labels, SCHEDULE, flag=False, chunk=2)(x0, 30), whole, atol=1e-12)
    some = predict_x0(model, labels, SCHEDULE, flag=torch.tensor([True, False, False, False, False]), chunk=2)(x0, 30)
    assert torch.allclose(some[1:], whole[1:], atol=1e-12) and not torch.allclose(some[0], whole[0])
    clamped = predict_x0(model, labels, SCHEDULE, flag=False, clamp=(-0.5, 0.5))(x0, 30)
    assert torch.equal(clamped, whole.clamp(-0.5, 0.5)) and float(whole.abs().max()) > 0.5
    with pytest.raises(ValueError, match="4 pictures but 5 labels"):
        predict_x0(model, labels, SCHEDULE, flag=False)(x0[:4], 30)
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        predict_x0(model, labels, SCHEDULE, chunk=0)


def test_prediction_evaluates_without_dropout_and_leaves_the_mode_as_it_was():
    model, (x0, labels, _, _) = network(dropout=0.5).train(), draws()
    predict = predict_x0(model, labels, SCHEDULE)
    assert torch.equal(predict(x0, 30), predict(x0, 30)) and model.training
    assert torch.equal(predict_x0(model.eval(), labels, SCHEDULE)(x0, 30), predict(x0, 30)) and not model.training


def test_autocast_rounds_the_network_and_keeps_the_dtype():
    model, (x0, labels, _, _) = network().float(), draws()
    plain, rounded = (predict_x0(model, labels, SCHEDULE, autocast=a)(x0.float(), 300) for a in (False, True))
    difference = float((plain - rounded).detach().abs().max())
    assert rounded.dtype == torch.float32 and 0 < difference < 0.1 * float(plain.detach().abs().max())
