"""Key frames of films: clips encoded once give what whole windows give; every key frame once; what cannot be read."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tasks.detections import CLASSES
from wholereel import config
from wholereel.config import Augment, Clips, Data
from wholereel.datasets.clip_dataset import ClipDataset, collate
from wholereel.datasets.sample import Box, Manifest, Sample
from wholereel.errors import ConfigError
from wholereel.inference.key_frames import Film, Judged, KeyFrame, Unread, judge_films, shares_clips
from wholereel.media.video_writer import write_video
from wholereel.models.package import Package, build_model
from wholereel.tasks.detection import DetectionTask

RATE, HEIGHT, WIDTH, SECONDS = 8, 32, 40, 20
CLIPS = Clips(count=5, frames=4, stride=2, window=8.0, window_grid=1.0)
BEFORE = replace(CLIPS, window_side="before")
BOX, OTHER = (0.1, 0.2, 0.5, 0.9), (0.4, 0.0, 1.0, 0.7)
MEMORY = config.Memory(dim=6, value="separate", position_norm="sum")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two films of noise, 20 s and 9 s; the key frames are full seconds, some without boxes, and one in between."""
    folder = tmp_path_factory.mktemp("films")
    generator = np.random.default_rng(0)
    found = []
    for name, seconds in (("a", SECONDS), ("b", 9)):
        frames = generator.integers(0, 256, (seconds * RATE, HEIGHT, WIDTH, 3), dtype=np.uint8)
        write_video(folder / f"{name}.mp4", frames, frame_rate=RATE, gop=8)
        keys = [KeyFrame(float(t), (BOX, OTHER)[: t % 3]) for t in range(seconds)] + [
            KeyFrame(seconds - 1 + 0.5, (OTHER,))
        ]
        found.append(Film(folder / f"{name}.mp4", tuple(keys)))
    return tuple(found)


def package(memory=MEMORY, read="roi", clips=CLIPS) -> Package:
    spec = config.Model("tiny_r2plus1d", options={"width": 8}, memory=memory, boxes=config.BoxHead(read=read))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(spec, CLASSES).eval()
        for parameter in model.memories.parameters():
            torch.nn.init.normal_(parameter, std=2.0 * parameter.shape[-1] ** -0.5)
    task = config.Task("detect", multi_label=True)
    return Package(model, spec, tuple("xyz"), task, clips, HEIGHT, 0, (0.5,) * 3, (0.25,) * 3, {})


def judged(films, given, **options):
    found = list(judge_films(given, films, options.pop("clips", given.clips), device=torch.device("cpu"), **options))
    assert all(isinstance(one, Judged) for one in found)
    assert [(one.film, one.key) for one in found] == [
        (f, k) for f, film in enumerate(films) for k in range(len(film.keys))
    ]
    return found


@pytest.mark.parametrize("read", ["clip", "roi"])
@pytest.mark.parametrize(
    "clips", [CLIPS, replace(CLIPS, window_grid=None, window=5.0), replace(CLIPS, frame_rate=6.0), BEFORE]
)
def test_clips_encoded_once_give_what_windows_give(films, read, clips):
    given = package(read=read, clips=clips)
    kept, direct = judged(films, given), judged(films, given, share=False)
    for one, other in zip(kept, direct, strict=True):
        assert one.scores_RK.shape == (len(films[one.film].keys[one.key].boxes), CLASSES)
        torch.testing.assert_close(one.scores_RK, other.scores_RK, rtol=1e-4, atol=1e-5)
        assert one.clips_read == other.clips_read
    assert max((one.scores_RK - 0.5).abs().max() for one in kept if len(one.scores_RK)) > 0.01
    if clips == CLIPS:
        # Once per second of film (and for the key frame in between once more for each of its clips in the film).
        assert sum(one.clips_encoded for one in kept) == SECONDS + 9 + 3 + 3
        assert sum(one.clips_read for one in kept) == sum(one.clips_encoded for one in direct) > 3 * (SECONDS + 9)


@pytest.mark.parametrize("clips", [CLIPS, BEFORE])
def test_a_window_is_what_training_reads(films, clips):
    """The task on a batch of the data set gives the scores of the evaluation."""
    given = package(clips=clips)
    samples = tuple(
        Sample(
            f"{f}/{k}",
            film.path,
            None,
            None,
            "val",
            {"label": ()},
            key.seconds,
            tuple(Box(key.seconds, xyxy) for xyxy in key.boxes),
        )
        for f, film in enumerate(films)
        for k, key in enumerate(film.keys)
        if key.boxes
    )
    data = Data(clips=clips, augment=Augment((HEIGHT, HEIGHT), 0), workers=0)
    dataset = ClipDataset(
        Manifest(samples, {"label": tuple("xyz")}, films[0].path.parent, True), data, train=False, seed=0
    )
    task = DetectionTask(given.model, given.task, CLASSES).eval()
    one_by_one = iter(one for one in judged(films, given) if len(one.scores_RK))
    for index in range(len(samples)):
        batch = collate([dataset[0, index]])
        expected = next(one_by_one)
        torch.testing.assert_close(task.predict(batch).scores["label"], expected.scores_RK, rtol=1e-4, atol=1e-5)


def test_a_window_before_the_key_frame_knows_nothing_of_later_clips(films):
    """A film that ends after second 12 gives the same scores up to 10; with clips on both sides it does not."""
    film = replace(films[0], keys=tuple(key for key in films[0].keys if key.seconds <= 10))
    for clips, same in ((BEFORE, True), (CLIPS, False)):
        given = package(clips=clips)
        whole, cut = (judged((one,), given) for one in (film, replace(film, end=12.0)))
        equal = [torch.allclose(a.scores_RK, b.scores_RK, atol=1e-6) for a, b in zip(whole, cut, strict=True)]
        assert all(equal[:7])
        assert all(equal) == same


def test_without_memory_only_the_middle_is_read(films):
    found = judged(films, package(None))
    assert {(one.clips_read, one.clips_encoded) for one in found} == {(1, 1)}


@pytest.mark.parametrize(
    "memory",
    [replace(MEMORY, clip_pos=5), replace(MEMORY, after=("layer2",)), replace(MEMORY, interaction="nl_softmax")],
)
def test_what_cannot_be_shared_is_run_window_by_window(films, memory):
    given = package(memory, "clip")
    assert not shares_clips(given.model)
    short = (Film(films[1].path, films[1].keys[:3]),)
    found = judged(short, given)
    assert [one.clips_read for one in found] == [3, 3, 4]  # clips before the film are masked
    with pytest.raises(ConfigError, match="clips cannot be shared between key frames by a model with"):
        judged(short, given, share=True)


@pytest.mark.parametrize("share", [True, False])
def test_a_film_that_cannot_be_read(films, tmp_path, share):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film")
    late = Film(films[1].path, (*films[1].keys[:2], KeyFrame(99.0, (BOX,))))
    both = (Film(broken, films[0].keys[:2]), replace(films[1], keys=films[1].keys[:2]), late)
    found = list(judge_films(package(), both, CLIPS, device=torch.device("cpu"), share=share))
    assert [(one.film, one.key) for one in found if isinstance(one, Unread)][:2] == [(0, 0), (0, 1)]
    assert "broken.mp4" in found[0].reason
    assert [one.key for one in found if isinstance(one, Judged) and one.film == 1] == [0, 1]
    assert "no key frame at 99.0 s between" in [one.reason for one in found if isinstance(one, Unread)][-1]


def test_workers_and_parts_change_nothing(films):
    given = package()
    for one, other in zip(judged(films, given), judged(films, given, workers=2), strict=True):
        assert torch.equal(one.scores_RK, other.scores_RK)


def test_clip_models_are_refused(films):
    given = package()
    plain = replace(given, model=build_model(config.Model("tiny2d", options={"width": 8}), 3))
    with pytest.raises(ConfigError, match="judges whole clips, not boxes"):
        judged(films, plain)
