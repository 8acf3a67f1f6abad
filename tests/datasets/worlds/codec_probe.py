"""Does a part of a file change the pixels of another? Every world that has more than one group of frames.

    python -m tests.datasets.worlds.codec_probe SCENES SEED

The first, the middle and the last group of some scenes is inverted before encoding; the decoded pixels of all other
groups must stay, bit for bit.
"""

from __future__ import annotations

import sys

from wholereel.datasets.worlds import WORLDS, get_world
from wholereel.datasets.worlds.verify import dependent_groups


def groups_of(world, scene) -> int:
    """Groups of frames that are coded apart."""
    return -(-len(world.record(scene).frames_THWC) // world.group_frames)


def main(scenes: int, seed: int) -> None:
    for name in WORLDS:
        world = get_world(name)
        split = next(iter(world.std_sizes))
        first = world.sample(seed, split, 0)
        if not world.frame_rate or groups_of(world, first) < 2:
            print(f"{name:<20} one group of frames, or a picture")
            continue
        tried = touched = 0
        for index in range(scenes):
            scene = world.sample(seed, split, index)
            groups = groups_of(world, scene)
            for changed in sorted({0, groups // 2, groups - 1}):
                tried += groups - 1
                touched += len(dependent_groups(world, scene, changed=changed))
        print(
            f"{name:<20} {groups} groups of {world.group_frames} frames: {touched} of {tried} others changed",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
