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
from wholereel.recipes.worlds import pretrain_events8

__all__ = ["ava_rooms", "jhmdb_boxes"]

# Half a second around the key frame, in which one action is shown: seconds -0.5 and 0.
ONE = Clips(count=1, frames=2, stride=4)
# Clips 2 s apart see every pick-up of the eight seconds before and behind once.
WINDOW = replace(ONE, count=9, window=16.0, window_grid=1.0)
WHOLE = Augment(short_side=(96, 96), crop=0, flip=0.0)
NETWORK = Model("tiny_r2plus1d", options={"width": 16, "norm": "batch", "placed": True})
MEMORY = Memory(value="separate", dim=32, position_norm="ref", ref_positions=16)
GLYPH_SIZES = {"train": 1800, "val": 180, "test": 9}


def ava_rooms(seed: int = 0) -> Recipe:
    """What people do and what they carry: a clip cannot know what was picked up earlier, the memory can.

    Three trainings: glyphs in short clips (`events8`, as others begin with Kinetics), boxes on single clips, boxes
    with a memory end to end. No clip can reach more than the ceiling `clip`, however long it is trained.
    Measured (one seed, docs/lab.md): frame-mAP 0.696 on single clips, 0.712 with memory; what is carried 0.244 and
    0.281. Above the ceiling of a clip, 0.746, it is not. Cost: about 10 minutes of one processor core a seed.
    Source: our world, `docs/worlds/ava_rooms.md`; the detector of arXiv 2104.01198 (AVA) on a small network of our own.
    Command: `wholereel train ava_rooms --out runs/ava_rooms`.
    """
    pretrain = replace(pretrain_events8(seed=seed, epochs=6), model=NETWORK, validate_every=6)
    network = replace(NETWORK, boxes=BoxHead(read="roi"))
    optim = Optim("adamw", lr=2e-3, head_lr=5.0, weight_decay=0.05, warmup=0.2, clip_norm=1.0)
    data = Data(root="stage:keys", clips=ONE, augment=WHOLE, cache=True, workers=0)
    views = Views(clips=ONE, short_side=96, crop=0)
    clip_level = Train(
        model=replace(network, weights="stage:pretrain"),
        data=data,
        task=Task("detect", multi_label=True),
        optim=optim,
        batch=16,
        epochs=1,
        seed=seed,
    )
    windows = replace(views, clips=WINDOW)
    with_memory = replace(
        clip_level,
        model=replace(network, weights="stage:clip_level", memory=MEMORY),
        data=replace(data, clips=WINDOW, judged="all"),
        views=windows,
        strategy=Strategy("exact"),
        optim=replace(optim, lr=1e-3, memory_lr=5.0, head_lr=1.0, warmup=0.05, norm="frozen"),
        epochs=3,
        batch=4,
    )
    test = replace(data, split="test")
    stages: dict[str, Stage] = {
        "events8": World("events8", seed=seed, sizes=GLYPH_SIZES),
        "ava_rooms": World("ava_rooms", seed=seed),
        "keys": Prepare("ava_v2.2", root="stage:ava_rooms", options={"layout": "segments"}),
        "pretrain": pretrain,
        "clip_level": clip_level,
        "collaborative_memory": with_memory,
        "test_clip_level": Evaluate("stage:clip_level", test, views=views),
        "test_collaborative_memory": Evaluate("stage:collaborative_memory", replace(test, clips=WINDOW), views=windows),
    }
    summary = "boxes at key frames: what is carried was shown earlier"
    return Recipe("ava_rooms", stages, summary, main="collaborative_memory", measured="docs/lab.md")


def jhmdb_boxes(seed: int = 0) -> Recipe:
    """Real footage through the same path: ten actions of JHMDB, one person box in each key frame, official split 1.

    Data: a folder with `boxes_ava.csv` (AVA's columns, a row a frame), `annotations.csv` (`path,label,split`), videos.
    Source: our choice of network and schedule. Clips last up to 1.3 s, so a memory has little to add here.
    Measured (two seeds): frame-mAP 0.39 and 0.45 without, 0.43 and 0.45 with memory; best class right for 0.38 and 0.36
    of the boxes, 0.29 and 0.32 with memory (floor 0.26). Cost: 2 minutes of one processor core a seed.
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
