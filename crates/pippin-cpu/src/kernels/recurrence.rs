//! Linear recurrences with a matrix for a state.

use crate::simd::Simd;

/// One head of one sequence: its rows, one after the other.
pub(crate) struct ScanTask {
    /// `[value_dim, key_dim]`.
    pub(crate) state: *mut f32,
    pub(crate) rows: usize,
    pub(crate) key_dim: usize,
    pub(crate) value_dim: usize,
    /// This head's numbers of the first row, and how many elements the next row's are further on.
    pub(crate) queries: *const f32,
    pub(crate) keys: *const f32,
    pub(crate) key_stride: usize,
    pub(crate) values: *const f32,
    pub(crate) out: *mut f32,
    pub(crate) value_stride: usize,
    pub(crate) decay: *const f32,
    pub(crate) decay_stride: usize,
    /// One factor for each column of the state rather than one for all.
    pub(crate) decay_columns: bool,
    pub(crate) update: Update,
}

/// What a row does to the state besides its decay.
#[derive(Clone, Copy)]
pub(crate) enum Update {
    Add,
    Delta { beta: *const f32, stride: usize },
    LowRank { a: *const f32, b: *const f32, stride: usize },
}

/// Runs a head's recurrence.
///
/// # Safety
/// The machine has `S`, and pointers are valid for the sizes in the task; no other task has the same state or output.
#[inline(always)]
pub(crate) unsafe fn scan<S: Simd>(task: &ScanTask) {
    let (keys_len, values_len) = (task.key_dim, task.value_dim);
    // SAFETY: by contract.
    unsafe {
        for row in 0..task.rows {
            let query = task.queries.add(row * task.key_stride);
            let key = task.keys.add(row * task.key_stride);
            let value = task.values.add(row * task.value_stride);
            let out = task.out.add(row * task.value_stride);
            let decay = task.decay.add(row * task.decay_stride);
            for v in 0..values_len {
                let state = task.state.add(v * keys_len);
                let written = *value.add(v);
                match task.update {
                    Update::Add => decay_row::<S>(state, decay, task.decay_columns, keys_len),
                    Update::Delta { beta, stride } => {
                        decay_row::<S>(state, decay, task.decay_columns, keys_len);
                        let recalled = dot::<S>(state, key, keys_len);
                        let written = (written - recalled) * *beta.add(row * stride);
                        add_scaled::<S>(state, key, written, keys_len);
                    }
                    Update::LowRank { a, b, stride } => {
                        let read = dot::<S>(state, a.add(row * stride), keys_len);
                        decay_row::<S>(state, decay, task.decay_columns, keys_len);
                        add_scaled::<S>(state, b.add(row * stride), read, keys_len);
                    }
                }
                if !matches!(task.update, Update::Delta { .. }) {
                    add_scaled::<S>(state, key, written, keys_len);
                }
                *out.add(v) = dot::<S>(state, query, keys_len);
            }
        }
    }
}

/// `state *= decay`.
#[inline(always)]
unsafe fn decay_row<S: Simd>(state: *mut f32, decay: *const f32, columns: bool, len: usize) {
    // SAFETY: both are valid for `len` elements, or `decay` for one.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= len {
            let factor = if columns { S::load(decay.add(i)) } else { S::splat(*decay) };
            S::store(state.add(i), S::mul(S::load(state.add(i)), factor));
            i += S::LANES;
        }
        while i < len {
            *state.add(i) *= if columns { *decay.add(i) } else { *decay };
            i += 1;
        }
    }
}

/// `state += x * factor`.
#[inline(always)]
unsafe fn add_scaled<S: Simd>(state: *mut f32, x: *const f32, factor: f32, len: usize) {
    // SAFETY: both are valid for `len` elements.
    unsafe {
        let mut i = 0;
        while i + S::LANES <= len {
            S::store(state.add(i), S::fma(S::load(x.add(i)), S::splat(factor), S::load(state.add(i))));
            i += S::LANES;
        }
        while i < len {
            *state.add(i) += *x.add(i) * factor;
            i += 1;
        }
    }
}

#[inline(always)]
unsafe fn dot<S: Simd>(a: *const f32, b: *const f32, len: usize) -> f32 {
    // SAFETY: both are valid for `len` elements.
    unsafe {
        let mut sums = S::zero();
        let mut i = 0;
        while i + S::LANES <= len {
            sums = S::fma(S::load(a.add(i)), S::load(b.add(i)), sums);
            i += S::LANES;
        }
        let mut sum = S::sum(sums);
        while i < len {
            sum += *a.add(i) * *b.add(i);
            i += 1;
        }
        sum
    }
}
