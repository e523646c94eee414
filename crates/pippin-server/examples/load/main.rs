//! How a server bears up, and what it costs. It measures, and asserts nothing but that answers are right:
//!
//! ```console
//! $ cargo build --release --bin pippin
//! $ cargo run --release -p pippin-server --example load -- mixed target/release/pippin 64 120 2
//! $ cargo run --release -p pippin-server --example load -- prefix target/release/pippin
//! $ cargo run --release -p pippin-server --example load -- overhead
//! $ cargo run --release -p pippin-server --example load -- overhead path/to/model 8 64
//! ```
//!
//! `mixed`: so many clients of all kinds for so many seconds, so many times. `prefix`: 200 prompts with a long beginning in common. `overhead`: the
//! engine by itself beside the same through HTTP: so many pairs of answers of so many tokens.

mod mix;
mod mixed;
mod overhead;
mod prefix;
mod process;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["mixed", program] => mixed::run(Path::new(program), 64, 120, 1),
        ["mixed", program, clients, seconds, rounds] => {
            match (clients.parse(), seconds.parse(), rounds.parse()) {
                (Ok(clients), Ok(seconds), Ok(rounds)) => {
                    mixed::run(Path::new(program), clients, seconds, rounds)
                }
                _ => Err("clients, seconds and rounds are whole numbers".into()),
            }
        }
        ["prefix", program] => prefix::run(Path::new(program)),
        ["overhead"] => overhead::run("pippin-nano", 40, 256),
        ["overhead", model] => overhead::run(model, 40, 256),
        ["overhead", model, pairs, tokens] => match (pairs.parse(), tokens.parse()) {
            (Ok(pairs), Ok(tokens)) => overhead::run(model, pairs, tokens),
            _ => Err("pairs and tokens are whole numbers".into()),
        },
        _ => Err(
            "load mixed PROGRAM [CLIENTS SECONDS ROUNDS] | prefix PROGRAM | overhead [MODEL [PAIRS TOKENS]]"
                .into(),
        ),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
