"""One small folder of each kind, made once."""

from __future__ import annotations

import pytest

from wholereel.datasets.worlds import make_world

MATCH8_SIZES = {"train": 40, "val": 2, "test": 2}
EVENTS8_SIZES = {"train": 9, "val": 9, "test": 0}


@pytest.fixture(scope="session")
def match8_folder(tmp_path_factory):
    return make_world("match8", tmp_path_factory.mktemp("worlds") / "match8", sizes=MATCH8_SIZES)


@pytest.fixture(scope="session")
def events8_folder(tmp_path_factory):
    return make_world("events8", tmp_path_factory.mktemp("worlds") / "events8", sizes=EVENTS8_SIZES, seed=3)
