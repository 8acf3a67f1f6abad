"""The table of `docs/models.md` is what the code counts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from wholereel.models import list_models

SCRIPT = Path(__file__).parents[2] / "docs" / "model_table.py"
SPEC = importlib.util.spec_from_file_location("model_table", SCRIPT)
assert SPEC is not None
assert SPEC.loader is not None
model_table = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(model_table)


def test_every_clip_model_has_a_row() -> None:
    assert list(model_table.written_rows()) == list_models(kind="clip")
    assert set(model_table.PUBLISHED) <= set(model_table.written_rows())


# All rows: `python docs/model_table.py --check`, 13 s.
@pytest.mark.parametrize("name", ["slow_4x16_50", "ir_csn_26", "corrnet_26", "r2plus1d_34_mmaction2", "tiny2d"])
def test_rows_are_counted(name: str) -> None:
    assert model_table.written_rows()[name] == model_table.table_row(name)
