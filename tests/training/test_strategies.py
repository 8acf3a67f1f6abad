"""Strategies: gradients against hand-made graphs and golden files, arithmetic, steps, BatchNorm, dropout."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.parity import collaborative_memory as parity
from tests.parity.golden import load_golden
from tests.training.tiny import clip_batch, tiny_task
from wholereel import config
from wholereel.batches import Audio, Boxes, ClipBatch, Erased, Target
from wholereel.errors import ConfigError
from wholereel.tasks.classification import ClassificationTask
from wholereel.training.distributed import Ranks, mean_over_ranks
from wholereel.training.norms import SyncedBatchNorm, running_statistics_kept, set_training_mode
from wholereel.training.strategies import STRATEGIES, create_strategy
from wholereel.training.strategies.multi_iteration import _valid_first

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "collaborative_memory").glob("e2e_*.npz"))
MEMORY = config.Memory(dim=8, value="separate")
MASK = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])


def strategy(name, variant="accumulate"):
    return create_strategy(config.Strategy(name, variant), nullcontext)


def backward(task, batch, name, variant="accumulate"):
    """Gradients by parameter, the losses, and how often an optimiser step was made."""
    steps = []
    task.zero_grad()
    losses, carry = strategy(name, variant).backward(
        task, batch, lambda losses: losses.total(), lambda: steps.append(1)
    )
    assert carry is None
    gradients = {
        key: parameter.grad.clone() for key, parameter in task.named_parameters() if parameter.grad is not None
    }
    return gradients, losses, len(steps)


def assert_same(ours, theirs, tolerance=1e-12):
    assert ours.keys() == theirs.keys()
    for key, gradient in theirs.items():
        scale = float(gradient.abs().max()) or 1.0
        assert float((ours[key] - gradient).abs().max()) <= tolerance * scale, key


def relative_error(ours, theirs):
    difference = math.sqrt(sum(float((ours[key] - theirs[key]).square().sum()) for key in theirs))
    return difference / math.sqrt(sum(float(gradient.square().sum()) for gradient in theirs.values()))


def by_hand(task, batch, *, truncated):
    """One graph clip by clip; with `truncated`, clip n sees the contributions and logits of the others as constants."""
    task.zero_grad()
    model, clips = task.model, task.inputs(batch)
    count = clips.shape[1]

    def memory(n):
        states = []
        for m in range(count):
            valid = batch.valid_BN[:, m : m + 1]
            x = clips[:, m]
            for name in model.segments[0]:
                x = model.clip_model.stages[name](x)
            pushed = model.memories["last"].push(x[:, None], valid)
            states.append(pushed.detach() if truncated and m != n else pushed)
        total = states[0]
        for state in states[1:]:
            total = total.merge(state)
        return total

    def logits(n):
        x = clips[:, n]
        for name in model.segments[0]:
            x = model.clip_model.stages[name](x)
        block = model.memories["last"]
        popped = block.pop(memory(n), x[:, None])
        return model.clip_model.forward_head(block.infuse(popped, x[:, None])[:, 0])

    if not truncated:
        task.losses(torch.stack([logits(n) for n in range(count)], 1), batch).total().backward()
    else:
        constants = torch.stack([logits(n).detach() for n in range(count)], 1)
        for n in range(count):
            mixed = torch.cat([constants[:, :n], logits(n)[:, None], constants[:, n + 1 :]], 1)
            task.losses(mixed, batch).total().backward()
    return {key: parameter.grad.clone() for key, parameter in task.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("aggregate", ["logits", "prob", "mix"])
def test_full_is_the_hand_made_loop_with_masks(aggregate):
    task, batch = tiny_task(MEMORY, aggregate=aggregate).double(), clip_batch([0, 1, 2], valid=MASK)
    expected = by_hand(task, batch, truncated=False)
    ours, losses, steps = backward(task, batch, "full")
    assert_same(ours, expected)
    assert steps == 1
    assert all(part.count == 3 for part in losses.parts.values())


@pytest.mark.parametrize("aggregate", ["logits", "prob", "max", "clip", "mix"])
def test_accumulate_is_the_truncated_gradient_and_not_the_exact_one(aggregate):
    task, batch = tiny_task(MEMORY, aggregate=aggregate).double(), clip_batch([0, 1, 2], valid=MASK)
    ours, losses, steps = backward(task, batch, "multi_iteration")
    assert_same(ours, by_hand(task, batch, truncated=True), 1e-10)
    assert steps == 1
    exact, exact_losses, _ = backward(task, batch, "full")
    torch.testing.assert_close(losses.total(), exact_losses.total())
    assert relative_error(ours, exact) > 0.01


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_gradients(path):
    golden = load_golden(path)
    model = parity._video_model(golden, parity._settings(golden), torch.float64)
    clips = torch.from_numpy(parity._normal(golden.meta["seed"] + 1, parity._sizes(golden, "cin"))).double()
    target = torch.from_numpy(golden.arrays["target"])

    class GoldenTask(ClassificationTask):
        def inputs(self, batch, asked=None):
            return clips if asked is None else clips[:, asked]

    task = GoldenTask(model, config.Task(multi_label=target.ndim == 2), golden.meta["num_classes"])
    batch = ClipBatch(
        clips_BNTCHW=torch.zeros(0), seconds_BNT=torch.zeros(0), valid_BN=torch.ones(clips.shape[:2], dtype=torch.bool),
        target=Target({"label": target}), ids=("a",) * len(clips),
    )  # fmt: skip
    for prefix, name in (("grad_", "full"), ("truncgrad_", "multi_iteration")):
        _, losses, _ = backward(task, batch, name)
        assert float(losses.total()) == pytest.approx(float(golden.arrays["loss"]), rel=1e-12)
        for key, gradient in parity._end_gradients(model).items():
            expected = torch.from_numpy(golden.arrays[prefix + key])
            torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "memory",
    [
        None,
        config.Memory(dim=8, after=("layer1", "last")),
        config.Memory(dim=8, interaction="nl_dot", infusion="residual"),
        config.Memory(dim=8, clip_pos=4),
        config.Memory(dim=8, interaction="max"),
    ],
    ids=["none", "two places", "tokens", "clip_pos", "max"],
)
def test_accumulate_and_step_serve_every_memory(memory):
    task, batch = tiny_task(memory).double(), clip_batch([0, 1, 2], valid=MASK)
    ours, losses, _ = backward(task, batch, "multi_iteration")
    exact, exact_losses, _ = backward(task, batch, "full")
    torch.testing.assert_close(losses.total(), exact_losses.total())
    if memory is None:
        assert_same(ours, exact, 1e-10)
    else:
        assert 0.001 < relative_error(ours, exact) < 1.0
    assert backward(task, batch, "multi_iteration", "step")[2] == 3


def test_one_clip_is_the_full_gradient():
    task, batch = tiny_task(MEMORY).double(), clip_batch([0, 1], clips=1)
    exact = backward(task, batch, "full")[0]
    assert_same(backward(task, batch, "multi_iteration")[0], exact)
    assert_same(backward(task, batch, "multi_iteration", "step")[0], exact)


@pytest.mark.parametrize("aggregate", ["logits", "clip"])
def test_step_makes_an_optimiser_step_per_clip_with_what_came_before_constant(aggregate):
    task, twin = (tiny_task(MEMORY, aggregate=aggregate).double() for _ in range(2))
    batch = clip_batch([0, 1, 2])
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (task, twin)]

    def step():
        optimizers[0].step()
        optimizers[0].zero_grad()

    strategy("multi_iteration", "step").backward(task, batch, lambda losses: losses.total(), step)
    clips, state, logits = twin.inputs(batch), None, []
    for n in range(3):
        own, pushed = twin.model(clips[:, n], state)
        loss_of = [own[:, None]] if aggregate == "clip" else [*logits, own[:, None]]
        valid = torch.ones(3, len(loss_of), dtype=torch.bool)
        twin.losses(torch.cat(loss_of, 1), batch, valid).total().backward()
        optimizers[1].step()
        optimizers[1].zero_grad()
        state = pushed.detach()
        logits.append(own.detach()[:, None])
    for ours, theirs in zip(task.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_step_leaves_out_videos_that_have_no_further_clip():
    """A masked clip must not matter, wherever it stands: the same steps as with the valid clips moved to the front."""
    valid = torch.tensor([[False, True, True], [True, True, True]])
    batch = clip_batch([0, 1], valid=valid)
    front = clip_batch([0, 1], valid=torch.tensor([[True, True, False], [True, True, True]]))
    front.clips_BNTCHW[0] = front.clips_BNTCHW[0].roll(-1, dims=0)
    results = []
    for each in (batch, front):
        task = tiny_task(MEMORY).double()
        _, losses, steps = backward(task, each, "multi_iteration", "step")
        assert steps == 3
        assert losses.parts["video"].count == 5
        results.append({key: parameter.grad for key, parameter in task.named_parameters()})
    assert_same(*results)


class OneClipPredicts(ClassificationTask):
    """Stands for detection: the other clips are context."""

    every_clip_predicts = False


@pytest.mark.parametrize("variant", ["step", "accumulate"])
def test_a_truncated_gradient_is_refused_where_clips_only_push(variant):
    task = tiny_task(MEMORY)
    strategy("multi_iteration", variant).check(task)
    context = OneClipPredicts(task.model, task.task, task.num_classes)
    for exact in ("full", "batch_reduction"):
        strategy(exact).check(context)
    with pytest.raises(ConfigError, match=r"cannot serve OneClipPredicts: .* \(context clips\) get no gradient at all"):
        strategy("multi_iteration", variant).check(context)


@pytest.mark.parametrize(
    "memory", [None, MEMORY, config.Memory(dim=8, interaction="max")], ids=["none", "assoc", "max"]
)
@pytest.mark.parametrize("aggregate", ["logits", "prob", "max", "clip", "mix"])
@pytest.mark.parametrize("name", ["full", "accumulate", "step"])
def test_clips_that_no_video_has_change_nothing(name, aggregate, memory):
    task = tiny_task(memory, aggregate=aggregate).double()
    tight, none = clip_batch([0, 1, 2], clips=3, valid=MASK), torch.zeros(3, 1, dtype=torch.bool)
    pixels, seconds = (part[:, [0, 1, 2, 2]] for part in (tight.clips_BNTCHW, tight.seconds_BNT))
    wide = replace(tight, clips_BNTCHW=pixels, seconds_BNT=seconds, valid_BN=torch.cat([MASK, none], 1))
    settings = config.Strategy("full") if name == "full" else config.Strategy("multi_iteration", name)
    gradients = []
    for batch in (tight, wide):
        task.zero_grad()
        create_strategy(settings, nullcontext).backward(
            task, batch, lambda losses: mean_over_ranks(losses, Ranks()), lambda: None
        )
        gradients.append({key: parameter.grad.clone() for key, parameter in task.named_parameters()})
    assert_same(gradients[1], gradients[0])


@pytest.mark.parametrize("memory", [None, MEMORY])
@pytest.mark.parametrize("variant", ["step", "accumulate"])
def test_only_one_clip_at_a_time_becomes_floating_point(variant, memory, monkeypatch):
    task, batch, clips = tiny_task(memory), clip_batch([0, 1], clips=4), []
    inputs = task.inputs

    def counted(batch, clips_asked=None):
        made = inputs(batch, clips_asked)
        clips.append(made.shape[1])
        return made

    monkeypatch.setattr(task, "inputs", counted)
    backward(task, batch, "multi_iteration", variant)
    assert clips == [1] * (4 if variant == "step" else 8)


@pytest.mark.parametrize(("clips", "videos"), [(1, 8), (2, 4), (3, 3), (4, 2), (5, 2), (16, 1), (100, 1)])
def test_batch_reduction_arithmetic(clips, videos):
    plan = strategy("batch_reduction").plan(8, clips)
    assert plan == (videos, videos / 8)
    assert strategy("full").plan(8, clips) == (8, 1.0)
    assert strategy("multi_iteration", "step").plan(8, clips) == (8, 1 / clips)
    assert strategy("multi_iteration", "accumulate").plan(8, clips) == (8, 1.0)


def test_running_statistics_are_updated_once_per_clip():
    task, batch = tiny_task(MEMORY, norm="batch"), clip_batch([0, 1, 2, 3])
    twin = tiny_task(MEMORY, norm="batch")
    for each in (task, twin):
        set_training_mode(each, "train")
    backward(task, batch, "multi_iteration")
    with torch.no_grad():
        for clip in twin.inputs(batch).unbind(1):
            twin.model(clip)
    buffers = dict(task.named_buffers())
    assert int(buffers["model.clip_model.stem.norm.num_batches_tracked"]) == 3
    for name, buffer in twin.named_buffers():
        assert torch.equal(buffers[name], buffer), name
    before = {name: buffer.clone() for name, buffer in task.named_buffers()}
    with running_statistics_kept(task), torch.no_grad():
        task.model(twin.inputs(batch))
    assert all(torch.equal(buffer, before[name]) for name, buffer in task.named_buffers())


def test_frozen_norm_keeps_statistics_and_trains_scales():
    task, batch = tiny_task(MEMORY, norm="batch"), clip_batch([0, 1, 2])
    set_training_mode(task, "frozen")
    before = {name: buffer.clone() for name, buffer in task.named_buffers()}
    gradients, _, _ = backward(task, batch, "full")
    assert all(torch.equal(buffer, before[name]) for name, buffer in task.named_buffers())
    assert gradients["model.clip_model.stem.norm.weight"].abs().sum() > 0


@pytest.mark.parametrize("after", [("last",), ("layer1", "last")], ids=["summaries", "maps"])
def test_dropout_draws_the_same_numbers_in_both_passes(after):
    """With equal draws the other clips' constant logits are those that the clips themselves have with gradient."""
    task = tiny_task(config.Memory(dim=8, after=after), dropout=0.5).double().train()
    batch, seen = clip_batch([0, 1, 2]), []
    original = task.losses

    def losses(clip_logits_BNK, batch, valid_BN=None):
        seen.append(clip_logits_BNK.detach())
        return original(clip_logits_BNK, batch, valid_BN)

    task.losses = losses
    state = torch.get_rng_state()
    backward(task, batch, "multi_iteration")
    assert len(seen) == 3
    for logits in seen[1:]:
        torch.testing.assert_close(logits, seen[0], rtol=0, atol=1e-12)
    after_first = torch.get_rng_state()
    assert not torch.equal(after_first, state)  # the next batch draws other numbers
    backward(task, batch, "multi_iteration")
    assert not torch.allclose(seen[3], seen[0])


def test_labels_and_sound_of_clips_move_with_them():
    batch = clip_batch([0, 1, 2], valid=MASK)
    numbers = torch.arange(9.0).view(3, 3)
    sound = Audio(16000, present_BN=MASK, wave_BNCS=numbers[..., None, None])
    boxes = Boxes(torch.zeros(2, 4), torch.tensor([1, 1]), torch.tensor([1, 2]), torch.zeros(2))
    labels = {"video": torch.tensor([0, 1, 2]), "several": torch.eye(3), "clip": numbers.long()}
    moved = _valid_first(replace(batch, audio=sound, target=Target(labels, boxes=boxes)))
    expected = torch.tensor([[0, 1, 2], [3, 5, 4], [7, 6, 8]])
    assert moved.valid_BN.tolist() == [[True, True, True], [True, True, False], [True, False, False]]
    assert torch.equal(moved.target.labels["clip"], expected)
    assert torch.equal(moved.audio.wave_BNCS[..., 0, 0], expected.float())
    assert torch.equal(moved.target.labels["several"], torch.eye(3))
    assert moved.target.boxes.clip_R.tolist() == [2, 1]
    assert torch.equal(moved.clips_BNTCHW[1, 1], batch.clips_BNTCHW[1, 2])


@pytest.mark.parametrize("variant", ["step", "accumulate"])
def test_clips_with_labels_of_their_own(variant):
    task, batch = tiny_task(MEMORY, aggregate="clip").double(), clip_batch([0, 1, 2], valid=MASK)
    same = replace(batch, target=Target({"label": batch.target.labels["label"][:, None].expand(3, 3)}))
    expected, _, _ = backward(task, batch, "multi_iteration", variant)
    ours, _, _ = backward(task, same, "multi_iteration", variant)
    assert_same(ours, expected)


def test_gradients_are_declared_and_unknown_names_are_refused():
    declared = {
        (name, variant): build(nullcontext).gradient
        for name, variants in STRATEGIES.items()
        for variant, build in variants.items()
    }
    assert declared == {
        ("full", None): "exact",
        ("exact", None): "exact",
        ("batch_reduction", None): "exact",
        ("multi_iteration", "step"): "truncated",
        ("multi_iteration", "accumulate"): "truncated",
        ("sequential", None): "truncated",
    }
    with pytest.raises(ConfigError, match="no strategy 'fast'. Strategies: full, exact, batch_reduction, multi_iter"):
        strategy("fast")
    with pytest.raises(ConfigError, match="no variant 'both'. Variants: step, accumulate"):
        strategy("multi_iteration", "both")


def test_synced_statistics_of_a_single_value_are_refused(monkeypatch):
    """Their variance would be infinite: one video of one position on one process, and nothing on the others."""
    monkeypatch.setattr("wholereel.training.norms._summed", lambda tensor, group: tensor)
    norm = SyncedBatchNorm(3).train()
    with pytest.raises(ValueError, match=r"more than one value per channel .* got \(1, 3, 1\); .*optim.norm=frozen"):
        norm(torch.zeros(1, 3, 1))
    assert torch.isfinite(norm.running_var).all()
    norm(torch.zeros(1, 3, 2))
    assert torch.isfinite(norm.running_var).all()
    assert torch.isfinite(norm.eval()(torch.zeros(1, 3, 1))).all()


def test_clips_in_another_order_keep_their_erased_rectangles():
    valid = torch.tensor([[False, True, True], [True, False, True]])
    erased = (Erased(0, 1, 1, 1, 3, 4, seed=1), Erased(1, 2, 0, 2, 4, 4, seed=2), Erased(1, 1, 5, 5, 2, 2, seed=3))
    task, batch = tiny_task(), replace(clip_batch([0, 1], valid=valid), erased=erased)
    before, after = task.inputs(batch), task.inputs(_valid_first(batch))
    for row, order in enumerate(([1, 2, 0], [0, 2, 1])):
        assert torch.equal(after[row], before[row, order])
