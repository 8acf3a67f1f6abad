"""What the demo leaves behind: one prediction, `report.html`, and `results.json` with the numbers of the comparison."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from wholereel.datasets.atomic_files import write_text_file
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.worlds import get_world
from wholereel.inference.predictor import Predictor
from wholereel.report.run_files import read_results
from wholereel.report.run_report import Example, System, write_run_report
from wholereel.report.timeline import write_timeline

__all__ = ["write_demo_report"]

SYSTEMS = {"late_average": "late averaging", "collaborative_memory": "collaborative memory"}
CEILINGS = {"clip": "one clip", "sum": "adding up clips"}


def write_demo_report(out: str | Path, *, command: str, device: str = "cpu") -> dict[str, Any]:
    """Predict on one test video and write `report.html` and `results.json`.

    Args:
        out: a finished run of the recipe `demo`.
        command: as typed, for the page.
        device: where the one prediction runs.
    Returns: the content of `results.json`.
    """
    out = Path(out)
    test = read_manifest(out / "match8", split="test")
    examples = [next(s for s in test.samples if s.labels["label"] == label) for label in range(2)]
    names = test.classes["label"]
    prediction = Predictor(out / "collaborative_memory", device=device)(examples[0].path)
    write_timeline(prediction, out / "prediction", png=False)
    ceilings = get_world("match8").ceilings()
    write_run_report(
        out / "report.html",
        title="Two events, one question",
        summary=(
            "In each generated video of 24 seconds two glyphs flash up in different parts; the label says whether they "
            "are equal. No single clip can know. Averaging the scores of clips cannot get beyond 9/14; with a "
            "collaborative memory the clips exchange what they saw before they are judged. Both models start from the "
            "same pre-trained network and saw the same clips equally often."
        ),
        systems=[
            System(name, runs=(out / stage,), results=(out / f"test_{stage}",)) for stage, name in SYSTEMS.items()
        ],
        command=command,
        ceilings={name: ceilings[level] for level, name in CEILINGS.items()},
        examples=[Example(s.path, f"A test video of class {names[i]!r}", frames=24) for i, s in enumerate(examples)],
        timeline=prediction,
        remarks=[
            "The ceiling of adding up clips is proved for scores that depend on the clip's glyph alone; scores that "
            "use a clip's colours or places as dice could reach 19/28 (page 'worlds' of the documentation)."
        ],
    )
    results: dict[str, Any] = {stage: _numbers(out / f"test_{stage}") for stage in SYSTEMS}
    results["ceilings"] = ceilings
    results["prediction"] = {"video": os.path.relpath(prediction.path, out), **dict(prediction.top(len(names)))}
    results["command"] = command
    write_text_file(out / "results.json", json.dumps(results, indent=1) + "\n")
    return results


def _numbers(folder: Path) -> dict[str, Any]:
    found = read_results(folder)
    low, high = found["intervals_95"]["video_top1"]
    return {**found["metrics"], "video_top1_interval_95": [low, high], "videos": found["evaluated"]}
