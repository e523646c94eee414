//! The fake hub of the tests as a program, for the scripts in `tools/hub/`.
//!
//! `fake_hub MEGABYTES [BYTES_PER_SECOND]` serves `org/model` and prints its address. Every line on standard input is
//! answered with the bytes of weights that were sent since the last.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::BufRead;

use support::{FakeHub, Model};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a number"));
    let megabytes = arguments.next().unwrap_or(200);
    let hub = FakeHub::start();
    hub.add("org/model", Model::small((megabytes << 20) as usize));
    hub.set_rate(arguments.next().unwrap_or(0));
    println!("{}", hub.endpoint());
    for _ in std::io::stdin().lock().lines() {
        println!("{}", hub.sent("model.safetensors"));
        hub.forget_requests();
    }
}
