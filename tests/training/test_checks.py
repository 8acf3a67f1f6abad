"""Settings that cannot be used are refused by name, value and range, before anything happens."""

from __future__ import annotations

import pytest

from wholereel import config
from wholereel.config import (
    Audio,
    Augment,
    Clips,
    Data,
    Memory,
    Mixing,
    Model,
    Optim,
    Strategy,
    Streams,
    Task,
    Train,
    Views,
)
from wholereel.datasets.manifest import Manifest
from wholereel.errors import ConfigError
from wholereel.training.checks import RULES, check_select, check_train, select_of
from wholereel.training.fit import fit

MODEL, DATA = Model("tiny2d"), Data()
MIXED = Data(augment=Augment(mixing=Mixing()))
MIXED_STREAMS = Data(augment=Augment(mixing=Mixing()), streams=Streams())
FIELDS = {
    "batch must be at least 1, got 0": Train(MODEL, DATA, batch=0),
    "epochs must be at least 1, got 0": Train(MODEL, DATA, epochs=0),
    "optim.ema must be at least 0 and below 1, got 1.5": Train(MODEL, DATA, optim=Optim(ema=1.5)),
    "optim.lr must be above 0, got -1": Train(MODEL, DATA, optim=Optim(lr=-1.0)),
    "optim.lr must be above 0, got nan": Train(MODEL, DATA, optim=Optim(lr=float("nan"))),
    r"optim.betas must both be at least 0 and below 1, got \(0.9, 1.0\)": Train(
        MODEL, DATA, optim=Optim("adamw", betas=(0.9, 1.0))
    ),
    "optim.nesterov needs optim.momentum above 0": Train(MODEL, DATA, optim=Optim(momentum=0.0, nesterov=True)),
    "task.dropout must be at least 0 and below 1, got 1.5": Train(MODEL, DATA, Task(dropout=1.5)),
    "task.mix must be from 0 to 1, got 5": Train(MODEL, DATA, Task(mix=5.0)),
    "model.memory.dim must be at least 1, got 0": Train(Model("tiny2d", memory=Memory(dim=0)), DATA),
    "val.limit must be at least 1, got 0": Train(MODEL, DATA, val=Data(limit=0)),
    "clips.count must be at least 1, got 0": Train(MODEL, Data(clips=Clips(count=0))),
    "views.clips.plan='random' draws": Train(MODEL, DATA, views=Views(clips=Clips("random"))),
    "combine='softmax_mean' does not fit task.multi_label=True; use 'task' or 'sigmoid_max'": Train(
        MODEL, DATA, Task(multi_label=True), views=Views(combine="softmax_mean")
    ),
    "augment.mixing blends clips and their labels, which task.kind='detect' does not allow": Train(
        MODEL, MIXED, Task("detect", multi_label=True)
    ),
    "which data.audio does not allow: boxes, sound, banks": Train(MODEL, Data(augment=MIXED.augment, audio=Audio())),
    "which task.tail_drop=0.5 does not allow: .* Set data.augment.mixing=null": Train(
        MODEL, MIXED_STREAMS, Task("stream", tail_drop=0.5, tail_below=3), Strategy("sequential")
    ),
    "augment.copies must be at least 1, got 0": Train(MODEL, Data(augment=Augment(copies=0))),
    "combine='sigmoid_max' does not fit task.multi_label=False": Train(MODEL, DATA, views=Views(combine="sigmoid_max")),
}


@pytest.mark.parametrize("message", FIELDS)
def test_what_cannot_be_used_is_refused(message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        fit(FIELDS[message], Manifest((), {}, tmp_path), tmp_path / "run", device="cpu", stream=None)
    assert not (tmp_path / "run").exists()


def test_defaults_are_legal_and_every_rule_has_a_field():
    full = Train(
        Model("tiny2d", memory=Memory(dim=1, value_dim=1, ref_positions=1)), Data(limit=1), val=Data(limit=1),
        optim=Optim(lr_batch=1, clip_norm=1.0, ema=0.0),
    )  # fmt: skip
    check_train(Train(MODEL, DATA))
    check_train(full)
    assert all(path.split(".")[0] in vars(config.Train(MODEL, DATA)) for path in RULES)


def test_the_metric_that_selects_follows_the_kind_of_labels():
    several = Train(MODEL, DATA, Task(multi_label=True))
    assert select_of(Train(MODEL, DATA)) == "video_top1"
    assert select_of(several) == "video_map"
    check_select(Train(MODEL, DATA, select="video_top5"), 6)
    with pytest.raises(
        ConfigError, match="'video_top5' is not measured .* 5 classes. Measured: video_top1, video_mean"
    ):
        check_select(Train(MODEL, DATA, select="video_top5"), 5)
    with pytest.raises(ConfigError, match="'video_top1' is not measured with task.multi_label=True"):
        check_select(Train(MODEL, DATA, Task(multi_label=True), select="video_top1"), 9)
