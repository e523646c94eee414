"""How the configurations of golden models are varied."""

def quantized(bits, group_size, **overrides):
    # Wider, so that every matrix is a whole number of groups in each direction.
    widths = {"hidden_size": 128, "intermediate_size": 192}
    return widths | {"quantization": {"group_size": group_size, "bits": bits} | overrides}


def scaled(**scaling):
    return {"rope_scaling": scaling}


def four_bits(config, layers=(), eight=(), under="model", **changes):
    """The model in four bits; `eight` are the modules of each of `layers`, which are `under` this path, that mlx-lm keeps in eight."""
    more = {f"{under}.layers.{layer}.{module}": {"group_size": 64, "bits": 8} for layer in layers for module in eight}
    return config | changes | {"quantization": {"group_size": 32, "bits": 4} | more}


# Widths that are whole numbers of groups.
WIDE = {"hidden_size": 128, "intermediate_size": 192}
