/// A function of one number, applied element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// The Gaussian error linear unit, `x * Φ(x)`, with the error function.
    Gelu,
    /// The same with `Φ` approximated by a hyperbolic tangent: `x / 2 * (1 + tanh(√(2/π) * (x + 0.044715 x³)))`.
    GeluTanh,
    /// The same with `Φ` approximated by `sigmoid(1.702 x)`.
    GeluSigmoid,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`.
    ReluSquared,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `ln(1 + exp(x))`.
    Softplus,
    /// `exp(x)`.
    Exp,
    /// `exp(x) - 1 - x` below zero, and zero above: how far the exponential is above its tangent, a part of xIELU.
    ExpExcess,
    /// `√max(x, 0)`.
    Sqrt,
    /// `1 / x`.
    Reciprocal,
    /// `cap * tanh(x / cap)`.
    SoftCap(f32),
    /// `x`, or `±limit` where it is beyond that.
    Clamp(f32),
}

/// How two numbers become one in a gated feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Gate {
    /// `activation(gate) * up`.
    Of(Activation),
    /// `g * sigmoid(alpha * g) * (u + 1)` with `g = min(gate, limit)` and `u` = `up` clamped to `±limit`: the gate of
    /// gpt-oss.
    ClampedSwiglu {
        /// Factor in the sigmoid.
        alpha: f32,
        /// Where both operands are clamped.
        limit: f32,
    },
    /// `silu(min(gate, limit)) * u` with `u` = `up` clamped to `±limit`: the gate of DeepSeek V4.1.
    SiluOfClamped {
        /// Where both operands are clamped.
        limit: f32,
    },
    /// `beta * tanh(gate / beta) * sigmoid(gate) * u` with `u` = `up`, or `limit * tanh(up / limit)` if there is a limit: SiTU,
    /// the gate of Kimi K3.
    Situ {
        /// Soft cap of the gate.
        beta: f32,
        /// Soft cap of the other operand.
        limit: Option<f32>,
    },
    /// `min(silu(gate), limit) * u` with `u` = `up` clamped to `±limit`: the gate of Step 3.5.
    ClampedSilu {
        /// Where both operands are clamped.
        limit: f32,
    },
}

/// What the numbers of a block are rounded to, which share a scale: the largest magnitude of the block over the largest that the
/// type has, rounded up to what a scale can be. Numbers beyond the type's largest become that; of two nearest, the even one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockFloat {
    /// Blocks of 32 of E4M3, whose scale is a power of two. The largest magnitude counts as 10⁻⁴ at least.
    E4m3,
    /// Blocks of 32 of E2M1, whose scale is a power of two, 2⁻¹²⁶ at least.
    E2m1,
    /// Blocks of 16 of E2M1, whose scale is of E4M3, 2⁻⁹ at least, and rounded to nearest.
    E2m1Fine,
}

impl BlockFloat {
    /// Numbers of a block.
    pub fn block(self) -> usize {
        match self {
            Self::E4m3 | Self::E2m1 => 32,
            Self::E2m1Fine => 16,
        }
    }
}

/// One number of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The arithmetic mean.
    Mean,
    /// The root of the mean of squares.
    RootMeanSquare,
    /// The standard deviation of the row as a whole population: the root of the mean squared distance from the mean.
    Deviation,
}
