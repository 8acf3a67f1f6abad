"""`python -m tests.parity DIR`: check every golden file of a directory tree; the exit code is 1 if any fails.

One line a file: `pass`, `FAIL` or `skip (why)`, the path, the error that is largest in units of its tolerance. The last
line is `N passed, M failed`; the one before it counts the skipped ones, where there are any. With
`--device cuda` products are of full float32, without TF32; families that are computed on the CPU alone are skipped.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import torch

from tests.parity.families import check_file, golden_files


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("directory", type=Path, help="directory tree of .npz and .json golden files")
    parser.add_argument("--device", type=torch.device, default="cpu", help="where ours is computed")
    given = parser.parse_args(arguments)
    directory, device = given.directory, given.device
    if not directory.is_dir():
        parser.error(f"{directory} is not a directory")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    counts: Counter[str] = Counter()
    for path in golden_files(directory):
        line = check_file(path, device)
        counts[line.status] += 1
        print(f"{line.status}  {path.relative_to(directory)}  {line.text}", flush=True)
    if counts["skip"]:
        print(f"{counts['skip']} skipped")
    print(f"{counts['pass']} passed, {counts['FAIL']} failed")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
