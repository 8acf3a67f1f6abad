"""Precise BatchNorm in the loop: measured and packaged with the statistics of the weights that are there."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from tests.training.test_fit import TRAIN as GROUP_NORM
from tests.training.test_fit import accuracy, run
from tests.training.tiny import StopHere, Stopping, TinyLoader, clip_batch, tiny_task
from tests.training.tiny_streams import COLLABORATIVE, TinyStreams, stream_task
from wholereel import config
from wholereel.errors import ConfigError
from wholereel.models.package import load_package
from wholereel.training.strategies import create_strategy

MEMORY = GROUP_NORM.model.memory
TRAIN = replace(
    GROUP_NORM,
    model=config.Model("tiny_r3d", options={"width": 8, "norm": "batch"}, memory=MEMORY),
    optim=config.Optim(lr=0.05, ema=0.9, precise_norm=2),
)


def built():
    return tiny_task(MEMORY, norm="batch", name="tiny_r3d")


def test_what_is_measured_and_packaged_has_the_mean_over_the_first_batches_of_the_epoch(tmp_path):
    measured = []

    def validate(task):
        measured.append({key: tensor.clone() for key, tensor in task.state_dict().items()})
        return accuracy(task)

    run(tmp_path, TRAIN, task=built(), validate=validate)
    package = load_package(tmp_path / "last")
    task = built()
    task.model.load_state_dict(package.model.state_dict())
    with torch.no_grad():
        batches = [batch for _, batch in zip(range(2), TinyLoader().epoch(TRAIN.epochs - 1), strict=False)]
        inputs = [task.model.clip_model.stem.conv(task.inputs(batch).flatten(0, 1)) for batch in batches]
    norm = package.model.clip_model.stem.norm
    mean = torch.stack([x.mean((0, 2, 3, 4)) for x in inputs]).mean(0)
    variance = torch.stack([x.var((0, 2, 3, 4)) for x in inputs]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    for key, tensor in package.model.state_dict().items():
        assert torch.equal(measured[-1][f"model.{key}"], tensor), key


def test_training_is_the_same_with_and_without(tmp_path):
    _, precise = run(tmp_path / "precise", TRAIN, task=built(), validate=accuracy)
    plain = replace(TRAIN, optim=replace(TRAIN.optim, precise_norm=0))
    _, usual = run(tmp_path / "usual", plain, task=built(), validate=accuracy)
    for (key, ours), theirs in zip(precise.state_dict().items(), usual.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key
    packages = [load_package(tmp_path / name / "last").model.state_dict() for name in ("precise", "usual")]
    differing = {key.rpartition(".")[2] for key in packages[0] if not torch.equal(packages[0][key], packages[1][key])}
    assert differing == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("stop", [(1, 1), (2, 0)], ids=str)
def test_a_resumed_run_packages_the_same_bits(tmp_path, stop):
    run(tmp_path / "straight", TRAIN, task=built(), validate=accuracy)
    with pytest.raises(StopHere):
        run(tmp_path / "broken", TRAIN, task=built(), validate=accuracy, loader=Stopping(stop=stop))
    run(tmp_path / "broken", TRAIN, task=built(), validate=accuracy, resume=True)
    ours, theirs = (load_package(tmp_path / name / "last").model.state_dict() for name in ("broken", "straight"))
    for key, tensor in theirs.items():
        assert torch.equal(ours[key], tensor), key


STRATEGIES = {
    "full": ("full", "accumulate", ("last",)),
    "batch_reduction": ("batch_reduction", "accumulate", ("last",)),
    "exact": ("exact", "accumulate", ("last",)),
    "exact, inner block": ("exact", "accumulate", ("layer2", "last")),
    "accumulate": ("multi_iteration", "accumulate", ("last",)),
    "step": ("multi_iteration", "step", ("last",)),
}


@pytest.mark.parametrize("case", STRATEGIES)
def test_norms_see_what_they_see_in_a_step(case):
    name, variant, after = STRATEGIES[case]
    memory = config.Memory(after=after, dim=8)
    strategy = create_strategy(config.Strategy(name, variant), nullcontext)
    tasks = [tiny_task(memory, norm="batch", name="tiny_r3d").train() for _ in range(2)]
    batch = clip_batch([0, 1, 2])
    strategy.backward(tasks[0], batch, lambda losses: losses.total(), lambda: None)
    strategy.observe(tasks[1], batch)
    before = dict(tiny_task(memory, norm="batch", name="tiny_r3d").named_buffers())
    for (key, expected), found in zip(tasks[0].named_buffers(), tasks[1].buffers(), strict=True):
        assert torch.equal(found, expected), key
        assert not torch.equal(found, before[key]), key
    assert all(parameter.grad is None for parameter in tasks[1].parameters())


def test_norms_of_streams_see_clips_with_what_is_remembered():
    spec = replace(COLLABORATIVE, options={"width": 8, "norm": "batch"})
    strategy = create_strategy(config.Strategy("sequential"), nullcontext)
    tasks = [stream_task(spec).train() for _ in range(2)]
    carries = [None, None]
    for batch in TinyStreams().epoch(0):
        _, carries[0] = strategy.backward(tasks[0], batch, lambda losses: losses.total(), lambda: None, carries[0])
        carries[1] = strategy.observe(tasks[1], batch, carries[1])
    for (key, expected), found in zip(tasks[0].named_buffers(), tasks[1].buffers(), strict=True):
        assert torch.equal(found, expected), key
    tensors = [carry.as_dict() for carry in carries]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[1][key], tensor) for key, tensor in tensors[0].items())


@pytest.mark.parametrize(
    ("optim", "options", "message"),
    [
        ({"norm": "frozen"}, {}, "takes statistics anew, optim.norm='frozen' keeps"),
        ({}, {"norm": "group"}, "tiny_r3d has no BatchNorm"),
    ],
)
def test_settings_without_meaning_are_refused(tmp_path, optim, options, message):
    train = replace(TRAIN, optim=replace(TRAIN.optim, **optim))
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, train, task=tiny_task(MEMORY, name="tiny_r3d", **{"norm": "batch", **options}))
