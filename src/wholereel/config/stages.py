"""What a recipe is made of: stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wholereel.config.data import Clips, Data
from wholereel.config.training import Memory, Model, Optim, Strategy, Task

__all__ = ["Convert", "Evaluate", "Extract", "Prepare", "Recipe", "Stage", "Train", "Views", "World"]


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
