//! Clients of all kinds at once: patient ones, slow ones, those that go away in the middle, and those that send nonsense.

pub(crate) mod client;
pub(crate) mod requests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::client::Client;
use self::requests::{CHAT, Malformed, malformed, well_formed};

/// How long a slow reader looks at each event.
const SLOWLY: Duration = Duration::from_millis(40);

/// How many clients, and for how long.
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) clients: u64,
    pub(crate) time: Duration,
    /// Whether all of them stream, read at once and stay.
    pub(crate) is_tame: bool,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Report {
    /// Answers that were read to their end.
    pub(crate) complete: u64,
    /// Answers that were left in the middle.
    pub(crate) left: u64,
    /// Requests that were refused, as they should be.
    pub(crate) refused: u64,
    /// Tokens of all answers, those that were left included.
    pub(crate) tokens: u64,
    /// Anything that should not have happened.
    pub(crate) faults: Vec<String>,
    /// The longest silence between two events of a stream whose reader was not slow.
    pub(crate) longest_silence: Duration,
    /// From each streamed request to the first event with something in it.
    pub(crate) first_events: Vec<Duration>,
    pub(crate) time: Duration,
}

impl Report {
    pub(crate) fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64()
    }

    fn add(&mut self, other: Self) {
        self.complete += other.complete;
        self.left += other.left;
        self.refused += other.refused;
        self.tokens += other.tokens;
        self.faults.extend(other.faults);
        self.longest_silence = self.longest_silence.max(other.longest_silence);
        self.first_events.extend(other.first_events);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = self.first_events.clone();
        first.sort_unstable();
        let at = |part: usize| first.get((first.len() * part / 100).min(first.len().saturating_sub(1)));
        writeln!(
            out,
            "{} answers complete, {} left, {} requests refused; {} tokens, {:.0} a second",
            self.complete,
            self.left,
            self.refused,
            self.tokens,
            self.tokens_per_second()
        )?;
        if let (Some(median), Some(late), Some(last)) = (at(50), at(99), first.last()) {
            writeln!(out, "first event after {median:.1?} (median), {late:.1?} (99 %), {last:.1?} (all)")?;
        }
        write!(out, "longest silence {:.1?}, {} faults", self.longest_silence, self.faults.len())?;
        self.faults.iter().take(10).try_for_each(|fault| write!(out, "\n  {fault}"))
    }
}

/// Lets the clients ask until the time is over.
///
/// # Errors
///
/// The server cannot be asked even by a single client.
pub(crate) fn run(plan: &Plan) -> io::Result<Report> {
    let requests = well_formed();
    // What each answer is without anybody else.
    let mut asked = Vec::with_capacity(requests.len());
    for request in requests {
        let text = Client::connect(plan.address)?.post(CHAT, &request.to_string())?.ok()?.text()?;
        asked.push((request, whole(&serde_json::from_str(&text)?)));
    }
    let nonsense = malformed();
    let begin = Instant::now();
    let end = begin + plan.time;
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let (asked, nonsense) = (&asked, &nonsense);
        let clients: Vec<_> = (0..plan.clients)
            .map(|number| {
                let user = User {
                    address: plan.address,
                    dice: Dice(number + 1),
                    asked,
                    nonsense,
                    report: Report::default(),
                };
                scope.spawn(move || user.ask_until(end, plan.is_tame))
            })
            .collect();
        for client in clients {
            match client.join() {
                Ok(its) => report.add(its),
                Err(_) => report.faults.push("a client panicked".to_owned()),
            }
        }
    });
    report.time = begin.elapsed();
    Ok(report)
}

/// What an answer says: its text, or its calls without their ids.
fn whole(answer: &Value) -> String {
    let message = &answer["choices"][0]["message"];
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let calls: String = calls.map(|call| called(&call["function"])).collect();
    format!("{}{calls}", message["content"].as_str().unwrap_or_default())
}

fn called(function: &Value) -> String {
    let part = |name| function[name].as_str().unwrap_or_default();
    format!("{}{}", part("name"), part("arguments"))
}

/// Numbers that look random, and are the same in every run (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % end as u64) as usize
    }
}

/// A client, and what happened to it.
struct User<'a> {
    address: SocketAddr,
    dice: Dice,
    asked: &'a [(Value, String)],
    nonsense: &'a [Malformed],
    report: Report,
}

impl User<'_> {
    fn ask_until(mut self, end: Instant, is_tame: bool) -> Report {
        while Instant::now() < end {
            let kind = if is_tame { 0 } else { self.dice.below(16) };
            let done = match kind {
                0..6 => self.stream(Duration::ZERO),
                6..10 => self.plain(),
                10..11 => self.stream(SLOWLY),
                11..13 => self.leave(),
                _ => self.nonsense(),
            };
            if let Err(error) = done {
                self.report.faults.push(format!("kind {kind}: {error}"));
            }
        }
        self.report
    }

    fn pick(&mut self) -> (Value, String) {
        self.asked[self.dice.below(self.asked.len())].clone()
    }

    /// An answer as a whole.
    fn plain(&mut self) -> io::Result<()> {
        let (request, alone) = self.pick();
        let mut client = Client::connect(self.address)?;
        let text = client.post(CHAT, &request.to_string())?.ok()?.text()?;
        let answer: Value = serde_json::from_str(&text)?;
        self.report.tokens += answer["usage"]["completion_tokens"].as_u64().unwrap_or_default();
        self.compare(&whole(&answer), &alone);
        Ok(())
    }

    /// An answer as events, with a pause behind each.
    fn stream(&mut self, pause: Duration) -> io::Result<()> {
        let (mut request, alone) = self.pick();
        request["stream"] = json!(true);
        request["stream_options"] = json!({"include_usage": true});
        let mut client = Client::connect(self.address)?;
        let begin = Instant::now();
        let mut reply = client.post(CHAT, &request.to_string())?.ok()?;
        let (mut text, mut last) = (String::new(), None);
        while let Some(event) = reply.event()? {
            let now = Instant::now();
            if let Some(usage) = event["usage"]["completion_tokens"].as_u64() {
                self.report.tokens += usage;
            }
            let delta = &event["choices"][0]["delta"];
            let call = &delta["tool_calls"][0]["function"];
            let part = format!("{}{}", delta["content"].as_str().unwrap_or_default(), called(call));
            text.push_str(&part);
            if pause.is_zero() {
                match last {
                    Some(last) => {
                        self.report.longest_silence = self.report.longest_silence.max(now - last);
                    }
                    // The first one says who speaks, and comes before anything is computed.
                    None if part.is_empty() => continue,
                    None => self.report.first_events.push(now - begin),
                }
                last = Some(now);
            }
            std::thread::sleep(pause);
        }
        self.compare(&text, &alone);
        Ok(())
    }

    /// Goes away in the middle.
    fn leave(&mut self) -> io::Result<()> {
        let (mut request, _) = self.pick();
        request["stream"] = json!(self.dice.below(4) > 0);
        let mut client = Client::connect(self.address)?;
        if request["stream"] == true {
            let mut reply = client.post(CHAT, &request.to_string())?.ok()?;
            for _ in 0..self.dice.below(20) {
                if reply.event()?.is_none() {
                    break;
                }
                self.report.tokens += 1;
            }
        } else {
            let body = request.to_string();
            client.send("POST", CHAT, body.len(), body.as_bytes())?;
            std::thread::sleep(Duration::from_millis(self.dice.below(50) as u64));
        }
        self.report.left += 1;
        Ok(())
    }

    fn nonsense(&mut self) -> io::Result<()> {
        let all = self.nonsense;
        let Malformed { method, path, body, missing } = &all[self.dice.below(all.len())];
        let mut client = Client::connect(self.address)?;
        client.send(method, path, body.len() + missing, body)?;
        if *missing > 0 {
            // It would be waited for.
            self.report.left += 1;
            return Ok(());
        }
        let reply = client.reply()?;
        let status = reply.status;
        let text = reply.text()?;
        if !(400..500).contains(&status) {
            return Err(io::Error::other(format!("{status} for nonsense: {text}")));
        }
        self.report.refused += 1;
        Ok(())
    }

    fn compare(&mut self, text: &str, alone: &str) {
        self.report.complete += 1;
        if text != alone {
            self.report.faults.push(format!("{text:?} instead of {alone:?}"));
        }
    }
}
