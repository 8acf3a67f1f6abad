"""Write the table of `docs/models.md` from the code: `python docs/model_table.py`, or `--check` to compare only.

Parameters and multiply-adds are counted on meta tensors; what is published is copied from where it says.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch

from wholereel.models import create_model, list_models
from wholereel.models.cost import count_cost

PAGE = Path(__file__).parent / "models.md"
BEGIN, END = "<!-- table, written by docs/model_table.py -->\n", "<!-- end of table -->\n"
SLOWFAST = "PySlowFast zoo"
PTV = "pytorchvideo zoo"
VMZ = "VMZ zoo"
# Kinetics-400 top-1 / top-5 that others published for weights in this layout, and where; none are ours.
PUBLISHED: dict[str, str] = {
    "c2d_50": f"67.2 / 87.8 ({SLOWFAST})",
    "i3d_50": f"73.5 / 90.8 ({SLOWFAST})",
    "i3d_nl_50": f"74.0 / 91.1 ({SLOWFAST})",
    "slow_4x16_50": f"72.7 / 90.3 ({SLOWFAST})",
    "slow_8x8_50": f"74.8 / 91.6 ({SLOWFAST})",
    "slowfast_4x16_50": f"75.6 / 92.0 ({SLOWFAST})",
    "slowfast_8x8_50": f"77.0 / 92.6 ({SLOWFAST})",
    "slowfast_8x8_101": f"77.90 / 93.27 ({PTV})",
    "slowfast_16x8_101": f"78.70 / 93.61 ({PTV})",
    "r2plus1d_ptv_50": f"76.01 / 92.23 ({PTV}, 16x4)",
    "r3d_18_vmz": f"62.3 / 83.4 ({VMZ}, 8 frames)",
    "mc2_18": f"63.0 ({VMZ}, 8 frames)",
    "mc3_18": f"63.3 / 84.2 ({VMZ}, 8 frames)",
    "mc4_18": f"63.0 ({VMZ}, 8 frames)",
    "mc5_18": f"62.9 ({VMZ}, 8 frames)",
    "rmc2_18": f"62.7 ({VMZ}, 8 frames)",
    "rmc3_18": f"62.8 ({VMZ}, 8 frames)",
    "rmc4_18": f"62.8 ({VMZ}, 8 frames)",
    "rmc5_18": f"61.6 ({VMZ}, 8 frames)",
    "r2plus1d_18_vmz": f"65.3 / 85.2 ({VMZ}, 8 frames)",
    "r2plus1d_34": f"80.0 / 94.2 ({VMZ}, from IG-65M, 32 frames)",
    "r2plus1d_152": f"81.6 / 95.3 ({VMZ}, from IG-65M, 32 frames)",
    "ir_csn_152": f"82.6 / 95.3 ({VMZ}, from IG-65M)",
    "ip_csn_152": f"82.5 / 95.3 ({VMZ}, from IG-65M)",
    "ir_csn_101": f"77.00 / 92.90 ({PTV}, 32x2)",
    "ir_csn_50": "79.44 / 94.26 (MMAction2, from IG-65M, BN frozen)",
    "r2d_ptv_26": "70.1 (arXiv 1906.03349)",
    "r2plus1d_ptv_26": "72.3 (arXiv 1906.03349)",
    "corrnet_26": "75.1 (arXiv 1906.03349; no weights published)",
    "corrnet_101": "79.2 (arXiv 1906.03349, quoted; no weights published)",
}
NORMS = {0.485: "ImageNet", 0.45: "0.45 / 0.225", 0.43216: "VMZ", 0.5: "0.5 / 0.25"}


def table_row(name: str) -> str:
    """One line of the table."""
    with torch.device("meta"):
        model = create_model(name)
    info = model.info
    cost = count_cost(model, (3, info.frames, info.crop, info.crop))
    extra = "".join(
        f" + {count / 1e9:.2f} {what}"
        for count, what in ((cost.attention, "attention"), (cost.correlation, "correlation"))
        if count
    )
    cells = (
        f"`{name}`",
        f"{cost.parameters / 1e6:.2f}",
        f"{cost.macs / 1e9:.2f}{extra}",
        f"{info.frames} x {info.crop}², stride {info.stride} at {info.frame_rate:g}/s",
        NORMS[info.mean[0]],
        PUBLISHED.get(name, ""),
    )
    return "| " + " | ".join(cells) + " |"


def written_rows() -> dict[str, str]:
    """Name -> line of the table as it stands in the page."""
    text = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    return {found[1]: line for line in text.splitlines() if (found := re.match(r"\| `(\w+)`", line))}


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    rows = {name: table_row(name) for name in list_models(kind="clip")}
    if check:
        stale = sorted(name for name in rows | written_rows() if rows.get(name) != written_rows().get(name))
        raise SystemExit(f"docs/models.md is stale for: {', '.join(stale)}" if stale else 0)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    head = "| model | parameters, 10⁶ | multiply-adds, 10⁹ | clip | pixels | published top-1 / top-5, Kinetics-400 |\n"
    head += "| --- | --- | --- | --- | --- | --- |\n"
    PAGE.write_text(
        before + BEGIN + head + "\n".join(rows.values()) + "\n" + END + rest.partition(END)[2], encoding="utf-8"
    )


if __name__ == "__main__":
    main()
