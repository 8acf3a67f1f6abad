"""Replayed segments: gradients with places that are written to again and again, and what is refused.

The device's graphs are played by a stand-in with their habits: one place for the input, the outputs and the gradients,
and activations of the last replay alone. The graphs themselves are in `tests/gpu`.
"""

from __future__ import annotations

import gc
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from tests.training.tiny import clip_batch, tiny_task
from wholereel import config
from wholereel.batches import Losses
from wholereel.errors import ConfigError
from wholereel.training import segment_graphs
from wholereel.training.norms import set_training_mode
from wholereel.training.strategies import create_strategy

PLACES = {"last": ("last",), "two": ("layer1", "last")}
MASK = torch.tensor([[True, True, True], [True, False, True]])


class Replayed:
    """What `torch.cuda.make_graphed_callables` gives, on a CPU."""

    def __init__(self, segment, sample):
        self.segment, self.input = segment, sample
        self.parameters = [p for p in segment.parameters() if p.requires_grad]
        self.output = self.gradients = self.last = None

    def __call__(self, x):
        return _Replay.apply(self, x, *self.parameters)


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx, graph, x, *parameters):
        ctx.graph = graph
        with torch.no_grad():
            graph.input.copy_(x)
        with torch.enable_grad():
            graph.last = graph.segment(graph.input)
        graph.output = graph.last.detach().clone() if graph.output is None else graph.output.copy_(graph.last.detach())
        return graph.output.detach()

    @staticmethod
    def backward(ctx, gradient):
        graph = ctx.graph
        wanted = [graph.input] if graph.input.requires_grad else []
        found = torch.autograd.grad(graph.last, [*wanted, *graph.parameters], gradient, retain_graph=True)
        if graph.gradients is None:
            graph.gradients = [one.clone() for one in found]
        for place, one in zip(graph.gradients, found, strict=True):
            place.copy_(one)
        detached = [one.detach() for one in graph.gradients]
        return None, *([] if wanted else [None]), *detached


@pytest.fixture
def played(monkeypatch):
    monkeypatch.setattr(segment_graphs, "DEVICES", ("cpu",))
    monkeypatch.setattr(segment_graphs, "capture", Replayed)


def steps(graphs, places, norm, resident=1):
    """Weights after two steps, and the strategy."""
    memory = config.Memory(after=PLACES[places], dim=8, value="separate")
    task = tiny_task(memory, norm=norm, name="tiny_r3d").double()
    set_training_mode(task, "frozen")
    strategy = create_strategy(config.Strategy("exact", resident=resident, graphs=graphs), nullcontext)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9)
    for seed in range(2):
        strategy.backward(task, clip_batch([0, 1], seed=seed, valid=MASK), Losses.total, optimizer.step)
        optimizer.zero_grad()
    return task.state_dict(), strategy


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize(("norm", "resident"), [("group", 1), ("batch", 1), ("group", 2)])
def test_steps_are_those_without_graphs(played, places, norm, resident):
    expected, _ = steps(False, places, norm, resident)
    found, strategy = steps(True, places, norm, resident)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-9, atol=1e-11)
    shapes = 1 if resident == 1 else 2  # three clips, two at a time
    assert len(strategy.graphs.captured) == shapes * len(PLACES[places])  # behind the last block there is no stage


def refused(task, match, **options):
    strategy = create_strategy(config.Strategy("exact", graphs=True, **options), nullcontext)
    with pytest.raises(ConfigError, match=match):
        strategy.backward(task, clip_batch([0, 1]), Losses.total, lambda: None)
    assert task.model.segment_runner is None


def test_what_cannot_be_replayed_is_refused(played):
    memory = config.Memory(dim=8, value="separate")
    refused(tiny_task(memory, norm="batch", name="tiny_r3d").train(), "set optim.norm=frozen")
    task = tiny_task(memory, name="tiny_r3d").train()
    task.model.clip_model.layer2 = nn.Sequential(task.model.clip_model.layer2, nn.Dropout(0.3))
    refused(task, "stages draw random numbers")
    task = tiny_task(memory, name="tiny_r3d").train()
    task.model.compile_stages()
    refused(task, "set compile=false")


def test_every_shape_is_captured_once_and_they_are_counted(played, monkeypatch):
    monkeypatch.setattr(segment_graphs, "SHAPES", 1)
    refused(tiny_task(config.Memory(dim=8), name="tiny_r3d").train(), "more than 1, at last", resident=2)


def test_weights_at_another_place_are_captured_anew(played):
    task = tiny_task(config.Memory(dim=8, value="separate"), name="tiny_r3d").train()
    strategy = create_strategy(config.Strategy("exact", graphs=True), nullcontext)
    strategy.observe(task, clip_batch([0, 1]))
    (first,) = (graph for key, graph in strategy.graphs.captured.items() if key[0] == 0)
    strategy.observe(task, clip_batch([0, 1]))
    assert first in strategy.graphs.captured.values()
    task.double()
    strategy.observe(task, clip_batch([0, 1]))
    assert first not in strategy.graphs.captured.values()


def test_only_exact_on_a_cuda_device_has_graphs():
    refused(tiny_task(config.Memory(dim=8), name="tiny_r3d").train(), "needs a CUDA device")
    with pytest.raises(ConfigError, match=r"strategy\.graphs"):
        create_strategy(config.Strategy("full", graphs=True), nullcontext)


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_capture_is_tried_twice(failures, monkeypatch):
    tries = []

    def make(segment, sample, **options):
        tries.append(gc.isenabled())
        if len(tries) <= failures:
            raise RuntimeError("operation failed due to a previous error during capture")
        return segment

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    segment = nn.Identity()
    if failures == 2:
        with pytest.raises(RuntimeError, match="during capture"):
            segment_graphs.capture(segment, torch.zeros(1))
    else:
        assert segment_graphs.capture(segment, torch.zeros(1)) is segment
    assert tries == [False] * min(failures + 1, 2)
    assert gc.isenabled()
