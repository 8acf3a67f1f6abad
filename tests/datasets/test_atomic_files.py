import pytest

from wholereel.datasets.atomic_files import write_file, write_text_file


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text_file(tmp_path / "a.txt", "old ä")

    def fail(file):
        file.write(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_file(tmp_path / "a.txt", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old ä"
