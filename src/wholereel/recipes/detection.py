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

__all__ = ["ava_rooms", "jhmdb_boxes"]

# Half a second around the key frame, in which one action is shown: seconds -0.5 and 0.
ONE = Clips(count=1, frames=2, stride=4)
# Eleven clips 2 s apart see every pick-up of the ten seconds before and behind.
WINDOW = replace(ONE, count=11, window=20.0, window_grid=1.0)
WHOLE = Augment(short_side=(96, 96), crop=0, flip=0.0)
NETWORK = Model("tiny_r2plus1d", options={"width": 16}, boxes=BoxHead(read="roi"))
MEMORY = Memory(value="separate", dim=32, position_norm="sum")


def ava_rooms(seed: int = 0) -> Recipe:
    """What people do and what they carry: a clip cannot know what was picked up earlier, the memory can.

    Source: our world, `docs/worlds/ava_rooms.md`; the detector of arXiv 2104.01198 (AVA) on a small network of our own.
    Command: `wholereel train ava_rooms --out runs/ava_rooms`.
    """
    optim = Optim("adamw", lr=5e-3, weight_decay=0.05, warmup=0.5, clip_norm=1.0)
    data = Data(root="stage:keys", clips=ONE, augment=WHOLE, cache=True, workers=0)
    views = Views(clips=ONE, short_side=96, crop=0)
    clip_level = Train(
        model=NETWORK,
        data=data,
        task=Task("detect", multi_label=True),
        val=replace(data, split="val"),
        views=views,
        optim=optim,
        epochs=6,
        validate_every=3,
        batch=16,
        seed=seed,
    )
    windows = replace(views, clips=WINDOW)
    with_memory = replace(
        clip_level,
        model=replace(NETWORK, weights="stage:clip_level", memory=MEMORY),
        data=replace(data, clips=WINDOW, judged="all"),
        val=replace(data, split="val", clips=WINDOW),
        views=windows,
        strategy=Strategy("exact"),
        optim=replace(optim, lr=1e-3, memory_lr=5.0, warmup=0.1),
        epochs=1,
        validate_every=1,
        batch=4,
    )
    test = replace(data, split="test")
    stages: dict[str, Stage] = {
        "ava_rooms": World("ava_rooms", seed=seed),
        "keys": Prepare("ava_v2.2", root="stage:ava_rooms", options={"layout": "segments"}),
        "clip_level": clip_level,
        "collaborative_memory": with_memory,
        "test_clip_level": Evaluate("stage:clip_level", test, views=views),
        "test_collaborative_memory": Evaluate("stage:collaborative_memory", replace(test, clips=WINDOW), views=windows),
    }
    return Recipe(
        "ava_rooms", stages, "boxes at key frames: what is carried was shown earlier", main="collaborative_memory"
    )


def jhmdb_boxes(seed: int = 0) -> Recipe:
    """Real footage through the same path: ten actions of JHMDB, one person box in each key frame, official split 1.

    Data: a folder with `boxes_ava.csv` (AVA's columns, a row a frame), `annotations.csv` (`path,label,split`), videos.
    Source: our choice of network and schedule. Clips last up to 1.3 s, so a memory has little to add here.
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
    return Recipe("jhmdb_boxes", stages, "real footage: actions of people in boxes (--data)", main="clip_level")
