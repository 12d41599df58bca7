"""What a worker that died had paid for is found again, and what is no answer is not."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

import pytest

from llmkit.engine.store import OutcomeRow, ReplyRow, Stored
from llmkit.scale.journal import Journal, JournalWriter
from llmkit.scale.parts import Folder

KEY, OTHER = b"k" * 16, b"o" * 16


class Answer:
    """A settled task: a ``store.Entry``."""

    answered = True

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key, self.value, self.kept = key, value, False

    def reply(self) -> ReplyRow:
        return ReplyRow(self.key, self.value, 3, 1, 2, "stop", "model-1", 0.0, "lab/m", "chat", 5)

    def outcome(self) -> OutcomeRow | None:
        return None

    def durable(self) -> None:
        self.kept = True


def test_answers_are_found_by_whoever_has_the_chunk_next(tmp_path: Path) -> None:
    Journal(Folder(tmp_path)).write([Answer(KEY, b"\x00\xffbytes")])  # type: ignore[list-item]
    found = Journal(Folder(tmp_path)).get_many([KEY, OTHER])
    assert found == {KEY: Stored(b"\x00\xffbytes", 3, 1, 2, "stop", "model-1", 5)}


def test_two_workers_that_have_one_chunk_write_no_file_twice(tmp_path: Path) -> None:
    one, two = Journal(Folder(tmp_path)), Journal(Folder(tmp_path))
    one.write([Answer(KEY, b"a")])  # type: ignore[list-item]
    two.write([Answer(OTHER, b"b")])  # type: ignore[list-item]
    assert set(Journal(Folder(tmp_path)).get_many([KEY, OTHER])) == {KEY, OTHER}


@pytest.mark.parametrize(
    "damage", [b'{"key": "6b', b"[]", b'{"key": "zz", "value": "", "counts": [1, 1, 1, 1], "finish": null, "model": null}']
)
def test_a_line_that_is_cut_or_nobodys_is_passed_over(tmp_path: Path, damage: bytes) -> None:
    Journal(Folder(tmp_path)).write([Answer(KEY, b"a")])  # type: ignore[list-item]
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage + b"\n" + file.read_bytes() + damage)
    assert set(Journal(Folder(tmp_path)).get_many([KEY])) == {KEY}


def test_an_answer_is_durable_once_it_is_in_the_journal(tmp_path: Path) -> None:
    answers = [Answer(bytes([number]) * 16, b"a") for number in range(200)]

    async def keep() -> None:
        writer = JournalWriter(Journal(Folder(tmp_path)), far=False)
        for answer in answers:
            writer.put(answer)  # type: ignore[arg-type]
        await writer.drain()
        assert all(answer.kept for answer in answers)
        await writer.close()
        writer.worker.stop()

    asyncio.run(keep())
    assert len(Journal(Folder(tmp_path)).get_many([answer.key for answer in answers])) == 200


def test_where_the_journal_cannot_be_written_the_run_goes_on_with_one_warning(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    answers = [Answer(KEY, b"a"), Answer(OTHER, b"b")]

    async def keep() -> None:
        writer = JournalWriter(Journal(Folder(tmp_path / "taken")), far=False)
        for answer in answers:
            writer.put(answer)  # type: ignore[arg-type]
            await writer.drain()
        await writer.close()
        writer.worker.stop()

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        asyncio.run(keep())
    assert len([one for one in said if "cannot keep answers" in str(one.message)]) == 1
    assert all(answer.kept for answer in answers)
