"""MeMViT: sizes and costs, lists against fixed shapes, rows apart, gradients, one graph, export."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import psutil
import pytest
import torch
from torch import Tensor, nn

from tests.models.counting import multiply_adds
from wholereel.models import create_model
from wholereel.models.memvit import MeMViT, memvit_config
from wholereel.models.memvit_boxes import BoxConfig, BoxPlaces, scattered
from wholereel.models.memvit_state import MemoryConfig, MemvitState
from wholereel.models.mvit import MViT
from wholereel.models.mvit_config import tiny_config
from wholereel.models.mvit_keys import fit_tensors

STEPS = 7


def make(memory: MemoryConfig | None = None, *, boxes: BoxConfig | None = None, **options) -> MeMViT:
    torch.manual_seed(0)
    config = replace(
        tiny_config(4, 16, 8), depth=2, widen=((1, 2.0),), q_strides=((0, 1, 1, 1), (1, 1, 2, 2)), pool_first=True
    )
    config = replace(config, axes_rule="square", init="memvit", **options)
    config = replace(config, q_strides=config.q_strides[: config.depth])
    memory = memory or MemoryConfig(kernel=(3, 3, 3), stride=(2, 2, 2))
    model = MeMViT(config, memory, boxes=boxes, num_classes=5)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval()


def clips(rows: int, seed: int = 0, steps: int = STEPS) -> Tensor:
    return torch.randn(steps, rows, 3, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


def stream(model: MeMViT, clips_NBCTHW: Tensor, begins_NB: Tensor, pending: bool = True) -> list[Tensor]:
    state, out = model.init_state(clips_NBCTHW.shape[1], pending=pending), []
    with torch.no_grad():
        for clip, begins_B in zip(clips_NBCTHW, begins_NB, strict=True):
            logits, state = model(clip, state.reset(begins_B))
            out.append(logits)
    return out


def naive(model: MeMViT, clips_NBCTHW: Tensor, begins: list[bool]) -> list[Tensor]:
    """One video after the other with a Python list of entries a layer, as the public code keeps them."""
    caches: list[list[tuple[Tensor, Tensor]]] = [[] for _ in model.blocks]
    gap, out = model.memory.gap, []
    for clip, first in zip(clips_NBCTHW, begins, strict=True):
        if first:
            caches = [[] for _ in model.blocks]
        x, grid = model.embed(clip)
        for index, (block, cache) in enumerate(zip(model.blocks, caches, strict=True)):
            normed = block.norm1(x)
            pooled = block.attn.pool(normed, grid)
            chosen = [] if index in model.memory.exclude else list(range(len(cache) % gap, len(cache) - gap + 1, gap))
            entries = [block.attn.compress(*cache[i], pooled.key_grid) for i in chosen]
            cache.append((pooled.key_BLD, pooled.value_BLD))
            caches[index] = cache[-model.memory.reach * gap :]
            past = [torch.stack(part, 1) for part in zip(*entries, strict=True)] if entries else []
            x = block.finish(x, normed, block.attn.attend(pooled, *past), grid)
            grid = pooled.query_grid
        out.append(model.forward_head(model.norm(x)))
    return out


MEMORIES = list(itertools.product((1, 2, 4), (1, 2, 3), (None, (2, 2, 2))))


@pytest.mark.parametrize(("reach", "gap", "stride"), MEMORIES)
def test_fixed_shapes_equal_lists(reach: int, gap: int, stride: tuple | None) -> None:
    """Two rows over 20 steps that begin new videos at random steps, against each row alone with Python lists."""
    steps, dice = 20, random.Random(reach * 10 + gap)
    memory = MemoryConfig(reach=reach, gap=gap, kernel=(3, 3, 3), stride=stride, exclude=(dice.randrange(3),))
    begins = [[step == 0 or dice.random() < 0.15 for step in range(steps)] for _ in range(2)]
    model, x = make(memory).double(), clips(2, steps=steps).double()
    with torch.no_grad():
        expected = [naive(model, x[:, row : row + 1], begins[row]) for row in range(2)]
    kinds = [("pipelined", "newest", True), ("pipelined", "newest", False)]
    kinds += [("naive", "newest", True), ("pipelined", "attended", True)] if stride else []
    for compression, compress_grad, pending in kinds:
        model.memory = replace(memory, compression=compression, compress_grad=compress_grad)
        together = stream(model, x, torch.tensor(begins).T, pending)
        for row in range(2):
            for ours, theirs in zip(together, expected[row], strict=True):
                torch.testing.assert_close(ours[row], theirs[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("reach", "gap"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_nothing_is_known_beyond_layers_times_reach_times_gap(reach: int, gap: int) -> None:
    """Of two videos that differ in their first clip alone, later judgements differ at its multiples of the gap."""
    model = make(MemoryConfig(reach=reach, gap=gap, kernel=(3, 3, 3), stride=(2, 2, 2))).double()
    farthest = len(model.remembering) * reach * gap
    one = clips(1, steps=farthest + 2).double()
    other = torch.cat([one[:1].neg(), one[1:]])
    begins_NB = torch.arange(len(one))[:, None] == 0
    pairs = zip(stream(model, one, begins_NB), stream(model, other, begins_NB), strict=True)
    differ = [step for step, (a, b) in enumerate(pairs) if not torch.equal(a, b)]
    assert differ == list(range(0, farthest + 1, gap))


def test_resetting_a_row_changes_no_other() -> None:
    model = make()
    begins_NB = torch.zeros(STEPS, 2, dtype=torch.bool)
    undisturbed = stream(model, clips(2), begins_NB)
    begins_NB[3, 1] = True
    disturbed = stream(model, clips(2), begins_NB)
    for step, (a, b) in enumerate(zip(undisturbed, disturbed, strict=True)):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1]) == (step < 3)


def test_without_memory_it_is_the_plain_network() -> None:
    model = make(MemoryConfig(kernel=(3, 3, 3), stride=(2, 2, 2), exclude=(0, 1)))
    plain = MViT(model.config, num_classes=5).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "_mem_" not in k and "compress" not in k})
    state = model.init_state(2)
    assert state.layers == ()
    clip = clips(2)[0]
    assert torch.equal(model(clip, state)[0], plain(clip))


@pytest.mark.parametrize("gap", [1, 2])
def test_the_compression_learns_with_a_gap_of_one_and_nothing_older_does(gap: int) -> None:
    model = make(MemoryConfig(gap=gap, kernel=(3, 3, 3), stride=(2, 2, 2), exclude=(1,))).train()
    state = model.init_state(2)
    for clip in clips(2, steps=4):
        leaf = clip.clone().requires_grad_()
        logits, state = model(leaf, state)
        assert not any(tensor.requires_grad for tensor in state.as_dict().values())
    logits.square().sum().backward()
    assert leaf.grad is not None
    attention = model.blocks[0].attn
    assert (attention.compress_k.weight.grad is None) == (gap > 1)
    assert attention.rel_pos_mem_t.grad is not None
    # Parameters that cannot have a gradient ask for none, so every other one has one.
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_the_gradient_of_the_compression_is_that_of_the_newest_entry() -> None:
    model = make(MemoryConfig(reach=2, kernel=(3, 3, 3), stride=(2, 2, 2), exclude=(1,))).double()
    x = clips(1, steps=3).double()
    state = model.init_state(1, pending=True)
    with torch.no_grad():
        for clip in x[:2]:
            _, state = model(clip, state)
    weight = model.blocks[0].attn.compress_v.weight
    model(x[2], state)[0].square().sum().backward()
    with torch.no_grad():
        for index in ((0, 0, 0, 1, 1), (3, 0, 2, 0, 1)):
            values = []
            for step in (1e-5, -1e-5):  # the state, and with it the older entry, stays as it was compressed
                weight[index] += step
                values.append(float(model(x[2], state)[0].square().sum()))
                weight[index] -= step
            assert weight.grad is not None
            assert float(weight.grad[index]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


def compression_gradients(memory: MemoryConfig, older_too: bool = True, steps: int = 5) -> list[Tensor | None]:
    model = make(replace(memory, kernel=(3, 3, 3), stride=(2, 2, 2), exclude=(1,))).double()
    x = clips(1, steps=steps).double()
    state = model.init_state(1, pending=True)
    with torch.no_grad():
        for clip in x[:-1]:
            _, state = model(clip, state)
    attention = model.blocks[0].attn
    if not older_too:
        whole = attention.compress

        def newest_alone(keys: Tensor, values: Tensor, grid: tuple) -> tuple[Tensor, ...]:
            out = whole(keys, values, grid)
            newest = torch.arange(len(keys)) == len(keys) - 1
            return tuple(torch.where(newest[:, None, None], part, part.detach()) for part in out)

        attention.compress = newest_alone  # type: ignore[method-assign]
    model(x[-1], state)[0].square().sum().backward()
    names = ("compress_k", "compress_v", "norm_compress_k", "norm_compress_v")
    return [getattr(attention, name).weight.grad for name in names]


@pytest.mark.parametrize("gap", [1, 2])
def test_the_compressor_learns_what_the_naive_one_learns_of_the_newest_attended_entry(gap: int) -> None:
    waiting = MemoryConfig(reach=2, gap=gap, compress_grad="attended")
    ours = compression_gradients(waiting)
    expected = compression_gradients(MemoryConfig(reach=2, gap=gap, compression="naive"), older_too=False)
    everything = compression_gradients(MemoryConfig(reach=2, gap=gap, compression="naive"))
    for a, b, c in zip(ours, expected, everything, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(b, c, rtol=1e-3)
    published = compression_gradients(MemoryConfig(reach=2, gap=gap))
    assert (published[0] is None) == (gap > 1)


@pytest.mark.parametrize("kind", ["conv", "max", "avg"])
def test_every_kind_of_compression_is_used(kind: str) -> None:
    model = make(MemoryConfig(kernel=(3, 3, 3), stride=(2, 2, 2), kind=kind))
    attention = model.blocks[0].attn
    keys = torch.randn(2, 1 + 4 * 2 * 2, 8, generator=torch.Generator().manual_seed(4))
    maps = keys[:, 1:].transpose(1, 2).unflatten(2, (4, 2, 2))
    pooled = attention.compress_k(maps).flatten(2).transpose(1, 2)
    expected = attention.norm_compress_k(torch.cat([keys[:, :1], pooled], 1))
    torch.testing.assert_close(attention.compress(keys, keys, (4, 2, 2))[0], expected)
    assert (attention.compress_k.state_dict().keys() == {"weight"}) == (kind == "conv")
    begins = torch.zeros(STEPS, 2, dtype=torch.bool)
    for ours, theirs in zip(stream(model, clips(2), begins), stream(model, clips(2), begins, False), strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match=r"the compression must be one of \('conv', 'max', 'avg'\), got 'sum'"):
        make(MemoryConfig(kind="sum"))


def test_a_thousand_training_steps_keep_nothing() -> None:
    model = make(MemoryConfig(reach=2, gap=1, kernel=(3, 3, 3), stride=(2, 2, 2)), depth=1, widen=()).train()
    state, clip = model.init_state(1), clips(1, steps=1)[0]
    process, after_ten = psutil.Process(), 0
    for step in range(1000):
        logits, state = model(clip, state)  # with graph, which must not outlive the step
        if step % 50 == 0:
            logits.square().sum().backward()
        if step == 10:
            after_ten = process.memory_info().rss
    assert process.memory_info().rss - after_ten < 20e6


def test_a_step_asks_nothing_of_the_device() -> None:
    """Tensors without values: whoever reads one (`.item()`, `.cpu()`, `if tensor`), in a step or behind it, fails."""
    boxes = BoxConfig(depth=1, slots=3, scale=8, resolution=2)
    for memory in (MemoryConfig(gap=2, kernel=(3, 3, 3), stride=(2, 2, 2)), MemoryConfig(stride=None)):
        for head in (None, boxes):
            with torch.device("meta"):
                model = make(memory, boxes=head, causal_stem=True, causal=True).train()
                state, clip = model.init_state(2), torch.empty(2, 3, 4, 16, 16)
                rois = (torch.empty(3, 5),) if head else ()
                logits, state = model(clip, state.reset(torch.empty(2, dtype=torch.bool)), *rois)
            logits.sum().backward()
            assert state.layers[0].entries_B.is_meta
            with pytest.raises((RuntimeError, NotImplementedError)):
                bool(state.layers[0].entries_B[0])


def test_a_causal_stem_sees_a_stream_as_one_clip() -> None:
    model = make(causal_stem=True).double()
    x = clips(1, steps=3).double()
    state, tokens = model.init_state(1), []
    with torch.no_grad():
        for clip in x:
            tokens.append(model.embed(clip, *state.frames)[0][:, 1:])
            _, state = model(clip, state)
        whole = model.embed(torch.cat(list(x), 2))[0][:, 1:]
    torch.testing.assert_close(torch.cat(tokens, 1), whole, rtol=0, atol=1e-12)
    assert not state.reset(torch.tensor([True])).frames[0].any()
    changed = x[0].clone()
    changed[:, :, 2:] += 1
    per_frame = whole.shape[1] // 12
    assert torch.equal(model.embed(changed)[0][:, 1 : 1 + 2 * per_frame], whole[:, : 2 * per_frame])
    again = MemvitState.from_dict(state.as_dict())
    assert torch.equal(again.frames[0], state.frames[0])
    with pytest.raises(ValueError, match="the state has 2 layers and 1 rows of frames, the model needs 2 and 0"):
        make()(x[0].float(), state)


def test_a_state_goes_through_a_dictionary() -> None:
    model = make()
    state = model.init_state(2)
    with torch.no_grad():
        _, state = model(clips(2)[0], state)
    again = MemvitState.from_dict(state.as_dict())
    with torch.no_grad():
        assert torch.equal(model(clips(2)[1], state)[0], model(clips(2)[1], again)[0])
    assert again.detach().to("cpu").nbytes() == state.nbytes()
    with pytest.raises(ValueError, match="'entries_B' is not the name of a tensor in a MemvitState"):
        MemvitState.from_dict({"entries_B": torch.zeros(1)})


@pytest.mark.parametrize("causal", [False, True])
def test_frames_and_wide_clips(causal: bool) -> None:
    model = make(frame_level=True, causal=causal)
    x = clips(1)
    changed = x.clone()
    changed[2, :, :, 2:] += 1
    outs = []
    for run in (x, changed):
        state = model.init_state(1)
        with torch.no_grad():
            for clip in run[:3]:
                logits, state = model(clip, state)
        outs.append(logits)
    assert outs[0].shape == (1, 4, 5)
    # The stem sees one frame ahead (as published), so it is the first frame that knows nothing of the third.
    assert torch.equal(outs[0][:, 0], outs[1][:, 0]) == causal
    assert not torch.allclose(outs[0][:, 2:], outs[1][:, 2:])
    wide = torch.cat([x[0], x[1]], 4)
    assert model(wide, model.init_state(1, size=(16, 32)))[0].shape == (1, 4, 5)
    with pytest.raises(ValueError, match="keys and values must have the shape"):
        model(wide, model.init_state(1))


def test_boxes_are_judged_in_their_order() -> None:
    boxes = BoxConfig(depth=1, slots=3, scale=8, resolution=2)
    model = make(boxes=boxes)
    rois = torch.tensor([[1, 0, 0, 9, 9], [0, 2, 2, 15, 15], [1, 3, 0, 12, 15]], dtype=torch.float32)
    x = clips(2)
    state = model.init_state(2)
    with torch.no_grad():
        for clip in x[:3]:
            logits, following = model(clip, state, rois)
            swapped, _ = model(clip, state, rois[[1, 0, 2]])
            torch.testing.assert_close(swapped[[1, 0, 2]], logits, rtol=1e-5, atol=1e-6)
            state = following
    assert logits.shape == (3, 5)
    forgetful = make(MemoryConfig(reach=0), boxes=boxes)
    forgetful.load_state_dict({name: model.state_dict()[name] for name in forgetful.state_dict()})
    with torch.no_grad():
        expected, _ = model(x[0], model.init_state(2), rois)
        alone, state_without = forgetful(x[0], forgetful.init_state(2), rois)
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-6)
    assert state_without.layers == ()
    slots = scattered(torch.arange(3.0)[:, None] + 1, rois, 2, 3)
    assert slots.features_BSD[..., 0].tolist() == [[2, 0, 0], [1, 3, 0]]
    with pytest.raises(ValueError, match=r"more boxes than there are slots \(1\)"):
        scattered(torch.zeros(3, 1), rois, 2, 1)
    with pytest.raises(ValueError, match="boxes_R5 goes with a model that has a box head"):
        model(x[0], state)


def test_a_margin_is_looked_at_on_both_sides_of_a_box() -> None:
    boxes = BoxConfig(depth=1, slots=3, scale=8, resolution=2)
    model, wide = make(boxes=boxes), make(boxes=replace(boxes, margin=0.5))
    rois = torch.tensor([[0, 4, 2, 8, 9], [0, 1, 0, 15, 9]], dtype=torch.float32)
    wider = torch.tensor([[0, 2, 2, 10, 9], [0, 0, 0, 16, 9]], dtype=torch.float32)  # as far as the picture goes
    clip, state = clips(1)[0], model.init_state(1)
    with torch.no_grad():
        assert torch.equal(wide(clip, state, rois)[0], model(clip, state, wider)[0])
        assert not torch.equal(wide(clip, state, rois)[0], model(clip, state, rois)[0])


def test_places_are_waves_over_the_picture() -> None:
    places = BoxPlaces(2, 8)
    places.proj.weight.data.copy_(torch.eye(8))
    boxes = torch.tensor([[0, 4, 3, 12, 9], [1, 7, 0, 9, 12]], dtype=torch.float32)  # both have the middle (8, 6)
    x, y = torch.pi * 8 / 32, torch.pi * 6 / 24
    waves = [[f(n * a) for f in (math.sin, math.cos) for n in (1, 2)] for a in (x, y)]
    expected = torch.tensor([waves[0] + waves[1]] * 2)
    torch.testing.assert_close(places(boxes, (24, 32)), expected)


def test_a_box_that_is_told_its_place_differs_from_the_same_picture_elsewhere() -> None:
    boxes = BoxConfig(depth=0, slots=3, scale=8, resolution=1, places=2)
    model, blind = make(boxes=boxes), make(boxes=replace(boxes, places=0))
    tokens, grid = torch.ones(1, 5, model.num_features), (1, 2, 2)  # a class token and 2 x 2 places, all alike
    rois = torch.tensor([[0, 1, 1, 7, 7], [0, 9, 9, 15, 15]], dtype=torch.float32)
    with torch.no_grad():
        alike = blind._pool_boxes(tokens, grid, rois)
        told = model._pool_boxes(tokens, grid, rois)
    assert torch.equal(alike[0], alike[1])
    torch.testing.assert_close(told - alike, model.box_places(rois, (16, 16)).detach())
    assert not torch.allclose(told[0], told[1])
    clip, state = clips(1)[0], model.init_state(1)
    slots, valid = torch.zeros(1, 3, 4), torch.tensor([[True, True, False]])
    slots[0, :2] = rois[:, 1:]
    with torch.no_grad():
        flat, fixed = model(clip, state, rois)[0], model.forward_slots(clip, state, slots, valid)[0]
    torch.testing.assert_close(fixed[0, :2], flat)


def test_weights_without_places_are_a_start_for_a_model_that_has_them() -> None:
    boxes = BoxConfig(depth=1, slots=3, scale=8, resolution=2)
    plain, placed = make(boxes=boxes), make(boxes=replace(boxes, places=2))
    fitted, report = fit_tensors(placed, plain.state_dict())
    assert report.fresh == ("box_places.proj.weight", "box_places.proj.bias")
    placed.load_state_dict(fitted)
    assert fit_tensors(plain, placed.state_dict())[1].dropped == report.fresh


def test_larger_pictures_may_have_fewer_keys() -> None:
    options = {"frames": 2, "crop": 96, "width": 4, "num_classes": 2}
    grids = {stride: create_model("memvit_tiny", kv_stride=stride, **options).entry_grids(96, 128) for stride in (2, 4)}
    assert grids[2] == [(2, 12, 16), (2, 24, 32), (2, 12, 16), (2, 12, 16)]
    assert grids[4] == [(2, 6, 8), (2, 12, 16), (2, 6, 8), (2, 12, 16)]


def test_one_graph_serves_filling_and_resetting() -> None:
    """Over 100 steps: one trace, no break, no recompilation."""
    memory = MemoryConfig(gap=2, kernel=(3, 3, 3), stride=(2, 2, 2))
    model, graphs, steps = make(memory, depth=1, widen=()), [], 100

    def count(module: torch.fx.GraphModule, inputs: list[Tensor]):
        graphs.append(module)
        return module.forward

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(model, backend=count, fullgraph=True)
    state, begins_NB = model.init_state(2), torch.rand(steps, 2, generator=torch.Generator().manual_seed(3)) < 0.1
    x = clips(2, steps=steps)
    expected = stream(model, x, begins_NB, pending=False)
    with torch.no_grad():
        for clip, begins_B, theirs in zip(x, begins_NB, expected, strict=True):
            logits, state = compiled(clip, state.reset(begins_B))
            torch.testing.assert_close(logits, theirs, rtol=1e-5, atol=1e-6)
    counters = torch._dynamo.utils.counters
    assert (len(graphs), counters["stats"]["unique_graphs"]) == (1, 1)
    assert not counters["graph_break"]
    assert not counters["recompiles"]
    torch._dynamo.reset()


def test_an_exported_step_streams_like_the_module() -> None:
    model = make()
    x = clips(2)
    program = torch.export.export(model, (x[0], model.init_state(2))).module()
    ours = theirs = model.init_state(2)
    with torch.no_grad():
        for step, clip in enumerate(x):
            rows_B = torch.tensor([step == 4, False])
            a, ours = model(clip, ours.reset(rows_B))
            b, theirs = program(clip, theirs.reset(rows_B))
            assert torch.equal(a, b)
            assert all(
                torch.equal(m, n) for m, n in zip(ours.as_dict().values(), theirs.as_dict().values(), strict=True)
            )


# M multiply-adds of a clip with full memory; parameters and tensors with 400 classes: of the public code.
PUBLISHED = {"memvit_16": (35_388_832, 605, 58.712), "memvit_24": (52_601_344, 901, 213.082)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    parameters, tensors, cost = PUBLISHED[name]
    with torch.device("meta"):
        model = create_model(name).eval()
        clip, state = torch.empty(1, 3, model.info.frames, 224, 224), model.init_state(1, pending=True)
        boxes = create_model(name, boxes=True, num_classes=80)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
    assert len(boxes.state_dict()) == {"memvit_16": 621, "memvit_24": 917}[name]
    assert multiply_adds(model, clip, state) / 1e9 == pytest.approx(cost, rel=5e-3)


ALL, HALF = (), tuple(range(1, 16, 2))
# G multiply-adds of a clip of MeMViT-16 with full memory, of the public code: reach, blocks that don't remember, boxes.
COUNTED = [(1, HALF, 58.091), (3, HALF, 59.333), (4, HALF, 59.954), (1, ALL, 58.834), (2, ALL, 60.148)]


@pytest.mark.parametrize(("reach", "exclude", "cost"), COUNTED)
def test_published_costs_of_memory(reach: int, exclude: tuple[int, ...], cost: float) -> None:
    with torch.device("meta"):
        model = MeMViT(memvit_config("16x4"), MemoryConfig(reach=reach, exclude=exclude)).eval()
        found = multiply_adds(model, torch.empty(1, 3, 16, 224, 224), model.init_state(1, pending=True)) / 1e9
    assert found == pytest.approx(cost, rel=5e-3)


@pytest.mark.parametrize(
    ("name", "reach", "gap", "cost"),
    [("memvit_16", 0, 2, 58.121), ("memvit_16", 2, 2, 59.694), ("memvit_24", 2, 3, 214.072)],
)
def test_published_costs_with_boxes(name: str, reach: int, gap: int, cost: float) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=80, boxes=True, reach=reach, gap=gap).eval()
        clip = torch.empty(1, 3, model.info.frames, 224, 224)
        inputs = clip, model.init_state(1, pending=True), torch.empty(1, 5)
        assert multiply_adds(model, *inputs) / 1e9 == pytest.approx(cost, rel=5e-3)


@pytest.mark.parametrize(("size", "name", "cost"), [("16x4", "memvit_16", 57.398), ("32x3", "memvit_24", 205.806)])
def test_published_costs_without_memory_and_its_tables(size: str, name: str, cost: float) -> None:
    with torch.device("meta"):
        plain, model = MViT(memvit_config(size)).eval(), create_model(name)
        clip = torch.empty(1, 3, model.info.frames, 224, 224)
        assert multiply_adds(plain, clip) / 1e9 == pytest.approx(cost, rel=5e-3)
    more = {key: value for key, value in model.state_dict().items() if key not in plain.state_dict()}
    assert all("rel_pos_mem_" in key or "compress_" in key for key in more)
    if name == "memvit_16":  # of the public code
        assert (len(plain.state_dict()), sum(v.numel() for k, v in more.items() if "rel_pos" in k)) == (461, 139_776)


def test_thirty_times_the_support_costs_less_than_a_twentieth() -> None:
    with torch.device("meta"):
        plain = MViT(memvit_config("16x4"))
        model = create_model("memvit_16", reach=4, gap=2).eval()
        clip = torch.empty(1, 3, 16, 224, 224)
        ratio = multiply_adds(model, clip, model.init_state(1, pending=True)) / multiply_adds(plain.eval(), clip)
        state = create_model("memvit_16", gap=2).eval().init_state(1)
    assert 1.04 < ratio < 1.05
    assert state.nbytes() < 7e6


def test_settings_without_a_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match=r"boundary must be one of \('mask', 'zero'\), got 'drop'"):
        make(MemoryConfig(boundary="drop"))
    with pytest.raises(ValueError, match="needs reach >= 0, gap >= 1 and pool_first"):
        make(MemoryConfig(gap=0))
    with pytest.raises(ValueError, match="boundary='zero' needs pending=True"):
        make(MemoryConfig(boundary="zero", kernel=(3, 3, 3), stride=(2, 2, 2))).init_state(1)
    model = make()
    with pytest.raises(ValueError, match="the state has 0 layers and 0 rows of frames, the model needs 2 and 0"):
        model(clips(1)[0], MemvitState())
    with pytest.raises(ValueError, match="a clip has 8 frames, the model was made for 4"):
        model(clips(1)[0].repeat(1, 1, 2, 1, 1), model.init_state(1))


def test_half_precision_streams_nearly_alike() -> None:
    model, x = make(), clips(2)
    expected = stream(model, x, torch.zeros(STEPS, 2, dtype=torch.bool), pending=False)
    state = model.init_state(2)
    with torch.no_grad():
        for clip, theirs in zip(x, expected, strict=True):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits, state = model(clip, state)
            assert state.layers[0].keys_BELD.dtype == torch.float32
            assert torch.cosine_similarity(logits.float().flatten(), theirs.flatten(), dim=0) > 0.999
    model.bfloat16()
    logits, state = model(x[0].bfloat16(), model.init_state(2))
    assert state.layers[0].keys_BELD.dtype == logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"remember": [4]}, "remember names blocks from 0 to 3, got 4"),
        ({"remember": [-1]}, "remember names blocks from 0 to 3, got -1"),
        ({"box_places": 4}, "are of the head for boxes"),
        ({"boxes": True, "box_places": -1}, "must be at least 0, got -1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        create_model("memvit_tiny", **options)
