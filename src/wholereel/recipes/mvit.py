"""MViT on Kinetics-400 as facebookresearch/SlowFast publishes it: single clips, no memory. None was run here.

Sources: arXiv 2104.11227 (MViTv1), 2112.01526 (MViTv2) and the files `configs/Kinetics/MVIT*.yaml` of that repository:
16 videos a step (lr 1e-4, linear in their number), each clip decoded once and augmented twice.
What still differs from there: RandAugment interpolates linearly, not by cubics; the resized crop is rounded to whole
values of 255; pictures are normalised behind it and not before.
`--data` is a manifest with the splits `train` and `val` (`wholereel data prepare kinetics400`).
"""

from __future__ import annotations

from dataclasses import replace

from wholereel.config import (
    Augment,
    Clips,
    Data,
    Erasing,
    Evaluate,
    Mixing,
    Model,
    Optim,
    RandAugment,
    Recipe,
    ResizedCrop,
    Task,
    Train,
    Views,
)

__all__ = [
    "KINETICS_AUGMENT",
    "KINETICS_OPTIM",
    "KINETICS_TASK",
    "mvitv1_b_kinetics400",
    "mvitv2_b_kinetics400",
    "mvitv2_s_kinetics400",
]

KINETICS_AUGMENT = Augment(
    short_side=(256, 256),  # to which the public loader scales what it decodes
    crop=224,
    flip=0.5,
    rand_augment=RandAugment(count=4, magnitude=7.0, std=0.5),
    resized_crop=ResizedCrop(area=(0.08, 1.0), aspect=(0.75, 1.3333)),
    erasing=Erasing(probability=0.25),
    mixing=Mixing(mixup=0.8, cutmix=1.0, probability=1.0, switch=0.5),
    copies=2,
)
KINETICS_OPTIM = Optim("adamw", lr=1e-4, lr_batch=16, weight_decay=0.05, warmup=30.0, final=0.01, clip_norm=1.0)
KINETICS_TASK = Task(dropout=0.5, label_smoothing=0.1)


def _kinetics(name: str, network: str, *, frames: int, stride: int, value: str, seed: int) -> Recipe:
    clip = Clips(plan="random", count=1, frames=frames, stride=stride, frame_rate=30.0)
    data = Data(clips=clip, augment=KINETICS_AUGMENT, workers=8)
    views = Views(replace(clip, plan="offset", count=5), short_side=256, crop=224, combine="softmax_mean")
    train = Train(
        model=Model(network),  # with the published drop path
        data=data,
        task=KINETICS_TASK,
        optim=KINETICS_OPTIM,
        epochs=200,
        batch=2,
        val=replace(data, split="val"),
        views=replace(views, clips=replace(clip, plan="uniform")),
        validate_every=10,
        seed=seed,
    )
    test = Evaluate("stage:train", replace(data, split="val"), views=views)
    summary = f"{network} on Kinetics-400, single clips (published: {value} %)"
    return Recipe(name, {"train": train, "test": test}, summary, main="train")


def mvitv2_s_kinetics400(seed: int = 0) -> Recipe:
    """MViTv2-S, 16 x 4, from random weights.

    Source: configs/Kinetics/MVITv2_S_16x4.yaml of facebookresearch/SlowFast. Published: 81.0 % top-1, 94.6 % top-5 (5
    clips x 1 crop). Measured: not run here.
    Cost: 8 GPUs, 2 videos each; 200 epochs of 240,000 clips, twice each, 1.9e19 multiply-adds with gradients.
    Command: `torchrun --nproc-per-node 8 -m wholereel train mvitv2_s_kinetics400 --data KINETICS --out runs/mvitv2_s`.
    """
    name = "mvitv2_s_kinetics400"
    return _kinetics(name, "mvitv2_s", frames=16, stride=4, value="81.0", seed=seed)


def mvitv2_b_kinetics400(seed: int = 0) -> Recipe:
    """MViTv2-B, 32 x 3, from random weights.

    Source: configs/Kinetics/MVITv2_B_32x3.yaml of facebookresearch/SlowFast. Published: 82.9 % top-1, 95.7 % top-5 (5
    clips x 1 crop). Measured: not run here.
    Cost: 8 GPUs, 2 videos each; 200 epochs of 240,000 clips, twice each, 6.5e19 multiply-adds with gradients.
    Command: `torchrun --nproc-per-node 8 -m wholereel train mvitv2_b_kinetics400 --data KINETICS --out runs/mvitv2_b`.
    """
    name = "mvitv2_b_kinetics400"
    return _kinetics(name, "mvitv2_b", frames=32, stride=3, value="82.9", seed=seed)


def mvitv1_b_kinetics400(seed: int = 0) -> Recipe:
    """MViTv1-B, 16 x 4, from random weights.

    Source: configs/Kinetics/MVIT_B_16x4_CONV.yaml of facebookresearch/SlowFast. Published: 78.4 % top-1, 93.5 % top-5
    (5 clips x 1 crop). Measured: not run here.
    Cost: 8 GPUs, 2 videos each; 200 epochs of 240,000 clips, twice each, 2.0e19 multiply-adds with gradients.
    Command: `torchrun --nproc-per-node 8 -m wholereel train mvitv1_b_kinetics400 --data KINETICS --out runs/mvitv1_b`.
    """
    name = "mvitv1_b_kinetics400"
    return _kinetics(name, "mvitv1_b", frames=16, stride=4, value="78.4", seed=seed)
