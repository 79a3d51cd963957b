"""Jobs: one at a time, whoever is killed; each says how it ended, and nothing of it is lost.

Broken once: with the slot not handed to the command, with no -P, with the state of jobs whose
keeper is gone left as it was, with files of the request's own naming let through, with the weights
of a result not looked at, with every command offered, with a text of elsewhere read, with steps
taken from any line.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

import bilens as bl
import fake_commands
import tiny
import traced_models
from bilens.api.classifier import explain_predictions
from bilens.base.errors import BilensError, CheckpointError, UsageError
from bilens.nn import BilinearClassifier, TopKSAE
from bilens.records.base import to_json
from bilens.records.jobs import OPTIONS, Job, NewJob
from bilens.report.text import load_catalogue
from bilens.serve import jobs as queues
from bilens.serve.endpoint import Asked
from bilens.serve.folder import ServedFolder, id_of, walk
from bilens.serve.inside import MissingError
from bilens.serve.job_pages import model_jobs, model_jobs_page
from bilens.serve.jobs import ENDED, Jobs
from commands import model_folder
from report_documents import make_document

SOON = 60.0  # seconds, after which a test gives up
Plan = dict[str, list[list[Any]]]
Start = Callable[[Plan], Jobs]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Queue a job for each name of a plan."""
    monkeypatch.setattr(sys, "executable", fake_commands.install(tmp_path / "python"))
    folder = tmp_path / "runs"
    folder.mkdir()

    def begin(plan: Plan) -> Jobs:
        (folder / "plan.json").write_text(json.dumps(plan))
        jobs = Jobs(folder)
        for name in plan:
            (folder / name).touch()
            jobs.add("certify", name, ("certify", "--", name))
        return jobs

    return begin


def until(ready: Callable[[], Any]) -> Any:
    end = time.monotonic() + SOON
    while not (found := ready()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
    return found


def job(jobs: Jobs, number: int = 1) -> Job:
    found = jobs.page(number)
    assert found is not None
    return found.job


def is_ended(jobs: Jobs, number: int = 1) -> bool:
    jobs.advance()
    return job(jobs, number).state in ENDED


def says(jobs: Jobs, text: str, number: int = 1) -> bool:
    jobs.advance()
    return job(jobs, number).told == text


def pid_of(jobs: Jobs, number: int = 1) -> int:
    return int(json.loads((jobs.place / f"{number}.json").read_text())["pid"])


def ran(jobs: Jobs) -> list[str]:
    return (jobs.folder / "ran.txt").read_text().splitlines()


def test_real_jobs_from_start_to_report(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    name = "-odd name"  # of a folder that options and shells would take for their own
    model_folder(folder / name, tiny.classifier())
    (folder / "torch.py").write_text("raise SystemExit('imported from the folder')")
    served = ServedFolder(folder)
    for command in ("audit", "certify", "explain"):
        index = 0 if command == "explain" else None
        served.start(NewJob(command=command, model=id_of(name), index=index))
    until(lambda: is_ended(served.jobs, 3))
    explained, certified, audited = served.jobs.overview().jobs
    assert (audited.state, audited.report) == ("done", "/audits/1"), audited.told
    (audit,) = bl.History(folder).audits(name)
    assert audit.answer
    assert audit.weights_sha256 == audited.weights_sha256
    said = served.jobs.page(1)
    assert said is not None
    assert said.messages[-1] == "Recorded as audit 1 of runs/bilens.db"  # no path of the machine
    assert certified.state == "done", certified.told
    ((key, (path, kind)),) = walk(folder).reports.items()
    assert (certified.report, path.name, kind) == (
        f"/reports/{key}",
        "odd-name-certify-2.json",
        "certificate",
    )
    assert (explained.state, explained.code) == ("failed", 2)
    assert explained.told.startswith("an explanation needs inputs")


def test_one_that_fails_says_why_and_keeps_what_it_wrote(start: Start) -> None:
    broken = 'Traceback (most recent call last):\n  File "/secret"\nOops\nerror: a fault.'
    jobs = start(
        {
            "bad": [["print", "half"], ["say", "error: \x1b[2J no such layer."], ["exit", 3]],
            "killed": [["say", "Layer 1: 3/9"], ["kill", int(signal.SIGKILL)]],
            "broken": [["say", broken], ["exit", 70]],
        }
    )
    until(lambda: is_ended(jobs, 3))
    assert (job(jobs).state, job(jobs).code, job(jobs).told) == (
        "failed",
        3,
        "\ufffd[2J no such layer.",
    )
    page = jobs.page(1)
    assert page is not None
    assert page.output == ("half",)
    assert (job(jobs, 2).code, job(jobs, 2).told) == (-9, "Layer 1: 3/9")
    page = jobs.page(3)
    assert page is not None
    assert "/secret" not in "".join(page.messages)
    assert page.job.told == "a fault."


def test_one_is_cancelled_whether_it_waits_or_runs_or_is_deaf(start: Start) -> None:
    sleep = ["sleep", SOON]
    jobs = start(
        {"deaf": [["ignore"], ["say", "deaf"], sleep], "runs": [["say", "on"], sleep], "waits": []}
    )
    until(lambda: says(jobs, "deaf"))
    assert jobs.cancel(3) is not None
    assert job(jobs, 3).state == "cancelled"
    for _ in range(2):  # the second one cannot be ignored
        asked = jobs.cancel(1)
        assert asked is not None
        assert asked.state == "ending"
    until(lambda: says(jobs, "on", 2))
    assert job(jobs, 1).state == "cancelled"
    jobs.cancel(2)
    until(lambda: is_ended(jobs, 2))
    assert job(jobs, 2).state == "cancelled"
    assert jobs.cancel(2) == job(jobs, 2)  # it stays as it ended
    assert jobs.cancel(9) is None
    assert ran(jobs) == ["start deaf", "start runs"]


def test_one_that_takes_too_long_is_ended(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "LIMIT", 0.0)
    jobs = start({"long": [["sleep", SOON]]})
    until(lambda: is_ended(jobs))
    assert job(jobs).state == "failed"
    assert (job(jobs).why, job(jobs).about) == ("late", "0")


def test_the_queue_goes_on_over_a_restart(start: Start) -> None:
    jobs = start({"a": [["say", "on"], ["sleep", 0.5], ["print", "{}"]], "b": [["print", "{}"]]})
    until(lambda: says(jobs, "on"))
    assert job(jobs).total == 0  # it tells no steps
    again = Jobs(jobs.folder)  # of a server that came after
    assert [one.state for one in again.overview().jobs] == ["waiting", "running"]
    until(lambda: is_ended(again, 2))
    assert ran(jobs) == ["start a", "end a", "start b", "end b"]
    assert [one.state for one in again.overview().jobs] == ["done", "done"]


def test_a_queue_that_somebody_removed_begins_again(start: Start) -> None:
    jobs = start({"a": [["print", "{}"]]})
    until(lambda: is_ended(jobs))
    shutil.rmtree(jobs.place)
    (jobs.folder / "plan.json").write_text(json.dumps({"b": [["print", "{}"]]}))
    (jobs.folder / "b").touch()
    jobs.add("certify", "b", ("certify", "--", "b"))
    assert (job(jobs).number, job(jobs).model) == (1, "b")
    until(lambda: is_ended(jobs))
    assert job(jobs).state == "done"


def test_no_second_one_starts_while_a_command_lives_without_its_keeper(start: Start) -> None:
    jobs = start({"orphan": [["say", "on"], ["sleep", SOON]], "next": [["print", "{}"]]})
    until(lambda: says(jobs, "on"))
    os.kill(pid_of(jobs), signal.SIGKILL)
    jobs._keepers[0].wait()
    for _ in range(3):
        jobs.advance()
        assert [one.state for one in jobs.overview().jobs] == ["waiting", "running"]
    jobs.cancel(1)  # reaches the command all the same
    until(lambda: is_ended(jobs, 2))
    assert (job(jobs, 1).state, job(jobs, 2).state) == ("cancelled", "done")


def test_a_job_whose_processes_were_killed_says_so(start: Start) -> None:
    jobs = start({"a": [["say", "Layer 1: 3/9"], ["sleep", SOON]]})
    until(lambda: says(jobs, "Layer 1: 3/9"))
    assert (job(jobs).done, job(jobs).total) == (3, 9)
    os.killpg(pid_of(jobs), signal.SIGKILL)
    until(lambda: is_ended(jobs))
    assert (job(jobs).state, job(jobs).told) == ("interrupted", "Layer 1: 3/9")
    assert (job(jobs).done, job(jobs).total) == (0, 0)  # it goes no further


def test_a_process_of_another_machine_is_not_touched(start: Start) -> None:
    jobs = start({"a": [["say", "on"], ["sleep", SOON]]})
    until(lambda: says(jobs, "on"))
    place = jobs.place / "1.json"
    kept = json.loads(place.read_text())
    place.write_text(json.dumps(kept | {"machine": "other"}))
    with pytest.raises(UsageError, match="machine other"):
        jobs.cancel(1)
    place.write_text(json.dumps(kept))
    jobs.cancel(1)
    until(lambda: is_ended(jobs))


def test_servers_of_one_folder_run_each_job_once(start: Start) -> None:
    names = [f"m{number}" for number in range(5)]
    jobs = start({name: [["sleep", 0.05], ["print", "{}"]] for name in names})
    faults: list[Exception] = []

    def serve() -> None:
        own = Jobs(jobs.folder)
        try:
            while not all(is_ended(own, number) for number in range(1, 6)):
                time.sleep(0.01)
        except Exception as error:
            faults.append(error)

    servers = [threading.Thread(target=serve) for _ in range(4)]
    for one in servers:
        one.start()
    for one in servers:
        one.join(SOON)
    assert faults == []
    assert ran(jobs) == [f"{what} {name}" for name in names for what in ("start", "end")]


def test_no_file_but_of_the_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    model_folder(folder / "model", tiny.classifier())
    (folder / "-rows.csv").write_text("a,b\n1,2\n")
    (folder / "set").mkdir()
    (folder / "set" / "train-images-idx3-ubyte").touch()
    (folder / "photos" / "cat").mkdir(parents=True)
    (folder / "photos" / "cat" / "1.PNG").touch()
    (tmp_path / "secret.csv").write_text("a")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "model" / "test.csv").write_text("a,b\n1,2\n")
    (folder / "stories.txt").write_text("Once.")
    bl.save(TopKSAE(8, 12, 3), folder / "own sae")
    (folder / "their sae").mkdir()
    (folder / "their sae" / "sae.safetensors").touch()
    served = ServedFolder(folder)
    choices = served.choices().fields()
    assert {kind: [one.name for one in each] for kind, each in choices.items()} == {
        "data": ["-rows.csv", "model/test.csv", "photos", "set"],
        "texts": ["stories.txt"],
        "saes": ["own sae", "their sae"],
    }

    def asked(**fields: Any) -> Job | None:
        body = json.dumps({"command": "audit", "model": id_of("model")} | fields)
        return served.start(msgspec.json.decode(body, type=NewJob))

    found = asked(data=id_of("-rows.csv"), dataset="mnist", fail_on=["r2<0.9", "exact"])
    assert found is not None
    options = ("--data=-rows.csv", "--dataset=mnist", "--fail-on=r2<0.9", "--fail-on=exact")
    assert found.arguments == ("audit", "--history=.", *options, "--", "model")
    with pytest.raises(MissingError):
        asked(model=id_of("gone"))
    for wrong in (
        {"data": "../secret.csv"},
        {"data": id_of("link.csv")},
        {"fail_on": ["nothing"]},
        {"fail_on": ["--html=/tmp/x"]},
        {"samples": 3},
        {"dataset": "../x"},
        {"command": "explain"},
        {"command": "serve"},
        {"command": "certify", "samples": -1},
        {"command": "trace", "layer": 0, "input_sae": id_of("-rows.csv")},
        {"html": "x.html"},
    ):
        with pytest.raises((BilensError, msgspec.ValidationError)):
            asked(**wrong)
    assert len(served.jobs.overview().jobs) == 1


def test_a_queue_that_is_damaged_or_led_away_is_told(start: Start, tmp_path: Path) -> None:
    jobs = start({"a": []})
    (jobs.place / "1.json").write_text("{half")
    assert job(jobs).state == "failed"
    assert job(jobs).why == "lost"
    jobs.cancel(1)
    assert (jobs.place / "1.json").read_text() == "{half"  # whatever it was
    with pytest.raises(UsageError, match="rename it"):
        jobs.add("audit", "caf\udce9", ())
    jobs.place.rename(tmp_path / "away")
    jobs.place.symlink_to(tmp_path / "away")
    with pytest.raises(CheckpointError, match="is a link"):
        jobs.add("audit", "a", ())


def test_a_result_of_other_weights_than_asked_for_is_told(start: Start) -> None:
    document = make_document()
    jobs = start({"a": [["remember"]], "c": [["print", json.dumps(document)]]})
    (jobs.folder / "document.json").write_text(json.dumps(document))
    for number, command in ((1, "audit"), (2, "certify")):
        kept = jobs._read(number)
        asked = {"command": command, "arguments": (command, *kept.job.arguments[1:])}
        jobs._write(queues.changed(kept, **asked, weights_sha256="of another day"))
    until(lambda: is_ended(jobs, 2))
    for number in (1, 2):
        assert (job(jobs, number).state, job(jobs, number).why) == ("failed", "changed")
        assert job(jobs, number).report  # it is kept, and found


def test_a_command_is_offered_for_models_on_which_it_works(tmp_path: Path) -> None:
    model, sae, _ = traced_models.write_all(tmp_path / "runs" / "language")
    folder = tmp_path / "runs"
    model_folder(folder / "one", tiny.classifier())
    model_folder(folder / "two", BilinearClassifier(4, 4, 3, n_layers=2))
    model_folder(folder / "gated", BilinearClassifier(4, 4, 3, gate="relu"))
    model_folder(folder / "number", BilinearClassifier(4, 4, 1))
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{")
    served = ServedFolder(folder)
    language, coder = (each.relative_to(folder).as_posix() for each in (model, sae))
    offered = {
        "one": {"audit", "certify", "explain"},
        "number": {"audit", "explain"},
        "two": {"audit"},
        "gated": {"audit"},
        language: {"audit", "trace"},
        coder: set(),
        "broken": set(),
    }
    for name, commands in offered.items():
        refused = {one.command: one for one in served.not_offered(id_of(name))}
        assert {*OPTIONS} - {*refused} == commands, name
        for command, one in refused.items():
            told = load_catalogue("en")(f"explorer.unfit.{one.why}", told=one.told)
            needed = {"layer": 0} if command == "trace" else {}
            needed |= {"index": 0} if command == "explain" else {}
            with pytest.raises(UsageError, match=re.escape(told)):
                served.start(NewJob(command=command, model=id_of(name), **needed))
    found = model_jobs(served, Asked({"key": id_of("two")}))
    assert found is not None
    page = model_jobs_page(found, "ja", "")
    assert page.count('data-view="start"') == 1
    assert "追跡できる層がありません" in page
    described = json.loads((model / "corpus.json").read_text())
    trace = NewJob(command="trace", model=id_of(language), layer=0)
    for corpus, why in ((str(tmp_path / "secret.txt"), "out of the folder"), ("gone.txt", "")):
        (tmp_path / "secret.txt").touch()
        described["options"]["corpus"] = corpus
        (model / "corpus.json").write_text(json.dumps(described))
        if why:
            with pytest.raises(UsageError, match=why):
                served.start(trace)
        else:
            assert served.start(trace)


def test_an_explanation_stands_on_the_page_of_its_job(start: Start) -> None:
    jobs = start({"a": []})
    model = bl.load(model_folder(jobs.folder / "model", tiny.classifier()))
    rows = torch.rand(2, 36), torch.tensor([0, 1])
    record = explain_predictions(model, rows, [1], command="")
    jobs.add("explain", "model", ("explain", "--json", "--index=1", "--", "model"))
    jobs.path(2, "out").write_text(json.dumps(to_json(record)))
    jobs.cancel(2)
    page = jobs.page(2)
    assert page is not None
    assert any("What the inputs of image 1 add" in line for line in page.output)


def test_so_many_wait_and_no_more(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MOST_WAITING", 2)
    jobs = start({"a": [], "b": []})
    with pytest.raises(UsageError, match="2 jobs wait already"):
        jobs.add("certify", "c", ())


@pytest.mark.parametrize(
    "line",
    [
        ("certify", "--trust-pickle", "--", "a"),
        ("certify", "--html=/tmp/x", "--", "a"),
        ("certify", "--data=../secret", "--", "a"),
        ("certify", "--data=link", "--", "a"),
        ("certify", "--data=loop", "--", "a"),
        ("certify", "--", "../secret"),
        ("certify", "--", "\0"),
        ("certify", "--", "gone"),  # whose name a cache on this machine may know
        ("convert", "--", "a"),
        ("certify", "a"),
        (),
    ],
)
def test_what_somebody_else_laid_into_the_queue_is_not_run(
    start: Start, tmp_path: Path, line: tuple[str, ...]
) -> None:
    jobs = start({"a": [["print", "{}"]], "b": [["print", "{}"]]})
    (tmp_path / "secret").touch()
    (jobs.folder / "link").symlink_to(tmp_path / "secret")
    (jobs.folder / "loop").symlink_to("loop")
    place = jobs.place / "1.json"
    kept = json.loads(place.read_text())
    kept["job"]["arguments"] = line
    place.write_text(json.dumps(kept))
    until(lambda: is_ended(jobs, 2))  # and it bars nobody
    assert (job(jobs, 1).state, job(jobs, 2).state) == ("failed", "done")
    assert job(jobs, 1).why
    assert ran(jobs) == ["start b", "end b"]


def test_what_waits_for_a_command_loads_no_torch() -> None:
    """A keeper lives as long as its command; broken once: with a name taken from the training."""
    line = "import sys, bilens.serve.keeper; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], check=False).returncode == 0
