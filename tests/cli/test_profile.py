"""`wholereel profile` prints and writes what `models/profile.py` finds."""

from __future__ import annotations

import json

import pytest
import torch

from wholereel import config
from wholereel.cli.main import main
from wholereel.models import create_model
from wholereel.models.profile import profile_model
from wholereel.models.video_model import VideoModel


def test_table_of_a_published_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "slow_8x8_50", "--memory.dim", "512", "--clips", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "slow_8x8_50, a clip of 8 x 224 x 224, 400 classes"
    (memory,) = [line.split() for line in lines if line.startswith("last")]
    # the second row of the table in test_memory_cost.py, on the network itself
    assert memory[:7] == ["last", "392,", "2048", "3.15", "M", "1.029", "0.926"]
    assert [line.split()[0] for line in lines[-4:]] == [
        "full",
        "exact",
        "multi_iteration/accumulate",
        "multi_iteration/step",
    ]


def test_two_pathways_joined() -> None:
    with torch.device("meta"):
        model = VideoModel(create_model("slowfast_8x8_50"), config.Memory(dim=512))
    (place,) = profile_model(model, (3, 32, 224, 224)).places
    figures = f"{place.cost.parameters / 1e6:.2f} {place.cost.literal / 1e9:.3f} {place.cost.reduced / 1e9:.3f}"
    assert (place.channels, place.positions, figures) == (2304, 392, "3.54 1.132 1.029")  # row four of the same table


def test_json_with_settings(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["profile", "tiny2d_peak", "--clip", "4x32", "--clips", "2", "3", "--memory.interaction", "nl_softmax"]
    assert main([*words, "--set", "options.width=16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"]["options"] == {"width": 16}
    assert found["clip"] == [3, 4, 32, 32]
    assert found["memory"][0]["cost"]["affinity_bytes"] == 4 * (3 * found["memory"][0]["positions"]) ** 2
    assert [(row["strategy"], row["clips"]) for row in found["steps"][:2]] == [("full", 2), ("full", 3)]
    assert found["macs"] == sum(stage["macs"] for stage in found["stages"])


def test_without_memory_and_wrong_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "tiny2d", "--plain", "--clips", "2"]) == 0
    assert "memory (" not in capsys.readouterr().out
    for words, message in [
        (["tiny2e"], "there is no model 'tiny2e'. Did you mean 'tiny2d'?"),
        (["mvitv2_s"], "'mvitv2_s' is of kind 'tokens': profile counts convolutional clip models"),
        (["tiny2d", "--clips", "0"], "--clips 0: expected numbers from 1 on"),
        (["tiny2d", "--clip", "32"], "--clip needs FRAMESxSIZE"),
        (["tiny2d", "--memory.after", "layer9"], "memory.after may name each of stem, layer1, layer2"),
    ]:
        assert main(["profile", *words]) == 2
        assert message in capsys.readouterr().err
