"""Your own folder of videos: clip-level training, then video-level training with a collaborative memory."""

from __future__ import annotations

from dataclasses import replace

from wholereel.config import (
    Augment,
    Clips,
    Data,
    Evaluate,
    Memory,
    Model,
    Optim,
    Recipe,
    Strategy,
    Train,
    Views,
)

__all__ = ["own_videos"]


def own_videos(seed: int = 0) -> Recipe:
    """R(2+1)D-18 at 112 pixels on a folder or manifest with splits `train` and `val`.

    Source: two stages as for arXiv 2104.01198; its schedule is not public, ours is the usual one of the field.
    Weights of your own: `--set stages.clip_level.model.weights=file:r2plus1d_18.pth`.
    Measured: not run at scale. Cost: about 40 GMACs a clip forward.
    Command: `wholereel train own_videos --data FOLDER --out runs/mine`.
    """
    one = Clips(plan="random", count=1, frames=16, stride=2, frame_rate=15.0)
    several = replace(one, plan="stratified", count=4)
    views = Views(clips=replace(one, plan="uniform", count=10), short_side=128, crop=112, combine="softmax_mean")
    data = Data(clips=one, augment=Augment(short_side=(128, 160), crop=112))
    optim = Optim("sgd", lr=0.1, lr_batch=64, weight_decay=1e-4, warmup=5.0)
    clip_level = Train(
        model=Model("r2plus1d_18"),
        data=data,
        val=replace(data, split="val", clips=views.clips),
        views=views,
        optim=optim,
        epochs=45,
        batch=16,
        seed=seed,
    )
    video_level = replace(
        clip_level,
        model=replace(clip_level.model, weights="stage:clip_level", memory=Memory()),
        data=replace(data, clips=several),
        strategy=Strategy("batch_reduction"),
        optim=replace(optim, lr=0.01, warmup=1.0, norm="frozen"),
        epochs=11,
        seed=seed + 1,
    )
    test = replace(data, split="val", clips=views.clips)
    return Recipe(
        "own_videos",
        {
            "clip_level": clip_level,
            "video_level": video_level,
            "test_clip_level": Evaluate("stage:clip_level", test, views=views),
            "test_video_level": Evaluate("stage:video_level", test, views=views),
        },
        "your own folder: clip-level, then video-level with memory (--data)",
        main="video_level",
    )
