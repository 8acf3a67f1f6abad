"""MeMViT on a GPU: precision, routes and kernels of attention, no waiting, no recompilation, states between devices."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from wholereel.models import create_model
from wholereel.models.memvit import MeMViT, memvit_config
from wholereel.models.memvit_boxes import BoxConfig
from wholereel.models.memvit_state import MemoryConfig, MemvitState
from wholereel.models.mvit_config import tiny_config
from wholereel.ops.attention import ATTENTION_ROUTES, biased_attention, explicit_attention, folded_attention

DEVICES = ["cuda"]  # each of these runs on "cpu", too
STEPS = 6


def make(memory: MemoryConfig | None = None, *, boxes: BoxConfig | None = None, **options) -> MeMViT:
    """Two blocks for clips of 16 pixels."""
    torch.manual_seed(0)
    config = replace(
        tiny_config(4, 16, 8), depth=2, widen=((1, 2.0),), q_strides=((0, 1, 1, 1), (1, 1, 2, 2)), pool_first=True
    )
    memory = memory or MemoryConfig(kernel=(3, 3, 3), stride=(2, 2, 2))
    model = MeMViT(replace(config, axes_rule="square", init="memvit", **options), memory, boxes=boxes, num_classes=5)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval()


def clips(rows=2, steps=STEPS, side=16, frames=4):
    return torch.randn(steps, rows, 3, frames, side, side, generator=torch.Generator().manual_seed(0))


def begins(rows=2, steps=STEPS, often=0.3):
    return torch.rand(steps, rows, generator=torch.Generator().manual_seed(3)) < often


def stream(model, clips_NBCTHW, begins_NB, autocast=nullcontext, pending=False):
    """Logits of every step, on the CPU in float32, and the state behind them."""
    device = next(model.parameters()).device
    state, out = model.init_state(clips_NBCTHW.shape[1], pending=pending), []
    with torch.no_grad():
        for clip, begins_B in zip(clips_NBCTHW.to(device), begins_NB.to(device), strict=True):
            with autocast():
                logits, state = model(clip, state.reset(begins_B))
            out.append(logits.float().cpu())
    return torch.stack(out), state


def small_16(**options):
    """MeMViT-16 for clips of 64 pixels."""
    torch.manual_seed(0)
    memory = MemoryConfig(exclude=tuple(range(1, 16, 2)))
    model = MeMViT(replace(memvit_config("16x4"), crop=64), memory, num_classes=400, **options).eval()
    for name, parameter in model.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.2)
    return model


@contextmanager
def no_waiting():
    """Whatever makes the host wait for the device is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
def test_bfloat16_says_what_float32_says(device):
    model, x = small_16().to(device), clips(side=64, frames=16)
    expected, _ = stream(model, x, begins())
    half, state = stream(model, x, begins(), lambda: torch.autocast(device, torch.bfloat16))
    cosine = torch.nn.functional.cosine_similarity(half.flatten(0, 1), expected.flatten(0, 1), dim=1)
    assert float(cosine.min()) > 0.999
    assert all(layer.keys_BELD.dtype == torch.float32 for layer in state.layers)


@pytest.mark.parametrize("device", DEVICES)
def test_outputs_are_those_of_the_cpu(device):
    model = make()
    expected, _ = stream(model, clips(), begins())
    ours, state = stream(model.to(device), clips(), begins())
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    assert {tensor.device.type for tensor in state.as_dict().values()} == {device}


def tensors(device, dtype, *, queries=97, keys=83, width=96, extra=31, rows=2, heads=2):
    generator = torch.Generator().manual_seed(0)
    shapes = [(queries, width), (keys, width), (keys, width), (queries, extra)]
    made = [torch.randn(rows, heads, *shape, generator=generator).to(device, dtype) for shape in shapes]
    codes_KE = torch.nn.functional.one_hot(torch.arange(keys) % extra, extra).float().to(device)
    open_BK = (torch.rand(rows, keys, generator=generator) < 0.8).to(device)
    return [tensor.requires_grad_() for tensor in made], codes_KE, open_BK


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("route", [route for route in ATTENTION_ROUTES if route != "explicit"])
@pytest.mark.parametrize("masked", [False, True])
def test_every_route_is_the_explicit_form(device, route, masked):
    made, codes_KE, open_BK = tensors(device, torch.float32)
    results = []
    for name in ("explicit", route):
        out = biased_attention(*made, codes_KE, open_BK if masked else None, scale=0.1, route=name)
        results.append((out.detach(), *torch.autograd.grad(out.square().sum(), made)))
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert float((ours - theirs).abs().max()) < 2e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("route", ATTENTION_ROUTES)
def test_every_route_streams_alike(device, route):
    model = make().to(device)
    expected, _ = stream(model, clips(), begins())
    for block in model.blocks:
        block.attn.route = route
    ours, _ = stream(model, clips(), begins())
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION], ids=["flash", "cudnn"])
@pytest.mark.parametrize(("width", "extra"), [(96, 31), (96, 22), (96, 60)])
def test_the_folded_form_runs_in_a_fused_kernel(kernel, width, extra):
    """No other kernel is allowed: where this one refuses the widths, the call fails."""
    made, codes_KE, open_BK = tensors("cuda", torch.bfloat16, width=width, extra=extra)
    with sdpa_kernel(kernel):
        out = folded_attention(*made, codes_KE, open_BK, scale=0.1)
        gradients = torch.autograd.grad(out.float().square().sum(), made)
    wide = [tensor.detach().float().requires_grad_() for tensor in made]
    exact = explicit_attention(*wide, codes_KE, open_BK, scale=0.1)
    expected = torch.autograd.grad(exact.square().sum(), wide)
    for ours, theirs in zip((out.detach(), *gradients), (exact.detach(), *expected), strict=True):
        cosine = torch.nn.functional.cosine_similarity(ours.float().flatten(), theirs.flatten(), dim=0)
        assert float(cosine) > 0.998


@pytest.mark.parametrize("training", [False, True])
def test_a_whole_network_needs_no_kernel_but_the_fused_one(training):
    model, x = small_16().cuda(), clips(steps=1, side=64, frames=16)[0].cuda()
    state = model.init_state(2, pending=training)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), torch.set_grad_enabled(training):
        for _ in range(3):
            with torch.autocast("cuda", torch.bfloat16):
                logits, state = model(x, state)
            if training:
                logits.float().square().sum().backward()
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["plain", "causal", "boxes", "gap 2", "naive", "zero"])
def test_no_step_makes_the_host_wait(kind, precision):
    """Training and inference steps, states made and reset, videos that switch."""
    plain = {"kernel": (3, 3, 3), "stride": (2, 2, 2)}
    boxes = BoxConfig(depth=1, slots=3, scale=8, resolution=2) if kind == "boxes" else None
    options = {"causal": True, "causal_stem": True} if kind == "causal" else {}
    changes = {"gap 2": {"gap": 2}, "naive": {"compression": "naive"}, "zero": {"boundary": "zero"}}.get(kind, {})
    model = make(MemoryConfig(**plain, **changes), boxes=boxes, **options).cuda()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    x, begins_NB = clips().cuda(), begins().cuda()
    rois = (torch.tensor([[0, 1, 1, 9, 9], [1, 2, 2, 12, 12], [1, 0, 0, 8, 8]]).float().cuda(),) if boxes else ()

    def run(training):
        model.train(training)
        state = model.init_state(2, pending=True)
        for clip, begins_B in zip(x, begins_NB, strict=True):
            half = torch.autocast("cuda", torch.bfloat16) if precision == "bf16" else nullcontext()
            with torch.set_grad_enabled(training), half:
                logits, state = model(clip, state.reset(begins_B), *rois)
                loss = logits.float().square().sum()
            if training:
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

    for training in (True, False):
        run(training)  # tables and workspaces are made the first time
        with no_waiting():
            run(training)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("training", [False, True])
def test_one_compiled_graph_serves_a_hundred_steps(training):
    """Memory fills, videos switch: nothing is compiled after the first step, and nothing waits after the second."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, steps = make(depth=1, widen=()).cuda(), 100
    plain = make(depth=1, widen=()).cuda()
    model.compile_stages()
    x, begins_NB = clips(steps=steps).cuda(), begins(steps=steps, often=0.1).cuda()
    state, other = (model.init_state(2, pending=training) for _ in range(2))
    with torch.set_grad_enabled(training), torch._dynamo.config.patch(error_on_recompile=True):
        for number, (clip, begins_B) in enumerate(zip(x, begins_NB, strict=True)):
            with no_waiting() if number >= 2 else nullcontext():
                logits, state = model(clip, state.reset(begins_B))
                if training:
                    logits.square().sum().backward()
            theirs, other = plain(clip, other.reset(begins_B))
            if number % 10 == 0:
                torch.testing.assert_close(logits, theirs, rtol=1e-3, atol=1e-4)
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["memvit", "collaborative"])
def test_a_state_travels_between_devices(device, kind):
    """Half of a stream on the device, its state through a dictionary on the CPU, the rest on both."""
    if kind == "memvit":
        model, x = make(), clips()
        start = lambda: model.init_state(2)  # noqa: E731
        again = MemvitState.from_dict
    else:
        pytest.importorskip("av", reason="the models of tasks' tests")
        from tests.training.tiny import video_model
        from wholereel import config
        from wholereel.memory.state import VideoState

        model, x = video_model(config.Memory(dim=8, reads="past")).eval(), clips()
        start = lambda: model.init_state(2)  # noqa: E731
        again = VideoState.from_dict
    model.to(device)
    with torch.no_grad():
        state = start()
        for clip in x[:3]:
            _, state = model(clip.to(device), state)
        kept = {name: tensor.cpu() for name, tensor in state.to("cpu").as_dict().items()}
        back = again(kept).to(device)
        here, there = [], []
        for clip in x[3:]:
            logits, state = model(clip.to(device), state)
            here.append(logits.cpu())
            logits, back = model(clip.to(device), back)
            assert torch.equal(logits.cpu(), here[-1])
        model.to("cpu")
        moved = again(kept)
        for clip in x[3:]:
            logits, moved = model(clip, moved)
            there.append(logits)
    torch.testing.assert_close(torch.stack(there), torch.stack(here), rtol=1e-4, atol=1e-5)


def test_memory_is_flat_over_a_long_stream():
    model = create_model("memvit_tiny", num_classes=5).cuda().eval()
    clip, state = torch.randn(2, 3, 4, 32, 32, device="cuda"), model.init_state(2)
    with torch.no_grad():
        for step in range(300):
            _, state = model(clip, state)
            if step == 10:
                before = torch.cuda.memory_allocated()
    assert torch.cuda.memory_allocated() <= before
