"""Strategy `exact`: per-parameter gradients against one graph of all clips, and what it does and holds."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.training.test_strategies import MASK, assert_same, backward, relative_error
from tests.training.tiny import clip_batch, tiny_task
from wholereel import config
from wholereel.batches import Blend, Erased
from wholereel.errors import ConfigError
from wholereel.inference.scoring import ClipChunk, score_clips
from wholereel.memory.state import VideoState
from wholereel.models.registry import create_model
from wholereel.models.video_model import VideoModel, merge_clips
from wholereel.tasks.classification import ClassificationTask
from wholereel.training.norms import set_training_mode
from wholereel.training.randomness import draw_seeds, seeded
from wholereel.training.strategies import create_strategy

CPU = torch.device("cpu")
PLACES = {"none": None, "last": ("last",), "middle": ("layer2",), "two": ("layer1", "last")}


def settings(places, **memory):
    return None if places is None else config.Memory(after=places, dim=8, **memory)


def one_graph(task, batch):
    """All clips in one graph, but through the network one index at a time, with the draws that `exact` makes."""
    task.zero_grad()
    model, valid_BN, clips = task.model, batch.valid_BN, batch.valid_BN.shape[1]
    blocks = len(model.places)
    if model.summarises:  # the head draws after all clips have drawn, from the common stream
        seeds = [draw_seeds(clips)]
    else:
        seeds = [draw_seeds(clips) for _ in range(blocks + 1)]
    maps, memory = [task.inputs(batch)[:, n] for n in range(clips)], None
    for index in range(blocks + 1):
        pushes = []
        for n in range(clips):
            x = maps[n] if index == 0 else model.infuse_at(index - 1, maps[n], memory)
            head_is_common = index > 0 and model.summarises
            with nullcontext() if head_is_common else seeded(seeds[index][n], CPU):
                x = model.run_segment(index, x)
                if index == blocks and not model.summarises:
                    x = model.clip_model.forward_head(x)
            if index < blocks:
                order = valid_BN[:, :n].sum(1, keepdim=True)
                pushes.append(model.push_at(index, x, valid_BN[:, n : n + 1], order_BN=order))
            maps[n] = x
        memory = merge_clips(pushes, valid_BN) if index < blocks else None
    logits = [model.clip_model.forward_head(x) for x in maps] if model.summarises else maps
    task.losses(torch.stack(logits, 1), batch).total().backward()
    return {key: p.grad.clone() for key, p in task.named_parameters() if p.grad is not None}


def with_dropout(task, rate):
    """Dropout before the classifier and inside a stage."""
    task.model.clip_model.dropout.p = rate
    clip_model = task.model.clip_model
    clip_model.layer2 = nn.Sequential(clip_model.layer2, nn.Dropout(rate))
    return task


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("norm", ["group", "frozen", "per_clip"])
def test_the_gradient_of_every_parameter(norm, places):
    grid = list(itertools.product(["tied", "separate"], ["gate", "residual"], ["logits", "prob", "clip"], [0.0, 0.3]))
    if places == "none":
        grid = [(None, None, "mix", 0.3)]
    elif norm == "frozen":  # the others' passes in evaluation mode: nothing new in all combinations
        grid = grid[::5]
    for value, infusion, aggregate, dropout in grid:
        memory = settings(PLACES[places], value=value, infusion=infusion) if places != "none" else None
        task = tiny_task(memory, norm="group" if norm == "group" else "batch", aggregate=aggregate).double()
        task = with_dropout(task, dropout)
        set_training_mode(task, "frozen" if norm == "frozen" else "train")
        batch = clip_batch([0, 1, 2], valid=MASK)
        before = {key: buffer.clone() for key, buffer in task.named_buffers()}
        torch.manual_seed(5)
        expected = one_graph(task, batch)
        after_one_graph = {key: buffer.clone() for key, buffer in task.named_buffers()}
        task.load_state_dict(before, strict=False)
        torch.manual_seed(5)
        ours, _, steps = backward(task, batch, "exact")
        assert_same(ours, expected, 1e-10)
        assert steps == 1
        for key, buffer in task.named_buffers():  # bit for bit: running statistics are updated once
            assert torch.equal(buffer, after_one_graph[key]), key


@pytest.mark.parametrize("interaction", ["avg", "max", "nl_dot", "nl_softmax"])
@pytest.mark.parametrize("places", ["last", "two"])
def test_other_interactions_equal_the_full_graph(interaction, places):
    positions = 3 if interaction == "nl_dot" else 0
    task = tiny_task(settings(PLACES[places], interaction=interaction, clip_pos=positions), aggregate="max").double()
    batch = clip_batch([0, 1, 2], valid=MASK)
    expected, losses, _ = backward(task, batch, "full")
    ours, own_losses, _ = backward(task, batch, "exact")
    assert_same(ours, expected, 1e-10)
    torch.testing.assert_close(own_losses.total(), losses.total(), rtol=1e-12, atol=0)


def test_batch_statistics_of_all_clips_together_are_another_function():
    task, batch = tiny_task(settings(("last",)), norm="batch").double(), clip_batch([0, 1, 2])
    set_training_mode(task, "train")
    joint, _, _ = backward(task, batch, "full")
    ours, _, _ = backward(task, batch, "exact")
    assert relative_error(ours, joint) > 0.01


class KeyClipTask(ClassificationTask):
    """Judges the top left corner of the middle clip alone; the others push, and their summaries hold nothing else."""

    every_clip_predicts = False

    @dataclass(frozen=True)
    class Summary:
        push: VideoState
        corners: tuple[Tensor, ...] = ()

    def __init__(self, task):
        super().__init__(task.model, task.task, task.num_classes)
        self.encoded = []

    def corners(self, x_BNCTHW, batch, clips):
        middle = batch.valid_BN.shape[1] // 2
        here = range(batch.valid_BN.shape[1])[clips]
        return (x_BNCTHW[:, here.index(middle), :, 0, 0, 0],) if middle in here else ()

    def encode(self, batch, clips=slice(None)):
        self.encoded.append(clips)
        clips_BNCTHW = self.inputs(batch, clips)
        x_BNCTHW = self.model.run_segment(0, clips_BNCTHW.flatten(0, 1)).unflatten(0, clips_BNCTHW.shape[:2])
        push = self.model.push_at(0, x_BNCTHW, batch.valid_BN[:, clips])
        return self.Summary(VideoState((push,)), self.corners(x_BNCTHW, batch, clips))

    def read(self, summary, memory, batch, clips=slice(None)):
        block = self.model.blocks()[0][1]
        maps = [corner_BD[:, None, :, None, None, None] for corner_BD in summary.corners]
        return tuple(self.model.head(block.infuse(block.pop_pooled(memory.places[0], x), x)) for x in maps)

    def finish(self, x_BNCTHW, batch, clips=slice(None)):
        corners = self.corners(x_BNCTHW, batch, clips)
        return tuple(self.model.head(corner_BD[:, None, :, None, None, None]) for corner_BD in corners)

    def judge(self, outputs, batch):
        (logits_B1K,) = itertools.chain.from_iterable(outputs)
        return self.losses(logits_B1K, batch, torch.ones_like(batch.valid_BN[:, :1]))


@pytest.mark.parametrize("places", ["last", "middle"])
def test_a_task_that_judges_one_clip_of_several(places):
    task = KeyClipTask(tiny_task(settings(PLACES[places]))).double()
    batch = clip_batch([0, 1, 2], clips=3, valid=torch.tensor([[True, True, True], [False, True, True], [True] * 3]))
    expected, losses, _ = backward(task, batch, "full")
    ours, own_losses, _ = backward(task, batch, "exact")
    assert_same(ours, expected, 1e-10)
    torch.testing.assert_close(own_losses.total(), losses.total(), rtol=1e-12, atol=0)
    if places == "last":  # context clips learn only through the memory, and they do
        assert task.encoded == [slice(None), *[slice(n, n + 1) for n in range(3)] * 2]
    with pytest.raises(ConfigError, match="KeyClipTask: clips that only push into the memory"):
        create_strategy(config.Strategy("multi_iteration"), nullcontext).check(task)


def test_a_real_network_in_single_precision():
    torch.manual_seed(0)
    model = VideoModel(create_model("r3d_18", num_classes=3), settings(("layer3", "last"), value="separate"))
    for parameter in model.memories.parameters():
        nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    task, batch = ClassificationTask(model, config.Task(), 3), clip_batch([0, 1], clips=2)
    set_training_mode(task, "frozen")
    expected, losses, _ = backward(task, batch, "full")
    ours, own_losses, _ = backward(task, batch, "exact")
    assert relative_error(ours, expected) < 1e-5
    torch.testing.assert_close(own_losses.total(), losses.total(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("places", [("last",), ("res3", "last")])
def test_two_pathways(places):
    torch.manual_seed(0)
    model = VideoModel(create_model("slowfast_4x16_50", num_classes=3, width=16), settings(places, value="separate"))
    model.clip_model.dropout.p = 0.0  # the strategies draw in another order
    for parameter in model.memories.parameters():
        nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    task = ClassificationTask(model, config.Task(), 3).double()
    clips = clip_batch([0, 1], clips=3)
    batch = replace(clips, clips_BNTCHW=clips.clips_BNTCHW.tile(1, 1, 4, 1, 4, 4))  # 16 frames of 32 x 32
    set_training_mode(task, "frozen")
    expected, losses, _ = backward(task, batch, "full")
    ours, own_losses, _ = backward(task, batch, "exact")
    assert_same(ours, expected, 1e-9)
    torch.testing.assert_close(own_losses.total(), losses.total(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("places", ["last", "two"])
def test_two_forwards_and_one_backward_of_a_stage_per_clip(places):
    task, batch = tiny_task(settings(PLACES[places])), clip_batch([0, 1], clips=5)
    forwards, backwards, alive = [], [], []
    stage = task.model.clip_model.stages["layer1"]

    def count(module, inputs, output):
        forwards.append(output.requires_grad)
        if output.requires_grad:
            alive.append(1)
            output.register_hook(lambda gradient: (backwards.append(1), alive.pop(), None)[-1])
            assert len(alive) == 1  # the graph of one clip, not of two

    stage.register_forward_hook(count)
    backward(task, batch, "exact")
    assert len(forwards) == 10
    assert sum(forwards) == len(backwards) == 5


def held_bytes(task, batch, name):
    """Largest number of bytes that autograd keeps besides the weights, views of one storage counted once."""
    held, peak, weights = {}, 0, {p.untyped_storage().data_ptr() for p in task.parameters()}

    class Kept:
        def __init__(self, tensor):
            self.tensor, self.key = tensor, tensor.untyped_storage().data_ptr()
            count, size = held.get(self.key, (0, tensor.untyped_storage().nbytes()))
            held[self.key] = (count + 1, size)
            nonlocal peak
            peak = max(peak, sum(size for key, (_, size) in held.items() if key not in weights))

        def __del__(self):
            count, size = held.pop(self.key)
            if count > 1:
                held[self.key] = (count - 1, size)

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        backward(task, batch, name)
    assert not held
    return peak


@pytest.mark.parametrize("places", ["last", "middle"])
def test_what_autograd_holds_does_not_grow_with_the_clips(places):
    task = tiny_task(settings(PLACES[places]))
    batches = {n: clip_batch([0, 1], clips=n) for n in (2, 16)}
    large = {n: replace(b, clips_BNTCHW=b.clips_BNTCHW.tile(1, 1, 1, 1, 4, 4)) for n, b in batches.items()}
    exact, full = ({n: held_bytes(task, batch, name) for n, batch in large.items()} for name in ("exact", "full"))
    assert exact[16] <= 1.05 * exact[2]
    assert full[16] >= 7 * full[2]


def test_frozen_parts_are_not_computed_again():
    task, batch = tiny_task(settings(("layer2", "last"))), clip_batch([0, 1])
    for name in ("layer1", "layer2"):
        task.model.clip_model.stages[name].requires_grad_(False)
    calls = []
    task.model.clip_model.stages["layer1"].register_forward_hook(lambda *_: calls.append(1))
    expected, _, _ = backward(task, batch, "full")
    calls.clear()
    ours, _, _ = backward(task, batch, "exact")
    assert_same(ours, expected, 1e-4)
    assert len(calls) == 6  # the block behind layer2 learns from its own push, so its input is needed again


def test_a_frozen_network_with_a_learning_head_makes_one_pass():
    task, batch = tiny_task(settings(("last",))), clip_batch([0, 1])
    task.model.requires_grad_(False)
    for parameter in task.head_parameters():
        parameter.requires_grad_(True)
    calls = []
    task.model.clip_model.stages["layer1"].register_forward_hook(lambda *_: calls.append(1))
    ours, _, _ = backward(task, batch, "exact")
    assert len(calls) == 3
    expected, _, _ = backward(task, batch, "full")
    assert_same(ours, expected, 1e-5)


def test_pixels_stay_on_the_host():
    batch = clip_batch([0, 1])
    placed = create_strategy(config.Strategy("exact"), nullcontext).place(batch, torch.device("meta"))
    assert placed.clips_BNTCHW is batch.clips_BNTCHW
    assert {placed.valid_BN.device.type, placed.target.labels["label"].device.type} == {"meta"}


def test_autocast_reaches_both_passes():
    task, batch = tiny_task(settings(("layer2",), value="separate")), clip_batch([0, 1, 2])

    def run(name):
        task.zero_grad()
        strategy = create_strategy(config.Strategy(name), lambda: torch.autocast("cpu", torch.bfloat16))
        strategy.backward(task, batch, lambda losses: losses.total(), lambda: None)
        return torch.cat([p.grad.flatten() for p in task.parameters()])

    assert torch.nn.functional.cosine_similarity(run("exact"), run("full"), dim=0) > 0.99


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo looks at stage inputs
@pytest.mark.parametrize("places", ["last", "two"])
def test_compiled_stages_give_the_eager_gradient(places):
    results = []
    for compiled in (False, True):
        task = with_dropout(tiny_task(settings(PLACES[places]), norm="batch"), 0.3)
        if compiled:
            task.model.compile_stages("aot_eager")
        set_training_mode(task, "train")
        torch.manual_seed(7)
        gradients, _, _ = backward(task, clip_batch([0, 1, 2], valid=MASK), "exact")
        results.append((gradients, task.state_dict()))
    (eager, eager_state), (compiled, compiled_state) = results
    assert relative_error(compiled, eager) < 1e-5
    assert compiled_state.keys() == eager_state.keys()
    for key, tensor in eager_state.items():  # statistics included: updated once
        torch.testing.assert_close(compiled_state[key], tensor, rtol=1e-5, atol=1e-6)


CAUSAL = {
    "last": {"dim": 8, "value": "separate", "clip_pos": 2},
    "last, residual": {"dim": 8, "infusion": "residual"},
    "max": {"interaction": "max"},
    "two": {"after": ("layer1", "last"), "dim": 8},
}


@pytest.mark.parametrize("name", CAUSAL)
def test_clips_that_read_the_past_are_trained_exactly(name):
    """The suffix sum of section 6: what a clip pushed is read by itself and by all later clips."""
    task = tiny_task(config.Memory(reads="past", **CAUSAL[name]), aggregate="mix").double()
    batch = clip_batch([0, 1, 2], clips=4, valid=torch.tensor([[True] * 4, [False, True, False, True], [True] * 4]))
    expected, losses, _ = backward(task, batch, "full")
    ours, own_losses, _ = backward(task, batch, "exact")
    assert_same(ours, expected, 1e-10)
    torch.testing.assert_close(own_losses.total(), losses.total(), rtol=1e-12, atol=0)
    model, clips = task.model.eval(), task.inputs(batch)
    with torch.no_grad():
        logits, _ = model(clips, None, batch.valid_BN)
        streamed, state = [], None
        for n in range(4):  # a stream says the same, clip by clip
            if n == 0:
                one, state = model(clips[:1, 0])
            else:
                one, state = model(clips[:1, n], state)
            streamed.append(one)
        torch.testing.assert_close(torch.stack(streamed, 1), logits[:1], rtol=1e-12, atol=1e-12)
        whole = VideoModel(model.clip_model, replace(model.memory, reads="all")).double().eval()
        whole.load_state_dict(model.state_dict())
        if len(model.places) == 1:  # the last clip has seen all
            torch.testing.assert_close(whole(clips)[0][:1, -1], logits[:1, -1], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(whole(clips)[0][:1, 0], logits[:1, 0], rtol=1e-3)
        order = torch.arange(4).expand(3, 4)
        chunks = [ClipChunk(clips[:, n : n + 2], batch.valid_BN[:, n : n + 2], order[:, n : n + 2]) for n in (0, 2)]
        torch.testing.assert_close(score_clips(model, lambda: chunks).shared_RNK[0], logits[0], rtol=1e-12, atol=1e-12)


def test_what_cannot_read_the_past_says_so():
    task = tiny_task(config.Memory(reads="past"))
    with pytest.raises(ConfigError, match="strategy.resident=2 and clip_parallel=1 must be 1"):
        create_strategy(config.Strategy("exact", resident=2), nullcontext).check(task)
    with pytest.raises(ConfigError, match="multi_iteration/accumulate reads all other clips"):
        create_strategy(config.Strategy("multi_iteration"), nullcontext).check(task)
    create_strategy(config.Strategy("multi_iteration", "step"), nullcontext).check(task)
    with pytest.raises(ValueError, match="reads='past' needs a memory of fixed size"):
        tiny_task(config.Memory(reads="past", interaction="nl_dot"))


@pytest.mark.parametrize("places", ["last", "two"])
def test_activation_checkpointing_in_one_graph_gives_the_same_gradient(places):
    """The other way to hold one clip's activations: every call of a segment computed anew while going backward."""
    task = with_dropout(tiny_task(settings(PLACES[places], value="separate"), aggregate="prob").double(), 0.3)
    batch = clip_batch([0, 1, 2], valid=MASK)
    torch.manual_seed(5)
    ours, _, _ = backward(task, batch, "exact")
    model = task.model
    original = model.run_segment
    model.run_segment = lambda index, x: checkpoint(original, index, x, use_reentrant=False)
    torch.manual_seed(5)
    assert_same(ours, one_graph(task, batch), 1e-12)


@pytest.mark.parametrize("places", ["last", "two"])
def test_micro_batches_and_resident_clips_are_the_same_gradient(places):
    task, batch = tiny_task(settings(PLACES[places])).double(), clip_batch([0, 1, 2, 3], clips=5)
    expected, _, _ = backward(task, batch, "full")
    for resident in (2, 3, 8):
        task.zero_grad()
        strategy = create_strategy(config.Strategy("exact", resident=resident), nullcontext)
        for share in (slice(0, 2), slice(2, 4)):
            part = clip_batch([0, 1, 2, 3][share], clips=5)
            strategy.backward(task, part, lambda losses: losses.total() / 2, lambda: None)
        assert_same({key: p.grad for key, p in task.named_parameters()}, expected, 1e-10)


@pytest.mark.parametrize("places", ["last", "two"])
def test_erased_and_blended_clips_are_the_same_in_both_passes(places):
    """Noise and blends travel with the batch, so one graph and two passes are the gradient of one function."""
    task = tiny_task(settings(PLACES[places]), norm="group").double()
    erased = (Erased(0, 0, 1, 1, 4, 3, seed=1), Erased(2, 1, 2, 0, 3, 5, seed=2), Erased(1, 2, 0, 0, 2, 2, seed=3))
    shares = torch.tensor([0.7, 1.0, 0.7], dtype=torch.float64)
    batch = replace(
        clip_batch([0, 1, 2], valid=MASK),
        erased=erased,
        blend=Blend(torch.tensor([2, 1, 0]), shares, torch.zeros(3, 4)),
    )
    ours, losses, _ = backward(task, batch, "exact")
    task.zero_grad()
    expected, whole, _ = backward(task, batch, "full")
    assert_same(ours, expected, 1e-10)
    torch.testing.assert_close(losses.total(), whole.total())
    plain, _, _ = backward(task, clip_batch([0, 1, 2], valid=MASK), "full")
    assert relative_error(plain, expected) > 0.05
