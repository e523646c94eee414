//! `pippin list`, `rm`, `verify` and `prune`: the models on this machine.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use pippin::hub::{CachedModel, FileState, HubCache, HubError};
use pippin::{EngineConfig, EngineError};
use serde::Serialize;
use serde_json::json;

use super::pull::{HubName, hub_model, hub_name};
use crate::args::{ListArgs, PruneArgs, RmArgs, VerifyArgs};
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::input::ask;
use crate::machine::table;
use crate::output;

fn cache(config: &EngineConfig) -> Result<HubCache> {
    Ok(config.hub_cache().map_err(EngineError::from)?)
}

#[derive(Serialize)]
struct Row {
    model: String,
    revision: String,
    commit: String,
    bytes: u64,
    bits: Option<u64>,
    family: Option<String>,
    /// Seconds since 1970.
    last_used: Option<u64>,
    complete: bool,
    verified: bool,
    problem: Option<String>,
    directory: String,
}

/// Lists the models of the cache.
pub(super) fn list(args: &ListArgs, config: &EngineConfig) -> Result<()> {
    let models = cache(config)?.models().map_err(EngineError::from)?;
    let rows: Vec<Row> = models.iter().flat_map(rows).collect();
    if args.json {
        return Ok(output::data(&format!("{}\n", output::json_pretty(&rows)))?);
    }
    if rows.is_empty() {
        output::note("no models in the cache");
        output::hint("pippin recommend lists models for this machine, pippin pull MODEL downloads one");
        return Ok(());
    }
    let header = ["MODEL", "REVISION", "SIZE", "BITS", "FAMILY", "LAST USED", "STATE"];
    let right = [false, false, true, true, false, false, false];
    let now = SystemTime::now();
    let cells = rows.iter().map(|row| {
        let state = match (&row.problem, row.verified) {
            (Some(problem), _) => format!("incomplete: {problem}"),
            (None, true) => "verified".to_owned(),
            (None, false) => "not verified yet".to_owned(),
        };
        let used = row.last_used.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        [
            row.model.clone(),
            row.revision.clone(),
            output::bytes(row.bytes),
            row.bits.map_or_else(|| "-".to_owned(), |bits| bits.to_string()),
            row.family.clone().unwrap_or_else(|| "?".to_owned()),
            used.and_then(|used| now.duration_since(used).ok()).map_or_else(|| "-".to_owned(), ago),
            state,
        ]
    });
    output::data(&table(header, right, cells.collect()))?;
    let total: u64 = models.iter().map(|model| model.bytes).sum();
    let partial: u64 = models.iter().map(|model| model.partial_bytes).sum();
    output::note(&format!("{} on the disk", output::bytes(total)));
    if partial > 0 {
        output::note(&format!(
            "{} of it in partial files: pippin prune removes them",
            output::bytes(partial)
        ));
    }
    Ok(())
}

fn rows(model: &CachedModel) -> Vec<Row> {
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|time| time.as_secs());
    let last_used = model.last_used.and_then(seconds);
    if model.revisions.is_empty() {
        return vec![Row {
            model: model.id.clone(),
            revision: "-".to_owned(),
            commit: String::new(),
            bytes: model.bytes,
            bits: None,
            family: None,
            last_used,
            complete: false,
            verified: false,
            problem: Some("nothing but partial files".to_owned()),
            directory: model.path.display().to_string(),
        }];
    }
    let rows = model.revisions.iter().map(|revision| Row {
        model: model.id.clone(),
        revision: if revision.refs.is_empty() {
            revision.commit.chars().take(12).collect()
        } else {
            revision.refs.join(", ")
        },
        commit: revision.commit.clone(),
        bytes: revision.bytes,
        bits: revision.bits,
        family: revision.model_type.clone(),
        last_used,
        complete: revision.problem.is_none(),
        verified: revision.is_verified,
        problem: revision.problem.clone(),
        directory: revision.path.display().to_string(),
    });
    rows.collect()
}

/// A span of time in words.
fn ago(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..60 => return "just now".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// Removes models, after asking.
pub(super) fn rm(args: &RmArgs, config: &EngineConfig) -> Result<()> {
    let cache = cache(config)?;
    for model in &args.models {
        let HubName { id, revision: own, quantization } = hub_model(model, None, config)?;
        // A revision that stands behind the name (`@v1`) is meant as much as one in the flag. The address of a page shows the main
        // one whether that is meant or not.
        let is_page =
            || ["/tree/", "/blob/", "/resolve/", "/raw/"].into_iter().any(|view| model.contains(view));
        let named = (model.contains('@') || (is_page() && own != "main")).then_some(own);
        let revision = args.revision.clone().or(named);
        let removal = cache
            .plan_removal_of(&id, revision.as_deref(), quantization.as_deref())
            .map_err(EngineError::from)?;
        let name = quantization.map_or_else(|| id.clone(), |quantization| format!("{id}:{quantization}"));
        let what = match (&revision, removal.is_all) {
            (Some(revision), false) => format!("{name} at {revision}"),
            _ => name,
        };
        let size = output::bytes(removal.bytes);
        if !args.yes {
            if !std::io::stdin().is_terminal() {
                return Err(CliError::usage(
                    format!("removing {what} ({size}) needs an answer, and there is no terminal to ask at"),
                    "give --yes",
                ));
            }
            if !ask(&format!("Remove {what} ({size})?"), false)? {
                output::note("nothing was removed");
                continue;
            }
        }
        cache.remove(&removal).map_err(EngineError::from)?;
        output::note(&format!("removed {what}: {size}"));
    }
    Ok(())
}

/// Checks files against their hashes.
pub(super) fn verify(args: &VerifyArgs, config: &EngineConfig) -> Result<()> {
    let cache = cache(config)?;
    let ids: Vec<String> = if args.models.is_empty() {
        let models = cache.models().map_err(EngineError::from)?;
        if models.is_empty() {
            output::note("no models in the cache");
        }
        models.into_iter().map(|model| model.id).collect()
    } else {
        args.models.iter().map(|model| Ok(hub_name(model, None, config)?.0)).collect::<Result<Vec<_>>>()?
    };
    let mut has_failed = false;
    let mut all = Vec::new();
    for id in ids {
        let checks = cache
            .verify(&id, args.all, |path, size| {
                if size > 1_000_000_000 && std::io::stderr().is_terminal() {
                    output::note(&format!("{id}: {path} ({})", output::bytes(size)));
                }
            })
            .map_err(EngineError::from)?;
        let count = |state: FileState| checks.iter().filter(|check| check.state == state).count();
        let (right, damaged, missing) =
            (count(FileState::Right), count(FileState::Damaged), count(FileState::Missing));
        has_failed |= damaged + missing > 0;
        if args.json {
            let files: Vec<_> = checks
                .iter()
                .map(|check| {
                    json!({"commit": check.commit, "path": check.path, "bytes": check.size, "state": word(check.state)})
                })
                .collect();
            all.push(json!({"model": id, "ok": damaged + missing == 0, "files": files}));
            continue;
        }
        for check in &checks {
            if matches!(check.state, FileState::Damaged | FileState::Missing) {
                let path = output::visible(&check.path);
                output::data(&format!("{id}: {path} is {}\n", word(check.state)))?;
            }
        }
        let unknown = checks.len() - right - damaged - missing;
        let unknown = if unknown > 0 { format!(", {unknown} without a known hash") } else { String::new() };
        let bad = if damaged + missing > 0 { format!(", {} not", damaged + missing) } else { String::new() };
        output::data(&format!("{id}: {right} files are right{bad}{unknown}\n"))?;
    }
    if args.json {
        output::data(&format!("{}\n", output::json_pretty(&all)))?;
    }
    if has_failed {
        output::hint("pippin pull MODEL repairs what the hub still has");
        return Err(CliError::Reported(Exit::ModelInvalid));
    }
    Ok(())
}

fn word(state: FileState) -> &'static str {
    match state {
        FileState::Right => "right",
        FileState::Damaged => "damaged",
        FileState::Missing => "missing",
        _ => "unknown",
    }
}

/// Removes partial files.
pub(super) fn prune(_: &PruneArgs, config: &EngineConfig) -> Result<()> {
    let pruned = cache(config)?.prune().map_err(|error: HubError| EngineError::from(error))?;
    output::note(&format!("removed {} partial files: {}", pruned.files, output::bytes(pruned.bytes)));
    if pruned.busy > 0 {
        output::note(&format!("{} are being downloaded, and stay", pruned.busy));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_words() {
        for (seconds, expected) in
            [(5, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (86_400 * 40, "40 days ago")]
        {
            assert_eq!(ago(Duration::from_secs(seconds)), expected);
        }
    }
}
