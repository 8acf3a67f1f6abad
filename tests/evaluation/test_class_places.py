from __future__ import annotations

from pathlib import Path

import pytest

from wholereel.datasets.sample import Manifest
from wholereel.errors import DataError
from wholereel.evaluation.class_places import class_places


def _manifest(*names: str) -> Manifest:
    return Manifest((), {"label": names}, Path("set"))


def test_classes_are_matched_by_name() -> None:
    assert class_places(_manifest("up", "down"), "label", ("left", "down", "up")) == (2, 1)


def test_what_the_model_does_not_know_is_named_with_what_it_knows() -> None:
    with pytest.raises(DataError, match="set: 1 class in column 'label' .* know: 'up', expected .* model's 1 classes"):
        class_places(_manifest("up", "down"), "label", ("down",))
    with pytest.raises(DataError, match=r"2 classes in column .* 'up', 'down'"):
        class_places(_manifest("up", "down"), "label", ("left",))
    with pytest.raises(DataError, match=r"no label column 'verb', expected one of \['label'\]"):
        class_places(_manifest("up"), "verb", ("up",))
