//! `pippin pull`: models of the hub, brought to this machine.

use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pippin::{
    EngineConfig, EngineError, HubCache, HubClient, HubError, ModelConfiguration, ModelLocation, PullEvent,
    PullOptions, PullPlan, PulledModel,
};
use serde::Serialize;

use crate::error::{CliError, Result};
use crate::settings::PullSettings;
use crate::{model, output};

/// How often a line of progress is printed where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Pulls models.
pub(super) fn run(settings: &PullSettings) -> Result<()> {
    let client = client(&settings.config)?;
    let cache = settings.config.hub_cache().map_err(EngineError::from)?;
    for model in &settings.models {
        let (id, revision) = hub_name(model, settings.revision.as_deref(), &settings.config)?;
        let plan = client.plan(&cache, &id, &revision).map_err(EngineError::from)?;
        let summary = if settings.dry_run {
            Summary::planned(&cache, &plan)
        } else {
            let options = PullOptions::default().with_connections(settings.connections);
            Summary::pulled(&plan, &pull(&client, &cache, &plan, &options)?)
        };
        output::data(&summary.to_text(settings.json))?;
    }
    Ok(())
}

/// The hub of the configuration.
fn client(config: &EngineConfig) -> Result<HubClient> {
    Ok(HubClient::new(config.hub_options().map_err(EngineError::from)?).map_err(EngineError::from)?)
}

/// The id and the revision that a name stands for.
pub(super) fn hub_name(
    model: &str,
    revision: Option<&str>,
    config: &EngineConfig,
) -> Result<(String, String)> {
    let found = config.resolver().and_then(|resolver| resolver.configuration(model));
    match found.map_err(EngineError::from)?.location {
        ModelLocation::Hub { id, revision: own } => Ok((id, revision.map_or(own, str::to_owned))),
        ModelLocation::Shipped => {
            Err(CliError::usage("pippin-nano comes with Pippin", "name a model of the hub"))
        }
        _ => Err(CliError::usage(
            format!("{model:?} is a folder of this machine"),
            "name a model of the hub, such as mlx-community/Qwen3-4B-4bit",
        )),
    }
}

/// Pulls a model and shows how far it is.
fn pull(client: &HubClient, cache: &HubCache, plan: &PullPlan, options: &PullOptions) -> Result<PulledModel> {
    let mut display = Display::new(plan);
    let pulled = client.pull(cache, plan, options, |event| display.event(event));
    display.end();
    Ok(pulled.map_err(EngineError::from)?)
}

/// The model of a command that needs it: one that is not here, or not whole, is pulled when the user wants it.
pub(super) fn find_or_pull(
    model: &str,
    config: &EngineConfig,
    is_agreed: bool,
) -> Result<ModelConfiguration> {
    let error = match config.resolver().and_then(|resolver| resolver.resolve(model)) {
        Ok(found) => return Ok(found.configuration),
        Err(error) => error,
    };
    let is_absent = matches!(error, HubError::NotCached { .. } | HubError::Incomplete { .. });
    if !is_absent || config.hub.offline {
        return Err(EngineError::from(error).into());
    }
    let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !is_agreed && !can_ask {
        let hint = error.hint().map(|hint| format!("{hint}; or give --yes, and run does it"));
        return Err(CliError::Engine { error: error.into(), hint });
    }
    let client = client(config)?;
    let cache = config.hub_cache().map_err(EngineError::from)?;
    let (id, revision) = hub_name(model, None, config)?;
    let mut plan = client.plan(&cache, &id, &revision).map_err(EngineError::from)?;
    loop {
        let shown = plan.missing_bytes();
        let size = output::bytes(shown);
        if is_agreed {
            output::note(&format!("{id} is not on this machine: downloading {size}"));
            break;
        }
        if !ask(&format!("{id} is not on this machine. Download {size}?"), true)? {
            return Err(EngineError::from(error).into());
        }
        // While the question stood there, another process may have removed what was there already.
        plan.refresh(&cache);
        if plan.missing_bytes() <= shown {
            break;
        }
        output::note("some of it has been removed in the meantime");
    }
    pull(&client, &cache, &plan, &PullOptions::default())?;
    model::find(model, config)
}

/// Asks a question with the answers yes and no.
pub(super) fn ask(question: &str, default: bool) -> Result<bool> {
    let mut stderr = std::io::stderr().lock();
    let answers = if default { "[Y/n]" } else { "[y/N]" };
    // Nobody can be told that standard error is closed.
    let _ = write!(stderr, "{} {answers} ", output::visible(question));
    let _ = stderr.flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| CliError::input(format!("cannot read the answer: {error}")))?;
    Ok(match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => true,
        // The end of the input is no answer.
        "" => default && answer.ends_with('\n'),
        _ => false,
    })
}

/// What is shown during a download: a bar on a terminal, lines elsewhere.
struct Display {
    bar: Option<ProgressBar>,
    name: String,
    last_line: Instant,
    started: Instant,
}

impl Display {
    fn new(plan: &PullPlan) -> Self {
        let total = plan.total_bytes();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
            let template =
                "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(plan.id.clone());
            // What is there already did not come at any rate.
            bar.set_position(total - plan.missing_bytes());
            bar.reset_eta();
            bar
        });
        let name = plan.id.clone();
        if bar.is_none() && plan.missing_bytes() > 0 {
            output::note(&format!(
                "{name}: {} to download of {}",
                output::bytes(plan.missing_bytes()),
                output::bytes(total)
            ));
        }
        Self { bar, name, last_line: Instant::now(), started: Instant::now() }
    }

    fn event(&mut self, event: &PullEvent) {
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

    fn end(&self) {
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

/// What was done, or is to be done.
#[derive(Serialize)]
struct Summary {
    model: String,
    revision: String,
    commit: String,
    directory: Option<String>,
    total_bytes: u64,
    /// Downloaded; or, before a download, missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    transferred_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_bytes: Option<u64>,
    files: Vec<File>,
}

#[derive(Serialize)]
struct File {
    path: String,
    bytes: u64,
}

impl Summary {
    fn new(plan: &PullPlan) -> Self {
        Self {
            model: plan.id.clone(),
            revision: plan.revision.clone(),
            commit: plan.commit.clone(),
            directory: None,
            total_bytes: plan.total_bytes(),
            transferred_bytes: None,
            missing_bytes: None,
            files: plan.files.iter().map(|file| File { path: file.path.clone(), bytes: file.size }).collect(),
        }
    }

    fn planned(_: &HubCache, plan: &PullPlan) -> Self {
        Self { missing_bytes: Some(plan.missing_bytes()), ..Self::new(plan) }
    }

    fn pulled(plan: &PullPlan, pulled: &PulledModel) -> Self {
        Self {
            directory: Some(pulled.directory.display().to_string()),
            transferred_bytes: Some(pulled.transferred_bytes),
            ..Self::new(plan)
        }
    }

    fn to_text(&self, is_json: bool) -> String {
        if is_json {
            return format!("{}\n", output::json_pretty(self));
        }
        match (&self.directory, self.missing_bytes) {
            (Some(directory), _) => format!("{directory}\n"),
            (None, missing) => {
                let mut text = format!(
                    "{}: {} files, {}, of which {} are missing\n",
                    self.model,
                    self.files.len(),
                    output::bytes(self.total_bytes),
                    output::bytes(missing.unwrap_or(0))
                );
                for file in &self.files {
                    text.push_str(&format!(
                        "  {:>10}  {}\n",
                        output::bytes(file.bytes),
                        output::visible(&file.path)
                    ));
                }
                text
            }
        }
    }
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
