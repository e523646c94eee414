#!/usr/bin/env python3
"""Compare the greedy text of `pippin run` with mlx-lm's, prompt by prompt.

    pip install "mlx[cpu]" mlx-lm==0.32.2
    cargo build --release
    python tools/compare/mlx_lm_text.py [--model models/pippin-nano-4bit] [--pippin target/release/pippin] [--exact]

Prints a line per prompt and exits with 1 if a text differs. Where one does, the margin mlx-lm saw between its first and second choice at the
first token that differs is printed: a tie of two tokens is decided by rounding, everything else is a bug.
"""

import argparse
import subprocess
import sys

import mlx.core as mx
from mlx_lm import load
from mlx_lm.generate import generate_step

PROMPTS = [
    "What is 17 plus 25?",
    "Hello! Who are you?",
    "What is the capital of France?",
    "What is the capital of Peru?",
    "Which country has the capital Nairobi?",
    "Compute 80 - 35.",
    "What is 12 minus 47?",
    "If I have 34 apples and get 58 more, how many do I have?",
    "Continue the list: 2, 4, 6, 8",
    "Continue: Monday, Tuesday, Wednesday",
    "Continue the list: 5, 10, 15, 20",
    "Tell me a short story.",
    "Tell me a very short story about a dog.",
    "Write a little story about a girl and the sea.",
    "Thank you!",
    "What can you do?",
    "Goodbye",
    "Answer in JSON with the keys name and age: Anna is 31 years old.",
    "What do you think about quantum physics?",
    "Good morning",
]
MAX_TOKENS = 120


def mlx_answer(model, tokenizer, prompt):
    """Greedy tokens and, for each, the margin of the winner over the second."""
    ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
    tokens, margins = [], []
    for token, logprobs in generate_step(mx.array(ids), model, max_tokens=MAX_TOKENS):
        if token in tokenizer.eos_token_ids:
            break
        top = mx.sort(logprobs)[-2:]
        tokens.append(token)
        margins.append((top[1] - top[0]).item())
    return tokens, margins


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/pippin-nano-4bit")
    parser.add_argument("--pippin", default="target/release/pippin")
    parser.add_argument("--exact", action="store_true", help="compare with `pippin run --exact`")
    arguments = parser.parse_args()

    mx.set_default_device(mx.cpu)
    model, tokenizer = load(arguments.model)
    differing = 0
    for prompt in PROMPTS:
        tokens, margins = mlx_answer(model, tokenizer, prompt)
        expected = tokenizer.decode(tokens)
        command = [arguments.pippin, "run", arguments.model, prompt, "--temp", "0", "--max-tokens", str(MAX_TOKENS)]
        if arguments.exact:
            command.append("--exact")
        actual = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout.decode()
        same = actual.strip() == expected.strip()
        differing += not same
        print("same  " if same else "DIFFERS", f"{prompt!r} -> {actual.strip()!r}")
        if not same:
            mine = tokenizer.encode(actual.strip(), add_special_tokens=False)
            first = next((i for i, (a, b) in enumerate(zip(tokens, mine)) if a != b), min(len(tokens), len(mine)))
            margin = margins[first] if first < len(margins) else float("nan")
            print(f"        mlx-lm: {expected.strip()!r}\n        differs at token {first}, where mlx-lm's margin is {margin:.4f}")
    print(f"{len(PROMPTS) - differing} of {len(PROMPTS)} prompts give the same text")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()
