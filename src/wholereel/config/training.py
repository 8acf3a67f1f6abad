"""What is trained, and how: model, memory, task, strategy, optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Aggregate", "BankHead", "BoxHead", "Interaction", "Memory", "Model", "Optim", "Strategy", "Task"]

Aggregate = Literal["logits", "prob", "max", "clip", "mix"]
Interaction = Literal["assoc", "avg", "max", "nl_dot", "nl_softmax"]


@dataclass(frozen=True)
class Memory:
    """Collaborative memory (arXiv 2104.01198) and its variants.

    Args:
        after: stages of the clip model behind which a block stands; `("last",)` = in front of the head.
        interaction, infusion, value, position_norm: see `memory/collaborative.py`.
        reads: which clips a clip reads: all of the video (as in the paper), or those up to itself (`past`): a model for
            streams of mode `causal`, in which no score depends on later clips. Clips are read in their order.
        pathway: what a block sees of a network of two pathways: both, the fast one averaged over the frames of a slow
            one (`concat`), or the slow one. Networks of one pathway know no difference.
        dim: width of keys and queries; `None` = a quarter of the features' width.
        value_dim: width of values where `value="separate"`; `None` = `dim`.
        ref_positions: S_ref of `position_norm="ref"`.
        clip_pos: learned vectors per relative clip index, for at most this many clips; 0 = none.
        rescale_head: divide the head's weights by 1.5 when a block is put in front of it: logits stay equal at step 0.
        detach: the memory is a constant for the gradient; W_k and W_v learn nothing. An ablation, not a mode to train
            in.
        norm: `batch` = BatchNorm behind W_o, its scale beginning at zero, as non-local blocks have it; of the non-local
            interactions with `residual` alone.
    """

    after: tuple[str, ...] = ("last",)
    interaction: Interaction = "assoc"
    infusion: Literal["gate", "residual"] = "gate"
    value: Literal["tied", "separate"] = "tied"
    position_norm: Literal["sum", "mean", "ref"] = "mean"
    reads: Literal["all", "past"] = "all"
    pathway: Literal["concat", "slow"] = "concat"
    dim: int | None = None
    value_dim: int | None = None
    ref_positions: int | None = None
    clip_pos: int = 0
    rescale_head: bool = True
    detach: bool = False
    norm: Literal["none", "batch"] = "none"


@dataclass(frozen=True)
class BoxHead:
    """Boxes of people are judged instead of whole clips (tasks of kind `detect`).

    Args:
        read: who asks a memory in front of the head: `"clip"`, one gate for all boxes of a clip, or `"roi"`, each box.
        resolution: bins of a box's side, of which the largest value is kept.
        sampling_ratio: points per bin and side; 0 = as many as the box has positions there.
        aligned: whether pixel centres are at half numbers.
    """

    read: Literal["clip", "roi"] = "clip"
    resolution: int = 7
    sampling_ratio: int = 0
    aligned: bool = True


@dataclass(frozen=True)
class BankHead:
    """What a clip makes of a bank of features of its video (long-term feature banks, arXiv 1812.05038).

    Args:
        kind: `avg` or `max` over the window, or `nl`: attention.
        features: width of the bank's entries; `None` = that of the model's own features.
        width, layers, dropout: of `nl`.
    """

    kind: Literal["avg", "max", "nl"] = "nl"
    features: int | None = None
    width: int = 512
    layers: int = 2
    dropout: float = 0.2


@dataclass(frozen=True)
class Model:
    """A registered clip model, optionally with a memory.

    Args:
        name: as in `wholereel models`.
        weights: `None`, `"file:PATH"`, `"hub:NAME"` or `"stage:NAME"`; the head is replaced where the classes differ.
        options: keyword arguments of the model's builder.
        memory: `None` = clips are judged one by one.
        boxes: a head for boxes; `None` = whole clips are judged.
        bank: clips also read a bank of features of their video (`data.bank`), instead of a memory.
    """

    name: str
    weights: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    memory: Memory | None = None
    boxes: BoxHead | None = None
    bank: BankHead | None = None


@dataclass(frozen=True)
class Task:
    """What is learned, and the video-level loss (spec: `tasks/classification.py`).

    Args:
        kind: name in the table of tasks: `classify`; `detect` (boxes at key frames, `multi_label`; aggregates have no
            say).
        multi_label: sigmoid and binary cross-entropy instead of softmax and cross-entropy.
        aggregate: how clip logits become one loss and one score.
        mix: share of the `clip` loss in `aggregate="mix"`, 0 to 1.
        label_smoothing: as in `torch.nn.functional.cross_entropy`.
        dropout: in front of the classifier.
        tail_drop, tail_below: of `stream` with one label a clip: with this probability a sample's loss takes no notice
            of a class that has fewer than `tail_below` labels in the training split, unless it is the true one, so that
            frequent classes do not push rare ones down (equalisation loss). Both or neither.
    """

    kind: str = "classify"
    multi_label: bool = False
    aggregate: Aggregate = "logits"
    mix: float = 0.5
    label_smoothing: float = 0.0
    dropout: float = 0.0
    tail_drop: float = 0.0
    tail_below: int | None = None


@dataclass(frozen=True)
class Strategy:
    """How the gradient of a video's loss is obtained.

    Args:
        name: name in the table `training/strategies`; `sequential` is the one for streams.
        variant: of `multi_iteration`: `"step"` or `"accumulate"`.
        resident: of `exact`: clips of a video whose graph is alive at once; quicker where one does not fill the device.
            BatchNorm in train mode then sees so many clips of a video together.
        graphs: of `exact`, on a CUDA device: capture the network once and replay it for every clip, which saves the
            host's work; for `optim.norm=frozen` or models without BatchNorm. See `training/segment_graphs.py`.
    """

    name: Literal["full", "exact", "batch_reduction", "multi_iteration", "sequential"] = "full"
    variant: Literal["step", "accumulate"] = "accumulate"
    resident: int = 1
    graphs: bool = False


@dataclass(frozen=True)
class Optim:
    """Optimiser, schedule and averaging.

    Args:
        name: `"sgd"` (with momentum) or `"adamw"`.
        lr: learning rate at the peak; for `lr_batch` videos per step where that is given, scaled linearly from there.
        momentum, nesterov: of SGD. betas: of AdamW.
        weight_decay: not applied to norm parameters and biases.
        memory_lr, head_lr: factors on `lr` for memory blocks and the classifier.
        warmup: epochs of linear warm-up from `warmup_start` times the peak.
        schedule: after the warm-up; `cosine` ends at `final` times the peak, `steps` multiplies by 0.1 at each of
            `steps`.
        steps: epochs, for that schedule.
        clip_norm: largest gradient norm; `None` = no clipping.
        ema: decay of the averaged weights per step; `None` = off. Evaluation and export use the average.
        frozen: beginnings of names of the model's parameters that stay as they are, such as `blocks.0.`.
        norm: BatchNorm in training: `train`, `frozen` (running statistics as constants) or `sync` (over ranks).
        precise_norm: before each measurement BatchNorm's statistics are taken anew, as the plain mean over so many
            training batches of each process (at most an epoch; facebookresearch/SlowFast takes 200); evaluation and
            packages have these, training goes on with its own. 0 = they are the running ones.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    lr_batch: int | None = None
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    memory_lr: float = 1.0
    head_lr: float = 1.0
    warmup: float = 0.0
    warmup_start: float = 0.01
    schedule: Literal["cosine", "constant", "steps"] = "cosine"
    steps: tuple[float, ...] = ()
    final: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None
    frozen: tuple[str, ...] = ()
    norm: Literal["train", "frozen", "sync"] = "train"
    precise_norm: int = 0
