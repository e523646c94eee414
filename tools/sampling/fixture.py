"""Writes crates/pippin-engine/src/sampling/fixture.json: what mlx-lm's samplers do to logits.

Each case holds logits, parameters, and what mlx-lm 0.32.2 makes of them:

- "processors": the logits after bias and penalties, given a history;
- "filters": the tokens that top-p, min-p, XTC and top-k leave, and their probabilities at the temperature.

Run with a Python that has mlx-lm; the result is deterministic:

    python tools/sampling/fixture.py
"""

import itertools
import json
import pathlib
import random

import mlx.core as mx
from mlx_lm import sample_utils

OUT = pathlib.Path(__file__).parents[2] / "crates/pippin-engine/src/sampling/fixture.json"


def random_logits(rng, vocab, spread):
    # Four decimals survive JSON and are distinct enough: ties are a case of their own.
    return [round(rng.gauss(0, spread), 4) for _ in range(vocab)]


def filtered(logits, p):
    logits = mx.array(logits, dtype=mx.float32)[None]
    logprobs = logits - mx.logsumexp(logits, keepdims=True)
    # As make_sampler chains them; it draws at the end, so the chain is repeated here.
    if 0 < p["top_p"] < 1:
        logprobs = sample_utils.apply_top_p(logprobs, p["top_p"])
    if p["min_p"] != 0:
        logprobs = sample_utils.apply_min_p(logprobs, p["min_p"], p["min_tokens_to_keep"])
    if p["xtc_probability"] > 0:
        logprobs = sample_utils.apply_xtc(logprobs, p["xtc_probability"], p["xtc_threshold"], p["protected"])
    if p["top_k"] > 0:
        logprobs = sample_utils.apply_top_k(logprobs, p["top_k"])
    probabilities = mx.softmax(logprobs * (1 / p["temperature"]), axis=-1)[0].tolist()
    kept = [token for token, value in enumerate(logprobs[0].tolist()) if value != -float("inf")]
    # The first ones are enough to tell a wrong distribution from a right one.
    return kept, [round(probabilities[token], 7) for token in kept[:24]]


def processed(logits, history, p):
    processors = sample_utils.make_logits_processors(
        logit_bias={int(token): bias for token, bias in p["logit_bias"].items()},
        **{
            name: p[name]
            for kind in ("repetition", "presence", "frequency")
            for name in (f"{kind}_penalty", f"{kind}_context_size")
        },
    )
    logits = mx.array(logits, dtype=mx.float32)[None]
    for processor in processors:
        logits = processor(mx.array(history), logits)
    return [round(value, 5) for value in logits[0].tolist()]


def main():
    mx.set_default_device(mx.cpu)
    rng = random.Random(20)
    vectors = [
        random_logits(rng, 50, 2.0),
        random_logits(rng, 300, 3.0),
        random_logits(rng, 1500, 1.0),
        # Ties, in the middle and at the top.
        [float(i % 7) for i in range(40)],
    ]

    combinations = list(
        itertools.product(
            [0.0, 0.1, 0.5, 0.9, 0.97, 1.0],
            [0.0, 0.02, 0.3, 1.0],
            [1, 4],
            [0, 1, 5, 30],
            [(0.0, 0.1), (1.0, 0.1), (1.0, 0.02), (1.0, 0.4)],
            [0.3, 1.0, 2.0],
        )
    )
    filters = []
    for index, logits in enumerate(vectors):
        has_ties = len(set(logits)) < len(logits) / 2
        wanted = 80 if len(logits) <= 300 else 40
        for top_p, min_p, keep, top_k, (xtc, threshold), temperature in rng.sample(combinations, 400):
            # Which of equals mlx keeps is not defined there.
            if has_ties and (top_k > 0 or keep > 1):
                continue
            p = {
                "temperature": temperature,
                "top_p": top_p,
                "top_k": top_k,
                "min_p": min_p,
                "min_tokens_to_keep": keep,
                "xtc_probability": xtc,
                "xtc_threshold": threshold,
                "protected": rng.choice([[], rng.sample(range(len(logits)), 3)]),
            }
            kept, probabilities = filtered(logits, p)
            if len(kept) > 400:
                continue
            filters.append({"logits": index, **p, "kept": kept, "probabilities": probabilities})
            wanted -= 1
            if wanted == 0:
                break

    processors = []
    for _ in range(60):
        logits = vectors[0]
        history = [rng.randrange(12) for _ in range(rng.choice([1, 5, 40]))]
        window = lambda: rng.choice([1, 3, 20, 0])  # noqa: E731
        p = {
            "logit_bias": rng.choice([{}, {"3": 1.5, "7": -100.0}]),
            "repetition_penalty": rng.choice([None, 0.0, 1.3, 0.8]),
            "repetition_context_size": window(),
            "presence_penalty": rng.choice([None, 0.0, 0.7, -0.5]),
            "presence_context_size": window(),
            "frequency_penalty": rng.choice([None, 0.0, 0.4, -0.2]),
            "frequency_context_size": window(),
        }
        processors.append({"history": history, **p, "expected": processed(logits, history, p)})

    # One line for each vector and case, so that a change of the file can be read.
    parts = []
    for name, rows in (("vectors", vectors), ("filters", filters), ("processors", processors)):
        parts.append(f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]")
    OUT.write_text("{\n" + ",\n".join(parts) + "\n}\n")
    print(f"{OUT}: {len(filters)} filters, {len(processors)} processors")


if __name__ == "__main__":
    main()
