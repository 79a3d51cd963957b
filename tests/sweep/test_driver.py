"""A driver that is killed, interrupted, alone or not, and a disk that is full: nothing is lost.

Broken once: a second driver that is let in, Ctrl-C that drops what runs, a full disk taken for a
failed row, workers that do not follow their driver.
"""

import signal
import time

import pytest

import sweep_faults
import sweep_runs
from bilens.base.errors import FileError, UsageError
from sweep_runs import Swept, of_session, until


def test_a_driver_that_is_killed_or_interrupted_is_followed_by_another_one(
    swept: Swept, expected: dict[str, bytes]
) -> None:
    sweep_faults.planted(swept.folder, slow=0.2)
    driver = swept.command("--workers", "1")
    until(lambda: swept.results() >= 2)
    with pytest.raises(UsageError, match="is being written by another process"):
        swept.sweep("local")
    sweep_faults.planted(swept.folder, slow=60)
    time.sleep(0.5)  # the worker is at a row that takes a minute
    driver.kill()
    driver.wait()
    until(lambda: not of_session(driver.pid), 10)  # its worker has ended with it
    driver.communicate()
    there = swept.results()
    assert there < sweep_runs.ROWS

    sweep_faults.planted(swept.folder, slow=0.2)
    driver = swept.command("--workers", "1")
    until(lambda: swept.results() >= there + 2)
    driver.send_signal(signal.SIGINT)
    _, said = driver.communicate()
    assert driver.returncode == 130
    assert "Interrupted: what runs comes to its end" in said
    assert "the same command goes on" in said
    assert there + 2 <= swept.results() < sweep_runs.ROWS
    assert swept.written().items() <= expected.items()

    assert swept.sweep("local").is_complete
    assert swept.written() == expected


def test_a_full_disk_ends_the_sweep_with_a_sentence(
    swept: Swept, expected: dict[str, bytes]
) -> None:
    sweep_faults.planted(swept.folder, full=[3])
    with pytest.raises(FileError, match=r"cannot be written \(File too large\): free some space"):
        swept.sweep("local")
    assert swept.results() == 3
    sweep_faults.planted(swept.folder)
    assert swept.sweep("local").is_complete
    assert swept.written() == expected
