"""Trains pippin-nano on one GPU.

    python train.py --tokenizer build/tokenizer --out build/run --steps 9000

Worker processes generate dialogues without end and pack them into rows of
2,048 tokens (a token attends only to its own dialogue); the loss is on the
assistant's tokens, with a little on the rest. Matrices are trained with Muon,
the embedding and the norms with Adam. In the last part of the training the
forward pass uses weights rounded to the 4 bits of the final checkpoint.
"""

import argparse
import json
import math
import multiprocessing as mp
import os
import queue
import random
import sys
import threading
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np

import data

ROW = 2048


# ---------------------------------------------------------------- data

def label_weights(ids, start, end, assistant, plain):
    """Loss weight of each token as a target: 255 for what the assistant says, `plain` elsewhere."""
    ids = np.asarray(ids)
    weight = np.full(len(ids), plain, np.uint8)
    starts = np.flatnonzero(ids == start)
    ends = np.flatnonzero(ids == end)
    for s in starts:
        if ids[s + 1] == assistant:
            e = ends[np.searchsorted(ends, s)]
            weight[s + 3:e + 1] = 255  # after <|im_start|>assistant\n
    return weight


def pack(documents, rng):
    """Rows of (tokens, weights, positions), filled first-fit."""
    rows, open_rows = [], []
    for ids, weight in documents:
        n = len(ids)
        if n > ROW:
            continue
        for row in open_rows:
            if row[0] + n <= ROW:
                break
        else:
            row = [0, []]
            open_rows.append(row)
            if len(open_rows) > 24:
                rows.append(open_rows.pop(0))
        row[0] += n
        row[1].append((ids, weight))
    rows += [r for r in open_rows if r[0] > ROW * 0.9]
    tokens = np.zeros((len(rows), ROW), np.int16)
    weights = np.zeros((len(rows), ROW), np.uint8)
    positions = np.zeros((len(rows), ROW), np.int16)
    for i, (_, docs) in enumerate(rows):
        at = 0
        for ids, weight in docs:
            n = len(ids)
            tokens[i, at:at + n] = ids
            weights[i, at:at + n] = weight
            weights[i, at] = 0  # nothing predicts the first token
            positions[i, at:at + n] = np.arange(n)
            at += n
        # The rest of the row is a document of padding that has no loss.
        positions[i, at:] = np.arange(ROW - at)
    return tokens, weights, positions


def worker(index, workers, folder, seed, plain, out, limit):
    os.nice(5)
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    start, end, assistant = (tokenizer.token_to_id(t) for t in ("<|im_start|>", "<|im_end|>", "assistant"))
    chunk = index
    while limit is None or chunk < limit:
        rng = random.Random(f"{seed}/{chunk}")
        texts = list(data.documents(f"{seed}/{chunk}", 4000))
        docs = []
        for text, e in zip(texts, tokenizer.encode_batch_fast(texts)):
            raw = not text.startswith("<|im_start|>")
            ids = e.ids
            docs.append((ids, np.full(len(ids), 255, np.uint8) if raw else label_weights(ids, start, end, assistant, plain)))
        out.put(pack(docs, rng))
        chunk += workers


class Stream:
    """Rows on the GPU: fresh ones in order; seen ones again while fresh ones are short."""

    def __init__(self, args, device):
        import torch
        self.torch, self.device = torch, device
        context = mp.get_context("spawn")
        self.queue = context.Queue(64)
        self.workers = [context.Process(target=worker, args=(i, args.workers, args.tokenizer, args.seed, args.plain_weight, self.queue, None), daemon=True) for i in range(args.workers)]
        for w in self.workers:
            w.start()
        self.capacity = args.pool_rows
        self.tokens = torch.zeros(self.capacity, ROW, dtype=torch.int16, device=device)
        self.weights = torch.zeros(self.capacity, ROW, dtype=torch.uint8, device=device)
        self.positions = torch.zeros(self.capacity, ROW, dtype=torch.int16, device=device)
        self.written = self.taken = self.repeated = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.fill, daemon=True).start()

    def fill(self):
        torch = self.torch
        while True:
            if self.written - self.taken > self.capacity // 2:
                time.sleep(0.05)
                continue
            parts = self.queue.get()
            n = len(parts[0])
            at = [(self.written + i) % self.capacity for i in range(n)]
            index = torch.tensor(at, device=self.device)
            for target, part in zip((self.tokens, self.weights, self.positions), parts):
                target[index] = torch.from_numpy(part).to(self.device)
            torch.cuda.current_stream().synchronize()
            self.written += n

    def batch(self, rows):
        torch = self.torch
        while self.written < rows * 4:
            time.sleep(0.05)
        if self.written - self.taken >= rows:
            index = (torch.arange(rows, device=self.device) + self.taken) % self.capacity
            self.taken += rows
        else:
            self.repeated += rows
            index = torch.randint(0, min(self.written, self.capacity), (rows,), device=self.device)
        return self.tokens[index].long(), self.weights[index], self.positions[index].long()


# ---------------------------------------------------------------- training

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default="build/tokenizer", help="folder that tokenizer.py wrote")
    parser.add_argument("--out", default="build/run")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--rows", type=int, default=64, help=f"rows of {ROW} tokens in a step")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 4) - 2))
    parser.add_argument("--pool-rows", type=int, default=600_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.003)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--plain-weight", type=int, default=8, help="loss weight of other tokens, of 255")
    parser.add_argument("--quantized", type=float, default=0.3, help="last part with fake quantization")
    parser.add_argument("--cooldown", type=float, default=0.5, help="last part with falling learning rate")
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--intermediate", type=int, default=1024)
    parser.add_argument("--stop-after", type=float, default=None, help="seconds; the schedule is cut short to fit")
    args = parser.parse_args()

    import torch
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    from model import Config, Model

    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda"
    os.makedirs(args.out, exist_ok=True)
    stream = Stream(args, device)
    with open(os.path.join(args.tokenizer, "tokenizer.json")) as f:
        t = json.load(f)
        vocab = max([*t["model"]["vocab"].values(), *(x["id"] for x in t["added_tokens"])]) + 1
    config = Config(vocab_size=vocab, hidden_size=args.hidden, num_hidden_layers=args.layers, num_attention_heads=args.heads, intermediate_size=args.intermediate)
    model = Model(config).to(device)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    adam = torch.optim.Adam(others, lr=args.adam_lr, betas=(0.9, 0.98), eps=1e-9, fused=True)
    groups = {}
    for p in matrices:
        groups.setdefault(tuple(p.shape), []).append(p)
    momentum = {s: torch.zeros(len(ps), *s, device=device) for s, ps in groups.items()}

    @torch.compile(dynamic=False)
    def orthogonalize(g):
        x = g.bfloat16()
        if g.shape[1] > g.shape[2]:
            x = x.mT
        x = x / (x.norm(dim=(1, 2), keepdim=True) * 1.01 + 1e-7)
        for a, b, c in [(4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037), (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)]:
            y = x @ x.mT
            x = a * x + (b * y + c * y @ y) @ x
        return x.mT if g.shape[1] > g.shape[2] else x

    def muon(lr):
        with torch.no_grad():
            for shape, params in groups.items():
                g = torch.stack([p.grad for p in params])
                m = momentum[shape]
                m.lerp_(g, 0.05)
                update = orthogonalize(g.lerp(m, 0.95)).float()
                scale = lr * max(1, shape[0] / shape[1]) ** 0.5
                torch._foreach_mul_(params, 1 - lr * args.decay)
                torch._foreach_add_(params, list(update.unbind(0)), alpha=-scale)

    blocks = ROW // 128

    def loss_of(tokens, weights, positions):
        B = tokens.shape[0]
        start = torch.arange(ROW, device=device)[None] - positions  # where each token's dialogue begins

        def same(b, h, q, k):
            return (q >= k) & (start[b, q] == start[b, k])

        first = start[:, ::128] // 128
        order = torch.arange(blocks, device=device)
        count = (order[None] - first + 1)[:, None].int()
        index = torch.minimum(first[:, :, None] + order, order[None, :, None])[:, None].int()
        mask = BlockMask.from_kv_blocks(count, index.contiguous(), BLOCK_SIZE=128, mask_mod=same, seq_lengths=(ROW, ROW))
        attend = lambda q, k, v: flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(tokens, positions, [attend] * config.num_hidden_layers)
        w = weights[:, 1:].float() / 255
        ce = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none").view(w.shape)
        strong = (w > 0.9).float()
        return (ce * w).sum() / w.sum(), (ce * strong).sum() / strong.sum()

    step_loss = torch.compile(loss_of, dynamic=False)
    began = time.time()
    steps, log = args.steps, []
    quantized_from, cool_from = int(steps * (1 - args.quantized)), int(steps * (1 - args.cooldown))
    step, mark, mark_step, strong_sum = 0, time.time(), 0, []
    while step < steps:
        if step == quantized_from:
            model.set_fake_quantization(True)
            print("fake quantization on", flush=True)
        lr = min(1.0, (step + 1) / 200)
        if step >= cool_from:
            lr *= max(0.0, (steps - step) / (steps - cool_from)) * 0.98 + 0.02
        loss, strong = step_loss(*stream.batch(args.rows))
        loss.backward()
        for group in adam.param_groups:
            group["lr"] = args.adam_lr * lr
        adam.step()
        muon(args.muon_lr * lr)
        model.zero_grad(set_to_none=True)
        strong_sum.append(strong.detach())
        step += 1
        if step % 100 == 0 or step in (1, 2, 10):
            value = torch.stack(strong_sum).mean().item()
            strong_sum = []
            now = time.time()
            rate = (step - mark_step) * args.rows * ROW / (now - mark)
            mark, mark_step = now, step
            log.append({"step": step, "loss": value, "seconds": now - began, "rate": rate})
            print(f"step {step} loss {value:.4f} {rate / 1e6:.2f}M tok/s {now - began:.0f}s rows fresh {stream.taken} repeated {stream.repeated} ahead {stream.written - stream.taken}", flush=True)
            if step == 400 and args.stop_after:
                # Choose the number of steps that fits the time.
                per = args.rows * ROW / rate
                fit = step + int((args.stop_after - (now - began) - 60) / per)
                if fit < steps:
                    steps = fit
                    quantized_from, cool_from = int(steps * (1 - args.quantized)), int(steps * (1 - args.cooldown))
                    print(f"steps cut to {steps}", flush=True)
        if step % 2000 == 0 or step == steps:
            path = os.path.join(args.out, "checkpoint.pt")
            torch.save({"config": config.to_dict(), "model": {k: v.cpu() for k, v in model.state_dict().items()}, "step": step,
                        "tokens": step * args.rows * ROW, "fresh_rows": stream.taken, "seconds": time.time() - began, "log": log}, path + ".tmp")
            os.replace(path + ".tmp", path)
    for w in stream.workers:
        w.kill()
    print(f"done: {step} steps, {step * args.rows * ROW / 1e9:.2f}G tokens, {time.time() - began:.0f}s", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
