"""What all clients' tests have in common: a running server, and what they ask of it."""

import os

import pytest

MODEL = "pippin-nano"
QUESTION = "What is 17 plus 25?"
ANSWER = "17 plus 25 is 42."
MESSAGES = [{"role": "user", "content": QUESTION}]
# Bounded, as all that is asked for.
PARAMETERS = {
    "type": "object",
    "properties": {"zone": {"enum": ["UTC", "CET"]}},
    "required": ["zone"],
    "additionalProperties": False,
}


@pytest.fixture(scope="session")
def address():
    """Where the server is, without a path."""
    return os.environ["PIPPIN_ADDRESS"]
