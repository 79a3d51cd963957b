"""An earlier run while another one takes its place: wherever the process dies, nothing is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

import runs
from bilens.train.run_folder import CHECKPOINTS, EARLIER_NAME, OWN_FILES, bring_back, set_aside

NAMES = (*OWN_FILES, CHECKPOINTS)


def run_in(folder: Path, content: str) -> None:
    """Something with the files of a run."""
    (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    for name in (*OWN_FILES, f"{CHECKPOINTS}/last"):
        (folder / name).write_text(content)


def contents(folder: Path) -> set[str]:
    """What the files of a whole run hold."""
    assert {item.name for item in folder.iterdir()} - {"notes.txt"} == set(NAMES)
    return {(folder / name).read_text() for name in (*OWN_FILES, f"{CHECKPOINTS}/last")}


def killed_before_move(number: int, step: Callable[[Path], None], folder: Path) -> bool:
    """Do a step, killed before one of its renames; tell whether it came that far."""
    moves, rename = 0, Path.replace

    def replace(self: Path, target: Path) -> Path:
        nonlocal moves
        moves += 1
        if moves == number:
            raise runs.Break
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        try:
            step(folder)
        except runs.Break:
            return True
    return False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run and a file of the user's."""
    run_in(tmp_path, "earlier")
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def test_a_run_goes_aside_and_comes_back(folder: Path) -> None:
    set_aside(folder)
    assert contents(folder / EARLIER_NAME) == {"earlier"}
    assert {item.name for item in folder.iterdir()} == {EARLIER_NAME, "notes.txt"}
    run_in(folder, "new")
    bring_back(folder)
    assert contents(folder) == {"earlier"}
    assert (folder / "notes.txt").read_text() == "mine"


def test_what_is_aside_already_is_the_one_to_keep(folder: Path) -> None:
    set_aside(folder)
    run_in(folder, "interrupted")
    set_aside(folder)
    assert contents(folder / EARLIER_NAME) == {"earlier"}
    assert {item.name for item in folder.iterdir()} == {EARLIER_NAME, "notes.txt"}


@pytest.mark.parametrize("number", range(1, len(NAMES) + 2))
@pytest.mark.parametrize("repair", [set_aside, bring_back])
def test_a_kill_on_the_way_aside_loses_nothing(
    repair: Callable[[Path], None], number: int, folder: Path
) -> None:
    assert killed_before_move(number, set_aside, folder)
    repair(folder)
    assert contents(folder / EARLIER_NAME if repair is set_aside else folder) == {"earlier"}


@pytest.mark.parametrize("number", range(1, len(NAMES) + 2))
@pytest.mark.parametrize("repair", [set_aside, bring_back])
def test_a_kill_on_the_way_back_loses_nothing(
    repair: Callable[[Path], None], number: int, folder: Path
) -> None:
    set_aside(folder)
    run_in(folder, "new")
    assert killed_before_move(number, bring_back, folder)
    repair(folder)
    assert contents(folder / EARLIER_NAME if repair is set_aside else folder) == {"earlier"}


def test_nothing_is_made_where_there_is_no_run(tmp_path: Path) -> None:
    set_aside(tmp_path)
    bring_back(tmp_path)
    assert list(tmp_path.iterdir()) == []
