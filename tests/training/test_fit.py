"""The loop: it learns, logs, measures, packages, resumes to the same bits, lists faults, refuses what it must."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tests.training.tiny import CLASSES, TinyLoader, clip_batch, tiny_task, video_model
from wholereel import config
from wholereel.errors import ConfigError
from wholereel.models.package import load_package
from wholereel.training.checkpoint import load_checkpoint
from wholereel.training.distributed import Ranks
from wholereel.training.fit import train_task
from wholereel.training.meter import NonFiniteLossError
from wholereel.training.strategies import create_strategy

MEMORY = config.Memory(dim=8)
TRAIN = config.Train(
    model=config.Model("tiny2d", options={"width": 8}, memory=MEMORY),
    data=config.Data(clips=config.Clips(count=3, frames=4)),
    optim=config.Optim(lr=0.05, warmup=1, clip_norm=5.0, ema=0.9),
    epochs=3,
    batch=4,
    checkpoint_minutes=0.0,
)


def run(directory, train=TRAIN, *, loader=None, validate=None, task=None, **options):
    from contextlib import nullcontext

    task = task or tiny_task(train.model.memory, **{"aggregate": train.task.aggregate, "dropout": train.task.dropout})
    strategy = create_strategy(train.strategy, nullcontext)
    result = train_task(
        task, strategy, loader or TinyLoader(), train, directory, classes=CLASSES, ranks=Ranks(), sample_ids=["a", "b"],
        device=torch.device("cpu"), validate=validate, log_every=1, **options,
    )  # fmt: skip
    return result, task


def accuracy(task):
    batch = clip_batch(list(range(12)), seed=1)
    return task.metrics().add(task.predict(batch), batch.target).value()


def records(directory, kind):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def test_it_learns_measures_and_packages(tmp_path):
    result, task = run(tmp_path, replace(TRAIN, epochs=6), validate=accuracy)
    assert result.metrics["video_top1"] == 1.0
    losses = [record["loss"] for record in records(tmp_path, "train")]
    assert losses[-1] < 0.5 * losses[0]
    assert records(tmp_path, "start")[0]["gradient"] == "exact"
    assert [record["update"] for record in records(tmp_path, "validation")] == [3, 6, 9, 12, 15, 18]
    package = load_package(result.package)
    assert result.package == tmp_path / "best"
    assert package.classes == CLASSES
    assert package.extra["strategy"]["gradient"] == "exact"
    assert package.clips.plan == "uniform"
    average = load_checkpoint(tmp_path / "checkpoint.pt")["average"]["average"]
    last = load_package(tmp_path / "last").model.state_dict()
    torch.testing.assert_close(last["clip_model.fc.weight"], average["model.clip_model.fc.weight"])
    assert not torch.equal(last["clip_model.fc.weight"], task.state_dict()["model.clip_model.fc.weight"])
