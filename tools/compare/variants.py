#!/usr/bin/env python3
"""Compare Pippin with mlx-lm on model folders that are broken, odd, doubled or contradictory in ways that published ones are.

    pip install "mlx[cpu]" mlx-lm==0.32.2 transformers==5.24
    cargo build --release
    python tools/compare/variants.py [--only PATTERN] [--list] [--keep DIR] [--model DIR] [--pippin FILE] [--verbose]

Each variant is a copy of the shipped model in which something was changed; `variant_table.py` has them all. Both programs answer the same
prompts from it, greedily and with exact arithmetic, each with the chat template it finds. A line per variant says what came of it:

    same              the same text, character by character, the same end, and as many tokens in the prompt
    DIFFERS           not so
    pippin refuses    mlx-lm answers, Pippin has an error
    mlx-lm refuses    the other way round; Pippin's answer is that of the unchanged model
    both refuse

`DIFFERS` and `pippin refuses` are mistakes of Pippin's unless `EXPECTED` has a reason why Pippin is right. So is an answer where mlx-lm
refuses, if it is not the unchanged model's. What `EXPECTED` says must be what happens, or the variant fails too. The exit code is 1 if one
fails. Where two texts differ at a token of which mlx-lm was undecided (a tie), they count as the same.
"""

import argparse
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "critical"

import mlx.core as mx  # noqa: E402
from mlx_lm import load  # noqa: E402
from mlx_lm.generate import generate_step  # noqa: E402

from variant_table import EXPECTED, VARIANTS, Folder  # noqa: E402

PROMPTS = ["What is 17 plus 25?", "Hello! Who are you?", "Tell me a short story.", "  naïve Café\t<think> 日本 🙂\n\n x<new> <|im_end|>  y "]
MAX_TOKENS = 28
# Logits that lie closer together than this are a tie.
TIE = 0.001


# --- Answers ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    text: str
    ended: bool
    """By a stop token, and not because `MAX_TOKENS` were there."""
    prompt_tokens: int

    def __str__(self):
        return f"{self.text!r}{'' if self.ended else ' …'} to {self.prompt_tokens} tokens"


@dataclass(frozen=True)
class Reference:
    """An answer of mlx-lm's, and with what certainty it was given."""

    answer: Answer
    texts: list[str]
    """The text up to each token."""
    margins: list[float]
    """By how much each token led the second likeliest."""

    def is_tie(self, other):
        """Whether the answers part at a token of which mlx-lm was undecided."""
        if other.prompt_tokens != self.answer.prompt_tokens:
            return False
        parted = (margin for text, margin in zip(self.texts, self.margins) if not other.text.startswith(text.rstrip("\ufffd")))
        return next(parted, self.margins[-1]) < TIE


GENERATED: dict[tuple, list[tuple[int, float]]] = {}


def generate(model, folder, ids):
    """Greedy tokens with their margins. Variants of which mlx-lm makes the same model need not compute them again."""
    weights = sorted((file.name, file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.glob("*.safetensors"))
    key = (repr(model.args), str(model), str(weights), tuple(ids))
    if key not in GENERATED:
        generated = []
        for token, logprobs in generate_step(mx.array(ids), model, max_tokens=MAX_TOKENS):
            top = mx.sort(logprobs)[-2:]
            generated.append((token, (top[1] - top[0]).item()))
        GENERATED[key] = generated
    return GENERATED[key]


def mlx_answers(folder):
    """mlx-lm's answers, in `float32` whatever the checkpoint has; as its `generate` command makes prompts and texts."""
    model, tokenizer = load(str(folder))
    model.set_dtype(mx.float32)
    answers = []
    for prompt in PROMPTS:
        if tokenizer.has_chat_template:
            messages = [{"role": "user", "content": prompt}]
            prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = tokenizer.encode(prompt, add_special_tokens=False)
        else:
            ids = tokenizer.encode(prompt, add_special_tokens=True)
        generated = generate(model, folder, ids)
        count = next((i for i, (token, _) in enumerate(generated) if token in tokenizer.eos_token_ids), MAX_TOKENS)
        tokens = [token for token, _ in generated[:count]]
        detokenizer = tokenizer.detokenizer
        for token in tokens:
            detokenizer.add_token(token)
        detokenizer.finalize()
        answer = Answer(detokenizer.text, count < MAX_TOKENS, len(ids))
        texts = [tokenizer.decode(tokens[: i + 1]) for i in range(count)]
        # The token that ends an answer may have been a tie, too.
        answers.append(Reference(answer, texts, [margin for _, margin in generated[: count + 1]]))
    return answers


class Refused(Exception):
    pass


def pippin_answers(pippin, folder):
    answers = []
    for prompt in PROMPTS:
        command = [pippin, "run", str(folder), prompt, "--temp", "0", "--exact", "--max-tokens", str(MAX_TOKENS), "--json"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
        if done.returncode != 0:
            raise Refused(f"exit code {done.returncode}: {done.stderr.decode().strip()}")
        answer = json.loads(done.stdout)
        answers.append(Answer(answer["text"], answer["finish_reason"] == "stop", answer["usage"]["prompt_tokens"]))
    return answers


# --- Comparison ---------------------------------------------------------------------------------------------------------------------------


def compare(pippin, folder, unchanged):
    """What came of a variant, and lines of explanation."""
    mlx, mine, refusals = None, None, []
    try:
        mlx = mlx_answers(folder)
    except (Exception, SystemExit) as error:
        refusals.append(f"mlx-lm: {type(error).__name__}: {error}")
    try:
        mine = pippin_answers(pippin, folder)
    except Refused as error:
        refusals.append(f"pippin: {error}".replace(str(folder), "FOLDER"))
    if mlx is None and mine is None:
        return "both refuse", refusals
    if mine is None:
        return "pippin refuses", refusals
    if mlx is None:
        if unchanged is not None and mine != unchanged:
            return "DIFFERS", [*refusals, "pippin: " + "\n".join(map(str, mine))]
        return "mlx-lm refuses", refusals
    lines = []
    for reference, answer in zip(mlx, mine):
        if answer != reference.answer and not reference.is_tie(answer):
            lines += [f"mlx-lm: {reference.answer}", f"pippin: {answer}"]
    return ("DIFFERS" if lines else "same"), lines


def expectation(name):
    for pattern, outcome, why in EXPECTED:
        if re.fullmatch(pattern, name):
            return outcome, why
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default="models/pippin-nano-4bit", help="the model that is changed")
    parser.add_argument("--pippin", default="target/release/pippin")
    parser.add_argument("--only", metavar="PATTERN", default="", help="only variants in whose name this regular expression is found")
    parser.add_argument("--list", action="store_true", help="print the names of variants and do nothing")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="make the folders here, and keep them")
    parser.add_argument("--verbose", action="store_true", help="print the explanation of expected differences, too")
    arguments = parser.parse_args()

    names = [name for name in VARIANTS if re.search(arguments.only, name)]
    if arguments.list:
        print("\n".join(names))
        return
    logging.disable()
    mx.set_default_device(mx.cpu)
    unchanged = pippin_answers(arguments.pippin, arguments.model)
    counts, failed = {}, []
    with tempfile.TemporaryDirectory() as temporary:
        for name in names:
            path = (arguments.keep or Path(temporary)) / re.sub(r"[^\w.=-]+", "-", name)
            shutil.rmtree(path, ignore_errors=True)
            folder = Folder(arguments.model, path)
            VARIANTS[name](folder)
            outcome, lines = compare(arguments.pippin, folder.path, unchanged)
            expected = expectation(name)
            fails = outcome != expected[0] if expected else outcome in ["DIFFERS", "pippin refuses"]
            counts[outcome] = counts.get(outcome, 0) + 1
            note = f"  (expected: {expected[1]})" if expected and not fails else f"  FAILS, expected: {expected[0]}" if expected else ""
            print(f"{outcome:15} {name}{note}", flush=True)
            if fails:
                failed.append(name)
            if fails or arguments.verbose:
                for line in lines:
                    print("                  " + line[:600].replace("\n", "\n                  "), flush=True)
            if not arguments.keep:
                shutil.rmtree(path)
    print(f"{len(names)} variants: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    print(f"{len(failed)} fail" + "".join(f"\n    {name}" for name in failed))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
