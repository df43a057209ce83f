"""The attacks on a small SiloFuse run: what is recorded, which way it points, and every figure of notebook 43."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feddiff.data.tables import Table
from feddiff.experiments import attack_latent_defences as defences, attack_latents as attacks, collate, records
from feddiff.experiments import silofuse_study as study
from feddiff.systems import silofuse

NOTEBOOK = "43_latent_inversion"
KNOWN = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One table, one small run, all attacks, saved; (found by name, the record's frame, the report)."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FEDDIFF_RESULTS", "FEDDIFF_CACHE"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        generator = np.random.default_rng(0)
        group = generator.choice(3, 500, p=[0.6, 0.3, 0.1])
        frame = pd.DataFrame({
            "a": group + 0.3 * generator.normal(size=500), "b": np.array(list("uvx"))[group],
            "c": generator.normal(size=500) - group, "d": np.where(generator.random(500) > 0.4, "yes", "no"),
        })
        kinds = {"a": "numeric", "b": "categorical", "c": "numeric", "d": "categorical"}
        table = Table(frame=frame, target="d", kinds=kinds, name="toy", source="embedded", sha256="ab" * 32)
        setting = study.split(table, silos=2, seed=0)
        small = dict(hidden=32, ae_steps=150, ae_batch=128, dm_steps=60, dm_width=32, dm_batch=128, alarm=-1e9)
        config = silofuse.ours(**small)
        model = study.trained(setting, "silofuse", config, progress=False)
        run = records.start(notebook=NOTEBOOK, scale="quick", parameters={"dataset": "toy"}, seed=0)
        run.data(setting.train)
        aim = attacks.target(setting, model)
        found = {
            "paired": attacks.paired(run, aim, [2, KNOWN], ("ridge", "knn"), defence="none"),
            "clone": attacks.clone(run, aim, [20, None], defence="none"),
            "decoder": attacks.decoder(run, aim, setting, model, defence="none"),
            "insider": attacks.insider(run, aim, KNOWN, defence="none"),
            "structure": attacks.structure(run, aim, setting, model), "unpaired": attacks.unpaired(run, aim),
            "marginals": attacks.one_column_each(run, setting, config),
        }
        vae = study.trained(setting, "silofuse", replace(config, variant="vae", beta=1.0), progress=False)
        targets = {
            "none": aim, "rotation": defences.turned(setting, model, progress=False),
            "epsilon_10": defences.noised(run, setting, model, 10.0, progress=False, defence="epsilon_10"),
            "vae": attacks.target(setting, vae),
        }
        found["worth"] = {
            name: defences.worth(run, setting, own, known=KNOWN, defence=name) for name, own in targets.items()
        }
        run.save()
        return found, aim, collate.report(NOTEBOOK, "quick")


def test_knowledge_leaks_and_controls_do_not(made):
    found, aim, _ = made
    paired, whole = found["paired"], found["clone"]
    assert paired["ridge", KNOWN] > paired["ridge", 2] and paired["ridge", KNOWN] > 0.5
    assert paired["control", KNOWN] < 0.15 and whole["control", 400] < 0.15
    assert max(whole["ridge", 400], whole["mlp", 400]) > whole["ridge", 20]
    assert found["decoder"] > 0.8
    assert found["insider"]["insider"] > found["insider"]["insider_floor"]
    assert found["unpaired"]["unpaired_control"] < 0.15
    assert found["marginals"]["marginals"] > 0.5 > 0.2 > found["marginals"]["marginals_control"]
    assert not set(aim.order[: aim.most]) & set(aim.scored)
    with pytest.raises(ValueError, match="known must lie in"):
        attacks.paired(None, aim, [aim.most + 1])


def test_structure_is_seen(made):
    told = made[0]["structure"]
    assert told["distance_correlation"] > 0.3 and told["neighbour_gain"] > 0.3 and told["relinked"] > 0.5
    assert all(np.isnan(value) or -1 <= value <= 1 for value in told.values())


def test_a_rotation_keeps_the_leak_and_noise_takes_it(made):
    worth = made[0]["worth"]
    assert abs(worth["rotation"]["paired"] - worth["none"]["paired"]) < 0.05
    assert worth["epsilon_10"]["paired"] < worth["none"]["paired"] - 0.3
    assert worth["none"]["paired"] == made[0]["paired"]["ridge", KNOWN], "the same attack, noted once"


def test_the_report_has_every_figure_and_the_statement(made):
    report = made[2]
    assert report.missing == {} and set(report.figures) == {"curves", "columns", "attacks", "structure", "defences"}
    assert (report.table("privacy")["defence"] == "epsilon_10").all()
    assert "leak" in str(report.table("headline").to_csv())
