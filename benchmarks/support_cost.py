"""What temporal support costs: multiply-adds of a step of MeMViT-16 by the seconds that it looks back, counted.

    python benchmarks/support_cost.py

Half of the 16 layers remember M clips of 2.13 s, every second one of clips that begin a second apart (gap 2), as in the
published AVA settings, so a step sees 2.13 + 8 * M * 2 seconds. Counted on meta tensors as the public codes count
(`tests/models/counting.py`); nothing is timed. Writes a result file and docs/_static/memvit_support_cost.svg.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the counting lives with the tests that hold the published numbers

from tests.models.counting import multiply_adds  # noqa: E402
from wholereel.models.registry import create_model  # noqa: E402
from wholereel.report.charts import Series, line_chart  # noqa: E402

LAYERS, GAP, HOP, CLIP_SECONDS = 8, 2, 1.0, 64 / 30


def row_of(reach: int) -> dict[str, Any]:
    with torch.device("meta"):
        model = create_model("memvit_16", reach=reach, gap=GAP).eval()
        step = multiply_adds(model, torch.empty(1, 3, 16, 224, 224), model.init_state(1, pending=True))
        state = model.init_state(1).nbytes()
    return {
        "reach": reach,
        "support_seconds": round(CLIP_SECONDS + LAYERS * reach * GAP * HOP, 2),
        "gmacs": round(step / 1e9, 3),
        "state_mb": round(state / 1e6, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reaches", type=int, nargs="+", default=[0, 1, 2, 3, 4, 6, 8])
    parser.add_argument("--result", type=Path, help="result file; beside this script by default")
    given = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    rows = [row_of(reach) for reach in given.reaches]
    for row in rows:
        row["relative"] = round(row["gmacs"] / rows[0]["gmacs"], 4)
        print(row, flush=True)
    today = datetime.date.today().isoformat()
    result = {
        "what": "MeMViT-16, 16 x 224^2: multiply-adds of a step by temporal support, over those without memory",
        "command": "python benchmarks/support_cost.py",
        "commit": commit.stdout.strip(),
        "date": today,
        "counted": True,
        "rows": rows,
    }
    default = ROOT / "benchmarks" / "results" / f"support_cost_{today}.json"
    (given.result or default).write_text(json.dumps(result, indent=1) + "\n")
    series = Series("MeMViT-16", [row["support_seconds"] for row in rows], [row["relative"] for row in rows])
    text = line_chart(
        [series],
        title="Cost of a step by how far it looks back",
        x_label="temporal support, seconds",
        y_label="multiply-adds, over no memory",
        y_range=(0.98, 1.12),
    )
    (ROOT / "docs" / "_static" / "memvit_support_cost.svg").write_text(text + "\n")


if __name__ == "__main__":
    main()
