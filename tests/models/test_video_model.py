"""A clip model with memory: batch, stream, two sweeps and late reading are one function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wholereel import config
from wholereel.memory import VideoState
from wholereel.models import KeyReport, VideoModel, create_model, to_clip_level, to_video_level

B, N, K = 2, 3, 5
SHAPE = (3, 4, 16, 16)
CLOSE = {"rtol": 0.0, "atol": 1e-12}
MEMORIES = {
    "last": config.Memory(),
    "middle": config.Memory(after=("layer1",), value="separate", dim=8, value_dim=6),
    "two": config.Memory(after=("layer3", "layer1"), infusion="residual"),
    "avg": config.Memory(interaction="avg"),
    "max": config.Memory(interaction="max", infusion="residual"),
    "positions": config.Memory(clip_pos=8),
    "nl_dot": config.Memory(interaction="nl_dot", infusion="residual"),
    "nl_softmax": config.Memory(after=("layer2", "last"), interaction="nl_softmax"),
}
LATE = ("last", "avg", "max", "positions", None)


def make(memory: config.Memory | None, name: str = "tiny2d", seed: int = 0, **options: Any) -> VideoModel:
    """Float64, every weight drawn, so that W_o is not zero."""
    generator = torch.Generator().manual_seed(seed)
    model = VideoModel(create_model(name, num_classes=K, width=8, **options), memory).double()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise * 0.3 if parameter.ndim > 1 else 1 + 0.1 * noise)
    return model.eval()


def clips(seed: int = 1) -> Tensor:
    return torch.randn(B, N, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def empty(model: VideoModel) -> VideoState:
    return model.init_state(B, clip_shape=SHAPE, clips=N)


def merged(states: list[VideoState]) -> VideoState:
    total = states[0]
    for state in states[1:]:
        total = total.merge(state)
    return total


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("name", MEMORIES)
def test_a_stream_sees_the_past_and_its_last_clip_sees_all(name: str) -> None:
    model, x = make(MEMORIES[name]), clips()
    state = empty(model)
    for n in range(N):
        logits, state = model(x[:, n], state)
        if len(model.places) == 1 or n == 0:
            close(logits, model(x[:, : n + 1])[0][:, n])
    # behind a second block the past is what earlier clips pushed while they knew less, so only one block gives equality
    assert [place.clips_B.tolist() for place in state.places] == [[N] * B] * len(model.places)


@pytest.mark.parametrize("name", MEMORIES)
def test_a_stream_does_not_depend_on_later_clips(name: str) -> None:
    model, x = make(MEMORIES[name]), clips()
    other = torch.cat([x[:, :1], clips(seed=9)[:, 1:]], 1)
    state, other_state = empty(model), empty(model)
    first, state = model(x[:, 0], state)
    other_first, other_state = model(other[:, 0], other_state)
    assert torch.equal(first, other_first)
    second, _ = model(x[:, 1], state)
    assert not torch.allclose(second, model(other[:, 1], other_state)[0])


@pytest.mark.parametrize("name", MEMORIES)
def test_contributions_are_the_complete_memory_in_parts(name: str) -> None:
    model, x = make(MEMORIES[name]), clips()
    valid = torch.tensor([[True, True, True], [False, True, True]])
    pushes = model.contributions(x, valid)
    assert len(pushes) == N
    expected_logits, expected = model(x, None, valid)
    for key, value in merged([empty(model), *pushes]).as_dict().items():
        close(value, expected.as_dict()[key])
    for n in range(N):
        others = merged([empty(model), *(push for m, push in enumerate(pushes) if m != n)])
        order = valid.cumsum(1)[:, n : n + 1] - 1 if name == "positions" else None
        logits, _ = model(x[:, n : n + 1], others, valid[:, n : n + 1], order_BN=order)
        close(logits[valid[:, n], 0], expected_logits[valid[:, n], n])


@pytest.mark.parametrize("name", LATE)
def test_late_reading_is_the_batch_formula(name: str | None) -> None:
    model, x = make(MEMORIES[name] if name else None), clips()
    summaries = [model.encode(x[:, n], order_B=torch.full((B,), n)) for n in range(N)]
    state = empty(model)
    for summary in summaries:
        state = state.merge(summary.push)
    logits, _ = model(x)
    for n, summary in enumerate(summaries):
        close(model.read(summary, state), logits[:, n])
        close(model.read(summary.to("cpu").detach(), state), logits[:, n])


@pytest.mark.parametrize("name", MEMORIES)
def test_steps_by_segment_are_the_forward_pass_with_its_gradient(name: str) -> None:
    model, x = make(MEMORIES[name]), clips()
    maps = list(x.unbind(1))
    for index in range(len(model.places)):
        maps = [model.run_segment(index, x_BCTHW) for x_BCTHW in maps]
        memory = empty(model).places[index]
        for n, x_BCTHW in enumerate(maps):
            memory = memory.merge(model.push_at(index, x_BCTHW, order_BN=torch.full((B, 1), n)))
        together = model.infuse_at(index, torch.stack(maps, 1), memory)
        maps = [model.infuse_at(index, x_BCTHW, memory) for x_BCTHW in maps]
        close(torch.stack(maps, 1), together)
    last = len(model.places)
    logits = torch.stack([model.clip_model.forward_head(model.run_segment(last, x_BCTHW)) for x_BCTHW in maps], 1)
    expected, _ = model(x)
    close(logits, expected)
    ours, theirs = (
        torch.autograd.grad((each * torch.arange(K)).sum(), list(model.parameters())) for each in (logits, expected)
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["middle", "two", "nl_dot", "nl_softmax"])
def test_late_reading_is_refused_where_a_summary_is_not_enough(name: str) -> None:
    model = make(MEMORIES[name])
    with pytest.raises(ValueError, match="encode and read allow no memory block but one in front of the head"):
        model.encode(clips()[:, 0])


@pytest.mark.parametrize("name", MEMORIES)
def test_every_memory_parameter_gets_a_gradient(name: str) -> None:
    model, x = make(MEMORIES[name]), clips()
    (model(x)[0] * torch.arange(K)).sum().backward()
    assert [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_without_memory_clips_are_judged_one_by_one() -> None:
    model, x = make(None), clips()
    logits, state = model(x)
    assert state == VideoState(())
    assert state.as_dict() == {}
    close(logits[:, 1], model(x[:, 1], model.init_state(B))[0])
    assert model.contributions(x) == (VideoState(()),) * N
    with pytest.raises(ValueError, match="a video without any valid clip"):
        model(x, None, torch.zeros(B, N, dtype=torch.bool))


def test_contributions_leave_running_statistics_as_they_were() -> None:
    model = make(config.Memory(), name="tiny_r3d", norm="batch").train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.contributions(clips())
    assert before
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


PLACES = ["stem", "layer1", "layer2", "last"]
CONVERTED = [(name, place) for name in ("tiny2d", "tiny_r3d", "tiny_r2plus1d") for place in PLACES]
CONVERTED += [("mc3_18", "stem"), ("mc3_18", "last"), ("r2plus1d_18", "layer1")]


@pytest.mark.parametrize(("name", "place"), CONVERTED)
def test_conversion_keeps_logits_and_can_be_undone(name: str, place: str) -> None:
    options = {} if name.endswith("_18") else {"width": 8, "norm": "batch"}
    clip_level = VideoModel(create_model(name, num_classes=K, **options)).eval()
    x = clips().float()[:1, :2]
    logits, _ = clip_level(x)
    video_level, report = to_video_level(clip_level, config.Memory(after=(place,)))
    assert report.missing == tuple(f"memories.{place}.{key}.weight" for key in ("w_k", "w_q", "w_o"))
    if (name, place) in {("tiny2d", "layer2"), ("mc3_18", "stem")}:
        assert report.not_rescaled == (place,)  # a shortcut reads the features too
    else:
        assert report.rescaled
        torch.testing.assert_close(video_level(x)[0], logits, rtol=1e-6, atol=1e-6)
    back, dropped = to_clip_level(video_level)
    assert dropped.unused == report.missing
    assert dropped.rescaled == report.rescaled
    torch.testing.assert_close(back(x)[0], logits, rtol=1e-6, atol=1e-6)
    for key, value in clip_level.state_dict().items():
        torch.testing.assert_close(back.state_dict()[key], value, rtol=3e-7, atol=0)


def test_conversion_without_rescaling_and_of_the_wrong_kind() -> None:
    clip_level = make(None)
    video_level, report = to_video_level(clip_level, config.Memory(rescale_head=False))
    assert report.rescaled == ()
    assert torch.equal(video_level.clip_model.fc.weight, clip_level.clip_model.fc.weight)
    _, residual = to_video_level(clip_level, config.Memory(infusion="residual"))
    assert residual == KeyReport(missing=report.missing)
    with pytest.raises(ValueError, match="has memory already"):
        to_video_level(video_level, config.Memory())
    with pytest.raises(ValueError, match="no memory that could be taken out"):
        to_clip_level(clip_level)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model(torch.zeros(2, 3)), "expected clips BNCTHW or a clip BCTHW, got the shape"),
        (lambda model: model(clips(), VideoState(())), "the state has 0 places, the model 1"),
        (lambda model: model(clips(), None, torch.zeros(B, N, dtype=torch.bool)), "a video without any valid clip"),
        (lambda model: VideoModel(model.clip_model, config.Memory(after=("layer9",))), "may name each of stem, layer1"),
        (lambda model: VideoModel(model.clip_model, config.Memory(after=("last", "layer3"))), "once"),
    ],
)
def test_misuse_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(make(config.Memory()))


def test_a_streaming_step_makes_one_graph() -> None:
    model, x = make(config.Memory(after=("layer1", "last"))).float(), clips().float()
    graphs = []

    def count(graph: torch.fx.GraphModule, example_inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    step = torch.compile(model, backend=count, fullgraph=True)
    state = expected_state = model.init_state(B)
    with torch.no_grad():
        for n in (0, 1, 2, 0):
            logits, state = step(x[:, n], state)
            expected, expected_state = model(x[:, n], expected_state)
            torch.testing.assert_close(logits, expected)
    assert len(graphs) == 1


def test_a_streaming_step_can_be_exported() -> None:
    model, x = make(config.Memory()).float(), clips().float()
    state = model.init_state(B)
    exported = torch.export.export(model, (x[:, 0], state))
    step = exported.module()
    for n in range(N):
        logits, state = step(x[:, n], state)
    assert isinstance(state, VideoState)
    torch.testing.assert_close(logits, model(x)[0][:, -1])
    assert not any(isinstance(module, nn.Dropout) and module.training for module in model.modules())


def test_stages_compile_where_pytorch_has_one_cache_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch 2.11 has, which does not know `isolate_recompiles`."""
    made: list[dict[str, object]] = []

    def older(model: nn.Module, *, backend: object, options: object, dynamic: object) -> nn.Module:
        made.append({"backend": backend, "dynamic": dynamic})
        return model

    model = VideoModel(create_model("tiny2d", num_classes=2))
    monkeypatch.setattr(torch, "compile", older)
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: torch.compile(self, **options))
    with torch._dynamo.config.patch(recompile_limit=8):
        model.compile_stages("eager")
        assert torch._dynamo.config.recompile_limit >= 64
    assert made == [{"backend": "eager", "dynamic": False}] * len(model.clip_model.stages)
