"""The tiny models of the golden tests: each is a `config.json` that differs from its base in what its name says.

A module of this folder is a group of families. Its `CONFIGS` are the models, by name; `BF16` those that are stored in bf16, by name,
with the name of the model that each is the same as otherwise; `MATTERS` are changes of a model's configuration that change its logits
clearly, by the model's name: the tests would notice if one were ignored. A change of an object changes the fields that it has.
"""

import importlib
import pkgutil

CONFIGS, BF16, MATTERS = {}, {}, {}
for found in pkgutil.iter_modules(__path__, f"{__name__}."):
    module = importlib.import_module(found.name)
    for kind, models in (("CONFIGS", CONFIGS), ("BF16", BF16), ("MATTERS", MATTERS)):
        own = getattr(module, kind, {})
        assert not own.keys() & models.keys(), own.keys() & models.keys()
        models |= own

# Stored in bf16, as published checkpoints are; the oracle and Pippin both compute in f32.
MODELS = [(name, config, "F32") for name, config in CONFIGS.items()] + [(name, CONFIGS[base], "BF16") for name, base in BF16.items()]
