"""Sound in batches: the moment of each clip, front ends, files without sound, every way of keeping a data set."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from PIL import Image

from tests.datasets.broken_files import video
from tests.media.sound_files import flash_and_click, murmur, sound_file
from wholereel.config import Audio, Augment, Clips, Data
from wholereel.datasets.clip_dataset import ClipDataset, collate
from wholereel.datasets.loader import clip_loader
from wholereel.datasets.manifest import read_manifest
from wholereel.datasets.sample import Manifest, Sample
from wholereel.datasets.shards import pack
from wholereel.errors import ConfigError
from wholereel.media.audio_features import log_filter_bank, log_mel, mfcc, resize_columns, vmz_log_mel
from wholereel.media.audio_reader import AudioReader

RATE, SOUND = 25, 16_000
TIMES = [0.41, 1.21, 2.25]
CLIPS = Clips("stratified", 2, 8, 1, frame_rate=25.0)
DATA = Data(clips=CLIPS, augment=Augment((32, 32), 32, flip=0.0), audio=Audio(rate=SOUND), workers=0)


def sample(path, id="a", **values):
    return Sample(id, path, values.pop("start", None), values.pop("end", None), "train", {"label": 0}, **values)


def dataset(data, *samples, train=True, **options):
    return ClipDataset(
        Manifest(samples, {"label": ("x",)}, samples[0].path.parent), data, train=train, seed=0, **options
    )


@pytest.fixture(scope="module")
def flashes(tmp_path_factory):
    """Three moments with a white frame and a click, the sound beginning 40 ms late."""
    path = tmp_path_factory.mktemp("flashes") / "a.mp4"
    return flash_and_click(path, TIMES, frame_rate=Fraction(RATE), rate=SOUND, sound_start=Fraction(1, 25))


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("frame_rate", [None, 25.0, 50.0])
def test_flash_and_click_fall_into_the_same_place_of_a_clip(flashes, tmp_path, frame_rate, cache):
    clips = replace(CLIPS, frame_rate=frame_rate)
    seconds = 8 / (frame_rate or RATE)
    data = replace(DATA, clips=clips, cache=cache, audio=Audio(rate=SOUND, seconds=seconds))
    clicks = 0
    train = dataset(data, sample(flashes), cache_dir=tmp_path)
    for epoch in range(12):
        found = train[epoch, 0]
        wave_NS = found.audio.wave_BNCS[0, :, 0]
        assert wave_NS.shape == (2, round(seconds * SOUND))
        for n in range(2):
            white = (found.clips_NTCHW[n].float().mean((1, 2, 3)) > 127).nonzero().flatten().tolist()
            loud = (wave_NS[n].abs() > 0.3).nonzero().flatten().tolist()
            assert bool(white) == bool(loud)
            if white:
                clicks += 1
                frame = loud[0] / SOUND * (frame_rate or RATE)
                assert white[0] - 0.1 <= frame < white[-1] + 1.1
    assert clicks > 3


def test_the_wave_is_that_of_the_reader(flashes):
    found = dataset(DATA, sample(flashes))[0, 0]
    with AudioReader(flashes, rate=SOUND, mono=True) as reader:
        for n, begin in enumerate(found.seconds_NT[:, 0].tolist()):
            torch.testing.assert_close(found.audio.wave_BNCS[0, n], reader.read(start=begin, seconds=0.32).wave_CS)
    assert (found.audio.rate, found.audio.present_BN.tolist()) == (SOUND, [[True, True]])


FRONT_ENDS = {
    "log_mel": (log_mel, {"n_fft": 512, "scale": "slaney", "norm": "slaney"}),
    "log_filter_bank": (log_filter_bank, {}),
    "mfcc": (mfcc, {"coefficients": 7}),
    "vmz_log_mel": (vmz_log_mel, {}),
}


@pytest.mark.parametrize("columns", [None, 20])
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_spectra_are_those_of_the_front_end(flashes, name, columns):
    function, options = FRONT_ENDS[name]
    audio = Audio(name, rate=SOUND, columns=columns, options=options)
    found = dataset(replace(DATA, audio=audio), sample(flashes))[0, 0].audio
    wave = dataset(DATA, sample(flashes))[0, 0].audio.wave_BNCS[:, :, 0]
    expected = function(wave, SOUND, **options)
    expected = expected if columns is None else resize_columns(expected, columns)
    torch.testing.assert_close(found.mel_BNFT, expected)
    assert found.wave_BNCS is None
    every_10_ms = 100.0 if columns is None else 100.0 * columns / function(wave, SOUND, **options).shape[-1]
    assert found.rate == pytest.approx(every_10_ms)


def test_files_without_sound_are_marked(flashes, tmp_path):
    video(tmp_path / "quiet.mp4", 1, frames=36)
    (tmp_path / "pictures").mkdir()
    for number in range(30):
        Image.new("RGB", (40, 32), (number * 5, 0, 0)).save(tmp_path / "pictures" / f"{number}.png")
    late = sample(flashes, "late", start=2.9)  # the clips go on behind the end of the sound
    samples = (
        sample(flashes),
        sample(tmp_path / "quiet.mp4", "b"),
        sample(tmp_path / "pictures", "c", frame_rate=25.0),
    )
    for front_end in ("wave", "log_mel"):
        data = replace(DATA, audio=Audio(front_end, rate=SOUND))
        batch = collate([dataset(data, *samples)[0, index] for index in range(3)])
        assert batch.audio.present_BN.tolist() == [[True, True], [False, False], [False, False]]
        values = batch.audio.wave_BNCS if front_end == "wave" else batch.audio.mel_BNFT
        assert values[0].any()
        assert not values[1:].any()
    silent_end = dataset(DATA, late)[0, 0].audio
    assert silent_end.present_BN.all()
    assert not silent_end.wave_BNCS[..., SOUND // 4 :].any()


def test_batches_pad_sound_as_they_pad_clips(flashes):
    data = replace(DATA, clips=Clips("contiguous", 9, 8, 1, frame_rate=25.0))
    parts = [sample(flashes, "a", end=0.64), sample(flashes, "b", end=1.6)]
    items = [dataset(data, *parts, train=False)[0, index] for index in range(2)]
    batch = collate(items)
    assert batch.valid_BN.sum(1).tolist() == [2, 5]
    assert batch.audio.wave_BNCS.shape == (2, 5, 1, 5120)
    assert torch.equal(batch.audio.wave_BNCS[0, 4], items[0].audio.wave_BNCS[0, 1])
    assert torch.equal(batch.audio.wave_BNCS[1], items[1].audio.wave_BNCS[0])
    assert batch.audio.rate == SOUND


def test_a_batch_of_nothing_has_no_sound_of_the_right_shape(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    for audio, shape in [(Audio(), (0, 1, 1, 5120)), (Audio("log_mel", columns=9), (0, 1, 40, 9))]:
        item = dataset(replace(DATA, audio=audio), sample(tmp_path / "a.mp4"), train=False)[0, 0]
        batch = collate([item])
        values = batch.audio.wave_BNCS if batch.audio.mel_BNFT is None else batch.audio.mel_BNFT
        assert tuple(values.shape)[2:] == shape[2:]
        assert len(values) == len(batch.audio.present_BN) == len(batch.clips_BNTCHW) == 0


def test_every_way_of_keeping_a_data_set(tmp_path):
    root = tmp_path / "set"
    for name in ("dogs", "cats"):
        (root / name).mkdir(parents=True)
        for number in range(2):
            flash_and_click(root / name / f"{number}.mp4", [0.2, 0.4], frame_rate=Fraction(RATE), rate=SOUND, seconds=1)
    (tmp_path / "list.csv").write_text(
        "path,label\n" + "".join(f"set/{name}/{n}.mp4,{name}\n" for name in ("cats", "dogs") for n in range(2))
    )
    folders = read_manifest(root)
    pack(folders, tmp_path / "shards")
    data = replace(DATA, audio=Audio("log_filter_bank", rate=SOUND), workers=1)
    mels = []
    for manifest in (folders, read_manifest(tmp_path / "list.csv"), read_manifest(tmp_path / "shards")):
        loader = clip_loader(manifest, data, train=True, seed=1, batch=2)
        mels.append(torch.cat([batch.audio.mel_BNFT for batch in loader.epoch(0)]))
        loader.close()
    assert mels[0].shape == (4, 2, 40, 31)
    assert torch.equal(mels[0], mels[1])
    assert torch.equal(mels[0], mels[2])


def test_left_padding_is_silence_and_keys_have_their_own_time(flashes):
    early = sample(flashes, start=0.0, end=0.6, meta={"left_pad": 0.2})
    data = replace(DATA, clips=Clips("uniform", 1, 20, 1, frame_rate=25.0))
    wave_S = dataset(data, early, train=False)[0, 0].audio.wave_BNCS.flatten()
    assert not wave_S[: round(0.2 * SOUND)].any()
    assert abs(int((wave_S.abs() > 0.3).nonzero()[0]) / SOUND - 0.61) < 0.002  # the click at 0.41 s
    keyed = sample(flashes, key_seconds=0.2)
    wave_S = dataset(data, keyed, train=False)[0, 0].audio.wave_BNCS.flatten()
    begin = 0.2 - 10 / 25  # before the video
    assert abs(int((wave_S.abs() > 0.3).nonzero()[0]) / SOUND + begin - 0.41) < 0.002


def test_clips_of_own_frame_rates_become_as_many_columns(flashes, tmp_path):
    slow = flash_and_click(tmp_path / "slow.mp4", [0.4], frame_rate=Fraction(10), rate=SOUND)
    data = replace(DATA, clips=Clips("uniform", 1, 8, 1), audio=Audio("log_filter_bank", rate=SOUND, columns=100))
    batch = collate([dataset(data, sample(path))[0, 0] for path in (flashes, slow)])
    assert batch.audio.mel_BNFT.shape == (2, 1, 40, 100)
    assert math.isnan(batch.audio.rate)
    whole = replace(data, clips=Clips("segments", 1, 8, 1))
    mel_FT = dataset(whole, sample(flashes, start=0.2, end=1.0))[0, 0].audio.mel_BNFT[0, 0]
    with AudioReader(flashes, rate=SOUND, mono=True) as reader:
        wave_S = reader.read(start=0.2, seconds=0.8).wave_CS[0]
    torch.testing.assert_close(mel_FT, resize_columns(log_filter_bank(wave_S, SOUND), 100))


def test_sound_alone(flashes, tmp_path):
    only = replace(DATA, audio=Audio(rate=SOUND, only=True))
    both, alone = dataset(DATA, sample(flashes)), dataset(only, sample(flashes))
    for epoch in range(3):
        assert torch.equal(both[epoch, 0].audio.wave_BNCS, alone[epoch, 0].audio.wave_BNCS)  # the same moments
        assert alone[epoch, 0].clips_NTCHW.shape == (2, 0, 3, 32, 32)
    wave_CS = murmur(1, 2 * 22050)
    path = sound_file(tmp_path / "a.wav", "pcm_s16le", wave_CS, 22050)
    clips = Clips("contiguous", 5, 50, 1, frame_rate=100.0)
    manifest = Manifest((sample(path),), {"label": ("x",)}, tmp_path)
    data = replace(only, clips=clips, audio=Audio(rate=22050, only=True))
    batch = next(iter(clip_loader(manifest, data, train=False, seed=0, batch=1).epoch(0)))
    assert batch.clips_BNTCHW.shape == (1, 4, 0, 3, 32, 32)
    assert batch.seconds_BNT[0, :, 0].tolist() == [0.0, 0.5, 1.0, 1.5]
    torch.testing.assert_close(batch.audio.wave_BNCS.flatten(), torch.from_numpy(wave_CS[0]), atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match="holds sound alone, and clips.frame_rate is not set"):
        dataset(replace(data, clips=Clips(), audio=Audio(seconds=0.5, only=True)), sample(path))[0, 0]


@pytest.mark.parametrize(
    ("audio", "clips", "message"),
    [
        (Audio("mel"), CLIPS, "front_end='mel' is unknown; legal are wave, log_mel, log_filter_bank, mfcc"),
        (Audio(), Clips(), "Set audio.seconds, clips.frame_rate, or for spectra audio.columns"),
        (Audio("mfcc"), Clips("segments", 1), "Set audio.seconds, clips.frame_rate"),
        (Audio(columns=10), CLIPS, "only spectra have columns, at least 1"),
        (Audio(options={"filters": 3}), CLIPS, "the front end 'wave' has none"),
        (Audio("log_mel", options={"bands": 3}), CLIPS, "audio.options of 'log_mel': .*bands"),
        (Audio("log_mel", seconds=0.01), CLIPS, "160 samples with n_fft 1024"),
        (Audio("vmz_log_mel", seconds=0.01), CLIPS, "too short for one column"),
        (Audio(rate=0), CLIPS, "must be positive, got 0"),
        (Audio(seconds=1.0, only=True), Clips("segments", 1), "segments' counts pictures"),
    ],
)
def test_settings_that_cannot_be(flashes, audio, clips, message):
    with pytest.raises(ConfigError, match=message):
        dataset(replace(DATA, audio=audio, clips=clips), sample(flashes))
