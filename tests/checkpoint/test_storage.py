"""The contract of Storage, for every implementation."""

from __future__ import annotations

import os
import threading

import pytest

from psys.checkpoint import FileStorage, Storage
from psys.errors import CheckpointError, CheckpointNotFound


def test_what_is_written_is_read_back_in_every_way(storage: Storage) -> None:
    storage.write("a/b.bin", b"bytes")
    assert storage.read("a/b.bin") == b"bytes"
    assert bytes(storage.view("a/b.bin")) == b"bytes"
    with storage.open_reader("a/b.bin") as reader:
        assert reader.read(2) == b"by"
    assert storage.size("a/b.bin") == 5
    assert storage.exists("a/b.bin")


def test_an_empty_file_is_a_file(storage: Storage) -> None:
    storage.write("empty", b"")
    assert storage.exists("empty")
    assert bytes(storage.view("empty")) == b""


def test_write_replaces(storage: Storage) -> None:
    storage.write("name", b"old, and longer")
    storage.write("name", b"new")
    assert storage.read("name") == b"new"


def test_write_once_keeps_the_first(storage: Storage) -> None:
    assert storage.write_once("dir/name", b"first")
    assert not storage.write_once("dir/name", b"second")
    assert storage.read("dir/name") == b"first"


def test_write_once_has_one_winner_among_threads(storage: Storage) -> None:
    won: list[int] = []
    barrier = threading.Barrier(8)

    def race(number: int) -> None:
        barrier.wait()
        if storage.write_once("dir/name", b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.read("dir/name") == b"%d" % won[0]


def test_write_file_takes_what_a_library_wrote(storage: Storage) -> None:
    def fill(path: str) -> None:
        with open(path, "wb") as file:
            file.write(b"from a library")

    points: list[str] = []
    storage.write_file("dir/name", fill, points.append)
    assert storage.read("dir/name") == b"from a library"
    assert points == ["before_rename"]


def test_a_failed_write_file_leaves_nothing(storage: Storage) -> None:
    def fill(path: str) -> None:
        with open(path, "wb") as file:
            file.write(b"half")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError):
        storage.write_file("dir/name", fill)
    assert not storage.exists("dir/name")
    assert storage.list() == ()
    storage.prune("dir")


def test_list_is_sorted_and_below_a_directory(storage: Storage) -> None:
    for name in ("b/2", "a/1", "b/1/x", "bb/3"):
        storage.write(name, b"")
    assert storage.list() == ("a/1", "b/1/x", "b/2", "bb/3")
    assert storage.list("b") == ("b/1/x", "b/2")
    assert storage.list("absent") == ()


def test_remove_twice_is_no_error(storage: Storage) -> None:
    storage.write("a/b", b"")
    storage.remove("a/b")
    storage.remove("a/b")
    storage.prune("a")
    storage.prune("a")
    assert not storage.exists("a/b")


def test_what_is_not_there_is_not_found(storage: Storage) -> None:
    storage.write("a/b", b"")
    for name in ("a/c", "c/d", "a/b/c"):
        assert not storage.exists(name)
        for read in (storage.read, storage.view, storage.size, storage.open_reader):
            with pytest.raises(CheckpointNotFound, match=name):
                read(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        ".hidden",
        "a\\b",
        "a b",
        "ä",
        "a\0",
    ],
)
def test_a_name_that_could_leave_the_root_is_refused(storage: Storage, name: str) -> None:
    for call in (storage.read, storage.exists, storage.remove, storage.path, storage.prune):
        with pytest.raises(CheckpointError, match="must be relative"):
            call(name)
    with pytest.raises(CheckpointError, match="must be relative"):
        storage.write(name, b"")
    with pytest.raises(CheckpointError, match="must be relative"):
        storage.write_once(name, b"")


def test_file_storage_creates_nothing_before_the_first_write(tmp_path: object) -> None:
    root = os.path.join(str(tmp_path), "model")
    assert FileStorage(root).list() == ()
    assert not os.path.exists(root)


def test_file_storage_leaves_no_staged_file(tmp_path: object) -> None:
    storage = FileStorage(str(tmp_path))
    storage.write("a/x", b"1")
    storage.write_once("a/y", b"1")
    storage.write_once("a/y", b"2")
    assert sorted(os.listdir(os.path.join(storage.root, "a"))) == ["x", "y"]


def test_prune_takes_a_killed_writers_file_but_nobody_elses(tmp_path: object) -> None:
    storage = FileStorage(str(tmp_path))
    storage.write("a/kept", b"1")
    staged = os.path.join(storage.root, "a", ".staged-killed")
    with open(staged, "wb"):
        pass
    assert storage.list() == ("a/kept",)
    storage.prune("a")
    assert storage.exists("a/kept")
    storage.remove("a/kept")
    storage.prune("a")
    assert not os.path.exists(os.path.join(storage.root, "a"))
