//! What is shown while a model is downloaded.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pippin::hub::PullEvent;

use crate::output;

/// How often a line of progress is printed where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is shown during a download: a bar on a terminal, lines elsewhere.
pub(crate) struct Display {
    bar: Option<ProgressBar>,
    name: String,
    last_line: Instant,
    started: Instant,
}

impl Display {
    /// Shows a download of a model of `total` bytes, of which so many are missing.
    pub(crate) fn new(id: &str, total: u64, missing: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
            let template =
                "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(id.to_owned());
            // What is there already did not come at any rate.
            bar.set_position(total - missing);
            bar.reset_eta();
            bar
        });
        let name = id.to_owned();
        if bar.is_none() && missing > 0 {
            output::note(&format!(
                "{name}: {} to download of {}",
                output::bytes(missing),
                output::bytes(total)
            ));
        }
        Self { bar, name, last_line: Instant::now(), started: Instant::now() }
    }

    /// Shows what has happened.
    pub(crate) fn event(&mut self, event: &PullEvent) {
        match event {
            PullEvent::Progress { done, total, transferred } => {
                if let Some(bar) = &self.bar {
                    bar.set_position(*done);
                } else if self.last_line.elapsed() >= LINE_EVERY {
                    self.last_line = Instant::now();
                    output::note(&line(&self.name, *done, *total, *transferred, self.started.elapsed()));
                }
            }
            PullEvent::Retry { path, reason, wait } => {
                self.note(&format!("{path}: {reason}; again in {:.1} s", wait.as_secs_f64()));
            }
            PullEvent::Skipped { path, reason } => {
                self.note(&format!("{path}: {reason}; the model does without it"));
            }
            PullEvent::Waiting { path } => {
                self.note(&format!("{path}: another process is downloading it; waiting"));
            }
            _ => {}
        }
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// Leaves nothing of the bar behind.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How far a download is, in a line.
fn line(name: &str, done: u64, total: u64, transferred: u64, time: Duration) -> String {
    let (done_text, total_text) = (output::bytes(done), output::bytes(total));
    let rate = transferred as f64 / time.as_secs_f64().max(1e-3);
    if rate < 1.0 {
        return format!("{name}: {done_text} of {total_text}, nothing came yet");
    }
    let left = total.saturating_sub(done) as f64 / rate;
    format!("{name}: {done_text} of {total_text}, {}/s, {left:.0} s left", output::bytes(rate as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_bytes_rate_and_time_left() {
        let second = Duration::from_secs(1);
        // What was there before the start did not come at any rate.
        let text = line("org/model", 600_000_000, 1_000_000_000, 100_000_000, 2 * second);
        assert_eq!(text, "org/model: 600.0 MB of 1.0 GB, 50.0 MB/s, 8 s left");
        assert_eq!(line("a/b", 5, 10, 0, second), "a/b: 5 bytes of 10 bytes, nothing came yet");
        assert_eq!(line("a/b", 0, 0, 0, Duration::ZERO), "a/b: 0 bytes of 0 bytes, nothing came yet");
    }
}
