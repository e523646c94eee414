"""lm-evaluation-harness, by its model for completions of OpenAI's API, on a task of nobody's."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import MODEL


def test_local_completions(address, tmp_path):
    arguments = {
        "model": MODEL,
        "base_url": f"{address}/v1/completions",
        # Tokens are the server's affair.
        "tokenizer_backend": "remote",
        "num_concurrent": 2,
    }
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"),
        *("--model_args", ",".join(f"{name}={value}" for name, value in arguments.items())),
        *("--include_path", "tasks", "--tasks", "pippin_sums,pippin_sums_in_text"),
        *("--output_path", str(tmp_path)),
    ]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.rglob("results_*.json")
    results = json.loads(path.read_text())["results"]
    # It has learnt some of these sums, and a coin would know half.
    assert results["pippin_sums"]["acc,none"] >= 0.5
    assert 0 <= results["pippin_sums_in_text"]["exact_match,none"] <= 1
