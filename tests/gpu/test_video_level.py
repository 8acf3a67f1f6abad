"""Strategies on a GPU: gradients of `exact` against one graph, precisions, dropout, where clips are, the loop."""

from __future__ import annotations

import inspect
import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

pytest.importorskip("av", reason="tasks read videos")

from tests.training.tiny import CLASSES, StopHere, Stopping, TinyLoader, clip_batch, tiny_task
from wholereel import config
from wholereel.batches import Losses
from wholereel.errors import ConfigError
from wholereel.inference.predictor import precision_context
from wholereel.models.registry import MODELS, create_model, list_models
from wholereel.models.video_model import VideoModel, merge_clips
from wholereel.tasks.classification import ClassificationTask
from wholereel.training.checkpoint import load_checkpoint
from wholereel.training.distributed import Ranks
from wholereel.training.fit import train_task
from wholereel.training.norms import set_training_mode
from wholereel.training.randomness import draw_seeds, get_random_state, replayed, seeded
from wholereel.training.strategies import create_strategy

DEVICES = ["cuda"]  # each of these runs on "cpu", too
PLACES = {"last": ("last",), "two": ("layer1", "last")}
MASK = torch.tensor([[True, True, True], [True, False, True]])


def strategy_of(name, autocast=nullcontext, **options):
    return create_strategy(config.Strategy(name, **options), autocast)


def gradients(task, batch, name, *, autocast=nullcontext, factor=1.0, **options):
    """By parameter, in float64 on the CPU."""
    strategy = strategy_of(name, autocast, **options)
    task.zero_grad()
    placed = strategy.place(batch, next(task.parameters()).device)
    strategy.backward(task, placed, lambda losses: losses.total() * factor, lambda: None)
    return {key: p.grad.double().cpu() / factor for key, p in task.named_parameters() if p.grad is not None}


def worst(ours, theirs):
    """The largest relative L2 difference of a parameter's gradient, and whose it is."""
    assert ours.keys() == theirs.keys()
    return max(
        (float((ours[key] - theirs[key]).norm() / theirs[key].norm().clamp(min=1e-12)), key)
        for key in theirs
        if theirs[key].norm() > 1e-9  # of a bias in front of a norm there is rounding alone
    )


def cosine(ours, theirs):
    flat = [torch.cat([gradient.flatten() for gradient in each.values()]) for each in (ours, theirs)]
    return float(torch.nn.functional.cosine_similarity(*flat, dim=0))


def two_pathways(memory):
    """SlowFast-50 with few channels, statistics frozen."""
    torch.manual_seed(0)
    model = VideoModel(create_model("slowfast_8x8_50", num_classes=len(CLASSES), width=8), memory)
    for parameter in model.memories.parameters():
        nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    model.clip_model.dropout.p = 0.0
    return ClassificationTask(model, config.Task(), len(CLASSES))


def film(videos=2, clips=3, frames=32, side=32):
    batch = clip_batch(list(range(videos)), clips=clips)
    shape = (videos, clips, frames, 3, side, side)
    pixels = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return replace(batch, clips_BNTCHW=pixels, seconds_BNT=torch.zeros(videos, clips, frames, dtype=torch.float64))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_the_gradient_of_every_parameter(device, places, norm):
    memory = config.Memory(after=PLACES[places], dim=8, value="separate")
    task = tiny_task(memory, norm="group" if norm == "group" else "batch", name="tiny_r3d").to(device)
    set_training_mode(task, "frozen")
    batch = clip_batch([0, 1], valid=MASK)
    assert worst(gradients(task, batch, "exact"), gradients(task, batch, "full")) < (1e-4, "")
    assert worst(gradients(task, batch, "exact", resident=2), gradients(task, batch, "full")) < (1e-4, "")
    task.double()
    assert worst(gradients(task, batch, "exact"), gradients(task, batch, "full")) < (1e-10, "")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("after", [("last",), ("res3", "last")], ids="+".join)
def test_two_pathways(device, after):
    task = two_pathways(config.Memory(after=after, dim=8, value="separate")).to(device)
    set_training_mode(task, "frozen")
    batch = film(1, 2)
    assert worst(gradients(task.double(), batch, "exact"), gradients(task, batch, "full")) < (1e-10, "")
    task.float()
    assert worst(gradients(task, batch, "exact"), gradients(task, batch, "full")) < (1e-4, "")


@pytest.mark.parametrize("device", DEVICES)
def test_both_passes_draw_the_same_dropout(device):
    """Against one graph that draws for each clip what `exact` draws for it."""
    task = tiny_task(config.Memory(dim=8, value="separate"), name="tiny_r3d").double().to(device)
    model = task.model
    model.clip_model.layer2 = nn.Sequential(model.clip_model.layer2, nn.Dropout(0.3))
    batch = clip_batch([0, 1]).to(device)
    where = torch.device(device)
    states = get_random_state(where)
    ours = gradients(task, batch, "exact")
    other = gradients(task, batch, "exact")
    with replayed(states, where):
        again = gradients(task, batch, "exact")
    assert worst(again, ours) < (1e-12, "")
    assert worst(other, ours) > (1e-2, "")
    with replayed(states, where):
        task.zero_grad()
        seeds, maps = draw_seeds(3), []
        for n in range(3):
            with seeded(seeds[n], where):
                maps.append(model.run_segment(0, task.inputs(batch)[:, n]))
        memory = merge_clips([model.push_at(0, x) for x in maps], batch.valid_BN)
        logits = [model.clip_model.forward_head(model.infuse_at(0, x, memory)) for x in maps]
        task.losses(torch.stack(logits, 1), batch).total().backward()
    theirs = {key: p.grad.double().cpu() for key, p in task.named_parameters() if p.grad is not None}
    assert worst(ours, theirs) < (1e-10, "")


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_keeps_the_direction(device):
    task = tiny_task(config.Memory(dim=8, value="separate"), name="tiny_r3d").to(device)
    batch = clip_batch([0, 1], valid=MASK)
    ours, theirs = (
        gradients(task, batch, name, autocast=lambda: precision_context("bf16", torch.device(device)))
        for name in ("exact", "full")
    )
    assert cosine(ours, theirs) > 0.999
    assert cosine(ours, gradients(task, batch, "full")) > 0.99
    strategy = strategy_of("exact", lambda: precision_context("bf16", torch.device(device)))
    with strategy.autocast(), torch.no_grad():
        assert task.encode(batch.to(device)).push.places[0].sum_BPV.dtype == torch.float32


@pytest.mark.parametrize("device", DEVICES)
def test_a_factor_on_the_loss_goes_through_both_passes_in_float16(device):
    """What loss scaling does: gradients that float16 would lose below its smallest number come out."""
    task = tiny_task(config.Memory(dim=8, value="separate"), name="tiny_r3d").to(device)
    batch, small = clip_batch([0, 1]), 1e-6
    half = {"autocast": lambda: precision_context("fp16", torch.device(device))}
    plain = gradients(task, batch, "exact")
    scaled = gradients(task, batch, "exact", factor=2.0**12, **half)
    assert cosine(scaled, plain) > 0.99
    lost, kept = (gradients(task, batch, "exact", factor=factor, **half) for factor in (small, small * 2.0**16))
    assert cosine(kept, plain) > cosine(lost, plain)


@pytest.mark.parametrize("videos", [1, 2])
def test_one_clip_is_on_the_device_and_the_graph_of_one(videos):
    """The allocator's peak of 16 clips is that of one, and the pixels stay in host memory."""
    task = two_pathways(config.Memory(dim=8, value="separate")).cuda()
    set_training_mode(task, "frozen")
    strategy, device, peaks = strategy_of("exact"), torch.device("cuda"), {}
    for clips in (1, 1, 16):  # the first run warms up
        batch = strategy.place(film(videos, clips).pin_memory(), device)
        assert batch.clips_BNTCHW.device.type == "cpu"
        assert batch.valid_BN.device.type == "cuda"
        task.zero_grad(set_to_none=False)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        strategy.backward(task, batch, Losses.total, lambda: None)
        peaks[clips] = torch.cuda.max_memory_allocated() - before
    assert peaks[16] <= 1.10 * peaks[1]
    assert peaks[1] > film(1, 1).clips_BNTCHW.nbytes


def test_pieces_of_several_videos_arrive_whole():
    task, batch = tiny_task(config.Memory(dim=8)).cuda(), clip_batch([0, 1])
    for given in (batch, batch.pin_memory()):
        for part in (slice(1, 2), slice(0, 2), None):
            assert torch.equal(task.inputs(given, part), task.inputs(given.to("cuda"), part))


def test_a_step_of_exact_makes_the_host_wait_for_nothing():
    device = torch.device("cuda")
    task = two_pathways(config.Memory(dim=8, value="separate")).to(device)
    set_training_mode(task, "frozen")
    strategy = strategy_of("exact", lambda: precision_context("bf16", device))
    optimizer = torch.optim.SGD(task.parameters(), lr=1e-3, momentum=0.9)
    batch = film(2, 3).pin_memory()

    def step():
        strategy.backward(task, strategy.place(batch, device), Losses.total, optimizer.step)
        optimizer.zero_grad()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def small(name):
    """A model of the table, of few channels where it can be, with a memory where it has none; and a step of it."""
    kind = MODELS[name].kind
    options = {"width": 8} if kind == "clip" and "width" in inspect.signature(MODELS[name].build).parameters else {}
    try:
        made = create_model(name, num_classes=5, **options)
    except (TypeError, ConfigError):
        made = create_model(name, num_classes=5)
    info, side = made.info, made.info.crop if kind != "clip" else 64
    clip = torch.randn(2, 3, info.frames, side, side, device="cuda")
    if kind == "memory":
        made = made.cuda().train()
        state, starts = made.init_state(2), torch.tensor([True, False], device="cuda")
        return made, lambda: made(clip, state.reset(starts))[0]
    model = VideoModel(made, config.Memory(value="separate")).cuda().train()
    set_training_mode(model, "frozen")
    valid = torch.ones(2, 2, dtype=torch.bool, device="cuda")
    return model, lambda: model(torch.stack([clip, clip], 1), None, valid)[0]


LARGE = ("101", "152", "_24", "2_l", "2_b", "1_b")
REGISTRY = [name for name in list_models() if not name.endswith(LARGE)]


@pytest.mark.parametrize("name", REGISTRY)
def test_no_model_makes_the_host_wait(name):
    """Forward and backward in bfloat16, once for what is made once, then with every wait an error."""
    model, step = small(name)
    for waiting in ("default", "error"):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode(waiting)
        try:
            with precision_context("bf16", torch.device("cuda")):
                loss = step().float().sum()
            loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        model.zero_grad()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("kind", "places", "resident"), [
    ("group", "last", 1), ("group", "two", 1), ("frozen", "two", 1), ("frozen", "last", 2), ("pathways", "last", 1),
])  # fmt: skip
def test_replayed_graphs_have_the_same_gradient(precision, kind, places, resident):
    """Over two steps with an update in between, which the graphs must see."""
    memory, found = config.Memory(after=PLACES[places], dim=8, value="separate"), {}
    for graphs in (False, True):
        norm = "group" if kind == "group" else "batch"
        task = two_pathways(memory) if kind == "pathways" else tiny_task(memory, norm=norm, name="tiny_r3d")
        task.cuda()
        set_training_mode(task, "frozen")
        batch = film(2, 3) if kind == "pathways" else clip_batch([0, 1], valid=MASK)
        strategy = strategy_of(
            "exact", lambda: precision_context(precision, torch.device("cuda")), resident=resident, graphs=graphs
        )
        found[graphs] = []
        for _ in range(2):
            task.zero_grad()
            strategy.backward(task, strategy.place(batch, torch.device("cuda")), Losses.total, lambda: None)
            found[graphs].append({k: p.grad.double().cpu() for k, p in task.named_parameters() if p.grad is not None})
            with torch.no_grad():
                for parameter in task.parameters():
                    parameter.mul_(0.9)
    for eager, replayed_ in zip(found[False], found[True], strict=True):
        if precision == "fp32":
            assert worst(replayed_, eager) < (1e-4, "")
        else:
            assert cosine(replayed_, eager) > 0.999
    assert cosine(found[True][0], found[True][1]) < 0.99999


def test_replayed_graphs_make_the_host_wait_for_nothing_and_hold_one_clip():
    device = torch.device("cuda")
    task = two_pathways(config.Memory(dim=8, value="separate")).to(device)
    set_training_mode(task, "frozen")
    strategy = strategy_of("exact", lambda: precision_context("bf16", device), graphs=True)
    peaks = {}
    for clips in (1, 1, 16):  # the first run captures
        batch = strategy.place(film(1, clips).pin_memory(), device)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_sync_debug_mode("error" if peaks else "default")
        try:
            strategy.backward(task, batch, Losses.total, lambda: None)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        task.zero_grad()
        peaks[clips] = torch.cuda.max_memory_allocated()
    assert peaks[16] <= 1.10 * peaks[1]


def test_random_numbers_cannot_be_replayed():
    task = tiny_task(config.Memory(dim=8, value="separate"), name="tiny_r3d").cuda().train()
    task.model.clip_model.layer2 = nn.Sequential(task.model.clip_model.layer2, nn.Dropout(0.3))
    with pytest.raises(ConfigError, match="draw random numbers"):
        gradients(task, clip_batch([0, 1]), "exact", graphs=True)


@pytest.mark.filterwarnings("default")
def test_compiled_stages_have_the_same_gradient():
    task = tiny_task(config.Memory(dim=8, value="separate"), name="tiny_r3d").cuda()
    batch = clip_batch([0, 1])
    expected = gradients(task, batch, "exact")
    task.model.compile_stages()
    assert worst(gradients(task, batch, "exact"), expected) < (1e-4, "")


TRAIN = config.Train(
    model=config.Model("tiny2d", options={"width": 8}, memory=config.Memory(dim=8)),
    data=config.Data(clips=config.Clips(count=3, frames=4)),
    optim=config.Optim(lr=0.05, warmup=1, clip_norm=5.0, ema=0.9),
    epochs=3,
    batch=4,
    checkpoint_minutes=0.0,
)


def run(directory, train, device, **options):
    task = tiny_task(train.model.memory).to(device)
    strategy = create_strategy(train.strategy, lambda: precision_context(train.precision, torch.device(device)))
    train_task(
        task, strategy, options.pop("loader", TinyLoader()), train, directory, classes=CLASSES, ranks=Ranks(),
        sample_ids=["a", "b"], device=torch.device(device), log_every=1, **options,
    )  # fmt: skip
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return task, [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_loop_trains_and_a_checkpoint_goes_on_elsewhere(tmp_path, device, precision):
    """Three epochs on the device, a fourth on the CPU."""
    train = replace(TRAIN, precision=precision)
    with pytest.raises(StopHere):
        run(tmp_path, train, device, loader=Stopping(stop=(1, 2)))
    task, losses = run(tmp_path, train, device, resume=True)
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.dtype == torch.float32 and p.device.type == device for p in task.parameters())
    saved = load_checkpoint(tmp_path / "checkpoint.pt")
    assert ("cuda" in saved["random"]) == (device == "cuda")
    longer = replace(train, epochs=4, precision="fp32" if precision == "fp16" else precision)
    if longer.precision == precision:
        elsewhere, more = run(tmp_path, longer, "cpu", resume=True, allow_changes=True)
        assert len(more) > len(losses)
        assert all(bool(p.isfinite().all()) for p in elsewhere.parameters())
