//! Every golden model against mlx-lm: logits, greedy tokens, and their independence of how the work was cut into steps.
//!
//! The files in `goldens/` come from `tools/goldens/generate.py`; weights are made from tensor names, so nothing but
//! expected results is stored. The tests of a model are named after its file: `llama::mlx`, `llama::steps`, and
//! `llama::matters` where the file says what matters. To see the deviations:
//! `cargo test -p pippin-models --test goldens -- --nocapture`.

mod support;

use libtest_mimic::{Arguments, Trial};
use pippin_tensor::{KvFormat, Numerics};
use support::{Golden, agrees_with_mlx, independent_of_steps, matters};

fn main() {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, Golden::names().into_iter().flat_map(tests).collect()).exit();
}

fn tests(name: String) -> Vec<Trial> {
    let trial = |test: &str, run: fn(&Golden)| {
        let golden = name.clone();
        Trial::test(format!("{name}::{test}"), move || {
            run(&Golden::read(&golden));
            Ok(())
        })
    };
    let mut trials = vec![
        trial("mlx", |golden| agrees_with_mlx(golden, golden.model(Numerics::Exact, KvFormat::F32))),
        trial("steps", |golden| independent_of_steps(golden, Numerics::Exact, KvFormat::F32)),
    ];
    if !Golden::read(&name).matters.is_empty() {
        trials.push(trial("matters", matters));
    }
    trials
}
