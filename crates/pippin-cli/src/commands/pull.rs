//! `pippin pull`: models of the hub, brought to this machine.

use std::path::Path;

use pippin::hub::{
    HubCache, HubClient, HubError, ModelConfiguration, ModelLocation, PullOptions, PullPlan, PulledModel,
};
use pippin::{EngineConfig, EngineError};
use serde::Serialize;

use crate::error::{CliError, Result};
use crate::output;
use crate::progress::Display;
use crate::settings::PullSettings;

/// Pulls models.
pub(super) fn run(settings: &PullSettings) -> Result<()> {
    let client = client(&settings.config)?;
    let cache = settings.config.hub_cache().map_err(EngineError::from)?;
    for model in &settings.models {
        let HubName { id, revision, quantization } =
            hub_model(model, settings.revision.as_deref(), &settings.config)?;
        let plan = match client.plan_of(&cache, &id, &revision, quantization.as_deref()) {
            Err(error @ (HubError::Offline { .. } | HubError::Network { .. })) => {
                // What is here needs no network, though nobody can tell whether the hub has something newer.
                let here = ModelConfiguration::hub(&id)
                    .with_revision(&revision)
                    .with_quantization(quantization.clone());
                let resolver = settings.config.resolver().map_err(EngineError::from)?;
                let directory = match (resolver.locate(&here), &quantization) {
                    (Ok(found), _) => found.directory,
                    // A model with several quantizations is here, whichever is meant.
                    (Err(HubError::Quantization { .. }), None) => {
                        cache.find(&id, &revision).map_err(EngineError::from)?
                    }
                    (Err(_), _) => return Err(EngineError::from(error).into()),
                };
                output::note(&format!("{error}; {id} is here already"));
                output::data(&Summary::present(&id, &revision, &directory).to_text(settings.json))?;
                continue;
            }
            plan => plan.map_err(EngineError::from)?,
        };
        for warning in &plan.warnings {
            output::warning(warning);
        }
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
    hub_model(model, revision, config).map(|HubName { id, revision, .. }| (id, revision))
}

/// What a name of a hub model stands for.
pub(super) struct HubName {
    pub(super) id: String,
    pub(super) revision: String,
    /// Which of the quantizations that it has as GGUF files.
    pub(super) quantization: Option<String>,
}

pub(super) fn hub_model(model: &str, revision: Option<&str>, config: &EngineConfig) -> Result<HubName> {
    let found = config.resolver().and_then(|resolver| resolver.configuration(model));
    let ModelConfiguration { location, quantization, .. } = found.map_err(EngineError::from)?;
    match location {
        ModelLocation::Hub { id, revision: own } => {
            Ok(HubName { id, revision: revision.map_or(own, str::to_owned), quantization })
        }
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
    let mut display = Display::new(&plan.id, plan.total_bytes(), plan.missing_bytes());
    let pulled = client.pull(cache, plan, options, |event| display.event(event));
    display.end();
    Ok(pulled.map_err(EngineError::from)?)
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

    /// Of a model that is here, where the hub cannot be asked.
    fn present(id: &str, revision: &str, directory: &Path) -> Self {
        let commit =
            directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let files: Vec<File> =
            super::show::files_of(directory).into_iter().map(|(path, bytes)| File { path, bytes }).collect();
        Self {
            model: id.to_owned(),
            revision: revision.to_owned(),
            commit,
            directory: Some(directory.display().to_string()),
            total_bytes: files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes)),
            transferred_bytes: Some(0),
            missing_bytes: None,
            files,
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
