"""Rows of tables of relative positions; the index tables of the public code are golden files (parity)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from wholereel.ops import relative_positions
from wholereel.ops.relative_positions import axis_rows, memory_time_rows, resized_table, spatial_rows, time_rows
from wholereel.ops.stream_order import stream_order


def indices(rows_QKD: Tensor) -> list[list[int]]:
    return rows_QKD[..., 0].long().tolist()


def table(rows: int) -> Tensor:
    return torch.arange(float(rows))[:, None]


def test_equal_grids_differ_by_their_distance() -> None:
    assert indices(axis_rows(table(5), 3, 3)) == [[2, 1, 0], [3, 2, 1], [4, 3, 2]]


def test_a_coarser_axis_is_scaled_up() -> None:
    assert indices(axis_rows(table(7), 4, 2)) == [[2, 0], [3, 1], [4, 2], [5, 3]]
    assert indices(axis_rows(table(7), 2, 4)) == [[3, 2, 1, 0], [5, 4, 3, 2]]


def test_a_table_of_another_size_is_interpolated() -> None:
    assert resized_table(table(3), 3) is not None
    assert torch.equal(resized_table(torch.full((3, 2), 7.0), 9), torch.full((9, 2), 7.0))
    torch.testing.assert_close(resized_table(table(2), 4)[:, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_wide_and_tall_inputs_are_each_other_mirrored() -> None:
    a, b = table(7), table(7) * 10
    wide_h, wide_w = spatial_rows(a, b, (4, 7), (2, 4), "square")
    tall_h, tall_w = spatial_rows(b, a, (7, 4), (4, 2), "square")
    assert torch.equal(wide_h, tall_w)
    assert torch.equal(wide_w, tall_h)
    assert indices(wide_w / 10)[0] == [2, 0, 0, 0]
    apart_h, apart_w = spatial_rows(a, b, (4, 7), (2, 4))
    assert torch.equal(apart_h, wide_h)
    assert apart_w.shape == wide_w.shape
    with pytest.raises(ValueError, match=r"rule must be one of \('apart', 'square'\), got 'long'"):
        spatial_rows(a, b, (4, 4), (4, 4), "long")


def test_pooled_frames_are_scaled_up_or_counted() -> None:
    assert indices(time_rows(table(7), 2, 4, 4)) == [[3, 2, 1, 0], [5, 4, 3, 2]]
    assert indices(time_rows(table(7), 2, 4, 4, "square")) == [[3, 2, 1, 0], [4, 3, 2, 1]]
    assert indices(time_rows(table(7), 4, 2, 4, "square")) == [[1, 0], [2, 1], [3, 2], [4, 3]]
    assert indices(time_rows(table(7), 2, 2, 4, "square")) == [[1, 0], [2, 1]]  # of a longer table
    for rule in ("apart", "square"):
        assert indices(time_rows(table(7), 4, 4, 4, rule)) == [[3 + q - k for k in range(4)] for q in range(4)]
        assert time_rows(table(7), 5, 5, 5, rule).shape == (5, 5, 1)
    with pytest.raises(ValueError, match=r"rule must be one of \('apart', 'square'\), got 'long'"):
        time_rows(table(7), 4, 4, 4, "long")


def test_remembered_frames_lie_on_one_axis_newest_last() -> None:
    assert indices(memory_time_rows(table(8), 4, 2, 4)) == [[4, 0], [5, 1], [6, 2], [7, 3]]
    with pytest.raises(
        ValueError, match=r"7 rows does not reach back 8 frames; .* the stride of a compression \(4\) divides"
    ):
        memory_time_rows(table(7), 4, 2, 4)


def test_streams_cover_a_list() -> None:
    order_GSB = stream_order(23, 2, 2)
    assert order_GSB.shape == (2, 6, 2)
    assert order_GSB[1, :, 1].tolist() == [18, 19, 20, 21, 22, 0]
    assert set(order_GSB.flatten().tolist()) == set(range(23))
    with pytest.raises(ValueError, match="at least 1 clip, process and row, got 0, 1 and 1"):
        stream_order(0, 1, 1)


def test_kept_indices_serve_training_and_no_trace_leaves_any_behind() -> None:
    relative_positions._kept.cache_clear()
    with FakeTensorMode(), torch.no_grad():
        axis_rows(torch.empty(21, 2), 11, 11)
    axis_rows(torch.empty(21, 2, device="meta"), 11, 11)
    assert relative_positions._kept.cache_info().currsize == 0
    with torch.inference_mode():
        first = axis_rows(table(21), 11, 11)
    leaf = (table(21) + 1).requires_grad_()
    again = axis_rows(leaf, 11, 11)  # the index was made in inference mode, the rows are of the new table
    again.sum().backward()
    assert relative_positions._kept.cache_info().currsize == 1
    assert torch.equal(again.detach(), first.clone() + 1)
    assert leaf.grad is not None
