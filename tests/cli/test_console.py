"""The two streams and the progress of a job, on a terminal and without one."""

import io
import json

import pytest
from rich.console import Console

from bilens.cli.console import Output


def machine() -> Output:
    """The output of a command with --json."""
    output = Output()
    output.set_flags(False, False, as_json=True)
    return output


def watched(terminal: bool, quiet: bool = False) -> tuple[Output, io.StringIO]:
    """An output whose messages can be read."""
    output, stream = Output(quiet), io.StringIO()
    output.messages = Console(file=stream, force_terminal=terminal, width=100, quiet=quiet)
    return output, stream


@pytest.mark.parametrize("total", [1, 5, 10, 11, 19, 99, 100, 150])
def test_without_a_terminal_a_stage_is_a_dozen_lines_at_most(total: int) -> None:
    output, stream = watched(terminal=False)
    with output.progress() as progress:
        for done in range(1, total + 1):
            progress("chance", done, total)
    lines = stream.getvalue().splitlines()
    assert lines[-1] == (f"chance: {total}/{total}" if total > 1 else "chance …")
    assert len(lines) <= min(total, 12)
    assert len(set(lines)) == len(lines)


def test_each_stage_is_announced_once() -> None:
    output, stream = watched(terminal=False)
    with output.progress() as progress:
        progress("exactness", 0, 1)
        progress("spectra", 0, 1)
        progress("training", 3, 3, "loss 0.5")
    expected = ["exactness …", "spectra …", "training loss 0.5: 3/3"]
    assert stream.getvalue().splitlines() == expected


def test_on_a_terminal_there_is_one_bar_a_stage_and_all_are_full_at_the_end() -> None:
    output, stream = watched(terminal=True)
    with output.progress() as progress:
        progress("exactness", 0, 1)
        progress("chance", 1, 3)
        progress("chance", 3, 3, "of [three]")
        progress("data", 1, 1)
        assert progress.bar is not None
        assert [task.completed for task in progress.bar.tasks] == [1, 3, 1]
    assert "chance" in stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_says_nothing(terminal: bool) -> None:
    output, stream = watched(terminal, quiet=True)
    output.say("a message")
    with output.progress() as progress:
        progress("chance", 1, 1)
    assert stream.getvalue() == ""


def test_a_message_is_printed_as_it_is() -> None:
    output, stream = watched(terminal=True)
    output.say("[red]runs/[bold]x[/red]: 12 images 'a'")
    assert stream.getvalue() == "[red]runs/[bold]x[/red]: 12 images 'a'\n"


def test_json_is_ascii_and_never_wrapped_or_styled(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"name": "[red]桁 −\x1b[31m" + "x" * 500, "value": 1e-17, "flag": True}
    machine().answer(document)
    text = capsys.readouterr().out
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text) == document


def test_json_holds_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        machine().answer({"value": float("nan")})
