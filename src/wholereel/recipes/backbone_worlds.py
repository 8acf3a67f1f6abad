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

# Every other of the sixteen frames; a mirror image has another label in both worlds.
CLIPS = Clips(plan="uniform", count=1, frames=8, stride=2)
NEIGHBOURS = replace(CLIPS, stride=1, plan="random")
OBJECT_NETWORKS = {
    "dense": Model("resnet3d_26", options={"width": 16, "pool1": False}),
    "ip_csn": Model("ip_csn_26", options={"width": 16, "pool1": False}),
    "ir_csn": Model("ir_csn_26", options={"width": 16, "pool1": False}),
}
MOTION_NETWORKS = {
    "r2d": Model("r2d_ptv_26", options={"width": 8, "dropout": 0.0}),
    "r2plus1d": Model("r2plus1d_ptv_26", options={"width": 8, "dropout": 0.0}),
    "corrnet": Model("corrnet_26", options={"width": 8, "dropout": 0.0, "frames": 8, "dilation": 1}),
}


def _compared(
    name: str,
    world: World,
    networks: Mapping[str, Model],
    clips: Clips,
    splits: tuple[str, ...],
    summary: str,
    *,
    side: int,
    epochs: int,
    seed: int,
) -> Recipe:
    """Each network trained alike, and judged on these splits."""
    data = Data(
        root="stage:world",
        clips=clips,
        augment=Augment(short_side=(side, side), crop=side, flip=0.0),
        cache=True,
        workers=0,
    )
    views = Views(clips=replace(clips, plan="uniform"), short_side=side, crop=side)
    stages: dict[str, Stage] = {"world": world}
    for network, model in networks.items():
        stages[network] = Train(
            model=model,
            data=data,
            optim=Optim("sgd", lr=0.05, weight_decay=1e-4, warmup=1.0),
            epochs=epochs,
            batch=16,
            seed=seed,
        )
    for network in networks:
        for split in splits:
            judged = replace(data, split=split, clips=views.clips)
            stages[f"{split}_{network}"] = Evaluate(f"stage:{network}", judged, views=views, batch=32)
    return Recipe(name, stages, summary)


def csn_motion_objects(seed: int = 0) -> Recipe:
    """A dense 3-D network, its ip-CSN and its ir-CSN form on glyphs that move, with one label in ten drawn anew.

    Ceilings of the world: 0.231 from a frame or from motion alone, 0.906 from both. Judged on the training videos, too:
    who learned wrong labels by heart is better there and worse on the test. Multiply-adds of the three: 1, 0.38, 0.31.
    Source: arXiv 1904.02811 makes the claim on Kinetics. Measured: not run here. Cost: not measured.
    Command: `python benchmarks/effects.py csn_motion_objects --seeds 0 1 2 --out runs/effects`.
    """
    return _compared(
        "csn_motion_objects",
        World("motion_objects", seed=seed, options={"label_noise": 0.1, "size": 32}),
        OBJECT_NETWORKS,
        CLIPS,
        ("train", "test"),
        "channel-separated networks against the dense one where one label in ten is wrong",
        side=32,
        epochs=20,
        seed=seed,
    )


def corrnet_finemotion8(seed: int = 0) -> Recipe:
    """R2D, R(2+1)D and CorrNet on dots that drift six pixels a frame in one of eight directions among erratic ones.

    Ceilings of the world: 1/8 from a frame, 1 from two neighbouring frames. Source: arXiv 1906.03349 makes the claim on
    Something-Something. Measured: not run here. Cost: not measured.
    Command: `python benchmarks/effects.py corrnet_finemotion8 --seeds 0 1 2 --out runs/effects`.
    """
    return _compared(
        "corrnet_finemotion8",
        World("finemotion8", seed=seed, options={"step": 6}),
        MOTION_NETWORKS,
        NEIGHBOURS,
        ("test",),
        "correlation of frames against factorised convolutions where motion is far",
        side=64,
        epochs=16,
        seed=seed,
    )
