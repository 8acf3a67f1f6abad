"""Traps: ids that begin with '-' or '_', quotes in labels, both spellings of folders, replacement files, test lists."""

import pytest

from tests.datasets.formats.folders import folder, rows
from wholereel.datasets.formats.kinetics import read_kinetics
from wholereel.errors import DataError

TRAIN = """label,youtube_id,time_start,time_end,split,is_cc
"petting animal (not cat)",-abcdefghi_,3,13,train,0
\"\"\"dancing\"\"\",_bcdefghijk,0,10,train,0
air drumming,cdefghijklm,20,30,train,1
air drumming,missingmiss,1,11,train,1
"""
VAL = "label,youtube_id,time_start,time_end,split\nair drumming,defghijkl_m,100000,100010,val\n"
TEST = "youtube_id,time_start,time_end,split\nefghijklmno,0,10,test\n"
PETTING, REPAIRED = "-abcdefghi__000003_000013", "cdefghijklm_000020_000030"
TEXTS = {"annotations/train.csv": TRAIN, "annotations/val.csv": VAL, "annotations/test.csv": TEST}


def test_official_tables(tmp_path):
    root = folder(
        tmp_path,
        {**TEXTS, "annotations/notes.csv": "a,b\n1,2\n"},
        "train/petting_animal_(not_cat)/-abcdefghi__000003_000013.mp4",
        "train/dancing/_bcdefghijk_000000_000010.mp4",
        "train/air drumming/cdefghijklm_000020_000030.mp4",
        "replacement_for_corrupted_k400/cdefghijklm_000020_000030.mp4",
        "val/air_drumming/defghijkl_m_100000_100010.webm",
        "test/efghijklmno_000000_000010.mp4",
    )
    found = read_kinetics(root)
    assert found.classes == {"label": ("air drumming", "dancing", "petting animal (not cat)")}
    assert [source.name for source in found.sources] == ["test.csv", "train.csv", "val.csv"]
    assert sorted(rows(found)) == [
        (PETTING, f"train/petting_animal_(not_cat)/{PETTING}.mp4", "train", {"label": 2}),
        ("_bcdefghijk_000000_000010", "train/dancing/_bcdefghijk_000000_000010.mp4", "train", {"label": 1}),
        (REPAIRED, f"replacement_for_corrupted_k400/{REPAIRED}.mp4", "train", {"label": 0}),
        ("defghijkl_m_100000_100010", "val/air_drumming/defghijkl_m_100000_100010.webm", "val", {"label": 0}),
        ("efghijklmno_000000_000010", "test/efghijklmno_000000_000010.mp4", "test", {}),
        ("missingmiss_000001_000011", "missingmiss_000001_000011.mp4", "train", {"label": 0}),
    ]  # fmt: skip


def test_splits_may_come_from_the_name_of_the_file(tmp_path):
    texts = {"kinetics-600_val.csv": "label,youtube_id,time_start,time_end\nrun,abcdefghijk,0.0,10.0\n"}
    assert rows(read_kinetics(folder(tmp_path, texts))) == [
        ("abcdefghijk_000000_000010", "abcdefghijk_000000_000010.mp4", "val", {"label": 0})
    ]


def test_without_tables_folders_are_classes_in_either_spelling(tmp_path):
    names = ("train/air drumming/a.mp4", "train/person's head/b.mp4", "val/air_drumming/c.mp4")
    found = read_kinetics(folder(tmp_path, {}, *names))
    assert found.classes == {"label": ("air drumming", "person's head")}
    assert [(id, split, labels) for id, _, split, labels in rows(found)] == [
        ("a", "train", {"label": 0}),
        ("b", "train", {"label": 1}),
        ("c", "val", {"label": 0}),
    ]


def test_a_broken_row_is_named(tmp_path):
    texts = {"train.csv": "label,youtube_id,time_start,time_end,split\nrun,abcdefghijk,zero,10,train\n"}
    with pytest.raises(DataError, match=r"train\.csv: row 1 cannot be read, expected columns label,youtube_id"):
        read_kinetics(folder(tmp_path, texts))
