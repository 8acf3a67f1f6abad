"""What separated channels and correlation of frames are claimed to do, on worlds whose ceilings are proved.

`csn_motion_objects` compares a dense 3-D network with its channel-separated forms where some labels are wrong, so that
learning by heart shows (arXiv 1904.02811); `corrnet_finemotion8` compares networks of single frames, of factorised
convolutions and with correlation blocks where motion is farther than a kernel sees (arXiv 1906.03349). All networks of
a recipe see the same clips in the same order for the same number of steps. Sizes and schedules are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from wholereel.config import Augment, Clips, Data, Evaluate, Model, Optim, Recipe, Stage, Train, Views, World

__all__ = ["corrnet_finemotion8", "csn_motion_objects"]

# No flips: a mirror image has another label in both worlds.
OBJECT_CLIPS = Clips(plan="random", count=1, frames=4, stride=4)
DOT_CLIPS = Clips(plan="random", count=1, frames=8, stride=1)
OBJECT_NETWORKS = {
    "dense": Model("resnet3d_26", options={"width": 16, "pool1": False}),
    "ip_csn": Model("ip_csn_26", options={"width": 16, "pool1": False}),
    "ir_csn": Model("ir_csn_26", options={"width": 16, "pool1": False}),
}
# The one without correlation has about twice the multiply-adds of the one with it (27.9 and 14.8 million).
DOT_NETWORKS = {
    "r2d": Model("tiny_r2d", options={"width": 16, "norm": "batch"}),
    "r2plus1d": Model("tiny_r2plus1d", options={"width": 24, "norm": "batch"}),
    "corrnet": Model("tiny_corrnet", options={"width": 16, "norm": "batch"}),
}


def _compared(
    name: str,
    world: World,
    networks: Mapping[str, Model],
    clips: Clips,
    optim: Optim,
    splits: tuple[str, ...],
    summary: str,
    *,
    crop: int,
    epochs: int,
    seed: int,
    measured: str = "",
) -> Recipe:
    """Each network trained alike on videos of 32 x 32 pixels, and judged on these splits."""
    data = Data(
        root="stage:world",
        clips=clips,
        augment=Augment(short_side=(32, 32), crop=crop, flip=0.0),
        cache=True,
        workers=0,
    )
    views = Views(clips=replace(clips, plan="uniform"), short_side=32, crop=crop)
    stages: dict[str, Stage] = {"world": world}
    for network, model in networks.items():
        stages[network] = Train(
            model=model,
            data=data,
            optim=optim,
            epochs=epochs,
            batch=16,
            seed=seed,
        )
    for network in networks:
        for split in splits:
            judged = replace(data, split=split, clips=views.clips)
            stages[f"{split}_{network}"] = Evaluate(f"stage:{network}", judged, views=views, batch=32)
    return Recipe(name, stages, summary, measured=measured)


def csn_motion_objects(seed: int = 0) -> Recipe:
    """A dense 3-D network, its ip-CSN and its ir-CSN form on glyphs that move, with one label in ten drawn anew.

    Ceilings of the world: 0.231 from a frame or from motion alone, 0.906 from both. Judged on the training videos, too:
    who learned wrong labels by heart is better there and worse on the test. Multiply-adds of the three: 31.2, 10.9 and
    8.9 million. Four times as many training videos as the world usually has: with 640 the dense network knows nine in
    ten of them by heart and a third of the others (validation of an unreported seed).
    Source: arXiv 1904.02811 makes the claim on Kinetics. Measured: test 0.607, 0.618 and 0.580 (three seeds, of which
    the first spreads by 0.09), see `docs/papers/csn.md`. Cost: six minutes of a processor core a seed.
    Command: `python benchmarks/effects.py csn_motion_objects --seeds 0 1 2 --out runs/effects`.
    """
    return _compared(
        "csn_motion_objects",
        World(
            "motion_objects",
            seed=seed,
            sizes={"train": 2560, "val": 160, "test": 640},
            options={"label_noise": 0.1, "size": 32},
        ),
        OBJECT_NETWORKS,
        OBJECT_CLIPS,
        Optim("adamw", lr=0.003, weight_decay=0.05, warmup=0.3),
        ("train", "test"),
        "channel-separated networks against the dense one where one label in ten is wrong",
        crop=28,
        epochs=12,
        seed=seed,
        measured="docs/papers/csn.md",
    )


def corrnet_finemotion8(seed: int = 0) -> Recipe:
    """Small R2D, R(2+1)D and CorrNet on dots that drift six pixels a frame in eight directions, among erratic ones.

    Ceilings of the world: 1/8 from a frame, 1 from two neighbouring frames. The networks halve the picture before they
    look at motion, so that dots go three positions; R(2+1)D has twice the multiply-adds of CorrNet.
    Source: arXiv 1906.03349 makes the claim on Something-Something. Measured: 0.133, 0.643 and 0.972 (three seeds), see
    `docs/papers/corrnet.md`. Cost: two to three minutes of a processor core a seed.
    Command: `python benchmarks/effects.py corrnet_finemotion8 --seeds 0 1 2 --out runs/effects`.
    """
    return _compared(
        "corrnet_finemotion8",
        World("finemotion8", seed=seed, options={"step": 6, "size": 32}),
        DOT_NETWORKS,
        DOT_CLIPS,
        Optim("sgd", lr=0.05, weight_decay=1e-4, warmup=0.5),
        ("test",),
        "correlation of frames against factorised convolutions where motion is far",
        crop=32,
        epochs=8,
        seed=seed,
        measured="docs/papers/corrnet.md",
    )
