"""Streams on a GPU: they say what they say on the CPU, and a stream that was saved on one goes on on the other."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="streams read videos")

from tests.inference.stream_cases import CLIPS, MEMORIES, memvit_package
from tests.training.test_sequential import STREAMS
from tests.training.tiny import StopHere
from tests.training.tiny_streams import CLASSES, TinyStreams, stream_task
from wholereel.inference.predictor import precision_context
from wholereel.inference.stream import Stream
from wholereel.media.frames import Frames
from wholereel.models.package import Package
from wholereel.models.registry import create_model
from wholereel.models.video_model import VideoModel
from wholereel.training.distributed import Ranks
from wholereel.training.fit import train_task
from wholereel.training.strategies import create_strategy

DEVICES = ["cuda"]  # each of these runs on "cpu", too
MODES = {"memvit": {}, "causal": {"mode": "causal"}, "window": {"mode": "window", "window": 2}, "ema": {"mode": "ema"}}


def film(count=40) -> Frames:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 36, 48, 3), dtype=np.uint8)
    return Frames(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.arange(count).double() / 10)


def package_of(name: str) -> Package:
    if name == "memvit":
        return memvit_package()
    torch.manual_seed(0)
    model = VideoModel(create_model("tiny2d", num_classes=2), MEMORIES["last"]).eval()
    for parameter in model.memories.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return replace(memvit_package(), model=model)


def said(stream: Stream, frames: Frames, first: int = 0, last: int | None = None):
    part = slice(first, last)
    clips = stream.push(Frames(frames.pixels_TCHW[part], frames.seconds_T[part]))
    return [*clips, *(stream.finish() if last is None else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODES)
def test_it_says_the_same_and_goes_on_on_the_other(device, name, tmp_path):
    settings = {**MODES[name], "clips": None if name == "memvit" else CLIPS}
    whole = said(Stream(package_of(name), device="cpu", **settings), film())
    here = Stream(package_of(name), device=device, **settings)
    first = said(here, film(), last=23)
    here.save(tmp_path / "state.safetensors")
    there = Stream(package_of(name), device="cpu", **settings)
    there.load(tmp_path / "state.safetensors")
    for rest in (said(there, film(), 23), said(here, film(), 23)):
        clips = [*first, *rest]
        assert len(clips) == len(whole) > 3
        for ours, theirs in zip(clips, whole, strict=True):
            assert (ours.number, ours.begin, ours.final) == (theirs.number, theirs.begin, theirs.final)
            torch.testing.assert_close(ours.scores_K, theirs.scores_K, rtol=0, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_on_streams_goes_on_elsewhere(device, precision, tmp_path):
    """An epoch and a half on the device, its memory in the middle of videos; the rest on the CPU."""

    def run(where, loader):
        task, train = stream_task().to(where), replace(STREAMS, precision=precision)
        strategy = create_strategy(train.strategy, lambda: precision_context(precision, torch.device(where)))
        train_task(
            task, strategy, loader, train, tmp_path, classes=CLASSES, ranks=Ranks(), device=torch.device(where),
            sample_ids=[], resume=True, log_every=1,
        )  # fmt: skip
        return task

    with pytest.raises(StopHere):
        run(device, TinyStreams(stop=(1, 2)))
    task = run("cpu", TinyStreams())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    kinds = [line["kind"] for line in lines]
    assert kinds.count("start") == kinds.count("resume") == 1
    assert lines[kinds.index("start")]["device"] == device
    updates = [line["update"] for line in lines if line["kind"] == "train"]
    assert updates == list(range(1, 2 * TinyStreams().steps_per_epoch + 1))
    assert all(bool(parameter.isfinite().all()) for parameter in task.parameters())
