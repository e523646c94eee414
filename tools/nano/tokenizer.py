"""Trains the tokenizer on synthetic text and writes the tokenizer files.

    python tokenizer.py --out build/tokenizer --vocab 4096

Byte-level BPE; digits are split one by one, so that arithmetic sees places.
"""

import argparse
import json
import os
import random

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import data
import toolset
import words

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Ordinary text to a decoder, but one token each.
TAGS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>", "<think>", "</think>"]



def corpus(documents, seed=1):
    yield from data.documents(seed, documents)
    rng = random.Random(seed)
    flat = words.COMMON
    for _ in range(documents // 20):
        yield " ".join(rng.choice(flat) for _ in range(40))
    for countries in range(20):
        yield " ".join(f"{a} {b}" for a, b in words.CAPITALS)


def train(vocab, documents):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(TAGS), special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=16, show_progress=False, min_frequency=2)
    # The tags must not take part in the training of merges.
    def clean():
        for text in corpus(documents):
            for tag in TAGS + SPECIAL:
                text = text.replace(tag, "\n")
            yield text
    tokenizer.train_from_iterator(clean(), trainer)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAGS])
    return tokenizer


def write(tokenizer, folder):
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "chat_template.jinja")) as f:
        template = f.read()
    added = {}
    for t in SPECIAL + TAGS:
        added[str(tokenizer.token_to_id(t))] = {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": t in SPECIAL}
    config = {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None, "chat_template": template, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": 2048, "pad_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": None,
    }
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump(config, f, indent=2, ensure_ascii=False)
        f.write("\n")
    with open(os.path.join(folder, "special_tokens_map.json"), "w") as f:
        json.dump({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, f, indent=2)
        f.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="build/tokenizer")
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--documents", type=int, default=60_000)
    args = parser.parse_args()
    tokenizer = train(args.vocab, args.documents)
    write(tokenizer, args.out)
    print(tokenizer.get_vocab_size(), "tokens,", os.path.getsize(os.path.join(args.out, "tokenizer.json")), "bytes")


if __name__ == "__main__":
    main()
