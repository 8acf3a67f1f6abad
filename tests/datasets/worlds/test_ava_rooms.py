"""ava_rooms: schedules as promised, kinds shown for one second only, ceilings of the schedule, official files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.datasets.worlds.test_scenes import chi_square_p
from wholereel.datasets.formats.ava import read_ava, read_detected_boxes
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.worlds import get_world, make_world
from wholereel.datasets.worlds.ava_rooms import mean_precision, room_scores
from wholereel.datasets.worlds.room_painting import HEIGHT, WIDTH, box_at
from wholereel.datasets.worlds.room_schedule import ACTIONS, CLASSES, KEYS, KINDS, X_RANGE, labels_at, path_of
from wholereel.datasets.worlds.verify import dependent_groups
from wholereel.metrics.frame_map import BoxRows, FrameMap

WORLD = get_world("ava_rooms")
SCENES = [WORLD.sample(0, "train", index) for index in range(120)]
AGENTS = [agent for scene in SCENES for agent in scene.agents]


def test_schedules_are_as_promised():
    assert {len(scene.agents) for scene in SCENES} == {2, 3}
    for scene in SCENES:
        assert len({agent.lane for agent in scene.agents}) == len(scene.agents)
    for agent in AGENTS:
        assert agent.deeds[0].start == 0
        assert agent.deeds[-1].end == 480
        for one, other in zip(agent.deeds, agent.deeds[1:], strict=False):
            assert one.end == other.start
            assert one.end % 8 == 4, "the half second around a key frame shows one action"
        x_T = path_of(agent.x, agent.deeds)
        assert len(x_T) == 480
        assert X_RANGE[0] <= x_T.min() <= x_T.max() <= X_RANGE[1]
        assert all(8 <= carry.seconds <= 20 for carry in agent.carries)
        for one, other in zip(agent.carries, agent.carries[1:], strict=False):
            assert other.start - 1 > one.last, "the next object is shown when nothing is carried any more"


def test_walks_go_the_way_they_are_called():
    agent = next(agent for agent in AGENTS if {1, 2} <= {deed.action for deed in agent.deeds})
    step_T = np.diff(path_of(agent.x, agent.deeds))
    for deed in agent.deeds:
        expected = {"walk left": -1, "walk right": 1}.get(ACTIONS[deed.action], 0)
        assert (step_T[deed.start : deed.end - 1] == expected).all()


def test_another_kind_changes_one_second_only():
    scene = SCENES[0]
    agent = scene.agents[0]
    carry = agent.carries[0]
    other = replace(agent, carries=(replace(carry, kind=(carry.kind + 1) % 4), *agent.carries[1:]))
    a, b = (WORLD.record(s).frames_THWC for s in (scene, replace(scene, agents=(other, *scene.agents[1:]))))
    differs_T = (a != b).any(axis=(1, 2, 3))
    assert np.flatnonzero(differs_T).tolist() == list(range(8 * carry.start - 8, 8 * carry.start))
    assert labels_at(agent, carry.start - 1) == (agent.action_at(8 * carry.start - 8),)
    assert labels_at(agent, carry.start)[1:] == (6 + carry.kind,)
    assert labels_at(agent, carry.last)[1:] == (6 + carry.kind,)
    assert len(labels_at(agent, carry.last + 1)) == 1


def test_kinds_depend_on_nothing():
    values = {
        "start": lambda agent, carry: carry.start // 4,
        "seconds": lambda agent, carry: carry.seconds,
        "side": lambda agent, carry: carry.side + 1,
        "red": lambda agent, carry: carry.color[0] // 16,
        "agent": lambda agent, carry: agent.color[1] // 16,
        "lane": lambda agent, carry: agent.lane,
        "action": lambda agent, carry: agent.action_at(8 * carry.start),
        "kind before": lambda agent, carry: agent.carries[agent.carries.index(carry) - 1].kind,
    }
    for what, value in values.items():
        table = np.zeros((len(KINDS), 24))
        for agent in AGENTS:
            for carry in agent.carries[1:] if what == "kind before" else agent.carries:
                table[carry.kind, value(agent, carry)] += 1
        assert chi_square_p(table) > 0.01 / len(values), what


def test_ceilings_follow_from_the_schedule():
    ceilings = WORLD.ceilings()
    assert 0.73 < ceilings["clip"] < 0.76
    assert ceilings["clip"] < ceilings["memory_5s"] < ceilings["memory_10s"] < ceilings["memory_20s"] == 1.0
    scores = WORLD.measure([WORLD.sample(7, "test", index) for index in range(100)], np.random.default_rng(0))
    for level, score in scores.items():
        assert abs(score.value - ceilings[level]) <= 4 * score.error, level


def test_average_precision_of_a_blind_ranking():
    """Visible classes are perfect, and a ranking by chance is at a quarter or a little above for each kind."""
    generator = np.random.default_rng(0)
    scenes = SCENES[:20]
    blind = [room_scores(-100, scene, generator) for scene in scenes]
    assert (10 * mean_precision(scenes, blind) - 6) / 4 == pytest.approx(0.27, abs=0.03)


def test_mean_precision_is_frame_map_of_true_boxes():
    """The same as the published evaluation of one row for each box and class."""
    scenes = SCENES[:4]
    scores = [room_scores(1, scene, np.random.default_rng(scene.index)) for scene in scenes]
    frames, truth, detected = [], [], []
    for scene, scores_RK in zip(scenes, scores, strict=True):
        rows = iter(scores_RK)
        for second in KEYS:
            frames.append(f"{scene.id},{second}")
            for agent in scene.agents:
                place = (len(frames) - 1, box_at(agent, second))
                truth += [(*place, label, 1.0) for label in labels_at(agent, second)]
                detected += [(*place, label, score) for label, score in enumerate(next(rows))]

    def box_rows(rows):
        frame_R, box_R4, class_R, score_R = map(np.array, zip(*rows, strict=True))
        return BoxRows(frame_R, box_R4.astype(float), class_R, score_R, tuple(frames))

    counts = FrameMap(tuple(range(10))).update(truth=box_rows(truth), detections=box_rows(detected)).compute()
    assert mean_precision(scenes, scores) == pytest.approx(counts.mean(), abs=1e-12)


def test_boxes_hold_their_agents():
    scene = SCENES[3]
    whole = WORLD.record(scene).frames_THWC.astype(int)
    for number, agent in enumerate(scene.agents):
        rest = tuple(other for other in scene.agents if other is not agent)
        without = WORLD.record(replace(scene, agents=rest)).frames_THWC
        for second in KEYS:
            y, x = np.nonzero((whole[8 * second] != without[8 * second]).any(axis=-1))
            left, top, right, bottom = box_at(agent, second)
            assert 0 <= left < right <= WIDTH
            assert 0 <= top < bottom <= HEIGHT
            if len(labels_at(agent, second)) == 1 and not any(second == c.start - 1 for c in agent.carries):
                assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == (left, top, right, bottom), (number, second)


@pytest.mark.parametrize("changed", [0, 31])
def test_seconds_are_coded_independently(changed):
    assert dependent_groups(WORLD, SCENES[0], changed=changed) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = {"train": 2, "val": 2, "test": 0}
    return make_world("ava_rooms", tmp_path_factory.mktemp("ava") / "rooms", sizes=sizes)


def test_the_manifest_holds_boxes(folder):
    sample = read_manifest(folder, split="train").samples[0]
    assert len(sample.boxes) == len(KEYS) * len(SCENES[0].agents)
    assert sample.boxes[0].labels == labels_at(SCENES[0].agents[0], 2)
    assert set(sample.labels["label"]) == {label for box in sample.boxes for label in box.labels}


def test_official_files_read_as_ava(folder):
    annotations = read_ava(folder, layout="segments")
    assert annotations.classes["label"] == CLASSES
    keys = {(sample.meta["video"], sample.key_seconds): sample for sample in annotations.samples}
    assert len(keys) == 4 * (len(KEYS) - 1)
    for scene in SCENES[:2]:
        assert (scene.id, float(scene.excluded)) not in keys
        for second in set(KEYS) - {scene.excluded}:
            sample = keys[scene.id, float(second)]
            assert sample.path == folder / "videos" / f"{scene.id}.mp4"
            assert [box.labels for box in sample.boxes] == [labels_at(agent, second) for agent in scene.agents]
            assert [box.track for box in sample.boxes] == list(range(len(scene.agents)))
            for box, agent in zip(sample.boxes, scene.agents, strict=True):
                truth = np.array(box_at(agent, second)) / (WIDTH, HEIGHT, WIDTH, HEIGHT)
                assert box.xyxy == pytest.approx(tuple(truth), abs=0.0006)


def test_detected_boxes_lie_on_the_true_ones(folder):
    found = read_detected_boxes(folder / "official" / "ava_detection_train_boxes_and_labels.csv", 0.0)
    overlaps, false = [], 0
    for scene in SCENES[:2]:
        for second in KEYS:
            boxes = found[scene.id, 900.0 + second]
            count = len(scene.agents)
            false += len(boxes) - count
            assert all(box.score >= 0.85 for box in boxes[:count])
            for box, agent in zip(boxes, scene.agents, strict=False):
                truth = np.array(box_at(agent, second)) / (WIDTH, HEIGHT, WIDTH, HEIGHT)
                low, high = np.maximum(truth[:2], box.xyxy[:2]), np.minimum(truth[2:], box.xyxy[2:])
                both = np.prod(np.clip(high - low, 0, None))
                areas = np.prod(truth[2:] - truth[:2]) + (box.xyxy[2] - box.xyxy[0]) * (box.xyxy[3] - box.xyxy[1])
                overlaps.append(both / (areas - both))
    assert np.mean(np.array(overlaps) > 0.5) == 1.0
    assert 15 < false < 55  # 34 expected
