"""The golden files of this repository are matched, and the walk survives files that it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.parity.__main__ import main
from tests.parity.families import check_file, golden_files

GOLDEN = Path(__file__).parent / "golden"
MINE = [*golden_files(GOLDEN / "collaborative_memory"), *golden_files(GOLDEN / "backbones")]


@pytest.mark.parametrize("path", MINE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden_file_is_matched(path: Path) -> None:
    line = check_file(path)
    assert line.status == "pass", line.text
    assert "not compared" not in line.text


def _changed(source: str, target: Path, *, meta: dict | None = None, config: dict | None = None, **arrays) -> Path:
    with np.load(GOLDEN / source, allow_pickle=False) as file:
        content = {name: file[name] for name in file.files}
    described = json.loads(str(content["meta"])) | (meta or {})
    if config is not None:
        described["config"] = described["config"] | config
    content |= arrays | {"meta": np.array(json.dumps(described))}
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez(target, **content)
    return target


BLOCK = "collaborative_memory/mem_assoc_tied_gate_sum.npz"


def test_a_wrong_number_fails_and_names_the_first_array(tmp_path: Path) -> None:
    with np.load(GOLDEN / BLOCK) as file:
        gate = file["gate"] + 1e-9
    line = check_file(_changed(BLOCK, tmp_path / "a.npz", gate=gate))
    assert line.status == "FAIL"
    assert "float64 gate" in line.text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"meta": {"temperature": 2.0}}, "meta has fields that are not understood: temperature"),
        ({"config": {"dropout": 0.1}}, "config has fields that are not understood: dropout"),
        ({"config": {"interaction": "gated_rnn"}}, "no builder for interaction 'gated_rnn'"),
        ({"meta": {"kind": "other"}}, "no builder for kind 'other'"),
    ],
)
def test_what_is_not_understood_is_skipped_with_a_reason(tmp_path: Path, changes: dict, reason: str) -> None:
    line = check_file(_changed(BLOCK, tmp_path / "a.npz", **changes))
    assert line.status == "skip"
    assert reason in line.text


def test_big_arrays_are_compared_as_samples_and_statistics(tmp_path: Path) -> None:
    with np.load(GOLDEN / BLOCK) as file:
        content = {name: file[name] for name in file.files}
    full = content.pop("X_hat")
    flat = full.reshape(-1)
    stats = np.array([flat.mean(), flat.std(), np.abs(flat).max(), np.linalg.norm(flat)])
    index = np.arange(0, flat.size, 7)
    samples = {"X_hat__flat_index": index, "X_hat__flat_value": flat[index], "X_hat__stats": stats}
    np.savez(tmp_path / "good.npz", **content, **samples)
    np.savez(tmp_path / "bad.npz", **content, **samples | {"X_hat__stats": stats * 1.001})
    assert check_file(tmp_path / "good.npz").status == "pass"
    assert "float64 X_hat" in check_file(tmp_path / "bad.npz").text


def test_walk_goes_on_after_broken_files_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _changed(BLOCK, tmp_path / "group" / "good.npz")
    (tmp_path / "group" / "broken.npz").write_bytes(b"no zip archive")
    (tmp_path / "group" / "list.json").write_text("[1, 2]")
    _changed(BLOCK, tmp_path / "no_size.npz", meta={"d": None})
    assert main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-2]] == ["FAIL", "pass", "skip", "FAIL"]
    assert lines[-2:] == ["1 skipped", "1 passed, 2 failed"]


def test_exit_code_is_zero_without_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _changed(BLOCK, tmp_path / "good.npz")
    assert main([str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[-1] == "1 passed, 0 failed"
