"""SiloFuse with defended latents: a silo changes what it uploads, the coordinator trains on that, the silo decodes.

Autoencoders are those of the undefended run, so that only the defence differs; a bottleneck is another run altogether
(`silofuse_study.trained` with another configuration).
"""

import math
from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from feddiff.attacks.latent_defences import private_latents, rotated
from feddiff.experiments import attack_latents, cache, records, silofuse_judge
from feddiff.experiments.attack_latents import Target
from feddiff.experiments.silofuse_study import DATA_CODE, Setting
from feddiff.seeds import numpy_generator
from feddiff.systems.silofuse import SiloFuseRun
from feddiff.systems.silofuse_parties import Coordinator

# Clipping norm of a latent in units of sqrt(width): standardised latents have a root mean square of 1.
CLIP = 1.5
DELTA = 1e-5


def noised(
    run: records.Run, setting: Setting, model: SiloFuseRun, epsilon: float, *, progress: bool = True, **labels
) -> Target:
    """Return the run with latents noised for `epsilon` (one person, all silos; DELTA), its statement recorded."""
    uploads = {}
    for client in model.clients:
        made = private_latents(
            model.latents[client.name], clip_norm=CLIP * math.sqrt(client.width), epsilon=epsilon, delta=DELTA,
            releases=len(model.clients), generator=numpy_generator(setting.seed, "private latents", client.name),
        )
        uploads[client.name] = made.z
        # The norm differs from silo to silo with the width, epsilon is for all of them together.
        statement = made.statement | {"clip_norm": f"{CLIP:g} sqrt(width)", "noise": "by silo"}
    run.privacy(statement, **labels)
    name = f"gaussian epsilon={epsilon:g} delta={DELTA:g} clip={CLIP:g}"
    return _through(setting, model, uploads, name, lambda name, z: z, progress)


def turned(setting: Setting, model: SiloFuseRun, *, progress: bool = True) -> Target:
    """Return the run with each silo's latents turned by its secret rotation, undone before it decodes."""
    turns = {
        client.name: rotated(np.eye(client.width), numpy_generator(setting.seed, "rotation", client.name))
        for client in model.clients
    }
    uploads = {name: (z @ turns[name]).astype(np.float32) for name, z in model.latents.items()}
    return _through(
        setting, model, uploads, "rotation", lambda name, z: (z @ turns[name].T).astype(np.float32), progress
    )


def worth(
    run: records.Run, setting: Setting, aim: Target, *, known: int, defence: str, **labels
) -> dict[str, float]:
    """Record and return resemblance, leak to `known` known rows and leak to a clone, all under `defence`."""
    labels = dict(defence=defence, **labels)
    quality = silofuse_judge.judge(run, setting, aim.synthetic, useful=False, **labels)
    pairs = attack_latents.paired(run, aim, [known], ("ridge",), **labels)
    free = attack_latents.clone(run, aim, [None], ("ridge",), **labels)
    found = {"resemblance": quality["resemblance"], "paired": pairs["ridge", known]}
    return found | {"clone": max(value for (method, _), value in free.items() if method != "control")}


def _through(
    setting: Setting, model: SiloFuseRun, uploads: dict[str, np.ndarray], defence: str,
    undo: Callable[[str, np.ndarray], np.ndarray], progress: bool,
) -> Target:
    coordinator = Coordinator(model.config)
    for name, z in uploads.items():
        coordinator.receive(name, {"z": z})

    def state() -> dict:
        coordinator.fit(progress=progress)
        return coordinator.summary()

    place = f"{setting.identity} columns={setting.parts} defence={defence}"
    code = ["feddiff.systems.silofuse", "feddiff.attacks.latent_defences", *DATA_CODE]
    coordinator.restore(cache.cached("silofuse-defended", asdict(model.config), place, state, code=code).state)
    sent = coordinator.generate(setting.rows, seed=setting.seed)
    parts = {
        client.name: client.decode(undo(client.name, sent[client.name]), seed=setting.seed) for client in model.clients
    }
    return attack_latents.target(setting, model, uploads=uploads, sent=sent, parts=parts)
