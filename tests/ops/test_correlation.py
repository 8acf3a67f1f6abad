"""The correlation operator: against literal sums, itself, and what a shifted picture must give."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wholereel.ops.correlation import correlate, filters_for_length


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def literal(x: Tensor, w: Tensor, dilation: int, groups: int) -> Tensor:
    batch, channels, frames, height, width = x.shape
    kernel, per_group = w.shape[2], channels // groups
    y = x.new_zeros(batch, groups * kernel**2, frames, height, width)
    positions = itertools.product(
        range(groups), range(kernel), range(kernel), range(frames), range(height), range(width)
    )
    for g, a, b, t, i, j in positions:
        row, column = i + (a - kernel // 2) * dilation, j + (b - kernel // 2) * dilation
        if 0 <= row < height and 0 <= column < width:
            c = slice(g * per_group, (g + 1) * per_group)
            products = w[t, c, a, b] * x[:, c, t, i, j] * x[:, c, max(t - 1, 0), row, column]
            y[:, g * kernel**2 + a * kernel + b, t, i, j] = products.mean(1)
    return y


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([1, 3, 5]),
    st.integers(1, 3),
    st.sampled_from([(2, 1), (2, 2), (3, 1)]),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_both_forms_are_the_literal_sum(
    kernel: int, dilation: int, channels_groups: tuple[int, int], frames: int, height: int, width: int
) -> None:
    channels, groups = channels_groups
    x, w = drawn(2, channels, frames, height, width), drawn(frames, channels, kernel, kernel, seed=1)
    expected = literal(x, w, dilation, groups)
    results = []
    for implementation in ("plain", "streaming"):
        inputs = [tensor.clone().requires_grad_() for tensor in (x, w)]
        y = correlate(*inputs, dilation=dilation, groups=groups, implementation=implementation)
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
        y.backward(drawn(*y.shape, seed=2))
        results.append([tensor.grad for tensor in inputs])
    for plain, streaming in zip(*results, strict=True):
        torch.testing.assert_close(plain, streaming, rtol=1e-12, atol=1e-12)


def test_displaced_current_frame_exchanges_the_two() -> None:
    x, w = drawn(1, 2, 3, 4, 5), torch.ones(3, 2, 3, 3, dtype=torch.float64)
    # Looking around in the current frame at displacement d is looking around in the previous one at -d, one step aside.
    previous = correlate(x, w).unflatten(1, (3, 3))
    current = correlate(x, w, displaced="current").unflatten(1, (3, 3))
    torch.testing.assert_close(previous[:, 2, 2, :, :-1, :-1], current[:, 0, 0, :, 1:, 1:])


@pytest.mark.parametrize("implementation", ["plain", "streaming"])
def test_gradients_once_and_twice(implementation: str) -> None:
    inputs = [drawn(1, 2, 2, 2, 3).requires_grad_(), drawn(2, 2, 3, 3, seed=1).requires_grad_()]

    def run(x: Tensor, w: Tensor) -> Tensor:
        return correlate(x, w, dilation=1, groups=2, implementation=implementation)

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_second_derivative_where_one_input_is_constant() -> None:
    x, w = drawn(1, 2, 2, 3, 3).requires_grad_(), drawn(2, 2, 3, 3, seed=1)
    both = [correlate(x, w, implementation=implementation) for implementation in ("plain", "streaming")]
    (once,) = torch.autograd.grad(both[1].square().sum(), x, retain_graph=True)
    firsts = [torch.autograd.grad(y.square().sum(), x, create_graph=True)[0] for y in both]
    seconds = [torch.autograd.grad(first.square().sum(), x)[0] for first in firsts]
    torch.testing.assert_close(firsts[1], once, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*seconds, rtol=1e-12, atol=1e-12)


def test_a_shifted_picture_correlates_most_at_its_shift() -> None:
    first = torch.randn(64, 20, 20, generator=torch.Generator().manual_seed(0))
    shift = (4, -2)  # of the second frame; its content stood at (-4, +2) before
    x = torch.stack((first, first.roll(shift, (1, 2))), 1)[None]
    y = correlate(x, torch.ones(2, 64, 7, 7), dilation=2)[0, :, 1, 8:12, 8:12]
    a, b = 3 - shift[0] // 2, 3 - shift[1] // 2
    assert (y.argmax(0) == a * 7 + b).all()


def test_streaming_keeps_its_inputs_alone() -> None:
    kept: dict[str, int] = {}
    for implementation in ("plain", "streaming"):
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = drawn(1, 16, 4, 12, 12).requires_grad_()
        w = drawn(4, 16, 7, 7, seed=1).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = correlate(x, w, dilation=2, implementation=implementation)
        kept[implementation] = sum(sizes.values())
        bytes_of = [tensor.numel() * tensor.element_size() for tensor in (x, w, y)]
    assert kept["streaming"] <= 1.2 * sum(bytes_of)
    assert kept["plain"] > 20 * bytes_of[0]


def test_filters_of_other_lengths() -> None:
    w = drawn(5, 2, 3, 3)
    assert filters_for_length(w, 5) is w
    longer = filters_for_length(w, 9)
    assert torch.equal(longer[0], w[0])
    torch.testing.assert_close(longer[[1, 8]], w[[1, 4]])
    ramp = torch.arange(5.0)[:, None, None, None].expand(5, 2, 3, 3)
    torch.testing.assert_close(filters_for_length(ramp, 7)[:, 0, 0, 0], torch.tensor([0, 1, 1.6, 2.2, 2.8, 3.4, 4.0]))
    assert torch.equal(filters_for_length(w, 1), w[:1])
    assert filters_for_length(w[:1], 4).shape == (4, 2, 3, 3)


def test_what_does_not_fit_is_refused() -> None:
    x = drawn(1, 4, 2, 3, 3)
    with pytest.raises(ValueError, match="square and odd"):
        correlate(x, drawn(2, 4, 2, 2))
    with pytest.raises(ValueError, match="does not fit features"):
        correlate(x, drawn(3, 4, 3, 3))
    with pytest.raises(ValueError, match="groups that divide 4 channels"):
        correlate(x, drawn(2, 4, 3, 3), groups=3)
    with pytest.raises(ValueError, match="'previous' or 'current'"):
        correlate(x, drawn(2, 4, 3, 3), displaced="next")
    with pytest.raises(ValueError, match="'plain', 'streaming' or 'triton'"):
        correlate(x, drawn(2, 4, 3, 3), implementation="fast")
