"""Writes crates/pippin-grammar/tests/suite/*.jsonl: the JSON-Schema-Test-Suite's schemas and documents, one schema a line.

A line is [file, description, schema, valid documents, invalid documents]. The suite (MIT; its licence stands beside the
files) comes with the source distribution of the Python package `jsonschema`:

    pip download --no-deps --no-binary :all: jsonschema==4.26.0 && tar xzf jsonschema-4.26.0.tar.gz
    python tools/schemas/suite.py jsonschema-4.26.0/json
"""

import json
import pathlib
import sys

OUT = pathlib.Path(__file__).parents[2] / "crates/pippin-grammar/tests/suite"
DRAFTS = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
}


def main(suite):
    (OUT / "LICENSE").write_text((suite / "LICENSE").read_text())
    for draft, uri in DRAFTS.items():
        lines = []
        for file in sorted((suite / "tests" / draft).glob("*.json")):
            for case in json.loads(file.read_text()):
                schema = case["schema"]
                if isinstance(schema, dict):
                    schema.setdefault("$schema", uri)
                documents = [[t["data"] for t in case["tests"] if t["valid"] is valid] for valid in (True, False)]
                lines.append(json.dumps([file.stem, case["description"], schema, *documents], separators=(",", ":")))
        (OUT / f"{draft}.jsonl").write_text("\n".join(lines) + "\n")


main(pathlib.Path(sys.argv[1]))
