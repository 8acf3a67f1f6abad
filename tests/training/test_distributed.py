"""Launchers' environments; two processes give the gradients and the run of one."""

from __future__ import annotations

import unittest.mock
from contextlib import nullcontext, suppress
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.tensor import DTensor

from tests.training.tiny import CLASSES, StopHere, Stopping, TinyLoader, clip_batch, tiny_task
from wholereel import config
from wholereel.errors import ConfigError, DeviceError
from wholereel.training.distributed import (
    Launch,
    Ranks,
    choose_device,
    launch_from_environment,
    mean_over_ranks,
    process_group,
    shard_stages,
    sum_gradients,
)
from wholereel.training.fit import train_task
from wholereel.training.norms import prepare_norms, set_training_mode
from wholereel.training.precise_norms import precise_norms
from wholereel.training.strategies import create_strategy

CPU = torch.device("cpu")
MEMORY = config.Memory(dim=8)
MASK = torch.tensor([[True, True, True], [True, False, False], [True, True, False], [True, True, True]])
HALVES = (slice(0, 2), slice(2, 4))
SHARES = (slice(0, 3), slice(3, 4))  # three videos on one rank, one on the other
CASES = {
    "full": ("full", "accumulate", "group"),
    "full, frozen norm": ("full", "accumulate", "batch"),
    "batch_reduction": ("batch_reduction", "accumulate", "group"),
    "accumulate": ("multi_iteration", "accumulate", "group"),
    "step": ("multi_iteration", "step", "group"),
}
TRAIN = config.Train(
    model=config.Model("tiny2d", options={"width": 8}, memory=MEMORY),
    data=config.Data(clips=config.Clips(count=3, frames=4)),
    optim=config.Optim(lr=0.05, clip_norm=1.0),
    epochs=2,
    batch=2,
    checkpoint_minutes=0.0,
)


def gradients(case, share, ranks):
    name, variant, norm = CASES[case]
    task, batch = tiny_task(MEMORY, norm=norm, aggregate="mix"), clip_batch([0, 1, 2, 3][share], valid=MASK[share])
    set_training_mode(task, "frozen")
    strategy = create_strategy(config.Strategy(name, variant), nullcontext)
    collected = []

    def step():
        sum_gradients(task.parameters(), ranks, bucket_bytes=4096)
        collected.append([parameter.grad.clone() for parameter in task.parameters()])
        task.zero_grad()

    strategy.backward(task, batch, lambda losses: mean_over_ranks(losses, ranks), step)
    return collected


def train(directory, ranks, batch, stop=None, **options):
    task = tiny_task(MEMORY)
    loader = Stopping(batch=batch, rank=ranks.rank, world_size=ranks.world_size, stop=stop)
    train_task(
        task, create_strategy(TRAIN.strategy, nullcontext), loader, replace(TRAIN, batch=batch), directory, device=CPU,
        classes=CLASSES, ranks=ranks, sample_ids=[], log_every=1, **options,
    )  # fmt: skip
    return {key: tensor.clone() for key, tensor in task.state_dict().items()}


def averages(directory, ranks):
    """The averaged weights and BatchNorm statistics that each measurement sees."""
    task, seen = tiny_task(MEMORY, norm="batch"), []
    optim = replace(TRAIN.optim, ema=0.5)
    loader = TinyLoader(batch=2, rank=ranks.rank, world_size=ranks.world_size)

    def validate(task):
        seen.append({key: tensor.clone() for key, tensor in task.state_dict().items()})
        return {"video_top1": 0.0}

    train_task(
        task, create_strategy(TRAIN.strategy, nullcontext), loader, replace(TRAIN, optim=optim), directory, device=CPU,
        classes=CLASSES, ranks=ranks, sample_ids=[], validate=validate,
    )  # fmt: skip
    return seen


def synced(share, ranks, name="exact"):
    """Gradients and statistics with batch statistics over all ranks."""
    task = tiny_task(config.Memory(after=("layer2", "last"), dim=8), norm="batch").double()
    prepare_norms(task, "sync", ranks=ranks, device=CPU)
    set_training_mode(task, "train")
    strategy = create_strategy(config.Strategy(name), nullcontext)
    strategy.backward(
        task, clip_batch([0, 1, 2, 3][share]), lambda losses: mean_over_ranks(losses, ranks), lambda: None
    )
    sum_gradients(task.parameters(), ranks)
    return {key: p.grad for key, p in task.named_parameters()} | dict(task.named_buffers())


def precise(share, ranks):
    """Statistics over three batches, of which each rank has seen its own videos."""
    task = tiny_task(MEMORY, norm="batch").double()
    batches = [clip_batch([0, 1, 2, 3][share], seed=seed) for seed in range(3)]
    strategy = create_strategy(config.Strategy("exact"), nullcontext)
    with precise_norms(task, strategy, batches, 2, ranks=ranks, device=CPU):
        return {key: buffer.clone() for key, buffer in task.named_buffers()}


def sharded(share, ranks, after):
    """Weights after two optimiser steps with stages that are sharded, and how often gradients were reduced."""
    task = tiny_task(config.Memory(after=after, dim=8), name="tiny_r3d", aggregate="mix")
    shard_stages(task, task.model.clip_model.stages.values(), ranks, CPU)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9, foreach=False)
    strategy = create_strategy(config.Strategy("exact"), nullcontext)
    name = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"
    with unittest.mock.patch(f"torch.distributed.{name}", wraps=getattr(dist, name)) as reduced:
        for _ in range(2):
            batch = clip_batch([0, 1, 2, 3][share], valid=MASK[share])
            strategy.backward(task, batch, lambda losses: mean_over_ranks(losses, ranks), lambda: None)
            sum_gradients(task.parameters(), ranks)
            optimizer.step()
            optimizer.zero_grad()
    whole = {key: t.full_tensor() if isinstance(t, DTensor) else t for key, t in task.state_dict().items()}
    return whole, reduced.call_count


def worker(rank, directory):
    torch.set_num_threads(1)
    with process_group(Launch(rank, 2, rank, f"file://{directory}/meeting"), CPU) as ranks:
        results = {case: gradients(case, SHARES[rank], ranks) for case in CASES}
        results["weights"] = train(directory / "two", ranks, batch=2)
        with suppress(StopHere):
            train(directory / "broken", ranks, batch=2, stop=(1, 1))
        ranks.barrier()  # the first process may still be saving
        results["resumed"] = train(directory / "broken", ranks, batch=2, resume=True)
        results["measured"] = averages(directory / "average", ranks)
        results["synced"] = synced(HALVES[rank], ranks)
        results["synced full"] = synced(HALVES[rank], ranks, "full")
        results["precise"] = precise(HALVES[rank], ranks)
        results["sharded"] = [sharded(SHARES[rank], ranks, after) for after in (("last",), ("layer2", "last"))]
        torch.save(results, directory / f"rank{rank}.pt")


def test_two_processes_are_one(tmp_path):
    mp.start_processes(worker, (tmp_path,), nprocs=2, start_method="fork")  # forked: torch is loaded already
    both = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for case in CASES:
        alone = gradients(case, slice(None), Ranks())
        for ours in both:
            assert len(ours[case]) == len(alone) == (3 if case == "step" else 1)
            for step, expected in zip(ours[case], alone, strict=True):
                for gradient, reference in zip(step, expected, strict=True):
                    torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(both[0]["measured"], both[1]["measured"], strict=True):
        assert any("running_var" in key for key in ours)
        for key, tensor in ours.items():
            assert torch.equal(tensor, theirs[key]), key
    for name in ("exact", "full"):
        expected = synced(slice(None), Ranks(), name)
        for ours in both:
            found = ours["synced" if name == "exact" else "synced full"]
            assert found.keys() == expected.keys()
            for key, tensor in expected.items():
                torch.testing.assert_close(found[key], tensor, rtol=1e-9, atol=1e-12)
    halves = [precise(half, Ranks()) for half in HALVES]
    for key, found in both[0]["precise"].items():
        assert torch.equal(found, both[1]["precise"][key])
        if found.is_floating_point():
            torch.testing.assert_close(found, (halves[0][key] + halves[1][key]) / 2)
    for after, *cases in zip((("last",), ("layer2", "last")), *(ours["sharded"] for ours in both), strict=True):
        expected, none = sharded(slice(None), Ranks(), after)
        assert none == 0
        for weights, reduced in cases:
            assert reduced == 2 * 4  # once for each stage and step, not once a clip
            for key, tensor in expected.items():
                torch.testing.assert_close(weights[key], tensor, rtol=1e-4, atol=1e-6)
    expected = train(tmp_path / "one", Ranks(), batch=4)
    for key, tensor in expected.items():
        torch.testing.assert_close(both[0]["weights"][key], tensor, rtol=1e-4, atol=1e-5)
        assert torch.equal(both[0]["weights"][key], both[1]["weights"][key]), key
        assert torch.equal(both[0]["resumed"][key], both[0]["weights"][key]), key


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_ID": "20007",
    "SLURM_STEP_NODELIST": "gpu[03-05,9],other",
}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, Launch()),
        (TORCHRUN, Launch(3, 8, 1, "tcp://a:29500")),
        (SLURM, Launch(2, 4, 0, "tcp://gpu03:20007")),
        ({**SLURM, "SLURM_STEP_NODELIST": "n1,n2", "MASTER_PORT": "1"}, Launch(2, 4, 0, "tcp://n1:1")),
        ({**SLURM, **TORCHRUN}, Launch(3, 8, 1, "tcp://a:29500")),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Launch()),  # a batch script, not yet srun
    ],
    ids=["none", "torchrun", "slurm", "slurm with port", "torchrun inside slurm", "batch script"],
)
def test_launchers(environment, launch):
    assert launch_from_environment(environment) == launch


def test_incomplete_environments_are_named():
    with pytest.raises(ConfigError, match="incomplete or not a number: 'MASTER_ADDR'"):
        launch_from_environment({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(ConfigError, match="invalid literal"):
        launch_from_environment({**TORCHRUN, "RANK": "first"})


def test_devices():
    assert choose_device("cpu", 3) == CPU
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(DeviceError, match="device 'cuda' was asked for, but PyTorch sees no CUDA device"):
            choose_device("cuda")
