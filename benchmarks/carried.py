"""What is known of a carried object by seconds since its pick-up, with the film's own memory and with another film's.

    python benchmarks/carried.py runs/effects/memvit_ava_rooms_seed0/memory/best [MORE ...]

For networks of `memvit_ava_rooms`. Films are painted, not decoded, and read key frame after key frame; at each, all
networks are also given what they remember of another film. A pick-up 16 key frames ago is remembered, an older one is
not. Among boxes that carry something: the share whose kind has the highest score of the four.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wholereel.batches import map_tensors
from wholereel.datasets.worlds import get_world
from wholereel.datasets.worlds.ava_rooms import RoomScene, mean_precision
from wholereel.datasets.worlds.room_painting import box_at
from wholereel.datasets.worlds.room_schedule import ACTIONS, FRAME_RATE, KEYS, KINDS
from wholereel.media.model_input import to_model_input
from wholereel.models.memvit import MeMViT
from wholereel.models.memvit_state import MemvitState
from wholereel.models.package import load_package

BEFORE = FRAME_RATE // 2  # frames between the two of a clip, as in the recipe
AGES = ((0, 0), (1, 1), (2, 4), (5, 8), (9, 12), (13, 16), (17, 19))


@dataclass(frozen=True)
class Films:
    """Scenes and their frames `(T, H, W, C)`, uint8."""

    scenes: tuple[RoomScene, ...]
    frames: tuple[Tensor, ...]


def paint(split: str, count: int, seed: int) -> Films:
    """The first films of a split."""
    world = get_world("ava_rooms")
    scenes = tuple(world.sample(seed, split, index) for index in range(count))
    return Films(scenes, tuple(torch.from_numpy(world.record(scene).frames_THWC) for scene in scenes))


def scores(model: MeMViT, films: Films, *, another: bool) -> list[Tensor]:
    """`scores_RK` of each film, in the order of key frames and people; `another`: given the memory of the next film."""
    rows = len(films.scenes)
    _, height, width, _ = films.frames[0].shape
    state = model.init_state(rows, size=(height, width), pending=True)
    found: list[list[Tensor]] = [[] for _ in films.scenes]
    for second in KEYS:
        key = second * FRAME_RATE
        clip_BTCHW = torch.stack([frames[[key - BEFORE, key]] for frames in films.frames]).movedim(-1, 2)
        clip_BCTHW = to_model_input(clip_BTCHW, mean=model.info.mean, std=model.info.std, dtype=torch.float32)
        places = [(row, *box_at(agent, second)) for row, scene in enumerate(films.scenes) for agent in scene.agents]
        boxes_R5 = torch.tensor(places, dtype=torch.float32)
        with torch.no_grad():
            strange_RK = model(clip_BCTHW, rolled(state), boxes_R5)[0] if another else None
            own_RK, state = model(clip_BCTHW, state, boxes_R5)
        logits_RK = own_RK if strange_RK is None else strange_RK
        for row, one_RK in enumerate(found):
            one_RK.append(logits_RK[boxes_R5[:, 0] == row])
    return [torch.cat(one_RK) for one_RK in found]


def rolled(state: MemvitState) -> MemvitState:
    """Each row has the memory of the next one; all are equally old."""
    return replace(state, layers=tuple(map_tensors(layer, lambda t: t.roll(1, 0)) for layer in state.layers))


def judge(films: Films, found: list[Tensor]) -> dict[str, Any]:
    """Frame-mAP of the true boxes, and the share of kinds that are right by seconds since the pick-up."""
    ages, right = [], []
    for scene, one_RK in zip(films.scenes, found, strict=True):
        rows = [(second, agent) for second in KEYS for agent in scene.agents]
        for (second, agent), score_K in zip(rows, one_RK, strict=True):
            carry = agent.carry_at(second)
            if carry is not None:
                ages.append(second - carry.start)
                right.append(int(score_K[len(ACTIONS) :].argmax()) == carry.kind)
    by_age = {}
    for low, high in AGES:
        chosen = [hit for age, hit in zip(ages, right, strict=True) if low <= age <= high]
        if chosen:
            by_age[f"{low}-{high}"] = {"right": round(sum(chosen) / len(chosen), 3), "boxes": len(chosen)}
    return {"map": round(mean_precision(films.scenes, [one.numpy() for one in found]), 4), "by_seconds": by_age}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="+", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--films", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the world")
    parser.add_argument("--note", default="", help="what else the machine did")
    parser.add_argument("--result", type=Path, help="result file; beside this script by default")
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    films, names = paint(given.split, given.films, given.seed), list[str]()
    rows: list[dict[str, Any]] = []
    for package in given.packages:
        model = load_package(package).model
        if not isinstance(model, MeMViT):
            parser.error(f"{package} holds a {type(model).__name__}, expected a MeMViT with a head for boxes")
        started = time.process_time()
        memories = {"own": False, "another film's": True}
        row = {name: judge(films, scores(model, films, another=another)) for name, another in memories.items()}
        cost = round(time.process_time() - started, 1)
        names.append("/".join(package.parts[-3:]))
        rows.append({"name": names[-1], "memory": row, "cpu_seconds": cost})
        for name, result in row.items():
            words = "  ".join(f"{age} s {share['right']:.3f}" for age, share in result["by_seconds"].items())
            print(f"{names[-1]:<40} {name:<15} mAP {result['map']:.3f}  {words}", flush=True)
    today = datetime.date.today().isoformat()
    result = {
        "what": f"ava_rooms, {given.films} films of {given.split}: kinds named right (of {len(KINDS)}) by seconds "
        "since the pick-up, with a film's own memory and with another's",
        "command": f"python benchmarks/carried.py {' '.join(names)} --split {given.split}",
        "commit": commit.stdout.strip(),
        "date": today,
        "machine": f"{os.cpu_count()} {platform.machine()} cores, CPU only, torch {torch.__version__}",
        "note": given.note,
        "rows": rows,
    }
    default = Path(__file__).parent / "results" / f"carried_{os.cpu_count()}core_{today}.json"
    (given.result or default).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
