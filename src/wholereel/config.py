"""The settings of experiments, as data: stages of a recipe and their parts. Torch-free: the command line starts fast.

A `Recipe` is a frozen tree of stages; each stage has a sub-directory of the run. A string `"stage:NAME"` in a `root` or
`weights` field means "what the earlier stage NAME of this run made". `root=None` means the path given on the command
line (`--data`).
Not here: what the settings do (each room reads its own), nor named experiments (`recipes/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "Aggregate",
    "Audio",
    "Augment",
    "BankHead",
    "BankWindow",
    "BoxHead",
    "Clips",
    "Convert",
    "Data",
    "Erasing",
    "Evaluate",
    "Extract",
    "Memory",
    "Mixing",
    "Model",
    "Optim",
    "Prepare",
    "RandAugment",
    "Recipe",
    "ResizedCrop",
    "Stage",
    "Strategy",
    "Streams",
    "Task",
    "Train",
    "Views",
    "World",
]

Aggregate = Literal["logits", "prob", "max", "clip", "mix"]
Plan = Literal["stratified", "random", "uniform", "contiguous", "classic", "offset", "segments"]
FrontEnd = Literal["wave", "log_mel", "log_filter_bank", "mfcc", "vmz_log_mel"]
Interaction = Literal["assoc", "avg", "max", "nl_dot", "nl_softmax"]


@dataclass(frozen=True)
class Clips:
    """Which frames of a video are read (spec of the plans: `media/clip_plans.py`).

    Args:
        plan: where the clips start.
        count: N, clips of a video in a batch; for `contiguous` the largest N (the rest of the video is left out).
        frames: T, frames of a clip.
        stride: distance of a clip's frames, in frames of `frame_rate`.
        frame_rate: common frame rate that the video's time line is resampled to; `None` = each video's own.
        coverage: N = clamp(ceil(duration / span), 1, count) for each video; missing clips are masked. With `hop` it has
            no say: N follows from that.
        least: in training N is drawn for each step from `least` to `count`, for all videos and ranks alike; `None` = it
            is always `count`. Against models that know one N only.
        hop: of `contiguous`: seconds from the beginning of a clip to that of the next; `None` = as long as a clip.
        window: of sets of key frames: seconds over which the middles of the clips are spread, half of them on each side
            of the key frame (N odd); `None` = one after another without gaps. Clips whose middle lies outside the film
            are masked.
        window_side: of a window: on both sides of the key frame, or all before it (`"before"`): the key frame's clip is
            then the last one, and no score depends on what comes later.
        window_grid: distances from the key frame are rounded to whole multiples of so many seconds, so that key frames
            share clips (1 = clips of a film are encoded once a second); `None` = not rounded.
        legacy_span: of `classic` and `offset`: a view spans `ceil(stride * (T - 1) / frame_rate)` seconds in frames of
            the file, as in an older public code path, and not `stride * T / frame_rate`.
    """

    plan: Plan = "stratified"
    count: int = 4
    frames: int = 8
    stride: int = 8
    frame_rate: float | None = None
    coverage: bool = False
    least: int | None = None
    hop: float | None = None
    window: float | None = None
    window_side: Literal["both", "before"] = "both"
    window_grid: float | None = None
    legacy_span: bool = False


@dataclass(frozen=True)
class RandAugment:
    """A few random operations on whole pictures before they are cropped (`media/rand_augment.py`, arXiv 1909.13719).

    Args:
        count: operations of a draw, with replacement; each of them happens with probability 0.5.
        magnitude: how strong they are, from 0 (none, or as good as none) to 10.
        std: the magnitude is drawn from a normal distribution of this width, and clamped.
    """

    count: int = 4
    magnitude: float = 7.0
    std: float = 0.5


@dataclass(frozen=True)
class ResizedCrop:
    """A window of random area and shape, scaled to the crop, instead of a square of the crop's own size.

    Args:
        area: range of its share of the picture.
        aspect: range of width over height, whose logarithm is uniform.
    """

    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (0.75, 1.3333)


@dataclass(frozen=True)
class Erasing:
    """Rectangles filled with noise after normalisation, the same in all frames of a clip (arXiv 1708.04896).

    Args:
        probability: of a clip (of a video, where its clips share the draw).
        count: largest number of rectangles; the number is uniform from 1, and they share the area.
        area: range of the share of the picture that is erased.
        least_aspect: height over width is from this to one over it; its logarithm is uniform.
    """

    probability: float = 0.25
    count: int = 1
    area: tuple[float, float] = (0.02, 1 / 3)
    least_aspect: float = 0.3


@dataclass(frozen=True)
class Mixing:
    """Rows of a batch are blended in pairs, with their labels (mixup, arXiv 1710.09412; CutMix, arXiv 1905.04899).

    Args:
        mixup, cutmix: both numbers of the beta distribution of the own share; 0 = this kind is off.
        probability: that a draw blends at all.
        switch: where both kinds are on, the probability of CutMix.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch: float = 0.5


@dataclass(frozen=True)
class Augment:
    """Geometry and colour of training clips; drawn once per video unless `per_clip`.

    Args:
        short_side: range of the short side in pixels after jitter, inclusive.
        jitter: how the short side is drawn: `"uniform"` from its range, or `"inverse"`: one over it is uniform, as
            facebookresearch/SlowFast does with `INV_UNIFORM_SAMPLE`.
        crop: side of the square crop; random in training, centre at test. 0 = whole pictures, for tasks of kind
            `detect` on videos that all have one shape.
        flip: probability of a horizontal flip; `None` = 0.5, but 0 in data sets whose labels know left and right. Where
            such a data set is flipped, its labels and joints follow (`mirror.json`).
        color_jitter: strength of brightness, contrast and saturation jitter, 0 = off.
        per_clip: independent draws for the clips of one video.
        color_order: brightness, contrast, saturation in this order (`fixed`), or in one that is drawn (`random`).
        lighting: standard deviation of noise along the principal colours of ImageNet, 0 = off.
        rand_augment: operations on whole pictures, which move them, so not in sets with boxes or poses; `None` = off.
        resized_crop: how the crop is drawn; `None` = a square of the scaled picture.
        erasing: `None` = off.
        mixing: of the videos of a batch; `None` = off. For tasks of whole clips.
        copies: each clip is decoded once and augmented so many times, each a row of the batch (repeated augmentation,
            arXiv 1901.09335): a step has `batch * copies` rows. They share frames and short side.
        frame_jitter: each frame is taken up to half a stride earlier or later, as the public code of arXiv 2201.08383
            does on AVA. In streams only.
    """

    short_side: tuple[int, int] = (128, 160)
    crop: int = 112
    flip: float | None = None
    color_jitter: float = 0.0
    per_clip: bool = False
    jitter: Literal["uniform", "inverse"] = "uniform"
    color_order: Literal["fixed", "random"] = "fixed"
    lighting: float = 0.0
    rand_augment: RandAugment | None = None
    resized_crop: ResizedCrop | None = None
    erasing: Erasing | None = None
    mixing: Mixing | None = None
    copies: int = 1
    frame_jitter: bool = False


@dataclass(frozen=True)
class Audio:
    """Sound of the clips, cut by time and mixed to one channel.

    Args:
        front_end: `"wave"`, or what a network sees of it (`media/audio_features.py`).
        rate: samples per second, whatever is stored.
        seconds: length from the beginning of each clip on; `None` = as long as the clip.
        columns: resize spectra to so many columns; `None` = as many as the front end makes.
        options: keyword arguments of the front end.
        only: read no pictures: clips have no frames (T = 0). Files of sound alone can only be read so, and need
            `clips.frame_rate`.
    """

    front_end: FrontEnd = "wave"
    rate: int = 16_000
    seconds: float | None = None
    columns: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    only: bool = False


@dataclass(frozen=True)
class Streams:
    """How videos are read clip after clip, many in parallel (`datasets/stream_places.py`); one step is one clip a row.

    Of `Clips` frames, stride and frame rate count, plan and number do not.

    Args:
        steps: `grid`: a clip every `hop` seconds of each sample. `events`: one clip for each timed event of a sample,
            in order of time. `samples`: one clip for each sample (key frame, segment or whole file), in order of time
            in its file, with the sample's own labels.
        hop: of the grid, seconds from the begin of one clip to that of the next; `None` = the clips' span: they touch.
        count: of the grid, the most clips of a video; `None` = to its end.
        begin: of the grid: with the video, or (`random`) in training after a random part, drawn for each epoch, of what
            `count` clips leave of it.
        place: of the clip in a segment (`samples`, and `events` that are `shown`): its middle, or so that it ends with
            it, as anticipation needs.
        label: what a clip is asked for. On the grid: the event that fills most of it, and at least half (`shown`); all
            events that it shows (`all`, for task.multi_label); the event that begins `gap` seconds behind its end, and
            less than a hop later (`next`); the sample's own label, at every clip (`video`) or at the last one (`last`).
            Of `events`: `shown`, the clip shows the event; `next`, it ends `gap` seconds before the event.
        gap: seconds of anticipation of `next`.
        frames: labels of a clip; 0 = one for the clip, else one for each of so many equal parts (frame-level models).
        order: `balanced`: videos go to the row that is free first. `memvit`: the public code's rule, one list of all
            clips cut into equal parts.
    """

    steps: Literal["grid", "events", "samples"] = "grid"
    hop: float | None = None
    count: int | None = None
    begin: Literal["start", "random"] = "start"
    place: Literal["middle", "end"] = "middle"
    label: Literal["shown", "all", "next", "video", "last"] = "shown"
    gap: float = 1.0
    frames: int = 0
    order: Literal["balanced", "memvit"] = "balanced"


@dataclass(frozen=True)
class BankWindow:
    """Features of the whole video around each clip, for models that read a bank (arXiv 1812.05038).

    Args:
        root: folder of shards with features, or `"stage:NAME"` of an `Extract` stage.
        seconds: length of the window, the clip's middle being its own.
    """

    root: str
    seconds: float = 60.0


@dataclass(frozen=True)
class Data:
    """A data set and how clips are taken from it.

    Args:
        root: folder of classes, manifest file (`.csv`, `.jsonl`, `.parquet`, PySlowFast list), or `"stage:NAME"`.
        split: rows with this value in the manifest's `split` column; `None` = all.
        labels: label columns (one a label space).
        clips, augment: see there.
        audio: sound of the clips; `None` = not read.
        limit: use only the first so many samples; `None` = all.
        cache: decode every video once, scale it to the short side and keep the frames on disk under the run's cache
            (small videos only). The same pixels with and without, except that jitter of the short side is then not
            possible.
        workers: loader processes; 0 = none.
        max_bad: largest fraction of samples replaced in one epoch before training stops.
        judged: of sets of key frames, in training: boxes of the key frame alone (`"centre"`), or also those of other
            key frames of the film that are the middle of a clip (`"all"`).
        bank: features of the same videos that the model reads besides; `None` = none.
        streams: read videos as streams instead of a few clips of each; `None` = not.
    """

    root: str | None = None
    split: str | None = "train"
    labels: tuple[str, ...] = ("label",)
    clips: Clips = field(default_factory=Clips)
    augment: Augment = field(default_factory=Augment)
    audio: Audio | None = None
    limit: int | None = None
    cache: bool = False
    workers: int = 2
    max_bad: float = 0.01
    judged: Literal["centre", "all"] = "centre"
    bank: BankWindow | None = None
    streams: Streams | None = None


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


@dataclass(frozen=True)
class Views:
    """How a video is looked at in evaluation.

    Args:
        clips: temporal views; plan `uniform` unless the protocol says otherwise.
        short_side, crop: pixels. crops: 1 (centre) or 3 (along the longer side).
        memory_over: one memory per spatial crop (`"crop"`) or one for all views (`"all"`).
        combine: views into one score: `"task"` (as trained), `"softmax_mean"`, `"sigmoid_max"` or `"logits_mean"`.
    """

    clips: Clips = field(default_factory=lambda: Clips(plan="uniform"))
    short_side: int = 128
    crop: int = 112
    crops: Literal[1, 3] = 1
    memory_over: Literal["crop", "all"] = "crop"
    combine: Literal["task", "softmax_mean", "sigmoid_max", "logits_mean"] = "task"


@dataclass(frozen=True)
class World:
    """Make a generated data set (`datasets/worlds`); `options` are the world's own, such as `{"size": 112}`."""

    world: str
    profile: Literal["smoke", "std", "full"] = "std"
    seed: int = 0
    sizes: Mapping[str, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepare:
    """Read a data set in its official form into a manifest, as `wholereel data prepare` does.

    Args:
        dataset: name in `wholereel data list`.
        root: its folder: `"stage:NAME"` of a world that writes official files; `None` = the path given by `--data`.
        options: of the data set.
    """

    dataset: str
    root: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Train:
    """Fit a model. `batch` counts videos per optimiser step and process, before the strategy's own arithmetic; of
    streams, the rows that are read in parallel.

    `select` names the validation metric of the best model: `None` = `video_top1`, with several labels a video
    `video_map`. `clip_parallel` processes (neighbours) share the clips of each video, so that a video of any length
    trains on any number of devices; `batch` then counts videos per such group. Only strategy `exact` can. `precision`:
    autocast; `fp16` with loss scaling (its validation runs in fp32), memories compute in float32 in all of them.
    """

    model: Model
    data: Data
    task: Task = field(default_factory=Task)
    strategy: Strategy = field(default_factory=Strategy)
    optim: Optim = field(default_factory=Optim)
    epochs: int = 10
    batch: int = 8
    accumulate: int = 1
    clip_parallel: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    val: Data | None = None
    views: Views | None = None
    validate_every: int = 1
    select: str | None = None
    checkpoint_minutes: float = 10.0
    seed: int = 0
    compile: bool = False


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained model: `model` is a run's stage (`"stage:NAME"`) or a model package on disk."""

    model: str
    data: Data
    views: Views = field(default_factory=Views)
    batch: int = 8
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Extract:
    """Run a trained model over a data set and keep what it finds of each clip, in shards on disk.

    Args:
        model: a run's stage (`"stage:NAME"`) or a model package on disk.
        data: the samples; its own clips and augmentation have no say.
        views: which clips are looked at, with one crop.
        what: `features` (means over positions of the last stage) and `logits` of clips, `scores` of videos.
        shards: number of files.
        chunk: clips that are decoded and go through the network together.
    """

    model: str
    data: Data
    views: Views = field(default_factory=lambda: Views(clips=Clips(plan="contiguous", count=1_000_000)))
    what: tuple[str, ...] = ("features",)
    shards: int = 1
    chunk: int = 16
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Convert:
    """Turn a model package into another: `to="video"` inserts `memory`, `to="clip"` drops it."""

    model: str
    to: Literal["video", "clip"]
    memory: Memory | None = None


Stage = World | Prepare | Train | Evaluate | Extract | Convert


@dataclass(frozen=True)
class Recipe:
    """A named experiment: stages by name, in the order in which they run.

    Args:
        name: as on the command line.
        stages: mapping from stage name to stage.
        summary: one line for `wholereel list`.
        measured: where it stands what we measured with it; empty = not run by us.
        main: the stage whose model stands for the whole run (`wholereel predict RUN`); empty = none.
    """

    name: str
    stages: Mapping[str, Stage]
    summary: str = ""
    main: str = ""
    measured: str = ""
