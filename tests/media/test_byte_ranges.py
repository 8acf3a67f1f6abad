from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wholereel.media.byte_ranges import av_url, byte_count, containing_file, open_bytes, range_path, remote_range


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    path = tmp_path_factory.mktemp("parts") / "a #1.tar"
    path.write_bytes(bytes(range(256)) * 4)
    return path


@settings(max_examples=30, deadline=None)
@given(offset=st.integers(0, 1100), size=st.integers(0, 300), seeks=st.lists(st.integers(-20, 320), max_size=5))
def test_a_part_is_a_file(big, offset, size, seeks):
    path = range_path(big, offset, size, ".mp4")
    expected = (bytes(range(256)) * 4)[offset : offset + size]
    assert byte_count(path) == len(expected)
    assert containing_file(path) == big
    with open_bytes(path) as file:
        assert file.read() == expected
        for place in seeks:
            assert file.seek(max(0, place)) == max(0, place)
            assert file.read(7) == expected[max(0, place) :][:7]
        assert file.seek(-3, os.SEEK_END) == max(0, len(expected) - 3)
        assert file.read() == expected[max(0, len(expected) - 3) :]


def test_whole_files_and_files_that_only_look_like_parts(big, tmp_path):
    assert byte_count(big) == 1024
    assert av_url(big) == str(big)
    assert av_url(range_path(big, 5, 6)) == f"subfile,,start,5,end,11,,:{big}"
    odd = tmp_path / "jump_#3+1.avi"
    odd.write_bytes(b"abcd")
    assert byte_count(odd) == 4
    assert av_url(odd) == str(odd)
    with open_bytes(odd) as file:
        assert file.read() == b"abcd"
    with pytest.raises(OSError, match="No such file"):
        byte_count(tmp_path / "none.tar#0+5.mp4")
    with pytest.raises(ValueError, match="-1 bytes from 0 on are no part of a file"):
        range_path(big, 0, -1)


def test_parts_of_remote_files():
    assert remote_range("s3://b/x.tar#512+7.mp4") == ("s3://b/x.tar", 512, 7)
    assert remote_range("s3://b/x.mp4") == ("s3://b/x.mp4", 0, None)
