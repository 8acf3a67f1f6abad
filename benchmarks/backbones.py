"""Our backbones and operators against torchvision, pytorchvideo and PyTorch in one process: CPU-seconds.

    python benchmarks/backbones.py networks              # forward and train step, 1 x 3 x 8 x 112 x 112
    python benchmarks/backbones.py operators             # depthwise convolution, correlation
    python benchmarks/backbones.py csn                   # train step of ir-CSN-50, 2 x 3 x 8 x 112 x 112
    python benchmarks/backbones.py forms                 # inference: norms folded, channels last, bfloat16

pytorchvideo is no dependency of ours. Install it beside this package's environment, where its old requirements change
nothing: `pip install --no-deps --target DIR pytorchvideo fvcore iopath portalocker yacs termcolor tabulate tqdm
parameterized`, and name the folder with `--pytorchvideo DIR`. It imports a module that torchvision no longer has; this
script puts today's functions in its place. On a CUDA device: `backbones_gpu.py`.

Outputs and gradients are compared before anything is timed. Rounds are interleaved, so that what else the machine does
hits both sides; the best of the rounds counts.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from wholereel.models import ClipModel, create_model
from wholereel.models.folding import fold_norms
from wholereel.models.layouts import rename
from wholereel.ops.correlation import correlate
from wholereel.ops.depthwise_conv3d import depthwise_conv3d

Run = Callable[[], Any]
CLASSES = 10


def clock() -> float:
    """CPU-seconds of this process."""
    return time.process_time()


def best(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Least milliseconds of each, over interleaved rounds; short runs are repeated within a round."""
    repeats = {}
    for name, run in runs.items():
        began = clock()
        run()
        repeats[name] = max(1, int(0.02 / max(clock() - began, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = clock()
            for _ in range(repeats[name]):
                run()
            found[name].append((clock() - began) / repeats[name])
    return {name: round(1e3 * min(times), 3) for name, times in found.items()}


def close(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    error = ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-20)).item()
    if not error <= tolerance:
        raise SystemExit(f"{what}: differs by {error:.1e} of the largest value, more than {tolerance:.0e}")


def row(name: str, times: dict[str, float], ours: str, theirs: str) -> dict[str, Any]:
    found = {"name": name, **{f"{key}_ms": value for key, value in times.items()}}
    found["speedup"] = round(times[theirs] / times[ours], 2)
    print(f"{name:<58}" + "".join(f"{key} {value:>9.2f} ms  " for key, value in times.items()), end="")
    print(f"{found['speedup']:.2f} x", flush=True)
    return found


# ------------------------------------------------------------------------------------------------------------- networks


def import_pytorchvideo(folder: Path) -> dict[str, Any]:
    """Its builders."""
    sys.path.append(str(folder))
    gone = types.ModuleType("torchvision.transforms.functional_tensor")
    gone.__dict__.update(vars(torchvision.transforms.functional))
    sys.modules[gone.__name__] = gone
    names = {"csn": "csn", "slowfast": "slowfast", "resnet": "resnet", "r2plus1d": "r2plus1d"}
    return {
        name: getattr(importlib.import_module(f"pytorchvideo.models.{module}"), f"create_{name}")
        for name, module in names.items()
    }


def pairs(pytorchvideo: dict[str, Any] | None) -> dict[str, tuple[Callable[[], ClipModel], Callable[[], nn.Module]]]:
    """Name -> our network and another code base's."""
    video = torchvision.models.video

    def ours(name: str, **options: Any) -> Callable[[], ClipModel]:
        return lambda: create_model(name, num_classes=CLASSES, dropout=0.0, **options)

    found: dict[str, Any] = {
        f"{name} (torchvision)": (ours(name), lambda name=name: getattr(video, name)(num_classes=CLASSES))
        for name in ("r3d_18", "mc3_18", "r2plus1d_18")
    }
    if pytorchvideo is None:
        return found
    common: dict[str, Any] = {"model_num_class": CLASSES, "dropout_rate": 0.0, "norm": nn.BatchNorm3d}
    slow = {"stem_conv_kernel_size": (1, 7, 7), "head_pool_kernel_size": (8, 4, 4), "model_depth": 50, **common}
    found |= {
        "slow_8x8_50 (pytorchvideo)": (ours("slow_8x8_50"), lambda: pytorchvideo["resnet"](**slow)),
        "slowfast_8x8_50 (pytorchvideo)": (
            ours("slowfast_8x8_50"),
            lambda: pytorchvideo["slowfast"](head_pool_kernel_sizes=((2, 4, 4), (8, 4, 4)), **common),
        ),
        "ir_csn_50 (pytorchvideo)": (
            ours("ir_csn_50", bn_eps=1e-5),
            lambda: pytorchvideo["csn"](
                model_depth=50, stem_pool=nn.MaxPool3d, head_pool_kernel_size=(1, 4, 4), **common
            ),
        ),
        "r2plus1d_ptv_50 (pytorchvideo)": (
            ours("r2plus1d_ptv_50"),
            lambda: pytorchvideo["r2plus1d"](head_pool_kernel_size=(2, 4, 4), head_activation=None, **common),
        ),
    }
    return found


def same_weights(ours: ClipModel, theirs: nn.Module) -> None:
    """Their weights in our network; scales that begin at zero are set to one, or nothing would be compared."""
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm3d) and not module.weight.any():
            nn.init.ones_(module.weight)
    state, own = theirs.state_dict(), ours.state_dict()
    tables = [rename(own, layout) for layout in ours.layouts() if layout.name == "pytorchvideo"]
    table = {key: key for key in own} if set(state) == set(own) else tables[0]
    ours.load_state_dict({table[key]: value for key, value in state.items() if key in table}, strict=True)


def networks(rounds: int, folder: Path | None) -> list[dict[str, Any]]:
    rows = []
    pytorchvideo = None if folder is None else import_pytorchvideo(folder)
    for name, (build_ours, build_theirs) in pairs(pytorchvideo).items():
        torch.manual_seed(0)
        ours, theirs = build_ours().eval(), build_theirs().eval()
        same_weights(ours, theirs)
        x = torch.randn(1, 3, 8, 112, 112)
        # their two pathways: the slow one reads every fourth frame, ours the frames that PySlowFast's `linspace` names
        given = [x[:, :, torch.linspace(0, 7, 2).long()], x] if "slowfast" in name else x

        def clip(given: Any = given) -> Any:
            return list(given) if isinstance(given, list) else given  # pytorchvideo writes into the list

        with torch.no_grad():
            close(ours(x), theirs(clip()), 1e-4, name)
            found = best({"ours": lambda: ours(x), "theirs": lambda: theirs(clip())}, rounds)  # noqa: B023
        rows.append(row(f"{name} forward", found, "ours", "theirs"))
        ours.train()
        theirs.train()
        label = torch.tensor([3])

        def step(model: nn.Module, given: Any, label: Tensor = label) -> None:
            model.zero_grad(set_to_none=True)
            F.cross_entropy(model(given), label).backward()

        found = best({"ours": lambda: step(ours, x), "theirs": lambda: step(theirs, clip())}, rounds)  # noqa: B023
        rows.append(row(f"{name} train step", found, "ours", "theirs"))
    return rows


# ------------------------------------------------------------------------------------------------------------ operators

# Shape, stride; the least speed-up that is asked for.
DEPTHWISE = [
    ((1, 64, 8, 28, 28), (1, 1, 1), 4.0),
    ((1, 128, 4, 14, 14), (1, 1, 1), 4.0),
    ((1, 256, 8, 14, 14), (1, 1, 1), 4.0),
    ((2, 512, 4, 7, 7), (1, 1, 1), 4.0),
    ((1, 64, 8, 56, 56), (1, 1, 1), 2.0),
    ((1, 128, 8, 56, 56), (2, 2, 2), 2.0),
    ((2, 256, 8, 28, 28), (2, 2, 2), 2.0),
    ((1, 96, 8, 56, 56), (1, 2, 2), 1.0),
    ((1, 96, 8, 56, 56), (1, 8, 8), 1.0),
]


def operators(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for shape, stride, bar in DEPTHWISE:
        x, w = torch.randn(shape).requires_grad_(), torch.randn(shape[1], 1, 3, 3, 3).requires_grad_()
        last = x.detach().contiguous(memory_format=torch.channels_last_3d).requires_grad_()
        stock = lambda x: F.conv3d(x, w, None, stride, 1, 1, len(w))  # noqa: B023, E731
        split = lambda x: depthwise_conv3d(x, w, stride, (1, 1, 1), "split")  # noqa: B023, E731
        error = torch.randn_like(stock(x))
        error_last = error.contiguous(memory_format=torch.channels_last_3d)
        theirs = [stock(x), *torch.autograd.grad(stock(x), (x, w), error)]
        ours = [split(last), *torch.autograd.grad(split(last), (last, w), error_last)]
        for one, other in zip(ours, theirs, strict=True):
            close(one, other, 1e-5, f"depthwise {shape}")
        runs = {
            "ours": lambda: torch.autograd.grad(split(last), (last, w), error_last),  # noqa: B023
            "stock": lambda: torch.autograd.grad(stock(x), (x, w), error),  # noqa: B023
            "stock channels-last": lambda: torch.autograd.grad(stock(last), (last, w), error_last),  # noqa: B023
        }
        rows.append(row(f"depthwise {shape} stride {stride}", best(runs, rounds), "ours", "stock"))
        rows[-1]["asked"] = bar
    for shape, groups, bar in [((1, 64, 8, 28, 28), 2, 2.0), ((1, 128, 8, 14, 14), 4, 1.0)]:
        x, w = torch.randn(shape).requires_grad_(), torch.rand(shape[2], shape[1], 7, 7).requires_grad_()

        def run(implementation: Any, error: Tensor | None = None, x: Any = x, w: Any = w, groups: int = groups) -> Any:
            y = correlate(x, w, dilation=2, groups=groups, implementation=implementation)
            return y if error is None else torch.autograd.grad(y, (x, w), error)

        error = torch.randn_like(run("plain"))
        for one, other in zip(run("streaming", error), run("plain", error), strict=True):
            close(one, other, 1e-4, f"correlation {shape}")
        runs = {
            "ours": lambda: run("streaming", error),  # noqa: B023
            "unfold": lambda: run("plain", error),  # noqa: B023
        }
        rows.append(row(f"correlation {shape} K=7 D=2 G={groups}", best(runs, max(rounds // 2, 2)), "ours", "unfold"))
        rows[-1]["asked"] = bar
    return rows


def csn(rounds: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    models = {
        name: create_model("ir_csn_50", implementation=implementation).train()
        for name, implementation in (("ours", "auto"), ("stock", "native"))
    }
    models["ours"].load_state_dict(models["stock"].state_dict())
    x, label = torch.randn(2, 3, 8, 112, 112), torch.tensor([1, 2])

    def step(model: nn.Module) -> Tensor:
        model.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), label)
        loss.backward()
        return loss.detach()

    close(step(models["ours"]), step(models["stock"]), 1e-5, "loss of ir_csn_50")
    found = best({name: lambda model=model: step(model) for name, model in models.items()}, rounds)
    return [row("ir_csn_50 train step 2 x 3 x 8 x 112 x 112", found, "ours", "stock") | {"asked": 1.25}]


# ------------------------------------------------------------------------------------------------------ inference forms

FORMS = ("r3d_18", "r2plus1d_18", "i3d_50", "slow_8x8_50", "slowfast_8x8_50", "ir_csn_50", "ip_csn_50", "corrnet_26")


def forms(rounds: int) -> list[dict[str, Any]]:
    """Forward of one clip 3 x 8 x 112 x 112 in the forms that inference can take; outputs are compared first."""
    rows = []
    for name in FORMS:
        torch.manual_seed(0)
        options = {"frames": 8} if name.startswith("corrnet") else {}
        model = create_model(name, num_classes=CLASSES, **options).eval()
        for module in model.modules():  # statistics and scales as training leaves them
            if isinstance(module, nn.BatchNorm3d):
                nn.init.uniform_(module.weight, 0.2, 0.4)
        x = torch.randn(1, 3, 32 if name.startswith("slowfast") else 8, 112, 112)
        last = x.contiguous(memory_format=torch.channels_last_3d)
        with torch.no_grad():
            folded = fold_norms(model, x)
            folded_last = copy.deepcopy(folded).to(memory_format=torch.channels_last_3d)
            narrow = copy.deepcopy(folded_last).bfloat16()

            def autocast(model: nn.Module = folded, x: Tensor = x) -> Tensor:
                with torch.autocast("cpu", torch.bfloat16):
                    return model(x)

            runs: dict[str, Run] = {
                "plain": lambda: model(x),  # noqa: B023
                "folded": lambda: folded(x),  # noqa: B023
                "folded, channels last": lambda: folded_last(last),  # noqa: B023
                "folded, autocast": autocast,
                "folded, channels last, bfloat16": lambda: narrow(last.bfloat16()),  # noqa: B023
            }
            expected = model(x)
            for form, run in runs.items():
                close(
                    run().float(), expected, 1e-4 if "cast" not in form and "bf" not in form else 0.1, f"{name} {form}"
                )
            found = best(runs, rounds)
        rows.append({"name": f"{name} forward", **{f"{form}_ms": value for form, value in found.items()}})
        print(f"{name:<18}" + "".join(f"{form} {value:.1f} ms   " for form, value in found.items()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("networks", "operators", "csn", "forms"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pytorchvideo", type=Path, help="folder in which it is installed")
    parser.add_argument("--note", default="", help="what else the machine did")
    parser.add_argument("--result", type=Path, help="result file; beside this script by default")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    if given.what == "networks":
        rows = networks(given.rounds, given.pytorchvideo)
    else:
        rows = {"operators": operators, "csn": csn, "forms": forms}[given.what](given.rounds)
    today = datetime.date.today().isoformat()
    words = [given.what, "--rounds", str(given.rounds), "--threads", str(given.threads)]
    words += ["--pytorchvideo", "DIR"] if given.pytorchvideo else []
    result = {
        "what": f"backbones {given.what}: CPU milliseconds, best of {given.rounds} interleaved rounds",
        "command": f"python benchmarks/backbones.py {' '.join(words)}",
        "commit": commit.stdout.strip(),
        "date": today,
        "machine": f"{os.cpu_count()} {platform.machine()} cores, torch {torch.__version__}, {given.threads} threads",
        "note": given.note,
        "rows": rows,
    }
    name = f"backbones_{given.what}_{os.cpu_count()}core_{today}.json"
    (given.result or Path(__file__).parent / "results" / name).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
