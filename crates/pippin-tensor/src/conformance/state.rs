//! What is kept in slots: reset, copied, and left alone.

use super::{
    array::{Array, Random},
    check::{Check, assert_refused, assert_same_bits},
    recurrence::convolved,
    schedule::{Piece, slot_step},
};
use crate::{Backend, Result, ScanInputs, ScanSpec, ScanUpdate, StateSpec, StepInputs, TensorError};

const SLOTS: usize = 4;

/// A mixer that goes on from what is in a slot.
trait Mixer<B: Backend> {
    /// An empty state.
    fn state(&self) -> B::State;

    /// A step of one sequence.
    fn advance(&self, state: &mut B::State, rows: &Array, step: &StepInputs<B>) -> Result<B::Tensor>;
}

struct Convolution<'a, B: Backend> {
    backend: &'a B,
    weight: Array,
}

impl<B: Backend> Mixer<B> for Convolution<'_, B> {
    fn state(&self) -> B::State {
        let columns = self.weight.rows * (self.weight.columns - 1);
        self.backend.state(&StateSpec { slots: SLOTS, columns }).unwrap()
    }

    fn advance(&self, state: &mut B::State, rows: &Array, step: &StepInputs<B>) -> Result<B::Tensor> {
        let weight = self.weight.upload(self.backend);
        self.backend.causal_convolution(&rows.upload(self.backend), &weight, None, state, step)
    }
}

struct Scan<'a, B: Backend> {
    backend: &'a B,
    spec: ScanSpec,
}

impl<B: Backend> Mixer<B> for Scan<'_, B> {
    fn state(&self) -> B::State {
        self.backend.state(&StateSpec { slots: SLOTS, columns: self.spec.state_columns() }).unwrap()
    }

    fn advance(&self, state: &mut B::State, rows: &Array, step: &StepInputs<B>) -> Result<B::Tensor> {
        let x = rows.upload(self.backend);
        let decay = Array::filled(rows.rows, self.spec.heads, 0.75).upload(self.backend);
        let inputs = ScanInputs { queries: &x, keys: &x, values: &x, decay: &decay, update: ScanUpdate::Add };
        self.backend.scan(&inputs, &self.spec, state, step)
    }
}

/// A step of rows in a slot.
fn step_in<B: Backend>(backend: &B, slot: usize, rows: usize) -> StepInputs<B> {
    let pieces = [Piece { sequence: 0, rows: 0..rows, spoiled: false }];
    slot_step(backend, &pieces, &[slot]).unwrap()
}

fn judge<B: Backend>(backend: &B, mixer: &dyn Mixer<B>, columns: usize) {
    let random = &mut Random::new(62);
    let [first, second, other] = [5, 3, 9].map(|rows| Array::random(random, rows, columns));
    let run = |state: &mut B::State, slot: usize, rows: &Array| {
        let output = mixer.advance(state, rows, &step_in(backend, slot, rows.rows)).unwrap();
        backend.read(&output).unwrap()
    };
    let same =
        |what: &str, expected: &[f32], found: &[f32]| assert_same_bits(expected, found, &|| what.into());
    let state = &mut mixer.state();
    let start = run(state, 1, &first);
    let rest = run(state, 1, &second);
    assert!(rest != run(&mut mixer.state(), 1, &second), "the past makes no difference");

    same("a slot that was never used", &start, &run(state, 3, &first));
    backend.reset_state(state, 1).unwrap();
    same("after a reset", &start, &run(state, 1, &first));
    backend.copy_state(state, 1, 2).unwrap();
    same("a copy", &rest, &run(state, 2, &second));
    same("what was copied", &rest, &run(state, 1, &second));
    same("beside a reset and copies", &rest, &run(state, 3, &second));

    backend.reset_state(state, 0).unwrap();
    run(state, 0, &first);
    backend.copy_state(state, 0, 0).unwrap();
    run(state, 3, &other);
    backend.copy_state(state, 0, 3).unwrap();
    same("a copy to itself", &rest, &run(state, 0, &second));
    same("a copy to a used slot", &rest, &run(state, 3, &second));

    if backend.kept_as().is_some() {
        let (mut bytes, other) = (vec![7], &mut mixer.state());
        run(state, 1, &first);
        backend.reset_state(state, 1).unwrap();
        run(state, 1, &first);
        backend.read_state(state, 1, &mut bytes).unwrap();
        assert_eq!((bytes[0], bytes.len() % 4), (7, 1), "bytes are appended, four for each number");
        let before = run(other, 2, &first);
        run(other, 3, &first);
        backend.write_state(other, 2, &bytes[1..]).unwrap();
        same("what another state has given", &rest, &run(other, 2, &second));
        same("beside it", &rest, &run(other, 3, &second));
        same("what was read", &rest, &run(state, 1, &second));
        for wrong in [&bytes[2..], &[], &bytes[..]] {
            assert_refused("bytes of another state", backend.write_state(other, 0, wrong));
        }
        same("what was refused is not there", &before, &run(other, 0, &first));
        for beyond in [SLOTS, usize::MAX] {
            let refused = |result: Result<()>| {
                assert!(matches!(result, Err(TensorError::Index { .. })), "slot {beyond}: {result:?}");
            };
            refused(backend.read_state(state, beyond, &mut Vec::new()));
            refused(backend.write_state(state, beyond, &bytes[1..]));
        }
    }

    for beyond in [SLOTS, usize::MAX] {
        let refused = |result: Result<()>| {
            assert!(matches!(result, Err(TensorError::Index { .. })), "slot {beyond}: {result:?}");
        };
        refused(backend.reset_state(state, beyond));
        refused(backend.copy_state(state, beyond, 0));
        refused(backend.copy_state(state, 0, beyond));
    }

    // Slots beyond the state do no harm.
    backend.reset_state(state, SLOTS - 1).unwrap();
    run(state, SLOTS - 1, &first);
    for beyond in [SLOTS as u32, 1 << 31, u32::MAX] {
        let mut wrong = step_in(backend, 0, other.rows);
        wrong.slots = backend.indices(&[beyond]).unwrap();
        if let Ok(output) = mixer.advance(state, &other, &wrong) {
            assert_eq!(backend.shape(&output), [other.rows, columns]);
        }
    }
    same("beside a slot beyond the state", &rest, &run(state, SLOTS - 1, &second));
    // Neither do rows that are not there, and sequences that share a slot.
    for starts in [[0, 1000], [u32::MAX - 9, u32::MAX], [9, 0]] {
        let mut wrong = step_in(backend, 0, other.rows);
        wrong.query_starts = backend.indices(&starts).unwrap();
        if let Ok(output) = mixer.advance(state, &other, &wrong) {
            assert_eq!(backend.shape(&output), [other.rows, columns]);
        }
    }
    let pieces = [(0, 0..5), (1, 0..4)].map(|(sequence, rows)| Piece { sequence, rows, spoiled: false });
    let mut wrong = slot_step(backend, &pieces, &[0, 1]).unwrap();
    wrong.slots = backend.indices(&[2, 2]).unwrap();
    if let Ok(output) = mixer.advance(state, &other, &wrong) {
        assert_eq!(backend.shape(&output), [other.rows, columns]);
    }
}

/// [`Backend::state`], [`Backend::reset_state`], [`Backend::copy_state`], and reading and writing a slot's bytes, seen through the operations that keep
/// something.
pub fn state<B: Backend>(backend: &B, tolerance: f64) {
    let random = &mut Random::new(63);
    let convolution = Convolution { backend, weight: Array::random(random, 12, 4) };
    judge(backend, &convolution, 12);
    judge(
        backend,
        &Scan { backend, spec: ScanSpec { heads: 3, key_heads: 3, key_dim: 4, value_dim: 4 } },
        12,
    );

    // A state begins with zeros, whatever was in its memory.
    let x = Array::random(random, 6, 12);
    for _ in 0..3 {
        let expected = convolved(&x, &convolution.weight, None);
        Check::new(backend, tolerance).sequences(
            &"a fresh state",
            &[vec![expected]],
            &[tolerance],
            &[],
            || convolution.state(),
            |state, pieces| {
                let rows = x.rows_of(pieces[0].rows.clone());
                Ok(vec![convolution.advance(state, &rows, &slot_step(backend, pieces, &[2])?)?])
            },
        );
    }
    let slots = usize::MAX / 4;
    assert!(backend.state(&StateSpec { slots, columns: 8 }).is_err());
    assert!(backend.state(&StateSpec { slots: 2, columns: usize::MAX / 2 }).is_err());
}
