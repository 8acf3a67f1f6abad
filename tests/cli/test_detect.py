"""`wholereel predict --boxes` and `wholereel evaluate` for models that judge boxes."""

import csv
import json

import pytest

from tests.evaluation.test_key_frames import official, prepared  # noqa: F401 (a fixture)
from tests.inference.test_key_frames import films, package  # noqa: F401 (a fixture)
from wholereel.cli.main import main
from wholereel.errors import ConfigError
from wholereel.inference.predictor import Predictor
from wholereel.models.package import save_package


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    given = package()
    classes = ("x", "action 2", "z")
    colours = {"mean": given.mean, "std": given.std}
    sizes = {"short_side": given.short_side, "crop": given.crop, "clips": given.clips}
    folder = tmp_path_factory.mktemp("run")
    save_package(
        folder,
        given.model,
        spec=given.spec,
        num_classes=3,
        classes=classes,
        task=given.task,
        input={**colours, **sizes},
    )
    return folder


def test_predict_on_a_film_with_a_table_of_boxes(run, films, tmp_path, capsys):  # noqa: F811
    table = tmp_path / "boxes.csv"
    table.write_text(
        "a,3,0.1,0.2,0.5,0.9,,0.9\na,3,0.4,0.0,1.0,0.7,,0.5\na,7.5,0.1,0.2,0.5,0.9,,0.8\nb,3,0,0,1,1,,0.9\n"
    )
    film = str(films[0].path)
    assert (
        main(["predict", str(run), film, "--boxes", str(table), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    )
    words = capsys.readouterr().out
    assert "2 key frames, 3 boxes" in words
    assert "7.50 s  box 0: " in words
    rows = list(csv.reader((tmp_path / "out" / "a" / "detections.csv").read_text().splitlines()))
    assert [(row[0], row[1], row[6]) for row in rows[:4]] == [
        ("a", "0003", "1"),
        ("a", "0003", "2"),
        ("a", "0003", "3"),
        ("a", "0003", "1"),
    ]
    assert rows[-1][1] == "7.500000"
    assert (
        main(
            [
                "predict",
                str(run),
                film,
                "--boxes",
                str(table),
                "--json",
                "--out",
                str(tmp_path / "b"),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    line = json.loads(capsys.readouterr().out)
    assert [frame["seconds"] for frame in line["key_frames"]] == [3.0, 7.5]
    assert set(line["key_frames"][0]["boxes"][0]["scores"]) == {"x", "action 2", "z"}


def test_what_predict_refuses(run, films, tmp_path, capsys):  # noqa: F811
    table = tmp_path / "boxes.csv"
    table.write_text("c,3,0.1,0.2,0.5,0.9,,0.9\n")
    assert main(["predict", str(run), str(films[0].path), "--boxes", str(table), "--device", "cpu"]) == 2
    assert "has no box of 'a', but of c" in capsys.readouterr().err
    with pytest.raises(
        ConfigError, match="judges boxes at key frames, not whole videos: `wholereel predict RUN film.mp4"
    ):
        Predictor(run)


def test_evaluate_writes_official_detections(run, official, tmp_path, capsys):  # noqa: F811
    prepared(official, tmp_path / "keys")
    out = tmp_path / "out"
    given = [
        "evaluate",
        str(run),
        "--data",
        str(tmp_path / "keys"),
        "--split",
        "val",
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert main(given) == 0
    words = capsys.readouterr().out
    assert "18 of 18 key frames evaluated" in words
    assert (out / "detections.csv").is_file()
    assert main([*given[:-1], "cpu", "--set", "views.clips.window=4.0", "--set", "views.clips.count=3"]) == 0
    assert "3 clips over 4 s around the key frame" in capsys.readouterr().out
    assert main([*given, "--protocol", "kinetics_10x3"]) != 0
    assert "--protocol" in capsys.readouterr().err
