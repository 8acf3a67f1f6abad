"""kill -9 at random moments: the run goes on from its checkpoint and ends with the bits of one left alone."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from contextlib import nullcontext

import torch

from tests.training.tiny import CLASSES, TinyLoader, clip_batch, tiny_task
from wholereel import config
from wholereel.models.package import load_package
from wholereel.training.checkpoint import load_checkpoint
from wholereel.training.distributed import Ranks
from wholereel.training.fit import train_task
from wholereel.training.strategies import create_strategy

KILLS = 4
TRAIN = config.Train(
    model=config.Model("tiny2d", options={"width": 8, "norm": "batch"}, memory=config.Memory(dim=8)),
    data=config.Data(clips=config.Clips(count=3, frames=4)),
    task=config.Task(dropout=0.5),
    optim=config.Optim(lr=0.05, ema=0.9),
    epochs=4,
    batch=2,
    checkpoint_minutes=0.0,
)


def train(directory):
    torch.set_num_threads(1)
    task = tiny_task(TRAIN.model.memory, norm="batch", dropout=0.5)

    def validate(task):
        batch = clip_batch([0, 1, 2], seed=1)
        return task.metrics().add(task.predict(batch), batch.target).value()

    train_task(
        task, create_strategy(TRAIN.strategy, nullcontext), TinyLoader(20, batch=2), TRAIN, directory, classes=CLASSES,
        ranks=Ranks(), device=torch.device("cpu"), sample_ids=[], validate=validate, resume=True, log_every=1,
    )  # fmt: skip


def update_in(checkpoint):
    return load_checkpoint(checkpoint)["progress"]["update"] if checkpoint.exists() else 0


def test_a_run_survives_kill_9(tmp_path):
    train(tmp_path / "quiet")
    context, chance = multiprocessing.get_context("fork"), random.Random(0)  # forked: torch is loaded already
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    places = [0]
    for kill in range(KILLS):
        process = context.Process(target=train, args=(tmp_path / "killed",))
        process.start()
        # The first kill may come before there is a checkpoint; before the others the run has gone on. A busy machine
        # may take its time.
        while kill > 0 and process.is_alive() and update_in(checkpoint) == places[-1]:
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        places.append(update_in(checkpoint))
    assert places == sorted(places)
    assert places[-1] > 0  # it does go on
    train(tmp_path / "killed")
    ends = [load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("quiet", "killed")]
    for key, tensor in ends[0]["task"].items():
        assert torch.equal(ends[1]["task"][key], tensor), key
    assert ends[1]["progress"] == ends[0]["progress"]
    for name in ("last", "best"):
        packages = [load_package(tmp_path / run / name).model.state_dict() for run in ("quiet", "killed")]
        assert all(torch.equal(packages[0][key], packages[1][key]) for key in packages[0])
    lines = [(tmp_path / run / "metrics.jsonl").read_text().count('"train"') for run in ("quiet", "killed")]
    assert lines == [40, 40]
