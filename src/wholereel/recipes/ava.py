"""AVA: the detection rows of the published table of arXiv 2104.01198, none run at scale.

How the paper chooses neighbouring clips and how boxes read the memory could not be consulted: windows, reading and the
second stage are our choices, as in `two_stages.py`. The first stage follows facebookresearch/SlowFast
(`configs/AVA`): 0.1 per 64 clips in steps at 10 and 15 of 20 epochs, five of warm-up, weight decay 1e-7, last stages
dilated; annotated boxes in training, detected ones of score 0.8 and more in tests, on whole pictures of short side 256.
`--data` is a folder with the official files, the films, and the published boxes `ava_val_predicted_boxes.csv`.
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
)

__all__ = ["ava_clip_level", "ava_collaborative_memory"]

KINETICS = "file:slowfast_8x8_101_kinetics.safetensors"
CLIP = Clips(count=1, frames=32, stride=2, frame_rate=30.0)
TRAIN_WINDOW = replace(CLIP, count=5, window=10.0)
TEST_WINDOW = replace(CLIP, count=15, window=30.0, window_grid=1.0)
NETWORK = Model("slowfast_8x8_101", options={"dilated": True, "dropout": 0.5}, boxes=BoxHead(read="clip"))
BOXES = {"val_boxes": "ava_val_predicted_boxes.csv", "threshold": "0.8"}


def _clip_level(seed: int, epochs: int = 20) -> Train:
    return Train(
        model=replace(NETWORK, weights=KINETICS),
        data=Data(root="stage:keys", clips=CLIP, augment=Augment((256, 320), 224)),
        task=Task("detect", multi_label=True),
        optim=Optim(
            "sgd",
            lr=0.1,
            lr_batch=64,
            weight_decay=1e-7,
            warmup=5.0,
            schedule="steps",
            steps=(epochs / 2, 3 * epochs / 4),
        ),
        views=Views(clips=CLIP, short_side=256, crop=224),
        epochs=epochs,
        batch=8,
        precision="bf16",
        seed=seed,
    )


def ava_clip_level(seed: int = 0) -> Recipe:
    """SlowFast-101 on single clips of AVA v2.2, for as long as both stages of the memory.

    Source: facebookresearch/SlowFast; row "SlowFast-101 *" of arXiv 2104.01198. Published: 29.0 mAP. Measured: not run
    here. Cost: 45 epochs of about 184,000 key frames, 32 x 224 x 224.
    Command: `wholereel train ava_clip_level --data AVA --devices 8`.
    """
    val = Data(root="stage:keys", split="val", clips=CLIP)
    stages: dict[str, Stage] = {
        "keys": Prepare("ava_v2.2", options=BOXES),
        "clip_level": _clip_level(seed, epochs=45),
        "test": Evaluate("stage:clip_level", val, views=Views(clips=CLIP, short_side=256, crop=224)),
    }
    return Recipe("ava_clip_level", stages, "AVA v2.2, clip level", main="clip_level")


def ava_collaborative_memory(seed: int = 0) -> Recipe:
    """The same with a memory over five clips in ten seconds, tested with fifteen in thirty.

    Source: row "collaborative memory (SlowFast-101)" of arXiv 2104.01198; windows and schedule are ours.
    Published: 31.6 mAP (+2.6). Measured: not run here. Cost: 20 epochs of one clip, then 5 of five at
    4/3 of their cost (`exact`); a test encodes one clip a second of film.
    Command: `wholereel train ava_collaborative_memory --data AVA --devices 8`.
    """
    clip_level = _clip_level(seed)
    with_memory = replace(
        clip_level,
        model=replace(NETWORK, weights="stage:clip_level", memory=Memory(dim=512)),
        data=replace(clip_level.data, clips=TRAIN_WINDOW),
        strategy=Strategy("exact"),
        optim=replace(clip_level.optim, lr=0.01, warmup=1.0, schedule="cosine", steps=(), norm="frozen"),
        views=Views(clips=TEST_WINDOW, short_side=256, crop=224),
        epochs=5,
    )
    val = Data(root="stage:keys", split="val", clips=TEST_WINDOW)
    one, windows = (Views(clips=clips, short_side=256, crop=224) for clips in (CLIP, TEST_WINDOW))
    stages: dict[str, Stage] = {
        "keys": Prepare("ava_v2.2", options=BOXES),
        "clip_level": clip_level,
        "collaborative_memory": with_memory,
        "test_clip_level": Evaluate("stage:clip_level", replace(val, clips=CLIP), views=one),
        "test_collaborative_memory": Evaluate("stage:collaborative_memory", val, views=windows),
    }
    summary = "AVA v2.2, clip level, then memory"
    return Recipe("ava_collaborative_memory", stages, summary, main="collaborative_memory")
