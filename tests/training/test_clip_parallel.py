"""The clips of one video on several processes: the gradient, the run and the files of one process."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from unittest import mock

import pytest
import torch
import torch.multiprocessing as mp

from tests.datasets.broken_files import video
from tests.tasks.detections import detector, key_batch
from tests.training.test_exact import KeyClipTask, with_dropout
from tests.training.test_strategies import assert_same, relative_error
from tests.training.tiny import clip_batch, tiny_task
from wholereel import config
from wholereel.datasets import clip_reader
from wholereel.datasets.batch_samplers import share_of_clips
from wholereel.datasets.loader import clip_loader
from wholereel.datasets.manifest import read_manifest
from wholereel.errors import ConfigError, DataError
from wholereel.models.package import load_package
from wholereel.tasks.detection import DetectionTask
from wholereel.training.clip_parallel import gather_values
from wholereel.training.distributed import Launch, Ranks, mean_over_ranks, process_group, sum_gradients
from wholereel.training.fit import fit
from wholereel.training.norms import set_training_mode
from wholereel.training.strategies import create_strategy

CPU = torch.device("cpu")
N = 5
VALID = torch.tensor([[True] * 5, [True, False, True, True, False], [False, False, False, False, True], [True] * 5])
TWO = ("layer1", "last")
CASES = {
    "none": (None, "group", "mix", 1),
    "last": (config.Memory(dim=8), "group", "logits", 1),
    "last, two at a time": (config.Memory(dim=8, clip_pos=3), "group", "mix", 2),
    "last, statistics of clips": (config.Memory(dim=8, value="separate"), "batch", "prob", 1),
    "max": (config.Memory(interaction="max", infusion="residual"), "group", "logits", 1),
    "two": (config.Memory(after=TWO, dim=8, infusion="residual"), "batch", "prob", 1),
    "two, two at a time": (config.Memory(after=TWO, dim=8, clip_pos=2), "group", "max", 2),
    "two, max": (config.Memory(after=TWO, interaction="max"), "group", "logits", 1),
    "two, all tokens": (config.Memory(after=TWO, dim=8, interaction="nl_softmax"), "group", "logits", 2),
    "single precision": (config.Memory(dim=8, value="separate"), "group", "logits", 1),
    "boxes": (),
    "boxes, two": (),
    "one clip is judged": (config.Memory(dim=8), "group", "logits", 1),
    "one clip is judged, middle": (config.Memory(after=("layer2",), dim=8), "group", "logits", 1),
}


def own_part(batch, ranks):
    """What the loader gives to one of several processes that share the clips."""
    if ranks.clip_parallel == 1:
        return batch
    begin, end = share_of_clips(batch.valid_BN.shape[1], ranks.clip_rank, ranks.clip_parallel)
    return replace(batch, clips_BNTCHW=batch.clips_BNTCHW[:, begin:end], own=(begin, end))


def box_gradients(case, ranks):
    """The real task of boxes: only the process with the middle clip has any."""
    after = ("layer2", "last") if "two" in case else ("last",)
    task = DetectionTask(detector(config.Memory(after=after, dim=8)).double(), config.Task(multi_label=True), 3)
    batch = own_part(key_batch(2, N, valid=VALID[[0, 3]]), ranks)
    create_strategy(config.Strategy("exact"), nullcontext, ranks).backward(
        task, batch, lambda losses: mean_over_ranks(losses, ranks), lambda: None
    )
    sum_gradients(task.parameters(), ranks)
    return {key: p.grad for key, p in task.named_parameters() if p.grad is not None}


def gradients(case, ranks):
    if case.startswith("boxes"):
        return box_gradients(case, ranks)
    memory, norm, aggregate, resident = CASES[case]
    dropout = 0.2 if resident == 1 else 0.0  # clips that are encoded together draw together, and groups differ
    task = with_dropout(tiny_task(memory, norm=norm, aggregate=aggregate), dropout).to(
        torch.float32 if case == "single precision" else torch.float64
    )
    task = KeyClipTask(task) if "judged" in case else task
    set_training_mode(task, "train")
    videos = range(4)[ranks.data_rank :: ranks.data_size]
    whole = clip_batch(list(videos), clips=N, valid=VALID[list(videos)])
    strategy = create_strategy(config.Strategy("exact", resident=resident), nullcontext, ranks)
    torch.manual_seed(11)  # as in a run: those that share a video draw the same
    for _ in range(2):  # gradients of micro-batches add up
        strategy.backward(task, own_part(whole, ranks), lambda losses: mean_over_ranks(losses, ranks), lambda: None)
    sum_gradients(task.parameters(), ranks, bucket_bytes=4096)
    return {key: p.grad for key, p in task.named_parameters() if p.grad is not None}


def refused(ranks):
    """What is said of other videos on another process; nothing of the memory may have been exchanged by then."""
    said = []
    for after in (("last",), ("layer2",)):
        batch = own_part(clip_batch([ranks.rank], clips=N), ranks)
        strategy = create_strategy(config.Strategy("exact"), nullcontext, ranks)
        task = tiny_task(config.Memory(after=after, dim=8))
        with mock.patch("wholereel.training.strategies.exact.sum_states", side_effect=AssertionError("too late")):
            with pytest.raises(DataError) as raised:
                strategy.backward(task, batch, lambda losses: mean_over_ranks(losses, ranks), lambda: None)
            said.append(str(raised.value))
    return said


DATA = config.Data(
    clips=config.Clips(count=5, frames=2, stride=2, coverage=True),
    augment=config.Augment((16, 20), 16, color_jitter=0.3),
    workers=0,
)
TRAIN = config.Train(
    model=config.Model("tiny2d", options={"width": 8}, memory=config.Memory(dim=8)),
    data=DATA,
    task=config.Task(dropout=0.3),
    strategy=config.Strategy("exact"),
    optim=config.Optim(lr=0.05, schedule="constant"),
    epochs=1,
    batch=3,
)


def trained(directory, manifest, clip_parallel, name):
    """Weights after one epoch, and after a second one in a new run of the same process group."""
    train = replace(TRAIN, clip_parallel=clip_parallel)
    for epochs in (1, 2):
        fit(replace(train, epochs=epochs), manifest, directory / name, device="cpu", stream=None, resume=epochs > 1,
            allow_changes=True)  # fmt: skip
    return load_package(directory / name / "last").model.state_dict()


def worker(rank, directory, size, clip_parallel, cases, data):
    torch.set_num_threads(1)
    with process_group(Launch(rank, size, rank, f"file://{directory}/meeting"), CPU, clip_parallel) as ranks:
        results = {case: gradients(case, ranks) for case in cases}
        results["refused"] = refused(ranks)
        if data is not None:
            results["run"] = trained(directory, read_manifest(data, split="train"), clip_parallel, "shared")
        torch.save(results, directory / f"rank{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven videos of different lengths, so that coverage leaves clips out."""
    root = tmp_path_factory.mktemp("videos")
    for index in range(7):
        video(root / "train" / "abc"[index % 3] / f"{index}.mp4", index, frames=5 + 4 * index, height=20, width=24)
    return root


# 4 processes: two pairs that read different videos
@pytest.mark.parametrize(("size", "clip_parallel"), [(2, 2), (3, 3), (4, 2)])
def test_shared_clips_give_the_gradient_of_one_process(tmp_path, folder, size, clip_parallel):
    cases = [case for case in CASES if size < 4 or "two at a time" in case]
    data = folder if size == 2 else None
    mp.start_processes(worker, (tmp_path, size, clip_parallel, cases, data), nprocs=size, start_method="fork")
    every = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(size)]
    if clip_parallel == size:
        for ours in every:
            assert len(ours["refused"]) == 2
            assert all("video0 / video1: processes that share the clips of a video" in text for text in ours["refused"])
    for case in cases:
        alone = gradients(case, Ranks())
        for ours in every:
            if case == "single precision":
                assert relative_error(ours[case], alone) < 1e-6
            else:
                assert_same(ours[case], alone, 1e-10)
    if data is not None:
        alone = trained(tmp_path, read_manifest(data, split="train"), 1, "alone")
        for ours in every:
            for key, tensor in alone.items():
                torch.testing.assert_close(ours["run"][key], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("per_clip", [False, True])
@pytest.mark.parametrize("rate", [None, 8.0])
def test_each_process_reads_its_own_clips(folder, per_clip, rate, monkeypatch):
    data = replace(DATA, clips=replace(DATA.clips, frame_rate=rate), augment=replace(DATA.augment, per_clip=per_clip))
    manifest = read_manifest(folder, split="train")
    decoded = []
    original = clip_reader.read_clips
    monkeypatch.setattr(clip_reader, "read_clips", lambda source, times: (
        decoded.append(len(times.seconds_NT)), original(source, times))[1])  # fmt: skip
    whole = list(clip_loader(manifest, data, train=True, seed=3, batch=3).epoch(1))
    assert any(not batch.valid_BN.all() for batch in whole)
    decoded.clear()
    for rank in range(2):
        shared = list(clip_loader(manifest, data, train=True, seed=3, batch=3, share=(rank, 2)).epoch(1))
        for ours, batch in zip(shared, whole, strict=True):
            assert ours.own == ((0, 2), (2, 5))[rank]
            assert torch.equal(ours.clips_BNTCHW, batch.pixels(slice(*ours.own)))
            assert torch.equal(ours.valid_BN, batch.valid_BN)
            torch.testing.assert_close(ours.seconds_BNT, batch.seconds_BNT, rtol=0, atol=1e-9)
            assert torch.equal(ours.target.labels["label"], batch.target.labels["label"])
            assert ours.ids == batch.ids
    assert set(decoded) == {2, 3}


def test_shares_of_clips_are_even_and_in_order():
    for count in range(1, 9):
        for size in range(1, count + 1):
            shares = [share_of_clips(count, rank, size) for rank in range(size)]
            assert [n for begin, end in shares for n in range(begin, end)] == list(range(count))
            assert {end - begin for begin, end in shares} <= {count // size, -(-count // size)}
    with pytest.raises(ValueError, match="rank 2 of 2"):
        share_of_clips(4, 2, 2)


def test_pixels_of_another_process_are_not_here():
    batch = own_part(clip_batch([0], clips=N), Ranks(1, 2, 2))
    assert batch.own == (2, 5)
    assert torch.equal(batch.pixels(slice(3, 5)), clip_batch([0], clips=N).clips_BNTCHW[:, 3:5])
    with pytest.raises(ValueError, match=r"the pixels of clips \[1, 2\] were asked for; here are those of 2 to 4"):
        batch.pixels(slice(1, 3))
    with pytest.raises(ValueError, match="were asked for"):
        batch.pixels()


def test_values_of_one_process_stay_as_they_are():
    values = [torch.ones(1), (torch.zeros(2),)]
    assert all(a is b for a, b in zip(gather_values(values, Ranks(), CPU), values, strict=True))


def test_processes_must_divide():
    group = process_group(Launch(), CPU, 2)
    with pytest.raises(ConfigError, match="clip_parallel=2 does not divide the 1 processes of this run"), group:
        pass
