"""Correlation blocks at other lengths and sizes; numbers are held by golden files."""

from __future__ import annotations

import logging

import pytest
import torch

from wholereel.layers.correlation import Correlation, CorrelationBlock


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("join", ["sum", "concat"])
@pytest.mark.parametrize("half", [False, True])
def test_a_block_keeps_the_shape_and_learns(join: str, half: bool) -> None:
    block = CorrelationBlock(64, 4, join=join, kernel=3, group_size=8, half=half)
    x = features(2, 64, 3, 5, 7)
    y = block(x)
    assert y.shape == x.shape
    (y * features(*y.shape)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in block.parameters())


def test_one_slice_for_all_frames_is_free_of_length_and_interpolation_is_said_once(caplog) -> None:
    shared, sliced = Correlation(4, 1, 3, dilation=1), Correlation(4, 4, 3, dilation=1)
    x = features(1, 4, 6, 5, 5)
    with caplog.at_level(logging.INFO):
        torch.testing.assert_close(shared(x)[:, :, :3], shared(x[:, :, :3]))
        assert caplog.text == ""
        torch.testing.assert_close(sliced(x), shared(x))  # all filters begin with ones
        sliced(x)
    assert caplog.text.count("a correlation filter for 4 frames is interpolated for clips of 6") == 1


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="16 channels in 1 groups give 81 correlations"):
        CorrelationBlock(64, 4, join="concat", kernel=9)
    with pytest.raises(ValueError, match="'sum' or 'concat'"):
        CorrelationBlock(64, 4, join="add")


def test_filters_begin_as_asked() -> None:
    torch.manual_seed(0)
    filters = {init: Correlation(32, 4, 7, init=init).filter for init in ("ones", "normal", "he")}
    assert (filters["ones"] == 1).all()
    for init, mean, std in (("normal", 1.0, 0.1), ("he", 0.0, 0.25)):
        assert filters[init].mean().item() == pytest.approx(mean, abs=0.02)
        assert filters[init].std().item() == pytest.approx(std, rel=0.05)
    with pytest.raises(ValueError, match="init must be one of ones, normal, he, got 'zeros'"):
        CorrelationBlock(64, 4, init="zeros")


def test_channels_last_memory_and_other_types_serve_a_network_with_filters() -> None:
    torch.manual_seed(0)
    block = CorrelationBlock(16, 4, kernel=3, init="normal").eval()
    x = torch.randn(2, 16, 4, 6, 7)
    with torch.no_grad():
        expected = block(x)
        last = block.to(memory_format=torch.channels_last_3d)
        assert last.reduce.weight.is_contiguous(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(last(x.contiguous(memory_format=torch.channels_last_3d)), expected)
    assert last.double().corr.filter.shape == (4, 4, 3, 3)
    assert last.corr.filter.dtype == torch.float64
