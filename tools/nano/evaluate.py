"""Runs the held-out prompts through a model and reports accuracy by skill.

    python evaluate.py --model ../../models/pippin-nano-4bit                       # the pippin command line
    python evaluate.py --model ../../models/pippin-nano-4bit --backend mlx --limit 20
    python evaluate.py --model ../../models/pippin-nano-4bit --backend torch       # one GPU, whole batches

Decoding is greedy. A backend is a function (model, items, max_tokens) ->
texts; see BACKENDS.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import stories

HERE = os.path.dirname(os.path.abspath(__file__))


# ---------------------------------------------------------------- checks

def tool_calls(text):
    out = []
    for m in re.finditer(r"<tool_call>\s*(.*?)\s*</tool_call>", text, re.S):
        out.append(json.loads(m.group(1)))
    return out


def same(a, b):
    """Equal as JSON: 3 and 3.0 are equal, true and 1 are not."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def check(text, c):
    """Returns None when `text` is right, else what is wrong."""
    text = text.strip()
    if text.startswith("refused: "):
        return "refused"
    kind = c["type"]
    if kind == "contains":
        missing = [x for x in c.get("all", []) if x.lower() not in text.lower()]
        if missing:
            return f"lacks {missing}"
        if c.get("any") and not any(x.lower() in text.lower() for x in c["any"]):
            return f"has none of {c['any']}"
        return None
    if kind == "exact":
        return None if text == c["value"] else "not equal"
    if kind == "number":
        numbers = re.findall(r"(?<![\d.])-?\d+", text.replace("\u2212", "-"))
        return None if numbers and int(numbers[-1]) == c["value"] else "wrong number"
    if kind == "json":
        try:
            got = json.loads(text)
        except ValueError as e:
            return f"not JSON: {e}"
        return None if same(got, c["value"]) else "other values"
    if kind == "tool_call":
        try:
            calls = tool_calls(text)
        except ValueError as e:
            return f"not JSON: {e}"
        if len(calls) != 1:
            return f"{len(calls)} calls"
        call = calls[0]
        if call.get("name") != c["name"]:
            return "another tool"
        return None if same(call.get("arguments"), c["arguments"]) else "other arguments"
    if kind == "list":
        got = [re.sub(r"^- ", "", x).strip() for x in re.split(r"[,;\n]|(?<=\w) (?=\w)", text) if x.strip(" -")]
        return None if got == c["values"] else "another list"
    if kind == "story":
        return stories.check_story(text, c.get("extra", ()), c.get("must", ()))
    raise KeyError(kind)


# ---------------------------------------------------------------- backends

def as_text(reply):
    """The text of a reply; parsed tool calls are written back as the model writes them."""
    text = reply.get("text") or ""
    for call in reply.get("tool_calls") or []:
        f = call.get("function", call)
        arguments = f["arguments"] if isinstance(f["arguments"], str) else json.dumps(f["arguments"])
        text += '<tool_call>\n{"name": %s, "arguments": %s}\n</tool_call>' % (json.dumps(f["name"]), arguments)
    return text


def run_pippin(args, items):
    """One process; JSON lines in, JSON lines out, in order.

    NOTE: the one place that knows the batch mode of the command line. A
    request is {"messages", "tools"?, "max_tokens"}, a reply {"text"} and
    perhaps {"tool_calls"}. Adapt PIPPIN and the two lines below to the final form.
    """
    command = args.command.split() + ["run", args.model, "--batch", "-", "--temp", "0"]
    lines = [json.dumps({"messages": i["messages"], **({"tools": i["tools"]} if i.get("tools") else {}), "max_tokens": args.max_tokens}, ensure_ascii=False) for i in items]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True)
    replies = [json.loads(x) for x in done.stdout.splitlines() if x.strip()]
    # A request that is refused (a prompt longer than the context) has a reply too, and counts as a wrong answer.
    if done.returncode and (len(replies) != len(items) or not any("error" in r for r in replies)):
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    if len(replies) != len(items):
        sys.exit(f"{len(items)} requests, {len(replies)} replies")
    return [f"refused: {r['error']}" if "error" in r else as_text(r) for r in replies]


def run_mlx(args, items):
    """mlx-lm in this process."""
    import mlx.core as mx
    from mlx_lm import load, stream_generate
    from mlx_lm.sample_utils import make_sampler
    if args.cpu:
        mx.set_default_device(mx.cpu)
    model, tokenizer = load(args.model)
    if args.dense:
        dense(model)
    out = []
    for i in items:
        prompt = tokenizer.apply_chat_template(i["messages"], tools=i.get("tools"), add_generation_prompt=True)
        out.append("".join(r.text for r in stream_generate(model, tokenizer, prompt, max_tokens=args.max_tokens, sampler=make_sampler(temp=0.0))))
        if args.verbose:
            print(json.dumps(out[-1], ensure_ascii=False), flush=True)
    return out


def dense(model):
    """Replaces quantized layers by plain ones: the same numbers, and far faster on MLX's CPU backend."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_unflatten
    plain = []
    for path, m in model.named_modules():
        if isinstance(m, (nn.QuantizedLinear, nn.QuantizedEmbedding)):
            w = mx.dequantize(m.weight, m.scales, m.biases, group_size=m.group_size, bits=m.bits).astype(mx.float32)
            layer = nn.Linear(w.shape[1], w.shape[0], bias=False) if isinstance(m, nn.QuantizedLinear) else nn.Embedding(*w.shape)
            layer.weight = w
            plain.append((path, layer))
    model.update_modules(tree_unflatten(plain))


def run_torch(args, items):
    """The exported folder, dequantized, on one GPU in whole batches."""
    import torch
    from tokenizers import Tokenizer

    import data
    import export
    from model import Config, Model, generate
    with open(os.path.join(args.model, "config.json")) as f:
        raw = json.load(f)
    config = Config(**{k: raw[k] for k in Config().to_dict()})
    model = Model(config)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in export.dequantized(args.model).items()})
    model = model.to("cuda", getattr(torch, args.dtype)).eval()
    tokenizer = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    with open(os.path.join(args.model, "generation_config.json")) as f:
        eos = set(json.load(f)["eos_token_id"])
    order = sorted(range(len(items)), key=lambda i: len(data.render(items[i]["messages"], items[i].get("tools"))))
    out = [None] * len(items)
    for at in range(0, len(order), 512):
        part = order[at:at + 512]
        prompts = [tokenizer.encode(data.render(items[i]["messages"], items[i].get("tools"), True)).ids for i in part]
        for i, ids in zip(part, generate(model, prompts, eos, args.max_tokens)):
            out[i] = tokenizer.decode(ids, skip_special_tokens=True)
    return out


BACKENDS = {"pippin": run_pippin, "mlx": run_mlx, "torch": run_torch}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.path.join(HERE, "../../models/pippin-nano-4bit"))
    parser.add_argument("--heldout", default=os.path.join(HERE, "heldout.jsonl"))
    parser.add_argument("--backend", choices=BACKENDS, default="pippin")
    parser.add_argument("--command", default=os.path.join(HERE, "../../target/release/pippin"), help="how to start pippin")
    parser.add_argument("--skill", help="only this one")
    parser.add_argument("--limit", type=int, help="prompts per skill")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--dense", action="store_true", help="mlx: dequantize the weights first")
    parser.add_argument("--cpu", action="store_true", help="mlx: use the CPU")
    parser.add_argument("--dtype", default="float16", help="torch: activations and weights")
    parser.add_argument("--failures", type=int, default=5, help="how many to print per skill")
    parser.add_argument("--json", help="write the results here")
    parser.add_argument("--minimum", type=float, help="exit with 1 when a skill is below this share")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    count, items = {}, []
    with open(args.heldout) as f:
        for line in f:
            item = json.loads(line)
            if args.skill in (None, item["skill"]) and (args.limit is None or count.get(item["skill"], 0) < args.limit):
                count[item["skill"]] = count.get(item["skill"], 0) + 1
                items.append(item)
    began = time.time()
    texts = BACKENDS[args.backend](args, items)
    right, failures = {}, {}
    for item, text in zip(items, texts):
        wrong = check(text, item["check"])
        right.setdefault(item["skill"], []).append(wrong is None)
        if wrong:
            failures.setdefault(item["skill"], []).append((wrong, item, text))
    for skill, wrong in failures.items():
        for why, item, text in wrong[:args.failures]:
            print(f"[{skill}] {why}\n  user: {item['messages'][-1]['content'][:300]!r}\n  want: {item.get('expected', '')[:300]!r}\n  got:  {text[:300]!r}")
    print(f"{'skill':<12} {'right':>5} {'of':>5}")
    result = {}
    for skill, r in right.items():
        result[skill] = sum(r) / len(r)
        print(f"{skill:<12} {sum(r):>5} {len(r):>5} {100 * result[skill]:6.1f}%")
    print(f"{len(items)} prompts, {time.time() - began:.1f} s")
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"accuracy": result, "texts": texts}, f, ensure_ascii=False)
    if args.minimum is not None and min(result.values()) < args.minimum:
        sys.exit(1)


if __name__ == "__main__":
    main()
