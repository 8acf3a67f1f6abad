"""Clip level, then video level with a memory: recipes for the published table of arXiv 2104.01198, none run at scale.

The paper's schedule could not be consulted. Ours follows the public configurations of facebookresearch/SlowFast for the
clip-level stage, and adds a second one, as is usual for memories on top of trained networks: a quarter of the epochs at
a tenth of the learning rate, BatchNorm frozen. The clip-level road of a comparison makes as many clip forwards and
backwards as both stages together: N clips a video in the second stage are N epochs of one.
Kinetics is learned from scratch, the others begin with a file of weights trained on it (`KINETICS`), which is not here:
name yours with `--set stages.clip_level.model.weights=file:...`.
AVA's rows need boxes: `detection.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from wholereel.config import (
    Augment,
    BankHead,
    BankWindow,
    Clips,
    Data,
    Evaluate,
    Extract,
    Memory,
    Model,
    Optim,
    Recipe,
    Stage,
    Strategy,
    Task,
    Train,
    Views,
)

__all__ = [
    "DataSet",
    "charades_clip_level",
    "charades_collaborative_memory",
    "charades_feature_bank",
    "clip_level_only",
    "k400_clip_level",
    "k400_collaborative_memory",
    "k400_corrnet101",
    "k700_clip_level",
    "k700_collaborative_memory",
    "ssv1_clip_level",
    "ssv1_collaborative_memory",
    "ssv1_corrnet101",
    "two_stages",
    "ucf_two_stages",
]

KINETICS = "file:slowfast_nl_16x8_101_kinetics.safetensors"
SLOWFAST_NL = Model("slowfast_nl_16x8_101", options={"dropout": 0.5})
# d' = 512 on 2048 channels and more; the memory of the poster, with the mean over positions (our choice).
MEMORY = Memory(dim=512)


@dataclass(frozen=True)
class DataSet:
    """What a data set asks for.

    Args:
        clips: of the clip level (N = 1).
        count: N of the video level.
        augment, task: see `config`.
        views: protocol of the test.
        optim, epochs: of the clip level.
        batch: videos a step and process; eight processes make the batch that `optim.lr_batch` speaks of.
        weights: what the clip level begins with.
        select: metric of the best epoch.
    """

    clips: Clips
    count: int
    augment: Augment
    task: Task
    views: Views
    optim: Optim
    epochs: int
    batch: int = 8
    weights: str | None = None
    select: str | None = None


def two_stages(
    name: str,
    data_set: DataSet,
    model: Model,
    *,
    summary: str,
    memory: Memory = MEMORY,
    strategy: Strategy = Strategy("exact"),  # noqa: B008  (frozen)
    share: float = 0.25,
    seed: int = 0,
    measured: str = "",
) -> Recipe:
    """Clip level, then video level with a memory, each with its test.

    Args:
        share: epochs of the second stage over those of the first.
    """
    clip_level = _clip_level(data_set, model, seed)
    optim = data_set.optim
    assert clip_level.val is not None
    assert clip_level.views is not None
    spread = replace(clip_level.views.clips, count=data_set.count)
    video_level = replace(
        clip_level,
        model=replace(model, weights="stage:clip_level", memory=memory),
        data=replace(clip_level.data, clips=_several(data_set)),
        val=replace(clip_level.val, clips=spread),
        views=replace(clip_level.views, clips=spread),
        strategy=strategy,
        optim=replace(
            optim,
            lr=0.1 * optim.lr,
            schedule="cosine",
            steps=(),
            final=0.0,
            warmup=1.0,
            warmup_start=0.01,
            norm="frozen",
        ),
        epochs=_second(data_set, share),
        seed=seed + 1,
    )
    test = replace(clip_level.data, split="val")
    stages: dict[str, Stage] = {
        "clip_level": clip_level,
        "video_level": video_level,
        "test_clip_level": Evaluate("stage:clip_level", test, data_set.views),
        "test_video_level": Evaluate("stage:video_level", test, data_set.views),
    }
    return Recipe(name, stages, summary, main="video_level", measured=measured)


def clip_level_only(
    name: str, data_set: DataSet, model: Model, *, summary: str, share: float = 0.25, seed: int = 0
) -> Recipe:
    """The clip level alone, with the clip forwards and backwards of both stages of `two_stages`."""
    factor = 1 + _second(data_set, share) * data_set.count / data_set.epochs
    optim = replace(
        data_set.optim,
        warmup=round(data_set.optim.warmup * factor, 1),
        steps=tuple(round(epoch * factor, 1) for epoch in data_set.optim.steps),
    )
    longer = replace(data_set, optim=optim, epochs=round(data_set.epochs * factor))
    clip_level = _clip_level(longer, model, seed)
    test = replace(clip_level.data, split="val")
    stages: Mapping[str, Stage] = {
        "clip_level": clip_level,
        "test_clip_level": Evaluate("stage:clip_level", test, data_set.views),
    }
    return Recipe(name, stages, summary, main="clip_level")


def _clip_level(data_set: DataSet, model: Model, seed: int) -> Train:
    data = Data(clips=data_set.clips, augment=data_set.augment, workers=8)
    short = replace(data_set.views, clips=replace(data_set.views.clips, count=1, plan="uniform"), crops=1)
    return Train(
        model=replace(model, weights=data_set.weights),
        data=data,
        task=data_set.task,
        optim=data_set.optim,
        epochs=data_set.epochs,
        batch=data_set.batch,
        precision="bf16",
        val=replace(data, split="val", clips=short.clips),
        views=short,
        validate_every=10,
        select=data_set.select,
        seed=seed,
    )


def _several(data_set: DataSet) -> Clips:
    return replace(data_set.clips, plan="stratified", count=data_set.count)


def _second(data_set: DataSet, share: float) -> int:
    return max(1, round(data_set.epochs * share)) if share else 0


# --------------------------------------------------------------------------------------------------------- data sets

# 16x8 and alpha 4: 64 frames at stride 2 of 30 frames a second, 4.3 s.
CLIP_64X2 = Clips(plan="random", count=1, frames=64, stride=2, frame_rate=30.0)
JITTER = Augment(short_side=(256, 320), crop=224, flip=0.5)
TEN_BY_THREE = Views(replace(CLIP_64X2, plan="classic", count=10), short_side=256, crop=256, crops=3)

KINETICS_400 = DataSet(
    clips=CLIP_64X2,
    count=4,
    augment=JITTER,
    task=Task(),
    views=replace(TEN_BY_THREE, combine="softmax_mean"),
    optim=Optim("sgd", lr=0.1, lr_batch=64, weight_decay=1e-4, warmup=34.0, warmup_start=0.1),
    epochs=196,
)
# Videos of 30 s: eight clips overlap a little.
CHARADES = DataSet(
    clips=CLIP_64X2,
    count=8,
    augment=replace(JITTER, short_side=(256, 340)),
    task=Task(multi_label=True),
    views=replace(TEN_BY_THREE, combine="sigmoid_max"),
    optim=Optim(
        "sgd",
        lr=0.0375,
        lr_batch=16,
        weight_decay=1e-4,
        warmup=4.0,
        warmup_start=0.01,
        schedule="steps",
        steps=(41, 49),
    ),
    epochs=57,
    batch=2,
    weights=KINETICS,
)
# Pictures at 12 a second, 2 to 6 s: two clips of 64 frames at stride 1 (of 12 a second the network sees no more).
SOMETHING_V1 = DataSet(
    clips=Clips(plan="random", count=1, frames=64, stride=1, frame_rate=24.0),
    count=2,
    augment=replace(JITTER, flip=0.0),
    task=Task(),
    views=Views(Clips("uniform", 2, 64, 1, frame_rate=24.0), short_side=256, crop=256, combine="softmax_mean"),
    optim=Optim(
        "sgd", lr=0.03, lr_batch=16, weight_decay=1e-6, warmup=0.2, warmup_start=0.01, schedule="steps", steps=(14, 18)
    ),
    epochs=22,
    batch=2,
    weights=KINETICS,
)


# ---------------------------------------------------------------------------------------------------- Kinetics-400, 700


def k400_clip_level(seed: int = 0) -> Recipe:
    """SlowFast-101 with non-local blocks on single clips of Kinetics-400, for as long as both stages of the memory.

    Source: arXiv 1812.03982, facebookresearch/SlowFast `configs/Kinetics/c2/SLOWFAST_NLN_16x8_R101_50_50.yaml`; row
    "SlowFast-101 + NL *" of arXiv 2104.01198. Published: 79.1 top-1. Measured: not run here.
    Cost: 392 epochs of 240,000 clips, 166 GMAC a forward of 64 x 224 x 224.
    Command: `wholereel train k400_clip_level --data K400 --devices 8`.
    """
    return clip_level_only("k400_clip_level", KINETICS_400, SLOWFAST_NL, summary="Kinetics-400, clip level", seed=seed)


def k400_collaborative_memory(seed: int = 0) -> Recipe:
    """The same network with a memory, N = 4, end to end.

    Source: row "collaborative memory" of arXiv 2104.01198; schedule and N are ours. Published: 81.4 top-1 (+2.3).
    Measured: not run here. Cost: 196 epochs of one clip, then 49 of four at 4/3 of their cost (`exact`).
    Command: `wholereel train k400_collaborative_memory --data K400 --devices 8`.
    """
    summary = "Kinetics-400, clip level, then memory"
    return two_stages("k400_collaborative_memory", KINETICS_400, SLOWFAST_NL, summary=summary, seed=seed)


def k700_clip_level(seed: int = 0) -> Recipe:
    """Kinetics-700 like Kinetics-400. Published (arXiv 2104.01198): 70.2 top-1. Measured: not run here.

    Source, cost: as `k400_clip_level`, with 540,000 videos an epoch.
    Command: `wholereel train k700_clip_level --data K700 --devices 8`.
    """
    return clip_level_only("k700_clip_level", KINETICS_400, SLOWFAST_NL, summary="Kinetics-700, clip level", seed=seed)


def k700_collaborative_memory(seed: int = 0) -> Recipe:
    """Kinetics-700 like Kinetics-400. Published (arXiv 2104.01198): 72.4 top-1 (+2.2). Measured: not run here.

    Source, cost: as `k400_collaborative_memory`, with 540,000 videos an epoch.
    Command: `wholereel train k700_collaborative_memory --data K700 --devices 8`.
    """
    summary = "Kinetics-700, clip level, then memory"
    return two_stages("k700_collaborative_memory", KINETICS_400, SLOWFAST_NL, summary=summary, seed=seed)


def k400_corrnet101(seed: int = 0) -> Recipe:
    """CorrNet-101 on Kinetics-400, the table's row of another network.

    Source: arXiv 1906.03349 (network: `models/corrnet.py`); the schedule is that of our Kinetics recipes, not that
    paper's. Published there: 79.2 top-1. Measured: not run here. Cost: 196 epochs of 240,000 clips of 32 frames.
    Command: `wholereel train k400_corrnet101 --data K400 --devices 8`.
    """
    return clip_level_only(
        "k400_corrnet101", _of_32(KINETICS_400), CORRNET, summary=CORRNET_SUMMARY, share=0, seed=seed
    )


# ---------------------------------------------------------------------------------------------------------- Charades


def charades_clip_level(seed: int = 0) -> Recipe:
    """SlowFast-101 with non-local blocks, fine-tuned from Kinetics on single clips of Charades.

    Source: facebookresearch/SlowFast `configs/Charades/SLOWFAST_16x8_R50.yaml`; row "SlowFast-101 + NL *" of arXiv
    2104.01198. Published: 41.3 mAP. Measured: not run here. Cost: 169 epochs of 7,985 clips.
    Command: `wholereel train charades_clip_level --data CHARADES --devices 8`.
    """
    return clip_level_only("charades_clip_level", CHARADES, SLOWFAST_NL, summary="Charades, clip level", seed=seed)


def charades_collaborative_memory(seed: int = 0) -> Recipe:
    """The same with a memory over eight clips.

    Source: row "collaborative memory" of arXiv 2104.01198; schedule and N are ours. Published: 44.6 mAP (+3.3).
    Measured: not run here. Cost: 57 epochs of one clip, then 14 of eight at 4/3 of their cost.
    Command: `wholereel train charades_collaborative_memory --data CHARADES --devices 8`.
    """
    summary = "Charades, clip level, then memory"
    return two_stages("charades_collaborative_memory", CHARADES, SLOWFAST_NL, summary=summary, seed=seed)


def charades_feature_bank(seed: int = 0) -> Recipe:
    """A bank of two clips a second, read by attention over a window of twenty clips (ten seconds).

    Source: arXiv 1812.05038, facebookresearch/video-long-term-feature-banks (Charades, R101-I3D-NL: 40.4 -> 42.5 mAP
    there); here on the network of `charades_clip_level`. Measured: not run here. Cost: that of the clip level twice,
    and a forward of 60 clips of each video.
    Command: `wholereel train charades_feature_bank --data CHARADES --devices 8`.
    """
    clip_level = _clip_level(CHARADES, SLOWFAST_NL, seed)
    every = replace(CHARADES.views, clips=replace(CLIP_64X2, plan="contiguous", count=100_000, hop=0.5), crops=1)
    test = replace(clip_level.data, split="val")
    bank = {split: BankWindow(f"stage:bank_{split}", seconds=10.0) for split in ("train", "val")}
    assert clip_level.val is not None
    with_bank = replace(
        clip_level,
        model=replace(SLOWFAST_NL, weights="stage:clip_level", bank=BankHead("nl", layers=2)),
        data=replace(clip_level.data, bank=bank["train"]),
        val=replace(clip_level.val, bank=bank["val"]),
        optim=replace(clip_level.optim, norm="frozen"),
        seed=seed + 1,
    )
    stages: dict[str, Stage] = {
        "clip_level": clip_level,
        "bank_train": Extract("stage:clip_level", clip_level.data, every, shards=64, precision="bf16"),
        "bank_val": Extract("stage:clip_level", test, every, shards=16, precision="bf16"),
        "with_bank": with_bank,
        "test_clip_level": Evaluate("stage:clip_level", test, CHARADES.views),
        "test_with_bank": Evaluate("stage:with_bank", replace(test, bank=bank["val"]), CHARADES.views),
    }
    return Recipe("charades_feature_bank", stages, "Charades, clip level, then a feature bank", main="with_bank")


# -------------------------------------------------------------------------------------------------- Something-Something


def ssv1_clip_level(seed: int = 0) -> Recipe:
    """SlowFast-101 with non-local blocks, fine-tuned from Kinetics on single clips of Something-Something V1.

    Source: facebookresearch/SlowFast `configs/SSv2/SLOWFAST_16x8_R50.yaml`; row "SlowFast-101 + NL *" of arXiv
    2104.01198. Published: 51.2 top-1. Measured: not run here. Cost: 34 epochs of 86,017 clips.
    Command: `wholereel train ssv1_clip_level --data SSV1 --devices 8`.
    """
    summary = "Something-Something V1, clip level"
    return clip_level_only("ssv1_clip_level", SOMETHING_V1, SLOWFAST_NL, summary=summary, seed=seed)


def ssv1_collaborative_memory(seed: int = 0) -> Recipe:
    """The same with a memory over two clips: videos are short.

    Source: row "collaborative memory" of arXiv 2104.01198; schedule and N are ours. Published: 53.7 top-1 (+2.5).
    Measured: not run here. Cost: 22 epochs of one clip, then 6 of two at 4/3 of their cost.
    Command: `wholereel train ssv1_collaborative_memory --data SSV1 --devices 8`.
    """
    summary = "Something-Something V1, clip level, then memory"
    return two_stages("ssv1_collaborative_memory", SOMETHING_V1, SLOWFAST_NL, summary=summary, seed=seed)


def ssv1_corrnet101(seed: int = 0) -> Recipe:
    """CorrNet-101 on Something-Something V1, the table's row of another network, from Kinetics weights.

    Source: arXiv 1906.03349; the schedule is ours. Published there: 53.3 top-1 (with multi-clip testing).
    Measured: not run here. Cost: 22 epochs of 86,017 clips of 32 frames.
    Command: `wholereel train ssv1_corrnet101 --data SSV1 --devices 8`.
    """
    data_set = replace(_of_32(SOMETHING_V1), weights="file:corrnet_101_kinetics.safetensors")
    return clip_level_only("ssv1_corrnet101", data_set, CORRNET, summary=CORRNET_SUMMARY, share=0, seed=seed)


CORRNET = Model("corrnet_101", options={"frames": 32})
CORRNET_SUMMARY = "another network of the same table, clip level"


def _of_32(data_set: DataSet) -> DataSet:
    clips, views = data_set.clips, data_set.views
    return replace(
        data_set,
        clips=replace(clips, frames=32),
        views=replace(views, clips=replace(views.clips, frames=32)),
    )


# ------------------------------------------------------------------------------------------------------- small variants


def ucf_two_stages(seed: int = 0) -> Recipe:
    """The two stages on five classes of UCF101 and a small network, in minutes on two cores.

    Source: `two_stages`, with a smaller network, pictures and clips. Data: 125 videos in a folder with
    `annotations.csv`. Measured: not run here in full.
    Command: `wholereel train ucf_two_stages --data UCF101_5 --out runs/ucf_two_stages`.
    """
    clips = Clips(plan="random", count=1, frames=8, stride=2, frame_rate=12.5)
    small = DataSet(
        clips=clips,
        count=4,
        augment=Augment(short_side=(64, 64), crop=56, flip=0.5, color_jitter=0.4),
        task=Task(),
        views=Views(replace(clips, plan="uniform", count=4), short_side=64, crop=56, crops=3),
        optim=Optim("adamw", lr=3e-3, weight_decay=0.05, warmup=2.0, clip_norm=1.0),
        epochs=48,
        batch=16,
        select="video_top1",
    )
    named = two_stages(
        "ucf_two_stages",
        small,
        Model("tiny_r2plus1d", options={"norm": "batch"}),
        memory=Memory(value="separate", dim=32),
        summary="five classes of UCF101: clip level, then memory (--data)",
        seed=seed,
    )
    stages = {name: _small(stage) for name, stage in named.stages.items()}
    return replace(named, stages=stages)


def _small(stage: Stage) -> Stage:
    """No mixed precision, frames kept on disk, few workers."""
    if isinstance(stage, Train):
        return replace(
            stage, precision="fp32", data=replace(stage.data, cache=True, workers=1), val=None, views=None, select=None
        )
    if isinstance(stage, Evaluate):
        return replace(stage, data=replace(stage.data, cache=True, workers=1))
    return stage
