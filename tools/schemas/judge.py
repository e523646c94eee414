"""Judges answers that were drawn under the masks of a schema, with the Python package `jsonschema`.

    cargo test --release -p pippin-grammar --test suite -- --ignored
    python tools/schemas/judge.py target/tmp/answers.jsonl

The shipped model answers in `cargo test --release -p pippin-engine --test forms -- --ignored`: target/tmp/forms.jsonl.

A line is [file, description, schema, vocabulary, answers]. Numbers with a fraction are decimal ones, so that 0.3 is a
multiple of 0.1.
"""

import collections
import decimal
import json
import sys

import jsonschema


def main(path):
    counts, schemas, wrong = collections.Counter(), set(), 0
    decimal.getcontext().prec = 2000
    for line in open(path, encoding="utf-8"):
        file, description, schema, vocabulary, answers = json.loads(line, parse_float=decimal.Decimal)
        schemas.add((file, description, json.dumps(schema, default=str)))
        validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)(schema)
        for answer in answers:
            counts[vocabulary] += 1
            document = json.loads(answer, parse_float=decimal.Decimal)
            for error in validator.iter_errors(document):
                wrong += 1
                print(f"{file}: {description} ({vocabulary}): {answer!r}: {error.message}: {json.dumps(schema, default=str)}")
                break
    print(f"{len(schemas)} schemas, {sum(counts.values())} answers {dict(counts)}, {wrong} wrong")
    sys.exit(wrong > 0)


main(sys.argv[1])
