"""Your own untrimmed videos, clip by clip, with a memory of what came before (MeMViT)."""

from __future__ import annotations

from dataclasses import replace

from wholereel.config import (
    Augment,
    Clips,
    Data,
    Evaluate,
    Model,
    Optim,
    Recipe,
    Strategy,
    Streams,
    Task,
    Train,
    Views,
)

__all__ = ["own_streams"]


def own_streams(seed: int = 0) -> Recipe:
    """MeMViT-16 on untrimmed videos with timed actions, splits `train` and `val`: what does each clip show?

    Every clip of two seconds is judged, each action by itself, so that there may be several, or none. What is
    remembered reaches back 4 clips in each of 8 blocks, a minute in all.
    Source: arXiv 2201.08383 for the network and its memory; the settings are ours.
    Start from trained weights unless you have thousands of hours:
    `--set stages.streams.model.weights=file:MeMViT_16L_16x4_K400.pyth`.
    Measured: not run at scale. Cost: about 60 GMACs a clip forward.
    Command: `wholereel data prepare timed_actions --root FOLDER`, then
    `wholereel train own_streams --data FOLDER --out runs/mine`.
    """
    clips = Clips(frames=16, stride=4, frame_rate=30.0)
    augment = Augment(short_side=(256, 320), crop=224, color_jitter=0.4)
    data = Data(labels=("label",), clips=clips, augment=augment, streams=Streams(steps="grid", label="all"))
    val = replace(data, split="val")
    views = Views(clips=clips, short_side=224, crop=224)
    streams = Train(
        model=Model("memvit_16", options={"reach": 4, "drop_path": 0.2}),
        data=data,
        task=Task("stream", multi_label=True, dropout=0.5),
        strategy=Strategy("sequential"),
        optim=Optim("adamw", lr=1e-4, lr_batch=64, weight_decay=0.05, warmup=2.5, final=0.01, clip_norm=1.0),
        epochs=30,
        batch=4,
        val=val,
        views=views,
        validate_every=2,
        seed=seed,
    )
    test = Evaluate("stage:streams", val, views=views, batch=1)
    summary = "your own untrimmed videos: what happens when, clip by clip (--data)"
    return Recipe("own_streams", {"streams": streams, "test": test}, summary, main="streams")
