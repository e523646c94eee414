"""Models that go through their layers more than once."""

from .classic import LLAMA
from .recipes import WIDE, four_bits

IQUESTLOOPCODER = LLAMA | {
    "model_type": "iquestloopcoder",
    "num_hidden_layers": 2,
    "head_dim": 24,
    "loop_num": 2,
    "loop_window_size": 6,
    "tie_word_embeddings": False,
}

CONFIGS = {
    "iquestloopcoder": IQUESTLOOPCODER,
    "iquestloopcoder-4bit": four_bits(
        IQUESTLOOPCODER, **WIDE, num_hidden_layers=3, head_dim=32, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        rope_scaling={"type": "linear", "factor": 2.0}),
}

MATTERS = {
    "iquestloopcoder": [{"loop_window_size": 7}, {"rope_theta": 100}],
    "iquestloopcoder-4bit": [{"rope_scaling": None}, {"loop_window_size": 64}],
}
