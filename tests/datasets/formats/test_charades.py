"""Traps: empty lists of actions, quoted cells with commas, the test table that validates."""

import pytest

from tests.datasets.formats.folders import folder, rows
from wholereel.datasets.formats.charades import read_charades
from wholereel.datasets.sample import Event
from wholereel.errors import DataError

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
TRAIN = HEADER + (
    '46GP8,HR43,Kitchen,6,7,Yes,"A person cooks, then eats.",food;stove,"A ""quick"" meal; done.",'
    "c092 11.90 21.20;c147 0.00 12.60,24.83\n"
    "N11GT,0KZ7,Bedroom,7,7,No,A person sits.,,,,31.00\n"
)
VAL = HEADER + "0E123,KA1R,Hallway,5,7,Yes,A person walks.,door,,c156 0.00 3.5,18.2\n"
TEXTS = {"Charades/Charades_v1_train.csv": TRAIN, "Charades/Charades_v1_test.csv": VAL}


def test_tables_with_videos(tmp_path):
    found = read_charades(folder(tmp_path, TEXTS, "Charades_v1_480/46GP8.mp4", "Charades_v1_480/0E123.mp4"))
    assert found.multi_label
    assert rows(found) == [
        ("46GP8", "Charades_v1_480/46GP8.mp4", "train", {"label": (92, 147)}),
        ("N11GT", "N11GT.mp4", "train", {"label": ()}),
        ("0E123", "Charades_v1_480/0E123.mp4", "val", {"label": (156,)}),
    ]
    assert found.samples[0].events == (Event(92, 11.90, 21.20), Event(147, 0.0, 12.60))
    assert found.samples[1].events == ()
    assert found.samples[0].meta == {"subject": "HR43"}
    assert found.classes["label"][::78] == ("c000", "c078", "c156")
    assert len(found.classes["label"]) == 157


def test_tables_with_pictures_and_names(tmp_path):
    names = "".join(f"c{index:03d} Doing thing {index}\n" for index in range(157))
    found = read_charades(folder(tmp_path, {**TEXTS, "Charades_v1_classes.txt": names}), layout="pictures")
    assert found.classes["label"][147] == "Doing thing 147"
    assert found.samples[0].path == tmp_path / "Charades_v1_rgb" / "46GP8"
    assert {sample.frame_rate for sample in found.samples} == {24.0}


def test_broken_actions(tmp_path):
    texts = {**TEXTS, "Charades/Charades_v1_test.csv": VAL.replace("c156 0.00 3.5", "c156 0.00")}
    with pytest.raises(DataError, match=r"Charades_v1_test\.csv: row 2 has the action 'c156 0\.00', expected 'c092"):
        read_charades(folder(tmp_path, texts))
    (tmp_path / "Charades/Charades_v1_train.csv").write_text("id,script\n")
    with pytest.raises(DataError, match="has no column 'actions'"):
        read_charades(tmp_path)
