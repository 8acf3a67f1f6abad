"""Boxes at key frames: the world ava_rooms, whose carried objects were shown earlier, and real footage.

Official AVA files go in (stage `keys`), official detections come out (each evaluation's `detections.csv`). The detector
is trained on single clips first; then a memory is put into it and all goes on end to end with windows of clips,
`exact`ly: context clips get a gradient through the memory alone.
"""

from __future__ import annotations

from dataclasses import replace

from wholereel.config import (
    Augment,
    BoxHead,
    Clips,
    Data,
    Evaluate,
    Memory,
    Model,
    Optim,
    Prepare,
    Recipe,
    Stage,
    Strategy,
    Task,
    Train,
    Views,
    World,
)

__all__ = ["ava_rooms", "ava_rooms_gradients", "jhmdb_boxes"]

# Half a second around the key frame, in which one action is shown: seconds -0.5 and 0.
ONE = Clips(count=1, frames=2, stride=4)
# Clips 2 s apart see every pick-up of the eight seconds before and behind once.
WINDOW = replace(ONE, count=9, window=16.0, window_grid=1.0)
# As many before the key frame alone. Training needs no other windows: where the boxes of all their clips are judged,
# those of the last clip see what comes before.
BEFORE = replace(WINDOW, window_side="before")
WHOLE = Augment(short_side=(96, 96), crop=0, flip=0.0)
DETECTOR = Model("tiny_r2plus1d", options={"width": 16, "norm": "batch", "placed": True}, boxes=BoxHead(read="roi"))
LOW = ("clip_model.stem.", "clip_model.layer1.")  # the dearest layers, which are as they should be
# A gate scales what the box shows itself, and nobody who carries something shows its kind: the memory has to add it.
MEMORY = Memory(value="separate", infusion="residual", dim=32, position_norm="ref", ref_positions=16)


def ava_rooms(seed: int = 0) -> Recipe:
    """What people do and what they carry: a clip cannot know what was picked up earlier, the memory can.

    Three trainings: boxes in trimmed clips (`ava_rooms_clips`, as others begin with Kinetics), boxes on single clips,
    boxes with a memory end to end. No clip can reach more than the ceiling `clip`, however long it is trained.
    Measured (three seeds): frame-mAP 0.744 ± 0.004 on single clips (ceiling 0.746), 0.783 ± 0.014 with a memory of
    clips on both sides, 0.803 ± 0.019 with one of earlier clips. Cost: about 6 minutes of one processor core a seed.
    Source: our world, `docs/worlds/ava_rooms.md`; the detector of arXiv 2104.01198 (AVA) on a small network of our own.
    Command: `wholereel train ava_rooms --out runs/ava_rooms`.
    """
    data, views = _rooms()
    test = replace(data, split="test")
    windows, before = replace(views, clips=WINDOW), replace(views, clips=BEFORE)
    stages: dict[str, Stage] = {
        **_clip_level(seed),
        "collaborative_memory": _with_memory(seed),
        "test_clip_level": Evaluate("stage:clip_level", test, views=views),
        "test_collaborative_memory": Evaluate("stage:collaborative_memory", replace(test, clips=WINDOW), views=windows),
        "test_earlier_clips": Evaluate("stage:collaborative_memory", replace(test, clips=BEFORE), views=before),
    }
    summary = "boxes at key frames: what is carried was shown earlier"
    return Recipe("ava_rooms", stages, summary, main="collaborative_memory", measured="docs/lab.md")


def ava_rooms_gradients(seed: int = 0) -> Recipe:
    """Does `ava_rooms` need the gradient through the memory? The recipe's memory, and the same with truncated gradient.

    A truncated memory keeps the keys and values that it was drawn with, and clips learn nothing for those that read
    them. Boxes of all key frames of a window are judged in both: those of the middle alone are a ninth as many, and a
    truncated gradient would leave the other clips without any (`data.judged=centre`).
    Source: our world and question. Measured (one seed): frame-mAP 0.772 exact, 0.765 truncated.
    Command: `python benchmarks/effects.py ava_rooms_gradients --seeds 0 --out runs/effects`.
    """
    data, views = _rooms()
    exact = _with_memory(seed)
    truncated = replace(exact, model=replace(exact.model, memory=replace(MEMORY, detach=True)))
    stages: dict[str, Stage] = {**_clip_level(seed), "exact": exact, "truncated": truncated}
    test, windows = replace(data, split="test", clips=WINDOW), replace(views, clips=WINDOW)
    stages |= {f"test_{name}": Evaluate(f"stage:{name}", test, views=windows) for name in ("exact", "truncated")}
    summary = "ava_rooms with exact and with truncated gradients"
    return Recipe("ava_rooms_gradients", stages, summary, main="exact", measured="docs/detection.md")


def _rooms() -> tuple[Data, Views]:
    """Training key frames and how single clips are looked at."""
    data = Data(root="stage:keys", clips=ONE, augment=WHOLE, cache=True, workers=0)
    return data, Views(clips=ONE, short_side=96, crop=0)


def _clip_level(seed: int) -> dict[str, Stage]:
    """Worlds, official files, and the detector of single clips."""
    data, _ = _rooms()
    pretrain = Train(
        model=DETECTOR,
        data=replace(data, root="stage:trimmed"),
        task=Task("detect", multi_label=True),
        optim=Optim("adamw", lr=4e-3, weight_decay=0.05, warmup=0.5, clip_norm=1.0),
        batch=32,
        epochs=4,
        seed=seed,
    )
    clip_level = replace(
        pretrain,
        model=replace(DETECTOR, weights="stage:pretrain"),
        data=data,
        optim=replace(pretrain.optim, lr=5e-4, head_lr=10.0, warmup=0.1),
        batch=16,
        epochs=1,
    )
    return {
        "trimmed": World("ava_rooms_clips", seed=seed),
        "ava_rooms": World("ava_rooms", seed=seed),
        "keys": Prepare("ava_v2.2", root="stage:ava_rooms", options={"layout": "segments"}),
        "pretrain": pretrain,
        "clip_level": clip_level,
    }


def _with_memory(seed: int) -> Train:
    """The detector with windows of clips, from that of single clips."""
    data, views = _rooms()
    return Train(
        model=replace(DETECTOR, weights="stage:clip_level", memory=MEMORY),
        data=replace(data, clips=WINDOW, judged="all"),
        views=replace(views, clips=WINDOW),
        task=Task("detect", multi_label=True),
        strategy=Strategy("exact"),
        optim=Optim(
            "adamw",
            lr=5e-4,
            memory_lr=10.0,
            head_lr=10.0,
            weight_decay=0.05,
            warmup=0.05,
            clip_norm=1.0,
            norm="frozen",
            frozen=LOW,
        ),
        epochs=1,
        batch=4,
        seed=seed,
    )


def jhmdb_boxes(seed: int = 0) -> Recipe:
    """Real footage through the same path: ten actions of JHMDB, one person box in each key frame, official split 1.

    Data: a folder with `boxes_ava.csv` (AVA's columns, a row a frame), `annotations.csv` (`path,label,split`), videos.
    Source: our choice of network and schedule. Clips last up to 1.3 s, so a memory has little to add here.
    Measured (three seeds): frame-mAP 0.416 ± 0.027 without, 0.419 ± 0.025 with memory; best class right for 0.357 of
    the boxes, 0.312 with memory (floor 0.26). Cost: one minute of one processor core a seed.
    Command: `wholereel train jhmdb_boxes --data JHMDB --out runs/jhmdb`.
    """
    one = Clips(count=1, frames=4, stride=5)
    window = replace(one, count=3, window=0.8)
    augment = Augment(short_side=(72, 72), crop=64, flip=0.5, color_jitter=0.4)
    optim = Optim("adamw", lr=5e-3, weight_decay=0.05, warmup=2.0, clip_norm=1.0)
    data = Data(root="stage:keys", clips=one, augment=augment, cache=True, workers=0)
    views = Views(clips=one, short_side=72, crop=64)
    network = Model("tiny_r2plus1d", options={"width": 16, "norm": "batch"}, boxes=BoxHead())
    clip_level = Train(
        model=network,
        data=data,
        task=Task("detect", multi_label=True),
        optim=optim,
        epochs=30,
        batch=16,
        seed=seed,
    )
    with_memory = replace(
        clip_level,
        model=replace(network, weights="stage:clip_level", memory=Memory(value="separate", dim=32)),
        data=replace(data, clips=window),
        strategy=Strategy("exact"),
        optim=replace(optim, lr=5e-4, memory_lr=5.0, warmup=1.0, norm="frozen"),
        epochs=6,
    )
    val = replace(data, split="val")
    windows = replace(views, clips=window)
    stages: dict[str, Stage] = {
        "keys": Prepare("action_boxes", options={"boxes": "boxes_ava.csv", "step": "10"}),
        "clip_level": clip_level,
        "collaborative_memory": with_memory,
        "test_clip_level": Evaluate("stage:clip_level", val, views=views),
        "test_collaborative_memory": Evaluate("stage:collaborative_memory", replace(val, clips=window), views=windows),
    }
    summary = "real footage: actions of people in boxes (--data)"
    return Recipe("jhmdb_boxes", stages, summary, main="clip_level", measured="docs/lab.md")
