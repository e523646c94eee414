//! Many clients of all kinds at once.

use std::path::Path;
use std::time::Duration;

use crate::Result;
use crate::mix::client::Client;
use crate::mix::{self, Plan};
use crate::process::Process;

/// `rounds` times the whole load on one process: what it keeps must not grow from one to the next.
pub(crate) fn run(program: &Path, clients: u64, seconds: u64, rounds: u64) -> Result<()> {
    let server = Process::start(program)?;
    let address = server.address;
    let tame = |clients| mix::run(&Plan { address, clients, time: Duration::from_secs(15), is_tame: true });
    let one = tame(1)?;
    println!("one stream:\n{one}\n");
    let many = tame(clients)?;
    println!("{clients} streams:\n{many}");
    println!("{:.1} times as many tokens\n", many.tokens_per_second() / one.tokens_per_second());
    // What is kept for later is there once all kinds of requests have come.
    let time = Duration::from_secs(15);
    let warm_up = mix::run(&Plan { address, clients, time, is_tame: false })?;
    std::thread::sleep(Duration::from_secs(3));
    let (memory, threads) = (server.resident_bytes()?, server.threads()?);
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("memory: {:.1} MiB before", mebibytes(memory));
    let mut reports = vec![warm_up];
    for _ in 0..rounds {
        let report =
            mix::run(&Plan { address, clients, time: Duration::from_secs(seconds), is_tame: false })?;
        let under_load = server.resident_bytes()?;
        std::thread::sleep(Duration::from_secs(3));
        println!("{clients} clients of all kinds:\n{report}");
        println!("{:.1} times as many tokens", report.tokens_per_second() / one.tokens_per_second());
        let behind = mebibytes(server.resident_bytes()?);
        println!("memory: {:.1} MiB at the end of the load, {behind:.1} behind it", mebibytes(under_load));
        reports.push(report);
    }
    println!("threads: {threads:?} before, {:?} behind", server.threads()?);
    let mut client = Client::connect(address)?;
    client.send("GET", "/health", 0, b"")?;
    let health = client.reply()?;
    println!("/health: {}", health.ok()?.text()?);
    let faults: usize = [one, many].iter().chain(&reports).map(|report| report.faults.len()).sum();
    if faults > 0 { Err(format!("{faults} faults").into()) } else { Ok(()) }
}
