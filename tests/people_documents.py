"""What people said, made up: entries of every action, each ending of a finding, every subject."""

from typing import Any

from bilens.records.base import to_json
from bilens.records.common import Identity
from bilens.records.history import Entry, People

WEIGHTS = "ab" * 32
BASE = {
    "number": 1,
    "date": "2027-03-01T10:00:00Z",
    "author": "Ada",
    "action": "accept",
    "model": "mnist",
    "weights_sha256": WEIGHTS,
    "subject": "rule:trigger",
    "text": "known",
    "until": None,
    "identity": Identity(WEIGHTS, "r", "d", "b", "o"),
}
SUBJECTS = (
    *("class:1:positive:0", "class:1:negative:1", "layer:a:b:3:positive:0", "layer:a:0:negative:2"),
    *("latent:17", "circuit:4", "column:age", "model", "rule:trigger", "another"),
)


def entry(**changes: Any) -> Entry:
    return Entry(**(BASE | changes))


def spoken(document: dict[str, Any], text: str = "known") -> dict[str, Any]:
    """Return a document of an audit of which everything was said that can be."""
    weights = document["source"]["weights_sha256"]
    identity = Identity("f" * 64)
    run = document["reproduce"] | {"identity": to_json(identity)}
    of_these = {"weights_sha256": weights, "text": text, "author": text, "identity": identity}
    said = [
        entry(**of_these, subject="rule:trigger", until="2027-04-01"),
        entry(**of_these, subject="rule:coverage"),
        entry(**of_these, subject="rule:exact", until="2027-03-02"),
        entry(subject="rule:layout"),
        entry(**of_these, subject="rule:decision", model="copied", outcome="fail"),
        entry(**of_these, until="2027-04-01", subject="rule:accuracy", model="copied"),
        entry(**of_these, subject="rule:complete", action="reject"),
        entry(subject="class:0:positive:0", action="label", text="of other weights"),
        *(entry(**of_these, subject=one, action="label") for one in SUBJECTS),
        *(entry(**of_these, subject=one, action="note") for one in SUBJECTS),
    ]
    people = to_json(People("2027-03-31", tuple(said), "mnist"))
    return {**document, "reproduce": run, "people": people}


def accepted(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of an audit whose model was accepted as such, until a day."""
    said = spoken(document)
    identity = Identity("f" * 64)
    weights = document["source"]["weights_sha256"]
    of_these = {"weights_sha256": weights, "identity": identity, "until": "2027-04-01"}
    whole = entry(**of_these, subject="rule:decision", outcome="fail")
    return {**said, "people": to_json(People("2027-03-31", (whole,), "mnist"))}
