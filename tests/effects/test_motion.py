"""What a correlation block sees that (2+1)-D convolutions do not: the bars of `benchmarks/motion.py`, one seed each."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.effects


@pytest.fixture(scope="module")
def motion() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "motion.py"
    spec = importlib.util.spec_from_file_location("motion", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module


def test_direction_needs_two_frames_and_is_read_best_by_matching(motion: ModuleType) -> None:
    found = motion.ask_task(0)
    assert found["R2D"] <= 0.25, found
    assert 0.55 <= found["R(2+1)D"] <= found["CorrNet"] - 0.15, found
    assert found["CorrNet"] >= 0.95, found


def test_filters_that_learned_leftward_motion_look_where_it_came_from(motion: ModuleType) -> None:
    found = motion.ask_filters(0)
    assert found["accuracy"] >= 0.95, found
    assert found["difference"] > 0, found
    assert found["z"] > 3, found
