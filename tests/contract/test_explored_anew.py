"""Guards against an answer of the explorer that is kept from another question, model or audit.

Damage that it notices: what was computed kept by the name of a model, or without the output that
it is of; acceptances held against another audit than the last one.
"""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import bilens as bl
import tiny
from bilens.report.text import load_catalogue
from bilens_explorer.records.models import id_of
from commands import model_folder
from contract.table import cell
from explorer_server import client_of
from report_documents import audit_of, failed

A, B = map(id_of, "ab")
ABOUT = {"input_shape": (tiny.SIDE, tiny.SIDE), "output_names": ("x", "y", "z")}


def addresses() -> list[tuple[str, dict[str, str]]]:
    """What pages ask of a model, and of two, for several outputs."""
    found: list[tuple[str, dict[str, str]]] = [("/compare", {"a": A, "b": B})]
    found += [(f"/models/{A}/{what}", {}) for what in ("layers", "truncation", "playground")]
    for output in ("0", "1"):
        query = {"layer": "layers.0", "output": output}
        alone = ("spectrum", "eigenvectors", "interactions")
        found += [(f"/models/{A}/{what}", query) for what in alone]
        found += [("/compare/eigenvectors", {"a": A, "b": B} | query)]
    return found


def told(client: TestClient) -> list[Any]:
    answers = [client.get(f"/api/v1{path}", params=query) for path, query in addresses()]
    for asked, one in zip(addresses(), answers, strict=True):
        assert one.status_code == 200, (asked, one.text)
    return [one.json() for one in answers]


def alone(root: Path) -> list[Any]:
    """Each answer of an explorer that was asked nothing before."""
    found = []
    for path, query in addresses():
        with client_of(root) as client:
            found.append(client.get(f"/api/v1{path}", params=query).json())
    return found


@cell("explore", "other function", "same function", "saved")
def test_an_answer_does_not_hang_on_what_was_asked_before(tmp_path: Path) -> None:
    """Also not on weights that were in the folder then."""
    root = tmp_path / "runs"
    for name, seed in (("a", 0), ("b", 1)):
        model_folder(root / name, tiny.classifier(seed), **ABOUT)
    with client_of(root) as client:
        before = told(client)
        for name, seed in (("a", 2), ("b", 3)):
            new = model_folder(tmp_path / name, tiny.classifier(seed), **ABOUT)
            (new / "model.safetensors").replace(root / name / "model.safetensors")
        now = told(client)
    for asked, old, kept, fresh in zip(addresses(), before, now, alone(root), strict=True):
        assert kept == fresh, asked
        assert kept != old or not asked[1], asked


RULE, NUMBER = "beyond_null", "least"  # of which nobody knows on which side it is better


@cell("explore", "other function", "saved")
@pytest.mark.parametrize("last", [1, 3, 5])
def test_an_acceptance_is_held_against_the_last_audit(tmp_path: Path, last: int) -> None:
    """Of three audits the middle one was accepted: that counts while its number is the last one."""
    model_folder(tmp_path / "a", tiny.classifier())
    history, t = bl.History(tmp_path), load_catalogue("en")
    for value in (1, 3, 5, last):
        document = failed()
        (found,) = (one for one in document["verdict"] if one["rule"] == RULE)
        found["values"][NUMBER] = value
        kept = history.add(audit_of(tmp_path / "a", document).record)
        if kept.number == 2:
            history.say("accept", kept.model, f"rule:{RULE}", "known", author="Ada")
    with client_of(tmp_path) as client:
        page = client.get(f"/models/{A}").text
    assert (t("people.worse") in page) is (last != 3)
