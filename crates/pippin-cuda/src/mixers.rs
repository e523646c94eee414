//! Experts and recurrences: `kernels/mixers.cu`.

use pippin_tensor::{
    Result, RouterSpec, ScanInputs, ScanSpec, ScanUpdate, ScoreFunction, StepInputs, TensorError,
};

use crate::kv::shape_of;
use crate::launch::{THREADS, blocks, launch};
use crate::memory::{CudaIndices, CudaTensor};
use crate::state::check_rows;
use crate::{CudaBackend, CudaState, unsupported};

impl CudaBackend {
    pub(crate) fn run_route(
        &self,
        logits: &CudaTensor,
        bias: Option<&CudaTensor>,
        spec: &RouterSpec,
    ) -> Result<(CudaIndices, CudaTensor)> {
        let &RouterSpec { experts, top_k, groups, top_groups, best_of_group, .. } = spec;
        let size = experts.checked_div(groups).filter(|size| size * groups == experts).unwrap_or(0);
        let possible = (1..=groups).contains(&top_groups)
            && (1..=size).contains(&best_of_group)
            && (1..=size * top_groups).contains(&top_k);
        if !possible {
            return Err(TensorError::shape("route", "a choice that can be made", format!("{spec:?}")));
        }
        if logits.columns != experts {
            return Err(TensorError::shape("route", format!("[_, {experts}]"), shape_of(logits)));
        }
        if let Some(bias) = bias.filter(|bias| bias.rows != 1 || bias.columns != experts) {
            return Err(TensorError::shape("route", format!("a bias of [1, {experts}]"), shape_of(bias)));
        }
        let (function, jitter) = match spec.scores {
            ScoreFunction::Softmax => (0, 0.0),
            ScoreFunction::Sigmoid => (1, 0.0),
            ScoreFunction::SqrtSoftplus => (2, 0.0),
            ScoreFunction::SparseMixer { jitter } => (3, jitter),
            other => return Err(unsupported(format!("scores of {other:?}"))),
        };
        let rows = logits.rows;
        let routes = CudaIndices::new(self.memory(), rows * top_k)?;
        let weights = self.output(rows, top_k)?;
        let scratch = self.output(rows, 2 * experts)?;
        let group_ranks = self.output(rows, groups)?;
        let kept = CudaIndices::new(self.memory(), rows * (groups + experts))?;
        launch!(
            self,
            "route",
            ((rows.div_ceil(32) as u32, 1), 32, 0),
            routes.at(),
            weights.at(),
            logits.at(),
            bias.map_or(0, CudaTensor::at),
            scratch.at(),
            group_ranks.at(),
            kept.at(),
            rows as u32,
            experts as u32,
            top_k as u32,
            function,
            jitter,
            groups as u32,
            top_groups as u32,
            best_of_group as u32,
            i32::from(spec.normalize),
            spec.scale
        )?;
        Ok((routes, weights))
    }

    pub(crate) fn run_causal_convolution(
        &self,
        x: &CudaTensor,
        weight: &CudaTensor,
        bias: Option<&CudaTensor>,
        state: &mut CudaState,
        step: &StepInputs<Self>,
    ) -> Result<CudaTensor> {
        const OPERATION: &str = "causal_convolution";
        let (columns, taps) = (weight.rows, weight.columns);
        if taps == 0 || x.columns != columns || x.rows != step.rows {
            let expected = format!("[{}, {columns}] and at least one tap", step.rows);
            return Err(TensorError::shape(OPERATION, expected, shape_of(x)));
        }
        if let Some(bias) = bias.filter(|bias| bias.rows != 1 || bias.columns != columns) {
            return Err(TensorError::shape(OPERATION, format!("a bias of [1, {columns}]"), shape_of(bias)));
        }
        check_rows(OPERATION, step)?;
        let state_columns = (taps - 1) * columns;
        state.check(OPERATION, state_columns, step)?;
        let out = self.output(x.rows, columns)?;
        launch!(
            self,
            "causal_convolution",
            ((blocks(step.sequences * columns), 1), THREADS, 0),
            out.at(),
            x.at(),
            weight.at(),
            bias.map_or(0, CudaTensor::at),
            state.block.at(),
            step.query_starts.at(),
            step.slots.at(),
            step.sequences as u32,
            columns as u32,
            taps as u32,
            state_columns as u32
        )?;
        Ok(out)
    }

    pub(crate) fn run_scan(
        &self,
        inputs: &ScanInputs<'_, CudaTensor>,
        spec: &ScanSpec,
        state: &mut CudaState,
        step: &StepInputs<Self>,
    ) -> Result<CudaTensor> {
        const OPERATION: &str = "scan";
        let &ScanSpec { heads, key_heads, key_dim, value_dim } = spec;
        if key_heads == 0 || heads == 0 || !heads.is_multiple_of(key_heads) {
            return Err(TensorError::shape(OPERATION, "heads in groups of equal size", format!("{spec:?}")));
        }
        let check = |tensor: &CudaTensor, columns: usize| {
            if tensor.rows == step.rows && tensor.columns == columns {
                return Ok(());
            }
            Err(TensorError::shape(OPERATION, format!("[{}, {columns}]", step.rows), shape_of(tensor)))
        };
        let &ScanInputs { queries, keys, values, decay, update } = inputs;
        check(queries, key_heads.saturating_mul(key_dim))?;
        check(keys, key_heads.saturating_mul(key_dim))?;
        check(values, heads.saturating_mul(value_dim))?;
        let decay_columns = decay.columns != heads;
        check(decay, if decay_columns { heads.saturating_mul(key_dim) } else { heads })?;
        let (number, first, second) = match update {
            ScanUpdate::Add => (0, 0, 0),
            ScanUpdate::Delta { beta } => {
                check(beta, heads)?;
                (1, beta.at(), 0)
            }
            ScanUpdate::LowRank { a, b } => {
                check(a, heads.saturating_mul(key_dim))?;
                check(b, heads.saturating_mul(key_dim))?;
                (2, a.at(), b.at())
            }
        };
        check_rows(OPERATION, step)?;
        state.check(OPERATION, spec.state_columns(), step)?;
        let out = self.output(step.rows, heads * value_dim)?;
        launch!(
            self,
            "scan",
            ((blocks(step.sequences * heads * value_dim * 32), 1), THREADS, 0),
            out.at(),
            queries.at(),
            keys.at(),
            values.at(),
            decay.at(),
            first,
            second,
            state.block.at(),
            step.query_starts.at(),
            step.slots.at(),
            step.sequences as u32,
            heads as u32,
            key_heads as u32,
            key_dim as u32,
            value_dim as u32,
            i32::from(decay_columns),
            number
        )?;
        Ok(out)
    }
}
