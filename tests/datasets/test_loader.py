from dataclasses import replace

import pytest
import torch

from tests.datasets.broken_files import add_broken, data_set, truncated_video
from wholereel.config import Augment, Clips, Data, Erasing, Mixing, RandAugment, ResizedCrop
from wholereel.datasets.batch_samplers import batch_indices, clips_of_step, seeded_generator
from wholereel.datasets.loader import TooManyFaultsError, clip_loader
from wholereel.datasets.manifest import Manifest, Sample, read_manifest
from wholereel.errors import ConfigError
from wholereel.media.augment import TrainAugment
from wholereel.media.rand_augment import OPERATIONS
from wholereel.media.video_reader import VideoReader

DATA = Data(clips=Clips("stratified", count=2, frames=2, stride=2), augment=Augment((24, 28), 24), workers=0)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("healthy")
    data_set(root, 11)
    return read_manifest(root, split="train")


def same(batches, others):
    return len(batches) == len(others) and all(
        a.ids == b.ids and torch.equal(a.clips_BNTCHW, b.clips_BNTCHW) and torch.equal(a.seconds_BNT, b.seconds_BNT)
        for a, b in zip(batches, others, strict=True)
    )


def test_training_visits_complete_batches_in_the_sampler_s_order(healthy):
    loader = clip_loader(healthy, DATA, train=True, seed=5, batch=3)
    batches = list(loader.epoch(2))
    assert loader.steps_per_epoch == len(batches) == 3
    for step, batch in enumerate(batches):
        indices = batch_indices(11, batch=3, seed=5, epoch=2, step=step)
        assert batch.ids == tuple(healthy.samples[index].id for index in indices)
        assert batch.target.labels["label"].tolist() == [index % 3 for index in indices]
        assert batch.clips_BNTCHW.shape == (3, 2, 2, 3, 24, 24)
        assert batch.clips_BNTCHW.is_contiguous()
        assert batch.valid_BN.all()
        assert batch.faults == ()


@pytest.mark.parametrize("clips", [Clips("contiguous", 9, 4, 2), Clips("stratified", 9, 4, 2, coverage=True)])
def test_the_number_of_clips_is_fixed_in_training(healthy, clips):
    """Other processes run the same loops over clips, whatever the videos in their share."""
    (batch, *_) = clip_loader(healthy, replace(DATA, clips=clips), train=True, seed=5, batch=3).epoch(0)
    assert batch.clips_BNTCHW.shape[:2] == batch.seconds_BNT.shape[:2] == batch.valid_BN.shape == (3, 9)
    assert batch.valid_BN[:, 0].all()
    assert not batch.valid_BN[:, -1].any()
    evaluated = next(clip_loader(healthy, replace(DATA, clips=clips), train=False, seed=5, batch=3).epoch(0))
    assert evaluated.valid_BN.shape[1] < 9
    assert evaluated.valid_BN.all()


def test_the_number_of_clips_may_be_drawn_for_each_step(healthy):
    data = replace(DATA, clips=replace(DATA.clips, count=4, least=2))
    loader = clip_loader(healthy, data, train=True, seed=5, batch=1)
    batches = list(loader.epoch(0))
    counts = [batch.valid_BN.shape[1] for batch in batches]
    assert set(counts) == {2, 3, 4}
    assert counts == [clips_of_step(2, 4, seed=5, epoch=0, step=step) for step in range(11)]
    assert all(batch.valid_BN.all() for batch in batches)
    assert same(list(loader.epoch(0, start_step=7)), batches[7:])
    other = clip_loader(healthy, data, train=True, seed=5, batch=1, rank=1, world_size=2)
    assert [batch.valid_BN.shape[1] for batch in other.epoch(0)] == counts[:5]
    evaluated = clip_loader(healthy, data, train=False, seed=5, batch=3).epoch(0)
    assert {batch.valid_BN.shape[1] for batch in evaluated} == {4}


def test_masked_videos_fit_a_drawn_number_of_clips(healthy):
    data = replace(DATA, clips=Clips("stratified", 9, 4, 2, coverage=True, least=8))
    batches = list(clip_loader(healthy, data, train=True, seed=5, batch=3).epoch(0))
    assert {batch.valid_BN.shape[1] for batch in batches} <= {8, 9}
    assert not any(batch.valid_BN[:, -1].any() for batch in batches)


def test_an_epoch_resumes_in_its_middle(healthy):
    whole = list(clip_loader(healthy, DATA, train=True, seed=5, batch=3).epoch(1))
    resumed = clip_loader(healthy, DATA, train=True, seed=5, batch=3)
    assert same(list(resumed.epoch(1, start_step=2)), whole[2:])
    assert same(list(resumed.epoch(1, start_step=1)), whole[1:])
    assert not same(list(resumed.epoch(2)), whole)


def test_the_loader_leaves_the_global_generator_alone(healthy):
    before = torch.get_rng_state()
    list(clip_loader(healthy, DATA, train=True, seed=5, batch=3).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("start_method", "workers"), [("fork", 2), ("spawn", 1)])  # a spawned one imports torch anew
def test_workers_change_nothing(healthy, start_method, workers):
    plain = clip_loader(healthy, DATA, train=True, seed=5, batch=3)
    data = replace(DATA, workers=workers)
    loader = clip_loader(healthy, data, train=True, seed=5, batch=3, start_method=start_method)
    try:
        abandoned = loader.epoch(0)
        next(abandoned)  # what the workers had prepared for this pass is thrown away
        assert same(list(loader.epoch(1)), list(plain.epoch(1)))
        assert same(list(loader.epoch(0, start_step=1)), list(plain.epoch(0, start_step=1)))
    finally:
        loader.close()
    with pytest.raises(ValueError, match="the loader is closed"):
        next(loader.epoch(0))


def test_workers_fill_and_share_a_cache(healthy, tmp_path):
    data = replace(DATA, augment=replace(DATA.augment, short_side=(28, 28)))
    plain = list(clip_loader(healthy, data, train=True, seed=5, batch=3).epoch(0))
    data = replace(data, cache=True, workers=2)
    loader = clip_loader(healthy, data, train=True, seed=5, batch=3, cache_dir=tmp_path)
    try:
        assert same(list(loader.epoch(0)), plain)
        assert same(list(loader.epoch(0)), plain)
    finally:
        loader.close()
    assert len(list(tmp_path.iterdir())) == 2 * 9  # two files for each video of three complete batches


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_evaluation_shows_every_sample_once_over_all_ranks(healthy, world_size):
    data = replace(DATA, clips=replace(DATA.clips, plan="uniform"))
    ids = [
        id
        for rank in range(world_size)
        for batch in clip_loader(healthy, data, train=False, seed=0, batch=3, rank=rank, world_size=world_size).epoch(0)
        for id in batch.ids
    ]
    assert sorted(ids) == sorted(sample.id for sample in healthy.samples)
    if world_size == 1:
        assert ids == [sample.id for sample in healthy.samples]


def test_training_counts_replaced_samples_and_stops_past_the_limit(tmp_path):
    data_set(tmp_path, 15)
    broken = add_broken(tmp_path)  # 5 of 20
    manifest = read_manifest(tmp_path)
    patient = clip_loader(manifest, replace(DATA, max_bad=0.25), train=True, seed=0, batch=4)
    batches = list(patient.epoch(0))
    assert [len(batch.ids) for batch in batches] == [4] * 5
    assert sorted(fault.id for batch in batches for fault in batch.faults) == sorted(broken)
    strict = clip_loader(manifest, replace(DATA, max_bad=0.2), train=True, seed=0, batch=4)
    seen = []
    with pytest.raises(TooManyFaultsError) as caught:
        seen.extend(batch.faults for batch in strict.epoch(0))
    assert sorted(fault.id for faults in (*seen, caught.value.faults) for fault in faults) == sorted(broken)
    assert caught.value.faults
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: 5 of 20 samples of epoch 1 could not be read ({tmp_path}/videos/")
    assert "expected at most 20.00% (data.max_bad). Run `wholereel data check` for the full list" in message


def test_truncated_files_are_noted_and_do_not_count_as_bad(tmp_path):
    truncated_video(tmp_path / "a.avi")
    sample = Sample("a", tmp_path / "a.avi", None, None, "train", {"label": 0})
    manifest = Manifest((sample, replace(sample, id="b")), {"label": ("x",)}, tmp_path)
    data = replace(DATA, clips=replace(DATA.clips, plan="uniform"), max_bad=0.0)
    for epoch in range(2):
        [batch] = clip_loader(manifest, data, train=True, seed=0, batch=2).epoch(epoch)
        assert sorted((fault.id, fault.kind) for fault in batch.faults) == [("a", "truncated"), ("b", "truncated")]


def test_workers_report_faults_like_one_process(tmp_path):
    data_set(tmp_path, 5)
    add_broken(tmp_path)
    manifest = read_manifest(tmp_path)
    data = replace(DATA, max_bad=1.0)
    plain = list(clip_loader(manifest, data, train=True, seed=1, batch=2).epoch(3))
    loader = clip_loader(manifest, replace(data, workers=2), train=True, seed=1, batch=2)
    try:
        parallel = list(loader.epoch(3))
    finally:
        loader.close()
    assert same(parallel, plain)
    assert [batch.faults for batch in parallel] == [batch.faults for batch in plain]
    assert sum(len(batch.faults) for batch in plain) == 5


def test_evaluation_goes_on_past_broken_files_and_an_empty_batch(tmp_path):
    data_set(tmp_path, 3)
    broken = add_broken(tmp_path)
    data = replace(DATA, clips=replace(DATA.clips, plan="uniform"), max_bad=0.0)
    batches = list(clip_loader(read_manifest(tmp_path), data, train=False, seed=0, batch=2).epoch(0))
    assert [len(batch.ids) for batch in batches] == [2, 1, 0, 0]
    assert [fault.id for batch in batches for fault in batch.faults] == broken


@pytest.mark.parametrize("part", [{"start": 0.1, "end": 0.1}, {"start": 0.1, "end": 0.2, "key_seconds": 0.2}])
def test_a_part_that_cannot_be_is_a_fault_of_its_sample(healthy, part):
    wrong = replace(healthy.samples[0], id="wrong", **part)
    manifest = replace(healthy, samples=(wrong, *healthy.samples[1:4]))
    data = replace(DATA, clips=replace(DATA.clips, plan="uniform"), max_bad=1.0)
    for train in (True, False):
        [batch] = clip_loader(manifest, data, train=train, seed=0, batch=4).epoch(0)
        [fault] = batch.faults
        assert fault.id == "wrong"
        assert "expected a part that lies inside the video. Check start, end and key_seconds" in fault.reason
        assert len(batch.ids) == (4 if train else 3)


def test_too_few_samples_for_a_step(healthy):
    with pytest.raises(ValueError, match="11 samples do not fill one step of 4 x 3"):
        clip_loader(healthy, DATA, train=True, seed=0, batch=4, world_size=3)


# what training may add to the pictures

AUGMENTED = replace(
    DATA,
    augment=Augment(
        (28, 28), 24, lighting=0.1, rand_augment=RandAugment(), resized_crop=ResizedCrop(), mixing=Mixing(), copies=2,
        erasing=Erasing(probability=0.5),
    ),
)  # fmt: skip


def blend_of(batch):
    return batch.blend.partner_B.tolist(), batch.blend.share_B.tolist(), batch.blend.box_B4.tolist()


def test_copies_follow_each_other_are_decoded_once_and_the_first_is_the_one_without(healthy):
    plain_data = replace(DATA, augment=replace(DATA.augment, short_side=(28, 28), color_jitter=0.4))
    data = replace(plain_data, augment=replace(plain_data.augment, copies=3))
    plain = next(clip_loader(healthy, plain_data, train=True, seed=5, batch=3).epoch(1))
    batch = next(clip_loader(healthy, data, train=True, seed=5, batch=3).epoch(1))
    assert batch.ids == tuple(id for id in plain.ids for _ in range(3))
    assert batch.valid_BN.shape == (9, 2)
    assert torch.equal(batch.clips_BNTCHW[::3], plain.clips_BNTCHW)
    assert torch.equal(batch.target.labels["label"], plain.target.labels["label"].repeat_interleave(3))
    for copy in (1, 2):
        assert torch.equal(batch.seconds_BNT[copy::3], plain.seconds_BNT)
        for video in range(3):
            assert not torch.equal(batch.clips_BNTCHW[3 * video + copy], batch.clips_BNTCHW[3 * video])
    assert not torch.equal(batch.clips_BNTCHW[1], batch.clips_BNTCHW[2])
    evaluated = next(clip_loader(healthy, data, train=False, seed=5, batch=3).epoch(0))
    assert len(evaluated.ids) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_all_of_it_is_the_same_in_workers_and_when_resumed(healthy, workers):
    plain = list(clip_loader(healthy, AUGMENTED, train=True, seed=5, batch=2).epoch(1))
    loader = clip_loader(healthy, replace(AUGMENTED, workers=workers), train=True, seed=5, batch=2)
    resumed = list(loader.epoch(1, start_step=2))
    loader.close()
    assert same(resumed, plain[2:])
    assert [batch.erased for batch in resumed] == [batch.erased for batch in plain[2:]]
    assert [blend_of(batch) for batch in resumed] == [blend_of(batch) for batch in plain[2:]]
    rows = {(patch.row, patch.clip) for batch in plain for patch in batch.erased}
    assert rows == {(row, clip) for row in range(4) for clip in range(2)}
    assert len({batch.blend.share_B[0].item() for batch in plain}) == len(plain)


def test_processes_draw_their_own_blends_and_evaluation_none(healthy):
    one, two = (
        next(clip_loader(healthy, AUGMENTED, train=True, seed=5, batch=2, rank=rank, world_size=2).epoch(0))
        for rank in range(2)
    )
    assert blend_of(one) != blend_of(two)
    evaluated = next(clip_loader(healthy, AUGMENTED, train=False, seed=5, batch=2).epoch(0))
    assert evaluated.blend is None
    assert evaluated.erased == ()


def test_one_row_cannot_be_blended(healthy):
    alone = replace(AUGMENTED, augment=replace(AUGMENTED.augment, copies=1))
    with pytest.raises(
        ConfigError, match="blends the rows of a batch in pairs, and a process has 1 video a step in 1 co"
    ):
        clip_loader(healthy, alone, train=True, seed=5, batch=1)
    clip_loader(healthy, AUGMENTED, train=True, seed=5, batch=1)
    clip_loader(healthy, alone, train=False, seed=5, batch=1)


def test_a_clip_of_a_file_is_augmented_in_the_published_order(healthy):
    """By hand, from the decoded frames: RandAugment on whole pictures, window, scaling, flip, offset of colours."""
    augment = replace(AUGMENTED.augment, mixing=None, copies=1, flip=1.0, rand_augment=RandAugment(magnitude=9.0))
    data = replace(AUGMENTED, clips=Clips("random", count=1, frames=3, stride=2), augment=augment)
    checked = 0
    for epoch in range(6):
        loader = clip_loader(healthy, data, train=True, seed=5, batch=1)
        batch = next(loader.epoch(epoch))
        sample = next(sample for sample in healthy.samples if sample.id == batch.ids[0])
        with VideoReader(sample.path, size=28) as reader:
            pixels_TCHW = reader.read(seconds=batch.seconds_BNT[0, 0]).pixels_TCHW
        generator = seeded_generator(5, epoch, healthy.samples.index(sample))
        torch.rand(1, generator=generator, dtype=torch.float64)  # the plan's draw; the side is fixed
        (draw,) = TrainAugment(augment).draws(1, *pixels_TCHW.shape[-2:], generator)
        for operation in draw.operations:
            pixels_TCHW = OPERATIONS[operation.name](pixels_TCHW, operation.level)
        top, left, height, width = draw.window
        window_TCHW = pixels_TCHW[..., top : top + height, left : left + width].float()
        scaled_TCHW = torch.nn.functional.interpolate(window_TCHW, size=(24, 24), mode="bilinear").round()
        light_C11 = torch.tensor(draw.light)[:, None, None] * 255
        expected_TCHW = (scaled_TCHW.flip(-1) + light_C11).round().clamp(0, 255)
        assert (batch.clips_BNTCHW[0, 0].float() - expected_TCHW).abs().max() <= 1
        assert [replace(patch, row=0) for patch in draw.erased] == list(batch.erased)
        checked += len(draw.operations) > 0
    assert checked >= 3
