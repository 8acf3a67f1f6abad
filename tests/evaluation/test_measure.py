from pathlib import Path

import pytest

from wholereel import config
from wholereel.datasets.sample import Manifest
from wholereel.errors import ConfigError
from wholereel.evaluation import measure as module
from wholereel.evaluation.measure import measure
from wholereel.models.package import Package, build_model

SPEC = config.Model("tiny2d", options={"width": 8})


def package(kind: str) -> Package:
    task = config.Task(kind)
    return Package(build_model(SPEC, 2), SPEC, ("a", "b"), task, config.Clips(), 32, 32, (0.5,) * 3, (0.25,) * 3, {})


def test_the_kind_of_task_chooses(monkeypatch):
    calls = []
    monkeypatch.setitem(module.MEASURES, "classify", lambda *args, **options: calls.append((args, options)) or "done")
    given, nothing, views = package("classify"), Manifest((), {}, Path()), config.Views()
    assert measure(given, nothing, views, batch=3) == "done"
    assert calls == [((given, nothing, views), {"batch": 3})]


def test_kinds_that_nobody_measures_are_refused():
    with pytest.raises(ConfigError, match="tasks of kind 'dream' cannot be measured; there are classify, detect"):
        measure(package("dream"), Manifest((), {}, Path()), config.Views())
