/// How router logits become scores.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ScoreFunction {
    /// A softmax over all experts.
    Softmax,
    /// A sigmoid of each logit by itself.
    Sigmoid,
    /// The root of a softplus of each logit by itself.
    SqrtSoftplus,
    /// The logits themselves, for the choice. The weight of a chosen expert is its share in a softmax over those that were
    /// not chosen before it and whose logit `l` is close to its own `t`: `(t - l) / max(|l|, t)` is at most `2 · jitter`.
    /// This is the inference of SparseMixer (<https://arxiv.org/abs/2409.12136>).
    SparseMixer {
        /// Half of the relative distance.
        jitter: f32,
    },
}

/// How a mixture of experts chooses among them.
///
/// Scores come from the logits. For the choice a bias may be added to them, and the choice may be limited to the best
/// groups of experts, a group's rank being the sum of its two best (or its best, if `best_of_group` is 1). The weights of
/// the chosen are their scores without the bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouterSpec {
    /// Number of experts.
    pub experts: usize,
    /// How many are chosen for each row.
    pub top_k: usize,
    /// How logits become scores.
    pub scores: ScoreFunction,
    /// Equal groups of neighbouring experts; 1 is no grouping.
    pub groups: usize,
    /// Groups from which experts are chosen.
    pub top_groups: usize,
    /// Scores of a group that are added to rank it.
    pub best_of_group: usize,
    /// Whether the weights of the chosen are divided by their sum.
    pub normalize: bool,
    /// Factor on the weights.
    pub scale: f32,
}

impl RouterSpec {
    /// The best `top_k` of `experts` by softmax, their weights as they are.
    pub fn softmax(experts: usize, top_k: usize) -> Self {
        Self {
            experts,
            top_k,
            scores: ScoreFunction::Softmax,
            groups: 1,
            top_groups: 1,
            best_of_group: 1,
            normalize: false,
            scale: 1.0,
        }
    }
}
