"""Traps: `;` and no header (V1), brackets in templates and indices as text (V2), tests without labels, left, right."""

import json

import pytest

from tests.datasets.formats.folders import folder, rows
from wholereel.datasets.formats.something_something import (
    read_something_something_v1,
    read_something_something_v2,
)
from wholereel.datasets.mirror import Mirror
from wholereel.errors import DataError

LABELS = (
    "Turning something upside down",
    "Pushing something from left to right",
    "Holding something",
    "Pushing something from right to left",
    "Moving something left",
)
V1 = {
    "something-something-v1-labels.csv": "\n".join(LABELS) + "\n",
    "something-something-v1-train.csv": f"100218;{LABELS[1]}\n24413;{LABELS[2]}\n",
    "something-something-v1-validation.csv": f"74225;{LABELS[0]}\n",
    "something-something-v1-test.csv": "1420\n",
}


def test_v1(tmp_path):
    found = read_something_something_v1(folder(tmp_path, V1))
    assert found.classes == {"label": LABELS}
    assert rows(found) == [
        ("100218", "20bn-something-something-v1/100218", "train", {"label": 1}),
        ("24413", "20bn-something-something-v1/24413", "train", {"label": 2}),
        ("74225", "20bn-something-something-v1/74225", "val", {"label": 0}),
        ("1420", "20bn-something-something-v1/1420", "test", {}),
    ]
    assert {sample.frame_rate for sample in found.samples} == {12.0}
    assert found.mirror == Mirror({"label": (0, 3, 2, 1, -1)})  # the last one's mirror image is no class
    parts = ("labels", "train", "validation", "test")
    assert [file.name for file in found.sources] == [f"something-something-v1-{part}.csv" for part in parts]
    (tmp_path / "something-something-v1-train.csv").write_text("1;Flying\n")
    with pytest.raises(DataError, match=r"train\.csv: line 1 has the label 'Flying', expected one of the list"):
        read_something_something_v1(tmp_path)


def entry(id: str, template: str) -> dict:
    return {
        "id": id,
        "label": template.replace("[something]", "a cup"),
        "template": template,
        "placeholders": ["a cup"],
    }


@pytest.mark.parametrize("prefix", ["something-something-v2-", "labels/"])
def test_v2(tmp_path, prefix):
    texts = {
        # order of the file and of the indices differ; "10" would sort before "2" as text
        "labels": {name: str(index) for index, name in reversed(list(enumerate(LABELS)))},
        "train": [entry("78687", "Holding [something]"), entry("42326", "Pushing [something] from left to right")],
        "validation": [entry("74225", "Turning [something] upside down")],
        "test": [{"id": "1420"}],
    }
    folder(tmp_path, {f"{prefix}{name}.json": json.dumps(content) for name, content in texts.items()})
    found = read_something_something_v2(tmp_path)
    assert found.classes == {"label": LABELS}
    assert rows(found) == [
        ("78687", "20bn-something-something-v2/78687.webm", "train", {"label": 2}),
        ("42326", "20bn-something-something-v2/42326.webm", "train", {"label": 1}),
        ("74225", "20bn-something-something-v2/74225.webm", "val", {"label": 0}),
        ("1420", "20bn-something-something-v2/1420.webm", "test", {}),
    ]
    (tmp_path / f"{prefix}train.json").write_text(json.dumps([entry("1", "Holding [something] tight")]))
    with pytest.raises(DataError, match="entry 1 has the label 'Holding something tight'"):
        read_something_something_v2(tmp_path)
