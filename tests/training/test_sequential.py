"""Training on streams: the memory is carried from step to step, reset by rows, cleared by epochs, and resumed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from contextlib import nullcontext, suppress
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as mp

from tests.datasets.broken_files import data_set
from tests.training.tiny import StopHere, tiny_task
from tests.training.tiny_streams import CLASSES, COLLABORATIVE, MEMVIT, TinyStreams, stream_task
from wholereel import config
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.stream_loader import stream_loader
from wholereel.errors import CheckpointError, ConfigError
from wholereel.models.package import load_package
from wholereel.training.carry import forget_carries, load_carry, save_carry
from wholereel.training.checkpoint import load_checkpoint
from wholereel.training.checks import check_train, select_of
from wholereel.training.distributed import Launch, Ranks, process_group
from wholereel.training.fit import train_task
from wholereel.training.strategies import create_strategy

CPU = torch.device("cpu")
STREAMS = config.Train(
    model=MEMVIT,
    data=config.Data(clips=config.Clips(frames=2), streams=config.Streams()),
    task=config.Task(kind="stream"),
    strategy=config.Strategy("sequential"),
    optim=config.Optim("adamw", lr=3e-3, schedule="constant", weight_decay=0.0),
    epochs=2,
    batch=2,
    checkpoint_minutes=0.0,
)


# Adam makes steps of full size of gradients that are rounding alone, such as those of key biases.
SGD = config.Optim("sgd", lr=0.05, schedule="constant")


def train(directory, loader=None, *, spec=MEMVIT, ranks=None, **changes):
    torch.set_num_threads(1)
    task, given = stream_task(spec), replace(STREAMS, model=spec, **changes)
    train_task(
        task, create_strategy(given.strategy, nullcontext), loader or TinyStreams(), given, directory, classes=CLASSES,
        ranks=ranks or Ranks(), device=CPU, sample_ids=[], resume=True, log_every=1,
    )  # fmt: skip
    return task.state_dict()


def by_hand(task):
    """The loop that `sequential` must be, with no house around it."""
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    for epoch in range(STREAMS.epochs):
        state = None
        for batch in TinyStreams().epoch(epoch):
            state = task.begin(batch) if state is None else state
            losses, state = task(batch, state.reset(batch.starts_B))
            part, state = losses.parts["label"], state.detach()
            optimizer.zero_grad()
            (part.sum / part.count.clamp(min=1)).backward()
            optimizer.step()
    return task.state_dict()


@pytest.mark.parametrize("spec", [MEMVIT, COLLABORATIVE], ids=["memvit", "collaborative"])
def test_it_is_the_loop_made_by_hand(tmp_path, spec):
    spec = replace(spec, options={**spec.options, "dropout": 0.0})
    ours, theirs = train(tmp_path, spec=spec), by_hand(stream_task(spec))
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize(("stop", "accumulate"), [((0, 1), 1), ((1, 4), 3), ((1, 0), 1)])
def test_resuming_in_the_middle_of_a_video_gives_the_same_bits(tmp_path, stop, accumulate):
    whole = train(tmp_path / "whole", accumulate=accumulate)
    with suppress(StopHere):
        train(tmp_path / "broken", TinyStreams(stop=stop), accumulate=accumulate)
    carried = list((tmp_path / "broken").glob("carry_*.pt"))
    inside = stop[1] // accumulate > 0
    assert len(carried) == inside  # the newest one alone, and none between epochs
    resumed = train(tmp_path / "broken", accumulate=accumulate)
    for key, tensor in whole.items():
        assert torch.equal(resumed[key], tensor), key
    assert not list((tmp_path / "broken").glob("carry_*.pt"))


def test_without_its_memory_a_run_does_not_go_on(tmp_path):
    with suppress(StopHere):
        train(tmp_path, TinyStreams(stop=(1, 4)))
    next(tmp_path.glob("carry_*.pt")).unlink()
    with pytest.raises(CheckpointError, match=r"carry_\d+_rank0.pt: no such checkpoint"):
        train(tmp_path)


def worker(rank, directory):
    torch.set_num_threads(1)
    spec = replace(MEMVIT, options={**MEMVIT.options, "dropout": 0.0})
    with process_group(Launch(rank, 2, rank, f"file://{directory}/meeting"), CPU) as ranks:
        options = {"spec": spec, "ranks": ranks, "batch": 1, "optim": SGD}
        two = train(directory / "two", TinyStreams(1, rank, 2), **options)
        with suppress(StopHere):
            train(directory / "broken", TinyStreams(1, rank, 2, stop=(1, 4)), **options)
        ranks.barrier()
        resumed = train(directory / "broken", TinyStreams(1, rank, 2), **options)
        torch.save({"two": two, "resumed": resumed}, directory / f"rank{rank}.pt")


def test_two_processes_are_one_and_each_resumes_its_own_memory(tmp_path):
    mp.start_processes(worker, (tmp_path,), nprocs=2, start_method="fork")  # forked: torch is loaded already
    both = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    spec = replace(MEMVIT, options={**MEMVIT.options, "dropout": 0.0})
    expected = train(tmp_path / "one", TinyStreams(2), spec=spec, optim=SGD)
    for key, tensor in expected.items():
        torch.testing.assert_close(both[0]["two"][key], tensor, rtol=1e-4, atol=1e-5, msg=key)
        for found in both:
            assert torch.equal(found["two"][key], both[0]["two"][key]), key
            assert torch.equal(found["resumed"][key], both[0]["two"][key]), key


def test_a_run_survives_kill_9_in_the_middle_of_videos(tmp_path):
    begin = time.monotonic()
    train(tmp_path / "quiet")
    seconds = time.monotonic() - begin
    context, chance = multiprocessing.get_context("fork"), random.Random(0)
    for _ in range(3):
        process = context.Process(target=train, args=(tmp_path / "killed",))
        process.start()
        time.sleep(seconds / 3 * chance.uniform(0.3, 1.5))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    train(tmp_path / "killed")
    ends = [load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("quiet", "killed")]
    for key, tensor in ends[0]["task"].items():
        assert torch.equal(ends[1]["task"][key], tensor), key


def test_carries_are_those_of_their_update(tmp_path):
    task = stream_task()
    batch = next(iter(TinyStreams().epoch(0)))
    _, state = task(batch, task.begin(batch))
    for update in (3, 7):
        save_carry(tmp_path, state, rank=1, update=update)
    save_carry(tmp_path, state, rank=0, update=7)
    forget_carries(tmp_path, rank=1, update=7)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["carry_7_rank0.pt", "carry_7_rank1.pt"]
    again = task.restore(load_carry(tmp_path, rank=1, update=7))
    assert type(again) is type(state)
    for name, tensor in state.as_dict().items():
        assert torch.equal(again.as_dict()[name], tensor.detach())
    (tmp_path / "carry_7_rank1.pt").rename(tmp_path / "carry_9_rank1.pt")
    with pytest.raises(CheckpointError, match="the memory of update 7, expected that of update 9"):
        load_carry(tmp_path, rank=1, update=9)


def test_the_package_of_a_run_knows_spaces_and_streams(tmp_path):
    weights = train(tmp_path, epochs=1)
    package = load_package(tmp_path / "last")
    assert package.spaces == {"label": CLASSES}
    assert package.streams == config.Streams()
    for key, tensor in package.model.state_dict().items():
        assert torch.equal(weights[f"model.{key}"], tensor), key
    with pytest.raises(ConfigError, match="model 'memvit_tiny' reads videos clip by clip"):
        _ = package.video_model


def test_settings_that_contradict_each_other_are_refused():
    check_train(STREAMS)
    assert select_of(STREAMS) == "clip_top1"
    assert select_of(replace(STREAMS, data=replace(STREAMS.data, labels=("verb", "noun")))) == "verb_top1"
    with pytest.raises(ConfigError, match="data.streams is set, but strategy.name='full'"):
        check_train(replace(STREAMS, strategy=config.Strategy("full")))
    with pytest.raises(ConfigError, match="data.streams is null, but strategy.name='sequential'"):
        check_train(replace(STREAMS, data=config.Data()))
    with pytest.raises(ConfigError, match="val.streams is null"):
        check_train(replace(STREAMS, val=config.Data()))
    with pytest.raises(ConfigError, match=r"val.streams is set, data.streams is null"):
        check_train(replace(STREAMS, data=config.Data(), strategy=config.Strategy(), val=STREAMS.data))
    bank = config.BankWindow("features")
    with pytest.raises(ConfigError, match=r"model.bank is set, and data.streams reads clip by clip"):
        check_train(replace(STREAMS, model=replace(COLLABORATIVE, memory=None, bank=config.BankHead())))
    with pytest.raises(ConfigError, match=r"data.bank is set, and data.streams reads clip by clip"):
        check_train(replace(STREAMS, data=replace(STREAMS.data, bank=bank)))
    with pytest.raises(ConfigError, match=r"val.bank is set, and data.streams reads clip by clip"):
        check_train(replace(STREAMS, val=replace(STREAMS.data, bank=bank)))
    with pytest.raises(ConfigError, match="interaction='nl_dot' keeps all tokens"):
        check_train(replace(STREAMS, model=replace(COLLABORATIVE, memory=config.Memory(interaction="nl_dot"))))
    with pytest.raises(ConfigError, match="model.boxes must be null"):
        check_train(replace(STREAMS, model=replace(COLLABORATIVE, boxes=config.BoxHead())))
    with pytest.raises(ConfigError, match="'sequential' trains on streams, and ClassificationTask judges whole videos"):
        create_strategy(STREAMS.strategy, nullcontext).check(tiny_task())


class Breaking:
    """A loader that breaks off in front of one (epoch, step)."""

    def __init__(self, loader, stop):
        self.loader, self.stop, self.steps_per_epoch = loader, stop, loader.steps_per_epoch

    def epoch(self, epoch, start_step=0):
        for step, batch in enumerate(self.loader.epoch(epoch, start_step), start_step):
            if (epoch, step) == self.stop:
                raise StopHere
            yield batch


def test_augmented_streams_of_files_resume_with_the_same_bits(tmp_path):
    """Two copies of each video, blended, erased and augmented at random, with what each copy remembers."""
    data_set(tmp_path / "videos", 2)
    augment = config.Augment(
        (24, 24), 16, color_jitter=0.4, color_order="random", lighting=0.1, rand_augment=config.RandAugment(),
        resized_crop=config.ResizedCrop(), erasing=config.Erasing(probability=0.5), mixing=config.Mixing(), copies=2,
        per_clip=True, frame_jitter=True,
    )  # fmt: skip
    clips, streams = config.Clips(frames=2, stride=2), config.Streams(label="video")
    data = config.Data(clips=clips, augment=augment, streams=streams, workers=0)
    manifest = read_manifest(tmp_path / "videos", split="train")

    def loader():
        return stream_loader(manifest, data, train=True, seed=0, batch=2)

    whole = train(tmp_path / "whole", loader(), data=data, epochs=1)
    with suppress(StopHere):
        train(tmp_path / "broken", Breaking(loader(), (0, 2)), data=data, epochs=1)
    carried = load_carry(tmp_path / "broken", rank=0, update=2)
    assert {len(tensor) for tensor in carried.values()} == {4}
    resumed = train(tmp_path / "broken", loader(), data=data, epochs=1)
    for key, tensor in whole.items():
        assert torch.equal(resumed[key], tensor), key
