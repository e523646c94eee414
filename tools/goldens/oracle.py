"""mlx-lm as the oracle: where it leaves out what the models' own reference has, and how close its routers' choices are."""

import contextlib
import math
import re
import sys
from types import ModuleType, SimpleNamespace
from unittest import mock

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models import afm7, bitnet, mistral4, muse_spark, phimoe, rope_utils, talkie
from mlx_lm.models.activations import swiglu
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.llama import Model as Llama
from mlx_lm.models.prism_hadamard_qwen35 import hadamard_rotate
from mlx_lm.models.switch_layers import QuantizedSwitchLinear

ONLY_IN_SWIFT = {"acereason": "qwen2", "nemotron_labs_diffusion": "ministral3"}


# mlx-lm's family of OLMo 1 asks for a package of which it uses nothing.
sys.modules.setdefault("hf_olmo", ModuleType("hf_olmo"))

# Its layer of ternary weights is a kernel for Metal alone. What a layer of these sizes computes is otherwise the same.
bitnet.BitLinear = nn.Linear


class FusedLinear(afm7.FusedLinear):
    """Quantized as any loader of MLX's asks for it; mlx-lm's own refuses the mode."""

    def to_quantized(self, group_size=64, bits=4, mode="affine", **others):
        return super().to_quantized(group_size, bits)


afm7.FusedLinear = FusedLinear


class MuseSparkOnAnyDevice:
    """What Muse Spark's kernels compute, which are for Metal alone."""

    @staticmethod
    def expert_routing(logits, expert_bias, *, top_k, multiplier, score_eps, route_scale):
        scores = mx.sigmoid(logits * multiplier)
        chosen = mx.argpartition(scores + expert_bias, kth=-top_k, axis=-1)[..., -top_k:]
        shares = mx.take_along_axis(scores, chosen, axis=-1)
        return chosen, shares / (shares.sum(axis=-1, keepdims=True) + score_eps) * route_scale

    @staticmethod
    def norm_add_norm(branch, stream, *, alpha, beta, post_weight, post_eps, next_norm):
        scaled = branch if post_weight is None else post_weight * branch
        stream = alpha * stream + beta * mx.fast.rms_norm(scaled, None, post_eps)
        return stream, next_norm and next_norm(stream)

    @staticmethod
    def post_expert_norm_combine(experts, weights, *, norm_weight, eps):
        return (mx.fast.rms_norm(norm_weight * experts, None, eps) * weights[..., None]).sum(axis=-2)

    @staticmethod
    def qk_norm(qkvg, *, n_heads, n_kv_heads, head_dim, eps, query_scale):
        heads = mx.unflatten(qkvg, -1, (-1, head_dim))
        queries, keys = heads[..., :n_heads, :], heads[..., n_heads : n_heads + n_kv_heads, :]
        return mx.fast.rms_norm(queries, None, eps) * query_scale, mx.fast.rms_norm(keys, None, eps)

    @staticmethod
    def qk_norm_rope(qkvg, *, rope_base, offset, **others):
        def rotated(x):
            turned = mx.fast.rope(
                x.swapaxes(1, 2), x.shape[-1], traditional=True, base=rope_base, scale=1.0, offset=offset)
            return turned.swapaxes(1, 2)

        return [rotated(x) for x in MuseSparkOnAnyDevice.qk_norm(qkvg, **others)]

    @staticmethod
    def rms_norm_sigmoid_gate(x, gate, *, eps):
        return mx.fast.rms_norm(x, None, eps).swapaxes(1, 2).flatten(-2) * mx.sigmoid(gate)


for function in [name for name in vars(MuseSparkOnAnyDevice) if not name.startswith("_")]:
    setattr(muse_spark, function, getattr(MuseSparkOnAnyDevice, function))
# It rounds to bf16 wherever it is told to, which here is nowhere.
muse_spark.mx = SimpleNamespace(**vars(mx) | {"bfloat16": mx.float32})


class Talkie(talkie.Model):
    """With a head that is a module, as all others have it, rather than a matrix of the model's own."""

    def __init__(self, args):
        super().__init__(args)
        self.lm_head = nn.Linear(args.hidden_size, args.vocab_size, bias=False)

    def __call__(self, inputs, cache=None):
        return self.lm_head_gain(self.lm_head(self.model(inputs, cache)))


talkie.Model = Talkie

# Modules that mlx-lm has one by one, and Pippin as a stack: what of their paths is left out.
NUMBERED = re.compile(r"(_layernorm)\.norms\.(\d+)|(ffn\.experts)\.(\d+)")


def stacked(path):
    """The path of the stack that a module is a part of, and its number in it."""
    if not (found := NUMBERED.search(path)):
        return None
    before, number = (group for group in found.groups() if group)
    return path[: found.start()] + before + path[found.end() :], int(number)


def oracle_config(config):
    """What mlx-lm is given. It ignores a sliding window without `layer_types` and refuses one in every layer: see `patch`.
    A name that only mlx-swift-lm knows is that of another family."""
    if config["model_type"] in ONLY_IN_SWIFT:
        return config | {"model_type": ONLY_IN_SWIFT[config["model_type"]]}
    if config["model_type"] == "mistral" and config.get("sliding_window"):
        types = ["full_attention"] + ["sliding_attention"] * (config["num_hidden_layers"] - 1)
        return config | {"layer_types": types}
    return config


def stored_name(config, name):
    """What a module or a tensor that mlx-lm has under another name is called in the checkpoint, or by the part that reads it."""
    if config["model_type"] == "afm7" and (found := re.match(r"model\.kv_reuse_layers\.(\d+)", name)):
        # Pippin counts these on; by the converter's own names they are found, too.
        layer = config["num_layers"] - config["num_kv_reuse_layers"] + int(found[1])
        return f"model.layers.{layer}{name[found.end():]}"
    if config["model_type"] == "plamo2":
        return re.sub(r"mixer\.([qk])_weight$", r"mixer.\1_norm.weight", name)
    if config["model_type"] == "iquestloopcoder":
        return re.sub(r"gate_projections\.(\d+)", r"layers.\1.self_attn.loop_gate", name)
    if config["model_type"] == "nemotron_labs_diffusion":
        return name.replace("lm_head", "diffusion_head") if name.startswith("lm_head") else name.replace("model.", "encoder.", 1)
    return name


def patch(model, config):
    """Give a model what mlx-lm leaves out."""
    for _, module in model.named_modules():
        if isinstance(module, QuantizedSwitchLinear) and module.global_scale is not None:
            extend(module, scaled_experts)
    window = config.get("sliding_window")
    match config["model_type"]:
        case "plamo3":
            # A prompt's windows are a token longer than those that its cache keeps.
            model.model.layers.window_size -= 1
        case "prism_hadamard_qwen35":
            extend(model.model.embed_tokens, unrounded)
        case "plamo2":
            for index, layer in enumerate(model.layers):
                if not layer.is_mamba and index not in (config["full_attention_idx"] or ()):
                    extend(layer, windowed, config["attention_window_size"])
        case "mistral" if window:
            # The first layer's window that `oracle_config` could not give.
            assert isinstance(model, Llama)
            model.layers[0].use_sliding = True
        case "gemma2" if window:
            for layer in model.layers[::2]:
                extend(layer, windowed, window)
        case "phi3" if window:
            for layer in model.layers:
                extend(layer, windowed, window)
        case "gemma":
            for layer in model.layers:
                extend(layer.mlp, approximate_gelu)
        case "glm":
            for layer in model.layers:
                layer.self_attn.rope.dims = int(config["head_dim"] * config.get("partial_rotary_factor", 0.5))
        case "gpt_bigcode":
            for layer in model.layers:
                if config["activation_function"] == "gelu_pytorch_tanh":
                    extend(layer.mlp, approximate_gelu)
                if not config["multi_query"]:
                    extend(layer.attn.c_attn, rearranged, config["n_head"])
        case "olmo":
            for layer in model.layers:
                extend(layer, causal)
        case "phi3small":
            # mlx-lm has the unused tokens of the published vocabulary, beyond this one.
            model._dummy_tokenizer_ids = mx.array(config["dummy_token_indices"], dtype=mx.int32)
            for layer in model.layers:
                extend(layer.self_attn, added_mask)
        case "starcoder2":
            for layer in model.layers:
                if window:
                    extend(layer, windowed, window)
                if config["hidden_act"] == "gelu_pytorch_tanh":
                    extend(layer.mlp, approximate_gelu)
        case "gpt_neox" if config["hidden_act"] == "gelu":
            for layer in model.layers:
                extend(layer.mlp, exact_gelu)
        case "deepseek_v32" | "glm_moe_dsa":
            for layer in model.layers:
                layer.self_attn.indexer.k_norm.eps = 1e-6
        case "longcat_flash" | "longcat_flash_ngram":
            for attention in (attention for layer in model.layers for attention in layer.self_attn):
                attention.q_a_layernorm.eps = attention.kv_a_layernorm.eps = 1e-6
        case "minicpm3":
            for layer in model.layers:
                layer.self_attn.q_a_layernorm.eps = layer.self_attn.kv_a_layernorm.eps = 1e-6
        case "mamba2":
            for layer in model.layers:
                extend(layer.mixer.norm, grouped, config["n_groups"])
        case "falcon_h1" if config["mamba_rms_norm"]:
            for layer in model.layers:
                extend(layer.mamba.norm, grouped, config["mamba_n_groups"], config["mamba_norm_before_gate"])
        case "jamba":
            for layer in model.layers:
                if hasattr(layer.feed_forward, "router"):
                    extend(layer.feed_forward, shares_of_all)
        case "recurrent_gemma" if model.model.scale_by_sqrt_dim:
            model.model.scale_by_sqrt_dim = False
            factor = mx.array(config["hidden_size"] ** 0.5).astype(mx.bfloat16).item()
            extend(model.model.embed_tokens, scaled, factor)


def scaled_experts(base):
    """MLX multiplies by factors of experts on the GPU only."""

    class ScaledExperts(base):
        def __call__(self, x, indices, sorted_indices=False):
            factors = self.global_scale
            self.global_scale = None
            y = super().__call__(x, indices, sorted_indices)
            self.global_scale = factors
            return y * (factors / (448 * 6))[indices].reshape(*y.shape[:-1], 1)

    return ScaledExperts


def extend(module, subclass, *args):
    module.__class__ = subclass(type(module), *args)


def windowed(base, window):
    class Windowed(base):
        def __call__(self, x, mask=None, cache=None):
            offset = 0 if cache is None else cache.offset
            return super().__call__(x, create_causal_mask(x.shape[1], offset, window_size=window), cache)

    return Windowed


def approximate_gelu(base):
    class ApproximateGelu(base):
        def __call__(self, x):
            with mock.patch.object(nn, "gelu", nn.gelu_approx):
                return super().__call__(x)

    return ApproximateGelu


def causal(base):
    class Causal(base):
        """With a mask that can be added to scores: mlx-lm adds the word."""

        def attend(self, x, mask=None, cache=None):
            mask = create_causal_mask(x.shape[1], 0 if cache is None else cache.offset)
            return super().attend(x, mx.where(mask, 0.0, -mx.inf), cache)

    return Causal


def added_mask(base):
    class AddedMask(base):
        """With a mask that can be added to scores: mlx-lm adds one of true and false."""

        def _block_sparse_attention(self, queries, keys, values, scale, mask):
            if mask is not None:
                mask = mx.where(mask, 0.0, -mx.inf)
            return super()._block_sparse_attention(queries, keys, values, scale, mask)

    return AddedMask


def unrounded(base):
    class Unrounded(base):
        """mlx-lm rounds embeddings to f16, in which such models compute; here everything is f32."""

        def __call__(self, indices):
            parts = (parameter[indices] for parameter in (self.weight, self.scales, self.biases))
            rows = mx.dequantize(*parts, group_size=self.group_size, bits=self.bits)
            return hadamard_rotate(rows, self.block, self.signs, inverse=True) if self.block else rows

    return Unrounded


def rearranged(base, heads):
    class Rearranged(base):
        """From query, key and value of each head to all queries, all keys, all values."""

        def __call__(self, x):
            parts = mx.unflatten(super().__call__(x), -1, (heads, 3, -1))
            return parts.swapaxes(-2, -3).flatten(-3)

    return Rearranged


def exact_gelu(base):
    class ExactGelu(base):
        def __call__(self, x):
            return self.dense_4h_to_h(nn.gelu(self.dense_h_to_4h(x)))

    return ExactGelu


def scaled(base, factor):
    class Scaled(base):
        def __call__(self, x):
            return super().__call__(x) * factor

    return Scaled


def grouped(base, groups, before_gate=False):
    class Grouped(base):
        def __call__(self, x, gate):
            eps = self.eps if hasattr(self, "eps") else self.variance_epsilon
            parts = mx.unflatten(x if before_gate else swiglu(gate, x), -1, (groups, -1))
            normed = self.weight * mx.fast.rms_norm(parts, None, eps).flatten(-2)
            return swiglu(gate, normed) if before_gate else normed

    return Grouped


def shares_of_all(base):
    class SharesOfAll(base):
        def __call__(self, x):
            gates = self.router(x)
            indices = mx.argpartition(-gates, kth=self.num_experts_per_tok - 1, axis=-1)[..., : self.num_experts_per_tok]
            shares = mx.take_along_axis(mx.softmax(gates, axis=-1, precise=True), indices, axis=-1)
            return (self.switch_mlp(x, indices) * shares[..., None]).sum(axis=-2)

    return SharesOfAll


@contextlib.contextmanager
def construction(config):
    """While a model is made: the bounds of yarn's ramp are not rounded where the configuration says so."""
    if (config.get("rope_scaling") or {}).get("truncate", True):
        yield
    else:
        exact = SimpleNamespace(**vars(math) | {"floor": float, "ceil": float})
        with mock.patch.object(rope_utils, "math", exact):
            yield


PARTITION = mx.argpartition


class Routers:
    """Inside `watch`, the smallest lead that a chosen expert (or group of experts) has over one that is not, relative to the largest
    absolute value that takes part; and that which a key has that an index chooses."""

    def __init__(self, key_axes=4):
        self.key_axes = key_axes
        self.lead = self.key_lead = math.inf
        self.choices = 0

    def leads(self, values, count):
        values = np.sort(np.array(values, dtype=np.float64), axis=-1)[..., ::-1]
        # What was left out before the choice is infinitely low.
        largest = np.abs(np.where(np.isfinite(values), values, 0.0)).max(axis=-1)
        leads = (values[..., count - 1] - values[..., count]) / largest
        self.choices += leads.size
        return float(leads.min(initial=math.inf))

    def record(self, values, count):
        self.lead = min(self.lead, self.leads(values, count))

    def record_keys(self, values, count):
        """Keys of an index, where there are more than are chosen."""
        values = np.array(values, dtype=np.float64).reshape(-1, values.shape[-1])
        values = values[(values > -np.inf).sum(axis=-1) > count]
        if not values.size:
            return
        self.key_lead = min(self.key_lead, self.leads(values, count))

    def of_groups(self, select):
        """A compiled choice among groups, which is looked at from outside."""

        def group_expert_select(gates, bias, top_k, n_group, topk_group, *others):
            scores = mx.softmax(gates, axis=-1) if "softmax" in others else mx.sigmoid(gates)
            scores = np.array(scores if bias is None else scores + bias)
            groups = scores.reshape(*scores.shape[:-1], n_group, -1)
            if n_group > 1:
                sums = np.sort(groups, axis=-1)[..., -2:].sum(axis=-1)
                self.record(sums, topk_group)
                taken = np.argsort(sums, axis=-1)[..., -topk_group:]
                groups = np.take_along_axis(groups, taken[..., None], axis=-2)
            self.record(groups.reshape(*groups.shape[:-2], -1), top_k)
            # Compiled: nothing inside can be looked at.
            with mock.patch.object(mx, "argpartition", PARTITION):
                return select(gates, bias, top_k, n_group, topk_group, *others)

        return group_expert_select

    def of_all(self, select):
        """A compiled choice among all experts."""

        def moe_gate_select(gates, bias, top_k, *others):
            self.record(np.array(mx.sigmoid(gates) + bias), top_k)
            with mock.patch.object(mx, "argpartition", PARTITION):
                return select(gates, bias, top_k, *others)

        return moe_gate_select

    @contextlib.contextmanager
    def watch(self):
        def argpartition(a, kth, axis=-1):
            if axis == -2:
                # Of the values of groups, the k smallest are asked for (kth = k - 1), to be left out.
                values = np.array(a).swapaxes(-1, -2)
                self.record(values, values.shape[-1] - kth - 1)
                return PARTITION(a, kth=kth, axis=axis)
            # Routers ask for the k largest (kth = -k) or for the k smallest of what they negated (kth = k - 1).
            assert axis == -1
            values, count = (a, -kth) if kth < 0 else (-a, kth + 1)
            # Experts are chosen by token, keys by head too.
            (self.record_keys if a.ndim == self.key_axes else self.record)(values, count)
            return PARTITION(a, kth=kth, axis=axis)

        mixer = phimoe.sparsemixer

        def sparsemixer(gates, *, top_k, jitter_eps):
            values = np.array(gates, dtype=np.float64)
            for count in range(1, top_k + 1):
                # The order counts, and what is close to each chosen one.
                self.record(values, count)
                top = np.sort(values, axis=-1)[..., -count, None]
                distances = (top - values) / np.maximum(np.abs(values), top)
                self.lead = min(self.lead, float(np.abs(distances - 2 * jitter_eps).min()))
            return mixer(gates, top_k=top_k, jitter_eps=jitter_eps)

        softmax_select = mistral4.mistral4_expert_select

        def mistral4_expert_select(*args):
            # Compiled, nothing inside could be looked at.
            mx.disable_compile()
            try:
                return softmax_select(*args)
            finally:
                mx.enable_compile()

        with contextlib.ExitStack() as patches:
            patches.enter_context(mock.patch.object(mx, "argpartition", argpartition))
            patches.enter_context(mock.patch.object(mistral4, "mistral4_expert_select", mistral4_expert_select))
            patches.enter_context(mock.patch.object(phimoe, "sparsemixer", sparsemixer))
            for name, module in list(sys.modules.items()):
                for function in ("group_expert_select", "_group_expert_select"):
                    if name.startswith("mlx_lm.models.") and (select := getattr(module, function, None)):
                        patches.enter_context(mock.patch.object(module, function, self.of_groups(select)))
                if name.startswith("mlx_lm.models.") and (select := getattr(module, "moe_gate_select", None)):
                    patches.enter_context(mock.patch.object(module, "moe_gate_select", self.of_all(select)))
            yield
