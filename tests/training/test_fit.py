"""The loop: it learns, logs, measures, packages, resumes to the same bits, lists faults, refuses what it must."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from tests.training.tiny import CLASSES, StopHere, Stopping, TinyLoader, clip_batch, tiny_task
from wholereel import config
from wholereel.errors import ConfigError
from wholereel.models.package import build_model, load_package
from wholereel.tasks.classification import ClassificationTask
from wholereel.training import distributed
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
    info = package.model.info
    assert (package.extra["licence"], package.extra["origin"]) == (info.licence, info.origin)
    assert package.extra["origin"] == "wholereel's own"
    assert package.extra["weights"] is None
    average = load_checkpoint(tmp_path / "checkpoint.pt")["average"]["average"]
    last = load_package(tmp_path / "last").model.state_dict()
    torch.testing.assert_close(last["clip_model.fc.weight"], average["model.clip_model.fc.weight"])
    assert not torch.equal(last["clip_model.fc.weight"], task.state_dict()["model.clip_model.fc.weight"])


@pytest.mark.parametrize(
    "name", ["full", "exact", "batch_reduction", "multi_iteration/step", "multi_iteration/accumulate"]
)
def test_every_strategy_lowers_the_loss(tmp_path, name):
    name, _, variant = name.partition("/")
    settings = config.Strategy(name, variant or "accumulate")
    strategy = create_strategy(settings, nullcontext)
    train = replace(TRAIN, strategy=settings, optim=config.Optim(lr=0.05))
    run(tmp_path, train, loader=TinyLoader(batch=strategy.plan(4, 3).videos))
    losses = [record["loss"] for record in records(tmp_path, "train")]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert records(tmp_path, "start")[0]["gradient"] == strategy.gradient


@pytest.mark.parametrize("stop", [(0, 1), (1, 2), (2, 0)], ids=str)
@pytest.mark.parametrize("variant", ["plain", "dropout, batch norm, AdamW, two micro-batches"])
def test_resuming_gives_the_same_bits(tmp_path, stop, variant):
    train, norm, length = TRAIN, "group", 12
    if variant != "plain":
        train = replace(
            TRAIN, accumulate=2, task=config.Task(dropout=0.5), optim=config.Optim("adamw", lr=1e-3, ema=0.9)
        )
        norm, length = "batch", 20  # five micro-batches: the last step of an epoch has only one

    def build():
        return tiny_task(MEMORY, norm=norm, dropout=train.task.dropout)

    _, straight = run(tmp_path / "straight", train, loader=TinyLoader(length), validate=accuracy, task=build())
    loader = Stopping(length, stop=(stop[0], stop[1] * train.accumulate))
    with pytest.raises(StopHere):
        run(tmp_path / "broken", train, loader=loader, validate=accuracy, task=build())
    _, resumed = run(
        tmp_path / "broken", train, loader=TinyLoader(length), validate=accuracy, task=build(), resume=True
    )
    for (name, ours), theirs in zip(resumed.state_dict().items(), straight.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    for kind in ("train", "validation"):
        ours, theirs = records(tmp_path / "broken", kind), records(tmp_path / "straight", kind)
        assert [record["update"] for record in ours] == [record["update"] for record in theirs]
    averages = [
        load_checkpoint(tmp_path / name / "checkpoint.pt")["average"]["average"] for name in ("broken", "straight")
    ]
    assert all(torch.equal(averages[0][key], averages[1][key]) for key in averages[1])


def test_a_finished_run_returns_at_once(tmp_path):
    first, _ = run(tmp_path, validate=accuracy)
    before = (tmp_path / "metrics.jsonl").read_text()
    second, _ = run(tmp_path, validate=accuracy, resume=True)
    assert second == first
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_other_settings_are_refused_by_name(tmp_path):
    run(tmp_path)
    with pytest.raises(ConfigError, match="holds a run already"):
        run(tmp_path)
    longer = replace(TRAIN, epochs=4)
    with pytest.raises(
        ConfigError, match=r"epochs: 3 before, 4 now\. Use the old settings, or start .*allow_changes=True"
    ):
        run(tmp_path, longer, resume=True)
    run(tmp_path, longer, resume=True, allow_changes=True)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["progress"]["epoch"] == 4
    with pytest.raises(ConfigError, match=r"batch: 4 before, 2 now\. Use the old settings, or start a new run"):
        run(tmp_path, replace(longer, batch=2), resume=True, allow_changes=True)
    run(tmp_path, replace(longer, checkpoint_minutes=5.0), resume=True)  # what changes no result is free


def test_non_finite_loss_names_videos_and_checkpoint(tmp_path):
    task = tiny_task(MEMORY)
    calls, original = [], task.losses

    def losses(clip_logits_BNK, batch, valid_BN=None):
        calls.append(batch.ids)
        factor = float("nan") if len(calls) == 5 else 1.0
        return original(clip_logits_BNK * factor, batch, valid_BN)

    task.losses = losses
    with pytest.raises(NonFiniteLossError) as error:
        run(tmp_path, task=task)
    assert f"videos of that batch: {', '.join(calls[4])}." in str(error.value)
    assert f"Last checkpoint: {tmp_path / 'checkpoint.pt'} (epoch 2, step 1)" in str(error.value)
    saved = load_checkpoint(tmp_path / "checkpoint.pt")  # from before
    assert saved["progress"]["update"] == 4
    assert all(tensor.isfinite().all() for tensor in saved["task"].values())


def test_faults_are_listed_once_even_over_a_resume(tmp_path):
    loader = Stopping(bad=frozenset({2, 7}), stop=(1, 2))
    with pytest.raises(StopHere):
        run(tmp_path, loader=loader)
    run(tmp_path, loader=TinyLoader(bad=frozenset({2, 7})), resume=True)
    header, *rows = [line.split("\t") for line in (tmp_path / "faults.tsv").read_text().splitlines()]
    assert header == ["epoch", "step", "id", "path", "reason", "replaced_by"]
    assert sorted((row[0], row[2]) for row in rows) == [(str(e), f"video{i}") for e in (1, 2, 3) for i in (2, 7)]
    assert {row[1] for row in rows} <= {str(record["step"]) for record in records(tmp_path, "train")} == {"1", "2", "3"}
    assert rows[0][4:] == ["no frames", f"video{int(rows[0][2].removeprefix('video')) + 1}"]


def test_a_fresh_start_removes_the_logs_of_a_run_without_checkpoint(tmp_path):
    for name in ("metrics.jsonl", "faults.tsv", "faults.1.tsv"):
        (tmp_path / name).write_text("old\n")
    run(tmp_path, replace(TRAIN, epochs=1))
    assert not list(tmp_path.glob("faults*.tsv"))
    assert "old" not in (tmp_path / "metrics.jsonl").read_text()


def test_select_must_be_measured_and_losses_are_minimised(tmp_path):
    with pytest.raises(ConfigError, match="select='video_map' is not measured. Measured: .*video_top1"):
        run(tmp_path / "a", replace(TRAIN, select="video_map"), validate=accuracy)
    values = iter([2.0, 1.0, 3.0])
    result, _ = run(tmp_path / "b", replace(TRAIN, select="val_loss"), validate=lambda task: {"val_loss": next(values)})
    assert result.metrics == {"val_loss": 1.0, "epoch": 2.0}
    assert load_package(tmp_path / "b" / "best").extra["epoch"] == 2
    assert load_package(tmp_path / "b" / "last").extra["epoch"] == 3


def test_bfloat16_trains_and_keeps_weights_in_float32(tmp_path):
    train = replace(TRAIN, epochs=1, precision="bf16")
    task = tiny_task(MEMORY)
    strategy = create_strategy(train.strategy, lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    train_task(task, strategy, TinyLoader(), train, tmp_path, classes=CLASSES, ranks=Ranks(), sample_ids=[],
               device=torch.device("cpu"))  # fmt: skip
    assert {parameter.dtype for parameter in task.parameters()} == {torch.float32}


def test_tensorboard_is_written_when_asked(tmp_path):
    run(tmp_path, replace(TRAIN, epochs=1), tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_two_stages_share_logits_at_the_start(tmp_path):
    """Train clip by clip, then put a memory into the result: equal logits, and training goes on."""
    first = replace(TRAIN, epochs=1, model=replace(TRAIN.model, memory=None), task=config.Task(aggregate="clip"))
    result, clip_level = run(tmp_path / "clip", first, task=tiny_task(None, aggregate="clip"), validate=accuracy)
    spec = replace(TRAIN.model, weights=f"file:{result.package}")
    video_level = build_model(spec, len(CLASSES))
    batch = clip_batch([0, 1, 2, 3])
    package = load_package(result.package)
    inputs = clip_level.inputs(batch)
    torch.testing.assert_close(video_level.eval()(inputs)[0], package.model(inputs)[0], rtol=0, atol=1e-6)
    task = ClassificationTask(video_level, config.Task(), len(CLASSES))
    second, _ = run(tmp_path / "video", replace(TRAIN, model=spec), task=task, validate=accuracy)
    assert load_package(second.package).spec.memory == MEMORY


def test_losses_are_scaled_and_a_step_that_overflows_is_left_out(tmp_path, monkeypatch):
    """The strategy sends scaled gradients back through both passes; the step takes the factor out once."""
    train = replace(TRAIN, strategy=config.Strategy("exact"), optim=config.Optim(lr=0.05, clip_norm=1.0), epochs=1)
    _, plain = run(tmp_path / "fp32", train)
    _, scaled = run(tmp_path / "fp16", replace(train, precision="fp16"))  # `run` computes in fp32: the factor is exact
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(scaled.state_dict()[key], tensor, rtol=1e-5, atol=1e-7)
    scaler = load_checkpoint(tmp_path / "fp16" / "checkpoint.pt")["scaler"]
    assert scaler["scale"] == 2.0**16
    assert not load_checkpoint(tmp_path / "fp32" / "checkpoint.pt")["scaler"]
    resumed, _ = run(tmp_path / "fp16", replace(train, precision="fp16", epochs=2), resume=True, allow_changes=True)
    assert resumed.package.name == "last"

    task, calls = tiny_task(MEMORY), []
    before = task.model.clip_model.fc.weight.detach().clone()
    original = distributed.sum_gradients

    def overflow(parameters, ranks):
        parameters = list(parameters)
        original(parameters, ranks)
        calls.append(1)
        if len(calls) == 1:
            parameters[0].grad[0] = torch.inf

    monkeypatch.setattr(distributed, "sum_gradients", overflow)
    one_step = TinyLoader(length=4)
    run(tmp_path / "overflow", replace(train, precision="fp16"), loader=one_step, task=task)
    assert torch.equal(task.model.clip_model.fc.weight, before)
    assert load_checkpoint(tmp_path / "overflow" / "checkpoint.pt")["scaler"]["scale"] == 2.0**15
