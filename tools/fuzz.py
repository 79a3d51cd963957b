"""Thousands of requests, drawn from the explorer's own OpenAPI document, at a copy of a folder.

`make fuzz` runs it on what `make demo` left. Addresses are asked with an id of the folder and with
drawn ones, by a script that holds the token; schemathesis (extra `quality`) draws the requests and
compares the answers with the document: no answer of a server's fault, none that is not described.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

CHECKS = (
    "not_a_server_error,response_schema_conformance,status_code_conformance,"
    "content_type_conformance,negative_data_rejection"
)
TOTAL = re.compile(r"(\d+) generated, (\d+) passed")


def drawn(address: str, token: str, folder: Path, parameters: str, examples: int) -> int:
    """Run one campaign; return how many requests were made, all of them answered well."""
    (folder / "schemathesis.toml").write_text(parameters, "utf-8")
    done = subprocess.run(  # noqa: S603 - of our own environment
        [
            *(Path(sys.executable).with_name("schemathesis"), "run"),
            *(f"{address}/api/v1/openapi.json", "-H", f"Authorization: Bearer {token}"),
            *("-c", CHECKS, "--phases", "coverage,fuzzing", "-n", str(examples)),
            *("--warnings", "off"),
        ],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    total = TOTAL.search(done.stdout)
    if done.returncode != 0 or total is None or total[1] != total[2]:
        sys.exit(f"{done.stdout}\n{done.stderr}")
    return int(total[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs"))
    parser.add_argument("--examples", type=int, default=300, help="of each operation, twice")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        shutil.copytree(asked.folder, place / "runs")
        line = [
            "serve",
            place / "runs",
            "--port",
            "0",
            "--no-open",
            "--token-file",
            place / "token",
        ]
        server = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "bilens", *map(str, line)], stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stderr is not None, "it is a pipe"
            told = re.search(r"http://[^/\s]+", server.stderr.readline())
            if told is None:
                sys.exit("the explorer did not start.")
            token = (place / "token").read_text("utf-8").strip()
            bearer = {"Authorization": f"Bearer {token}"}
            overview = httpx.get(f"{told[0]}/api/v1/overview", headers=bearer).json()
            known = [*overview["models"], *overview["reports"]]
            total = drawn(told[0], token, place, "", asked.examples)
            for one in known[:3]:
                here = f'[parameters]\nkey = "{one["id"]}"\nnumber = 1\n'
                total += drawn(told[0], token, place, here, asked.examples)
        finally:
            server.terminate()
            server.wait(timeout=20)
    print(f"{total:,} requests, none of them answered by a fault of the server.")


if __name__ == "__main__":
    main()
