//! Recurrent mixers: short convolutions and scans, whose past lies in slots.

use super::{
    array::{Array, Random, dot},
    check::{Check, assert_refused},
    schedule::{Piece, gather, slot_step},
};
use crate::{Backend, Result, ScanInputs, ScanSpec, ScanUpdate, StateSpec};

/// Sequences in scattered slots, of lengths on both sides of what a backend is likely to compute in one piece.
const LENGTHS: [usize; 5] = [1, 70, 32, 33, 5];
const SLOTS: [usize; 5] = [4, 0, 6, 2, 3];
const ALL_SLOTS: usize = 8;

/// The reference for [`Backend::causal_convolution`] of a whole sequence.
pub(super) fn convolved(x: &Array, weight: &Array, bias: Option<&Array>) -> Array {
    let taps = weight.columns;
    x.map_rows(|row, _| {
        let column = |column: usize| {
            let tap = |tap: usize| {
                let at = (row + tap + 1).checked_sub(taps);
                at.map_or(0.0, |at| weight.row(column)[tap] * x.row(at)[column])
            };
            bias.map_or(0.0, |bias| bias.values[column]) + (0..taps).map(tap).sum::<f64>()
        };
        (0..x.columns).map(column).collect()
    })
}

/// [`Backend::causal_convolution`] of few and many taps, with and without a bias.
pub fn causal_convolution<B: Backend>(backend: &B, tolerance: f64) {
    let check = Check::new(backend, tolerance);
    let random = &mut Random::new(60);
    for columns in [1, 20, 96, 300] {
        for taps in [1, 2, 3, 4, 9] {
            for with_bias in [false, true] {
                let weight = Array::random(random, columns, taps);
                let bias = with_bias.then(|| Array::random(random, 1, columns));
                let x = LENGTHS.map(|length| Array::random(random, length, columns));
                let expected = x.each_ref().map(|x| vec![convolved(x, &weight, bias.as_ref())]);
                let (weight_up, bias_up) = (weight.upload(backend), bias.map(|bias| bias.upload(backend)));
                let spec = StateSpec { slots: ALL_SLOTS, columns: (taps - 1) * columns };
                let start = || backend.state(&spec).unwrap();
                let case = ("causal_convolution", columns, taps, with_bias);
                check.sequences(&case, &expected, &[tolerance], &[], start, |state, pieces| {
                    let step = slot_step(backend, pieces, &SLOTS)?;
                    let x = gather(backend, pieces, |sequence| &x[sequence]);
                    Ok(vec![backend.causal_convolution(&x, &weight_up, bias_up.as_ref(), state, &step)?])
                });
            }
        }
    }
}

/// What else a scan does to its state.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Update {
    Add,
    Delta,
    LowRank,
}

/// The operands of a scan over one sequence.
struct Scan {
    queries: Array,
    keys: Array,
    values: Array,
    decay: Array,
    /// `beta`, or `a`.
    first: Array,
    /// `b`.
    second: Array,
}

impl Scan {
    /// Operands that keep the state about one: keys and what is like them are of about unit norm.
    fn random(random: &mut Random, spec: &ScanSpec, update: Update, rows: usize, by_column: bool) -> Self {
        let ScanSpec { heads, key_heads, key_dim, value_dim } = *spec;
        let mut array = |columns: usize| Array::random(random, rows, columns);
        let unit = (3.0 / key_dim as f64).sqrt();
        let first = match update {
            Update::Delta => array(heads).operand(|v| v / 2.0 + 0.5),
            _ => array(heads * key_dim).operand(|v| v * unit / 2.0),
        };
        Self {
            queries: array(key_heads * key_dim).operand(|v| v * unit),
            keys: array(key_heads * key_dim).operand(|v| v * unit),
            values: array(heads * value_dim),
            decay: array(if by_column { heads * key_dim } else { heads }).operand(|v| 0.8 + v / 5.0),
            first,
            second: array(heads * key_dim).operand(|v| v * unit / 2.0),
        }
    }

    /// The reference for [`Backend::scan`] of a whole sequence.
    fn reference(&self, spec: &ScanSpec, update: Update) -> Array {
        let ScanSpec { heads, key_heads, key_dim, value_dim } = *spec;
        let mut states = vec![Array::filled(value_dim, key_dim, 0.0); heads];
        Array::from_rows(self.values.rows, heads * value_dim, |row| {
            let mut outputs = Vec::new();
            for (head, state) in states.iter_mut().enumerate() {
                let shared = head / (heads / key_heads) * key_dim..;
                let part =
                    |array: &Array, from: usize, length: usize| array.row(row)[from..][..length].to_vec();
                let query = part(&self.queries, shared.start, key_dim);
                let key = part(&self.keys, shared.start, key_dim);
                let value = part(&self.values, head * value_dim, value_dim);
                let decay = self.decay.row(row);
                let by_column = decay.len() == heads * key_dim;
                let decay = |k: usize| decay[if by_column { head * key_dim + k } else { head }];
                let before = state.clone();
                for (v, s) in state.values.chunks_mut(key_dim).enumerate() {
                    s.iter_mut().enumerate().for_each(|(k, s)| *s *= decay(k));
                    let (written, along) = match update {
                        Update::Add => (value[v], key.clone()),
                        Update::Delta => (self.first.row(row)[head] * (value[v] - dot(s, &key)), key.clone()),
                        Update::LowRank => {
                            let a = part(&self.first, head * key_dim, key_dim);
                            let b = part(&self.second, head * key_dim, key_dim);
                            s.iter_mut().zip(&key).for_each(|(s, k)| *s += value[v] * k);
                            (dot(before.row(v), &a), b)
                        }
                    };
                    s.iter_mut().zip(&along).for_each(|(s, along)| *s += written * along);
                    outputs.push(dot(s, &query));
                }
            }
            outputs
        })
    }
}

/// Runs a step of a scan over sequences.
fn advance<B: Backend>(
    backend: &B,
    scans: &[Scan],
    spec: &ScanSpec,
    update: Update,
    state: &mut B::State,
    pieces: &[Piece],
) -> Result<B::Tensor> {
    let step = slot_step(backend, pieces, &SLOTS)?;
    let rows = |of: fn(&Scan) -> &Array| gather(backend, pieces, |sequence| of(&scans[sequence]));
    let (queries, keys, values) = (rows(|s| &s.queries), rows(|s| &s.keys), rows(|s| &s.values));
    let (decay, first, second) = (rows(|s| &s.decay), rows(|s| &s.first), rows(|s| &s.second));
    let update = match update {
        Update::Add => ScanUpdate::Add,
        Update::Delta => ScanUpdate::Delta { beta: &first },
        Update::LowRank => ScanUpdate::LowRank { a: &first, b: &second },
    };
    let inputs = ScanInputs { queries: &queries, keys: &keys, values: &values, decay: &decay, update };
    backend.scan(&inputs, spec, state, &step)
}

/// [`Backend::scan`] with every update, with decays of heads and of columns, and with keys that heads share.
pub fn scan<B: Backend>(backend: &B, tolerance: f64) {
    // Rounding errors stay in the state for a while.
    let check = Check::new(backend, 4.0 * tolerance);
    let random = &mut Random::new(61);
    for (heads, key_heads, key_dim, value_dim) in
        [(1, 1, 1, 1), (2, 1, 16, 24), (6, 2, 40, 8), (4, 4, 64, 64), (10, 5, 16, 16), (3, 3, 7, 5)]
    {
        let spec = ScanSpec { heads, key_heads, key_dim, value_dim };
        for update in [Update::Add, Update::Delta, Update::LowRank] {
            for by_column in [false, true] {
                let mut scans = |rows: usize| Scan::random(random, &spec, update, rows, by_column);
                let scans = LENGTHS.map(&mut scans);
                let expected = scans.each_ref().map(|scan| vec![scan.reference(&spec, update)]);
                let state = StateSpec { slots: ALL_SLOTS, columns: spec.state_columns() };
                let start = || backend.state(&state).unwrap();
                let case = (&spec, update, by_column);
                check.sequences(&case, &expected, &[check.tolerance], &[], start, |state, pieces| {
                    Ok(vec![advance(backend, &scans, &spec, update, state, pieces)?])
                });
            }
        }
    }
}

/// [`Backend::scan`] and [`Backend::causal_convolution`] refuse operands that do not fit.
pub fn recurrences_are_checked<B: Backend>(backend: &B, _tolerance: f64) {
    let tensor = |rows: usize, columns: usize| Array::filled(rows, columns, 0.5).upload(backend);
    let pieces = [Piece { sequence: 0, rows: 0..3, spoiled: false }];
    let step = slot_step(backend, &pieces, &[1]).unwrap();
    let state = |columns: usize| backend.state(&StateSpec { slots: 2, columns }).unwrap();

    let convolve = |x: B::Tensor, weight: B::Tensor, bias: Option<B::Tensor>, columns: usize| {
        backend.causal_convolution(&x, &weight, bias.as_ref(), &mut state(columns), &step)
    };
    convolve(tensor(3, 4), tensor(4, 3), Some(tensor(1, 4)), 8).unwrap();
    assert_refused("rows", convolve(tensor(2, 4), tensor(4, 3), None, 8));
    assert_refused("columns", convolve(tensor(3, 5), tensor(4, 3), None, 8));
    assert_refused("taps", convolve(tensor(3, 4), tensor(4, 0), None, 8));
    assert_refused("bias", convolve(tensor(3, 4), tensor(4, 3), Some(tensor(1, 3)), 8));
    assert_refused("bias", convolve(tensor(3, 4), tensor(4, 3), Some(tensor(3, 4)), 8));
    assert_refused("state", convolve(tensor(3, 4), tensor(4, 3), None, 12));
    assert_refused("state", convolve(tensor(3, 4), tensor(4, 3), None, 7));

    // Steps that have fewer of something than they say.
    let mut short = [(); 2].map(|()| slot_step(backend, &pieces, &[1]).unwrap());
    short[0].query_starts = backend.indices(&[0]).unwrap();
    short[1].slots = backend.indices(&[]).unwrap();
    let [x, weight] = [tensor(3, 4), tensor(4, 3)];
    for short in &short {
        assert_refused("short", backend.causal_convolution(&x, &weight, None, &mut state(8), short));
    }

    let good = ScanSpec { heads: 4, key_heads: 2, key_dim: 3, value_dim: 5 };
    // Columns of the operands that fit, and of one after the other that do not.
    for wrong in 0..=6 {
        let width = |operand: usize, columns: usize| tensor(3, columns + usize::from(operand == wrong));
        let (queries, keys, values) = (width(1, 6), width(2, 6), width(3, 20));
        for decay in [4, 12] {
            let decay = width(4, decay);
            let (beta, a, b) = (width(5, 4), width(5, 12), width(6, 12));
            let updates =
                [ScanUpdate::Add, ScanUpdate::Delta { beta: &beta }, ScanUpdate::LowRank { a: &a, b: &b }];
            for (i, update) in updates.into_iter().enumerate() {
                let inputs =
                    ScanInputs { queries: &queries, keys: &keys, values: &values, decay: &decay, update };
                let result = backend.scan(&inputs, &good, &mut state(60), &step);
                // Operands that an update does not have are not wrong.
                if wrong == 0 || wrong == 5 && i == 0 || wrong == 6 && i < 2 {
                    result.unwrap();
                } else {
                    assert_refused((wrong, i), result);
                }
            }
        }
    }
    let (keys, values, decay) = (tensor(3, 6), tensor(3, 20), tensor(3, 4));
    let inputs =
        ScanInputs { queries: &keys, keys: &keys, values: &values, decay: &decay, update: ScanUpdate::Add };
    assert_refused("state", backend.scan(&inputs, &good, &mut state(59), &step));
    for wrong in [
        ScanSpec { key_heads: 3, key_dim: 2, ..good },
        ScanSpec { key_heads: 0, ..good },
        ScanSpec { heads: 0, ..good },
        // Numbers may come from a model's file.
        ScanSpec { heads: usize::MAX, key_heads: usize::MAX, ..good },
        ScanSpec { heads: usize::MAX - 1, ..good },
        ScanSpec { key_dim: usize::MAX, ..good },
        ScanSpec { value_dim: usize::MAX, ..good },
    ] {
        assert_refused(
            wrong,
            backend.scan(&inputs, &wrong, &mut state(wrong.state_columns().min(60)), &step),
        );
    }
    for short in &short {
        assert_refused("short", backend.scan(&inputs, &good, &mut state(60), short));
    }
    let few = tensor(2, 6);
    let inputs = ScanInputs { keys: &few, ..inputs };
    assert_refused("rows", backend.scan(&inputs, &good, &mut state(60), &step));
}
