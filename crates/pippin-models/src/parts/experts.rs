use pippin_tensor::{Activation, Backend, Gate, Linear, RouterSpec};

use super::dense::DenseWeights;
use super::{Dense, Input, Needs, Pass, Place, Rows, join};
use crate::source::{Cut, Source, same};
use crate::spec::check::{problem, within};
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
    /// A parameter that is added to the scores for the choice alone.
    pub correction: Option<&'static str>,
    /// How it chooses.
    pub choice: RouterSpec,
    /// The experts' projections: gate, up, down, each a stack of matrices.
    pub names: [&'static str; 3],
    /// Width of each expert.
    pub intermediate_size: usize,
    /// Whether the experts' projections have biases.
    pub bias: bool,
    /// How gate and up are put together.
    pub gate: Gate,
    /// Whether an expert's input is multiplied by its weight, rather than its output.
    pub weights_inputs: bool,
    /// A network that every token goes through.
    pub shared: Option<SharedExpert>,
}

/// A network beside the experts.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedExpert {
    /// The network.
    pub network: Dense,
    /// A linear layer to one number, whose sigmoid multiplies the network's output.
    pub gate: Option<&'static str>,
}

#[derive(Debug)]
pub(crate) struct ExpertsWeights<L, V> {
    router: L,
    correction: Option<V>,
    gate: L,
    up: L,
    down: L,
    shared: Option<DenseWeights<L, V>>,
    shared_gate: Option<L>,
}

impl Experts {
    /// Experts under the names that almost every family uses.
    pub(crate) fn new(choice: RouterSpec, intermediate_size: usize) -> Self {
        Self {
            router: "mlp.gate",
            router_bias: false,
            router_dense: false,
            correction: None,
            choice,
            names: ["mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj", "mlp.switch_mlp.down_proj"],
            intermediate_size,
            bias: false,
            gate: Gate::Of(Activation::Silu),
            weights_inputs: false,
            shared: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let RouterSpec { experts, top_k, groups, top_groups, .. } = self.choice;
        within("num_experts", experts, limits::EXPERTS)?;
        within("num_experts_per_tok", top_k, experts)?;
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
        let (experts, width) = (self.choice.experts, self.intermediate_size);
        let [gate, up, down] = self.names;
        let (path, shape) = (join(at, self.router), [experts, hidden]);
        let router = match self.router_dense {
            true => source.dense(&path, shape, self.router_bias, Cut::Whole)?,
            false => source.linear(&path, shape, self.router_bias, Cut::Whole)?,
        };
        let correction = match self.correction {
            Some(name) => Some(source.vector(&join(at, name), &[experts], same)?),
            None => None,
        };
        let mut stack = |name: &str, shape, cut| source.stack(&join(at, name), shape, self.bias, cut);
        let gate = stack(gate, [experts, width, hidden], Cut::Rows)?;
        let up = stack(up, [experts, width, hidden], Cut::Rows)?;
        let down = stack(down, [experts, hidden, width], Cut::Columns)?;
        let (mut shared, mut shared_gate) = (None, None);
        if let Some(expert) = &self.shared {
            shared = Some(expert.network.weights(source, at, hidden)?);
            if let Some(name) = expert.gate {
                shared_gate = Some(source.linear(&join(at, name), [1, hidden], false, Cut::Whole)?);
            }
        }
        Ok(ExpertsWeights { router, correction, gate, up, down, shared, shared_gate })
    }

    pub(crate) fn forward<B: Backend>(
        &self,
        weights: &ExpertsWeights<Linear<B>, B::Tensor>,
        place: &Place,
        pass: &mut Pass<'_, B>,
        input: &Input<'_, B>,
    ) -> Result<Option<B::Tensor>> {
        let backend = pass.backend;
        let experts = self.choice.experts;
        let x = pass.normalised(input)?;
        let logits = backend.linear(&x, &weights.router)?;
        let (routes, shares) = backend.route(&logits, weights.correction.as_ref(), &self.choice)?;
        let weighted;
        let x_experts = if self.weights_inputs {
            weighted = backend.mul(&x, &shares)?;
            &weighted
        } else {
            &x
        };
        let gate = backend.gathered_linear(x_experts, &weights.gate, experts, &routes)?;
        let up = backend.gathered_linear(x_experts, &weights.up, experts, &routes)?;
        let inner = backend.gated(&gate, &up, self.gate)?;
        let mut y = backend.gathered_linear(&inner, &weights.down, experts, &routes)?;
        if !self.weights_inputs {
            y = backend.weighted_sum(&y, &shares)?;
        }
        if let (Some(expert), Some(shared)) = (&self.shared, &weights.shared) {
            let alone = Input { x: &x, norm: None, residual: None, rows: Rows::All };
            if let Some(mut beside) = expert.network.forward(shared, place, pass, &alone)? {
                if let Some(gate) = &weights.shared_gate {
                    let gate = backend.activate(&backend.linear(&x, gate)?, Activation::Sigmoid)?;
                    beside = backend.mul(&beside, &gate)?;
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
