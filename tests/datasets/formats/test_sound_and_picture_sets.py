"""ESC-50, DCASE scenes, ImageNet folders. Traps: folds, ESC-10, tabs, capitals in suffixes, unsorted validation."""

import pytest

from tests.datasets.formats.folders import folder, rows
from wholereel.datasets.formats.dcase_scenes import read_dcase_scenes
from wholereel.datasets.formats.esc50 import read_esc50
from wholereel.datasets.formats.imagenet import read_imagenet
from wholereel.errors import ConfigError, DataError

ESC = """filename,fold,target,category,esc10,src_file,take
1-100032-A-0.wav,1,0,dog,True,100032,A
1-100038-A-3.wav,1,3,chirping_birds,False,100038,A
5-9032-A-0.wav,5,0,dog,True,9032,A
2-110417-B-2.wav,2,2,sea_waves,True,110417,B
"""


def test_esc50(tmp_path):
    root = folder(tmp_path, {"meta/esc50.csv": ESC}, "audio/1-100032-A-0.wav")
    found = read_esc50(root, fold=5)
    assert found.classes == {"label": ("dog", "class 1", "sea_waves", "chirping_birds")}
    assert rows(found) == [
        ("1-100032-A-0", "audio/1-100032-A-0.wav", "train", {"label": 0}),
        ("1-100038-A-3", "audio/1-100038-A-3.wav", "train", {"label": 3}),
        ("5-9032-A-0", "audio/5-9032-A-0.wav", "test", {"label": 0}),
        ("2-110417-B-2", "audio/2-110417-B-2.wav", "train", {"label": 2}),
    ]
    assert found.samples[0].meta == {"fold": 1, "source": "100032"}
    small = read_esc50(root, esc10=True)
    assert small.classes == {"label": ("dog", "sea_waves")}
    assert [(sample.split, sample.labels["label"]) for sample in small.samples] == [
        ("test", 0),
        ("train", 0),
        ("train", 1),
    ]
    with pytest.raises(ConfigError, match="has the folds 1 to 5, not 0"):
        read_esc50(root, fold=0)
    (root / "meta/esc50.csv").write_text(ESC.replace("True,100032", "True"))
    with pytest.raises(DataError, match=r"esc50\.csv: row 2 has 6 columns"):
        read_esc50(root)


def test_dcase_lists(tmp_path):
    texts = {
        "evaluation_setup/train.txt": "audio/bus01.wav\tbus\naudio/busy street 02.wav\tbusystreet\t0.0\n",
        "evaluation_setup/test.txt": "audio/bus09.wav\tbus\n",
        "README.txt": "not a list",
    }
    found = read_dcase_scenes(folder(tmp_path, texts))
    assert found.classes == {"label": ("bus", "busystreet")}
    assert rows(found) == [
        ("audio/bus09.wav", "audio/bus09.wav", "test", {"label": 0}),
        ("audio/bus01.wav", "audio/bus01.wav", "train", {"label": 0}),
        ("audio/busy street 02.wav", "audio/busy street 02.wav", "train", {"label": 1}),
    ]
    (tmp_path / "evaluation_setup/test.txt").write_text("audio/bus09.wav bus\n")
    with pytest.raises(DataError, match=r"test\.txt: line 1 is 'audio/bus09\.wav bus', expected file and label with a"):
        read_dcase_scenes(tmp_path)


def test_dcase_folders(tmp_path):
    found = read_dcase_scenes(folder(tmp_path, {}, "train/bus/a.wav", "train/park/b.WAV", "test/bus/c.ogg"))
    assert rows(found) == [
        ("test/bus/c.ogg", "test/bus/c.ogg", "test", {"label": 0}),
        ("train/bus/a.wav", "train/bus/a.wav", "train", {"label": 0}),
        ("train/park/b.WAV", "train/park/b.WAV", "train", {"label": 1}),
    ]


def test_imagenet_folders(tmp_path):
    names = ("train/n01440764/n01440764_10026.JPEG", "train/n01443537/b.JPEG", "val/n01443537/ILSVRC2012_val_1.JPEG")
    found = read_imagenet(folder(tmp_path, {}, *names))
    assert found.classes == {"label": ("n01440764", "n01443537")}
    assert rows(found) == [
        (names[0], names[0], "train", {"label": 0}),
        (names[1], names[1], "train", {"label": 1}),
        (names[2], names[2], "val", {"label": 1}),
    ]
    folder(tmp_path / "flat", {}, names[0], "val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DataError, match="val: holds pictures without folders of classes, expected one folder for each"):
        read_imagenet(tmp_path / "flat")
