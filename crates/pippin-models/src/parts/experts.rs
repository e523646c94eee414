use pippin_tensor::{Activation, Backend, Gate, Linear, Norm, NormKind, RouterSpec};

use super::dense::DenseWeights;
use super::{Dense, Input, Needs, NormSpec, Pass, Place, Rows, ScaledNorm, ScaledNormWeights, join};
use crate::source::{Cut, Source, same};
use crate::spec::check::{positive, problem, within};
use crate::{Result, limits};

/// A mixture of feed-forward networks: each token goes through some of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// The router, a linear layer.
    pub router: &'static str,
    /// Whether the router has a bias.
    pub router_bias: bool,
    /// Whether the router stays dense in quantized checkpoints.
    pub router_dense: bool,
    /// The router's own norm of what the experts' norm is given too, if it is not theirs.
    pub router_norm: Option<RouterNorm>,
    /// Factor on the router's logits.
    pub router_scale: f32,
    /// A parameter with a factor on the weight of each expert.
    pub expert_scale: Option<&'static str>,
    /// Soft cap of the router's logits.
    pub router_softcap: Option<f32>,
    /// A parameter that is added to the scores for the choice alone.
    pub correction: Option<&'static str>,
    /// How it chooses.
    pub choice: RouterSpec,
    /// How many of those that are chosen from, the last ones, give their input back, and have no projections.
    pub identities: usize,
    /// The experts' projections: gate, up, down, each a stack of matrices.
    pub names: [&'static str; 3],
    /// Width of each expert.
    pub intermediate_size: usize,
    /// Whether the experts' projections have biases.
    pub bias: bool,
    /// How gate and up are put together.
    pub gate: Gate,
    /// The activation of experts that have no gate, and of whose projections only the latter two are there.
    pub plain: Option<Activation>,
    /// A narrower vector that the experts are given in place of the input, and give.
    pub narrow: Option<NarrowExperts>,
    /// The norm of each expert's result.
    pub result_norm: Option<ScaledNorm>,
    /// Whether an expert's input is multiplied by its weight, rather than its output.
    pub weights_inputs: bool,
    /// A network that every token goes through.
    pub shared: Option<SharedExpert>,
    /// A linear layer to two numbers, with biases, whose softmax weighs the experts and that network.
    pub balance: Option<&'static str>,
}

/// A root-mean-square norm whose result is divided by the root of the width, as Gemma 4 has it before its routers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouterNorm {
    /// The parameter with the factor of each column.
    pub weight: &'static str,
    /// Added to the mean square.
    pub eps: f32,
}

/// What experts are given, when it is narrower than the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NarrowExperts {
    /// The linear layers to it and back.
    pub names: [&'static str; 2],
    /// Its width.
    pub width: usize,
    /// Whether the linear layers have biases.
    pub bias: bool,
    /// The norm of it, before the experts.
    pub norm: Option<NormSpec>,
    /// The norm of what the experts give together.
    pub back_norm: Option<NormSpec>,
}

/// A network beside the experts.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedExpert {
    /// The network.
    pub network: Dense,
    /// A linear layer to one number, whose sigmoid multiplies the network's output.
    pub gate: Option<&'static str>,
}

impl SharedExpert {
    /// A network under the name that most families use, as wide as several experts.
    pub(crate) fn usual(intermediate_size: usize) -> Self {
        let names =
            ["mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj"];
        Self { network: Dense::gated_as(names, intermediate_size, Activation::Silu), gate: None }
    }
}

/// The matrices of all experts, and a factor on the results of each where the checkpoint has one.
type Stack<L, V> = (L, Option<V>);

#[derive(Debug)]
pub(crate) struct ExpertsWeights<L, V> {
    router: L,
    router_norm: Option<Norm<V>>,
    correction: Option<V>,
    /// A row of one for each expert.
    scale: Option<V>,
    /// A row of one for each that is chosen from: ones for those that give their input back.
    identity: Option<V>,
    gate: Option<Stack<L, V>>,
    up: Stack<L, V>,
    down: Stack<L, V>,
    narrow: Option<[L; 2]>,
    narrow_norm: Option<Norm<V>>,
    back_norm: Option<Norm<V>>,
    result_norm: Option<ScaledNormWeights<V>>,
    shared: Option<DenseWeights<L, V>>,
    shared_gate: Option<L>,
    balance: Option<L>,
}

impl Experts {
    /// Experts under the names that almost every family uses.
    pub(crate) fn new(choice: RouterSpec, intermediate_size: usize) -> Self {
        Self {
            router: "mlp.gate",
            router_bias: false,
            router_dense: false,
            router_norm: None,
            router_scale: 1.0,
            expert_scale: None,
            router_softcap: None,
            correction: None,
            choice,
            identities: 0,
            names: ["mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj", "mlp.switch_mlp.down_proj"],
            intermediate_size,
            bias: false,
            gate: Gate::Of(Activation::Silu),
            plain: None,
            narrow: None,
            result_norm: None,
            weights_inputs: false,
            shared: None,
            balance: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let RouterSpec { experts, top_k, groups, top_groups, .. } = self.choice;
        within("num_experts", experts, limits::EXPERTS)?;
        within("num_experts_per_tok", top_k, experts)?;
        if self.identities >= experts {
            return Err(problem("n_routed_experts", "must be a positive integer, found 0"));
        }
        if self.identities > 0 && (self.bias || self.weights_inputs) {
            return Err(problem(
                "zero_expert_num",
                "must be 0 where experts have biases, or inputs are weighed",
            ));
        }
        within("moe_intermediate_size", self.intermediate_size, limits::INTERMEDIATE)?;
        within("n_group", groups, experts)?;
        within("topk_group", top_groups, groups)?;
        if !experts.is_multiple_of(groups) || top_k > experts / groups * top_groups {
            return Err(problem(
                "n_group",
                format!(
                    "is {groups}: {top_k} of {experts} experts cannot be chosen from {top_groups} groups"
                ),
            ));
        }
        positive("the factor on the router's logits", self.router_scale)?;
        if let Some(cap) = self.router_softcap {
            positive("moe_router_logit_softcapping", cap)?;
        }
        self.result_norm.iter().try_for_each(ScaledNorm::validate)?;
        if let Some(narrow) = &self.narrow {
            within("moe_latent_size", narrow.width, limits::HIDDEN)?;
            narrow.norm.iter().chain(&narrow.back_norm).try_for_each(NormSpec::validate)?;
        }
        if self.weights_inputs && top_k != 1 {
            return Err(problem("num_experts_per_tok", format!("must be 1, found {top_k}")));
        }
        self.shared.as_ref().map_or(Ok(()), |shared| shared.network.validate())
    }

    pub(crate) fn needs(&self) -> Needs {
        Needs::default()
    }

    pub(crate) fn weights<S: Source>(
        &self,
        source: &mut S,
        at: &str,
        hidden: usize,
    ) -> Result<ExpertsWeights<S::Linear, S::Vector>> {
        let (all, width) = (self.choice.experts, self.intermediate_size);
        let experts = all - self.identities;
        let [gate, up, down] = self.names;
        let (path, shape) = (join(at, self.router), [all, hidden]);
        let router = match self.router_dense {
            true => source.dense(&path, shape, self.router_bias, Cut::Whole)?,
            false => source.linear(&path, shape, self.router_bias, Cut::Whole)?,
        };
        let correction = match self.correction {
            Some(name) => Some(source.vector(&join(at, name), &[all], same)?),
            None => None,
        };
        let router_norm = match self.router_norm {
            Some(RouterNorm { weight, eps }) => {
                let weight = Some(source.vector(&join(at, weight), &[hidden], same)?);
                Some(Norm { kind: NormKind::Rms, width: hidden, eps, weight, bias: None })
            }
            None => None,
        };
        let scale = match self.expert_scale {
            Some(name) => Some(source.vector(&join(at, name), &[all], same)?),
            None => None,
        };
        let identity = match self.identities {
            0 => None,
            _ => Some(source.constant([all, 1], |row| if row < experts { 0.0 } else { 1.0 })?),
        };
        source.mixture(Some([experts, self.choice.top_k.min(experts)]));
        let given = self.narrow.map_or(hidden, |narrow| narrow.width);
        let mut stack = |name: &str, shape, cut| source.experts(&join(at, name), shape, self.bias, cut);
        let gate = match self.plain {
            None => Some(stack(gate, [experts, width, given], Cut::Rows)?),
            Some(_) => None,
        };
        let up = stack(up, [experts, width, given], Cut::Rows)?;
        let down = stack(down, [experts, given, width], Cut::Columns)?;
        source.mixture(None);
        let narrow = match self.narrow {
            Some(NarrowExperts { names: [to, back], width, bias, .. }) => Some([
                source.linear(&join(at, to), [width, hidden], bias, Cut::Whole)?,
                source.linear(&join(at, back), [hidden, width], bias, Cut::Whole)?,
            ]),
            None => None,
        };
        let narrow_norm = match self.narrow.and_then(|narrow| narrow.norm) {
            Some(norm) => Some(norm.weights(source, at, given)?),
            None => None,
        };
        let back_norm = match self.narrow.and_then(|narrow| narrow.back_norm) {
            Some(norm) => Some(norm.weights(source, at, given)?),
            None => None,
        };
        let result_norm = match &self.result_norm {
            Some(norm) => Some(norm.weights(source, at, given)?),
            None => None,
        };
        let (mut shared, mut shared_gate) = (None, None);
        if let Some(expert) = &self.shared {
            shared = Some(expert.network.weights(source, at, hidden)?);
            if let Some(name) = expert.gate {
                shared_gate = Some(source.linear(&join(at, name), [1, hidden], false, Cut::Whole)?);
            }
        }
        let balance = match self.balance {
            Some(name) => Some(source.linear(&join(at, name), [2, hidden], true, Cut::Whole)?),
            None => None,
        };
        Ok(ExpertsWeights {
            router,
            router_norm,
            correction,
            scale,
            identity,
            gate,
            up,
            down,
            narrow,
            narrow_norm,
            back_norm,
            result_norm,
            shared,
            shared_gate,
            balance,
        })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &ExpertsWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let backend = pass.backend;
        let all = self.choice.experts;
        let experts = all - self.identities;
        let x = pass.normalised(input)?;
        let mut logits = match &weights.router_norm {
            Some(norm) => {
                let x = backend.norm(input.x, norm)?;
                let factor = (norm.width as f32).powf(-0.5);
                backend.scale(&backend.linear(&x, &weights.router)?, factor, 0.0)?
            }
            None => backend.linear(&x, &weights.router)?,
        };
        if self.router_scale != 1.0 {
            logits = backend.scale(&logits, self.router_scale, 0.0)?;
        }
        if let Some(cap) = self.router_softcap {
            logits = backend.activate(&logits, Activation::SoftCap(cap))?;
        }
        let (routes, mut shares) = backend.route(&logits, weights.correction.as_ref(), &self.choice)?;
        if let Some(scale) = &weights.scale {
            let chosen = backend.select_rows(&backend.reshape(scale, [all, 1])?, &routes)?;
            shares = backend.mul(&shares, &backend.reshape(&chosen, backend.shape(&shares))?)?;
        }
        let mut given = match &weights.narrow {
            Some([to, _]) => backend.linear(&x, to)?,
            None => x.clone(),
        };
        if let Some(norm) = &weights.narrow_norm {
            given = backend.norm(&given, norm)?;
        }
        if self.weights_inputs {
            given = backend.mul(&given, &shares)?;
        }
        let up = of_experts(backend, &given, &weights.up, experts, &routes)?;
        let inner = match (&weights.gate, self.plain) {
            (None, Some(activation)) => backend.activate(&up, activation)?,
            (None, None) => up,
            (Some(gate), _) => {
                let gate = of_experts(backend, &given, gate, experts, &routes)?;
                backend.gated(&gate, &up, self.gate)?
            }
        };
        let mut y = of_experts(backend, &inner, &weights.down, experts, &routes)?;
        if let Some(norm) = &weights.result_norm {
            y = norm.of(backend, &y)?;
        }
        if !self.weights_inputs {
            y = backend.weighted_sum(&y, &shares)?;
        }
        if let Some([_, back]) = &weights.narrow {
            if let Some(norm) = &weights.back_norm {
                y = backend.norm(&y, norm)?;
            }
            y = backend.linear(&y, back)?;
        }
        if let Some(identity) = &weights.identity {
            // Their routes lead beyond the projections, where there are zeros.
            let chosen = backend.select_rows(identity, &routes)?;
            y = backend.add(&y, &backend.mul(&x, &backend.weighted_sum(&chosen, &shares)?)?)?;
        }
        if let (Some(expert), Some(shared)) = (&self.shared, &weights.shared) {
            let alone = Input { x: &x, norm: None, residual: None, rows: Rows::All };
            if let Some(mut beside) = expert.network.forward(shared, place, pass, &alone)? {
                if let Some(gate) = &weights.shared_gate {
                    let gate = backend.activate(&backend.linear(&x, gate)?, Activation::Sigmoid)?;
                    beside = backend.mul(&beside, &gate)?;
                }
                if let Some(balance) = &weights.balance {
                    let both = backend.linear(&x, balance)?;
                    let [of_experts, of_network] = softmax_of_two(backend, &both)?;
                    y = backend.mul(&y, &of_experts)?;
                    beside = backend.mul(&beside, &of_network)?;
                }
                y = backend.add(&y, &beside)?;
            }
        }
        Ok(Some(match input.residual {
            Some(residual) => backend.add(residual, &y)?,
            None => y,
        }))
    }
}

/// The two columns of the softmax of each row of two: sigmoids of their differences.
fn softmax_of_two<B: Backend>(backend: &B, x: &B::Tensor) -> Result<[B::Tensor; 2]> {
    let negative = backend.scale(x, -1.0, 0.0)?;
    let share = |own: usize| -> Result<B::Tensor> {
        let own_column = backend.columns(x, own..own + 1)?;
        let difference = backend.add(&own_column, &backend.columns(&negative, 1 - own..2 - own)?)?;
        Ok(backend.activate(&difference, Activation::Sigmoid)?)
    };
    Ok([share(0)?, share(1)?])
}

/// What the chosen experts make of rows: products, each expert's factor, its bias.
fn of_experts<B: Backend>(
    backend: &B,
    x: &B::Tensor,
    (linear, factors): &Stack<Linear<B>, B::Tensor>,
    experts: usize,
    routes: &B::Indices,
) -> Result<B::Tensor> {
    let Some(factors) = factors else { return Ok(backend.gathered_linear(x, linear, experts, routes)?) };
    let y = backend.gathered_matmul(x, &linear.weight, experts, routes)?;
    let factors = backend.select_rows(&backend.reshape(factors, [experts, 1])?, routes)?;
    let y = backend.mul(&y, &factors)?;
    Ok(match &linear.bias {
        Some(biases) => backend.add(&y, &backend.select_rows(biases, routes)?)?,
        None => y,
    })
}
