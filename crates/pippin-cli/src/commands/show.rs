//! `pippin show`: what a model is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pippin::EngineError;
use pippin::hub::{Fit, Hardware, HubError, RemoteDescription};
use pippin::loading::TextProcessor;
use pippin::models::{CacheLayout, Mixture, ModelInfo, StoredWeights};
use pippin::tensor::KvFormat;
use pippin::weights::gguf::SplitName;
use serde::Serialize;

use crate::error::Result;
use crate::machine;
use crate::output::{self, visible};
use crate::settings::ShowSettings;

/// Describes the model. Its weights are not read.
pub(super) fn run(settings: &ShowSettings) -> Result<()> {
    let resolver = settings.config.resolver().map_err(EngineError::from)?;
    let found = match resolver.resolve(&settings.model) {
        // Without the network there is nothing more to say than that it is not here.
        Err(HubError::NotCached { id, revision, quantization, .. }) if !settings.config.hub.offline => {
            return remote(settings, &id, &revision, quantization.as_deref().map(String::as_str));
        }
        found => found.map_err(EngineError::from)?,
    };
    let mut info = pippin::models::describe(&found.directory).map_err(EngineError::from)?;
    let processor = TextProcessor::from_dir(&found.directory, &found.configuration)?;
    info.warnings.extend(processor.warnings.iter().cloned());
    for warning in &info.warnings {
        output::warning(warning);
    }
    let options = settings.config.load_options(&found.configuration.name());
    let format = options.kv_format_of(info.dtype);
    let description =
        Description::new(found.configuration.name(), &found.directory, info, format, &processor);
    let text = if settings.json {
        format!("{}\n", output::json_pretty(&description))
    } else {
        description.to_text()
    };
    output::data(&text)?;
    Ok(())
}

/// Describes a model of the hub that is not on this machine.
fn remote(settings: &ShowSettings, id: &str, revision: &str, quantization: Option<&str>) -> Result<()> {
    let hub = machine::hub(&settings.config)?;
    if quantization.is_some() {
        // One that it has not is refused, with a list of those that it has.
        let cache = settings.config.hub_cache().map_err(EngineError::from)?;
        hub.plan_of(&cache, id, revision, quantization).map_err(EngineError::from)?;
    }
    let hardware = Hardware::detect();
    let (config, gpu) = (&settings.config, settings.config.device.memory());
    let judge = machine::judge(&hardware, gpu.as_ref(), config, config.context.unwrap_or(4096) as u64);
    let description = pippin::hub::describe_remote(&hub, id, revision, &judge).map_err(EngineError::from)?;
    if settings.json {
        // What is here has a folder, what is not has a page.
        output::data(&format!("{}\n", output::json_pretty(&description)))?;
        return Ok(());
    }
    output::data(&remote_text(&description))?;
    let quantization = quantization.map(|quantization| format!(":{quantization}")).unwrap_or_default();
    output::hint(&format!("download it: pippin pull {id}{quantization}"));
    Ok(())
}

fn remote_text(description: &RemoteDescription) -> String {
    let shape = &description.shape;
    let unknown = || "unknown".to_owned();
    let number = |value: Option<u64>| value.map_or_else(unknown, |value| value.to_string());
    let family = match (&shape.family, description.supported) {
        (Some(family), Some(true)) => format!("{family} (runs)"),
        (Some(family), _) => format!("{family} (does not run in this version)"),
        (None, _) => unknown(),
    };
    let quantization = match (shape.bits, shape.group_size) {
        (Some(bits), Some(group)) => {
            format!("{bits} bits, groups of {group}, {}", shape.mode.as_deref().unwrap_or("affine"))
        }
        (Some(bits), None) => format!("{bits} bits"),
        (None, _) => format!("none ({})", shape.dtype.as_deref().unwrap_or("type unknown")),
    };
    let all_files = description.files.iter().filter_map(|(_, size)| *size).fold(0_u64, u64::saturating_add);
    let mut rows = vec![
        ("status", "not on this machine".to_owned()),
        ("page", description.page.clone()),
        (
            "revision",
            match &description.commit {
                Some(commit) => format!("{} ({commit})", description.revision),
                None => description.revision.clone(),
            },
        ),
        ("family", family),
        ("parameters", description.parameters.map_or_else(unknown, output::count)),
        ("weights", description.weight_bytes.map_or_else(unknown, output::bytes)),
        ("all files", output::bytes(all_files)),
        ("quantization", quantization),
    ];
    if let Some(memory) = description.memory {
        let fits = match description.fits {
            Some(Fit::Yes) => "; fits this machine",
            Some(Fit::Tight) => "; fits this machine when other programs make room",
            Some(_) => "; does not fit this machine",
            None => "",
        };
        let about = if memory.is_rough { "very roughly" } else { "about" };
        let need = output::bytes(memory.total());
        rows.push(("memory", format!("{about} {need} with a context of {} tokens{fits}", memory.context)));
    }
    rows.push(("context", shape.context_length.map_or_else(unknown, |tokens| format!("{tokens} tokens"))));
    rows.push(("layers", number(shape.layers)));
    rows.push(("hidden size", number(shape.hidden_size)));
    rows.push((
        "heads",
        format!(
            "{} ({} for keys and values), dimension {}",
            number(shape.heads),
            number(shape.kv_heads),
            number(shape.head_dim)
        ),
    ));
    rows.push(("vocabulary", shape.vocab_size.map_or_else(unknown, |tokens| format!("{tokens} tokens"))));
    let licence = description.license.clone().unwrap_or_else(unknown);
    rows.push((
        "licence",
        if description.gated { format!("{licence}; has to be accepted on its page") } else { licence },
    ));
    rows.push(("downloads", format!("{} last month; {} likes", description.downloads, description.likes)));
    if let Some(time) = &description.last_modified {
        rows.push(("changed", time.clone()));
    }
    let mut text = format!("{}\n", visible(&description.id));
    for (name, value) in rows {
        let _ = writeln!(text, "  {name:15} {}", visible(&value).replace('\n', "␊"));
    }
    let _ = writeln!(text, "  files");
    // A repository may have thousands; the largest tell the most.
    let mut files: Vec<&(String, Option<u64>)> = description.files.iter().collect();
    files.sort_by_key(|(_, size)| std::cmp::Reverse(size.unwrap_or(0)));
    let rest = files.len().saturating_sub(MAX_FILES);
    files.truncate(MAX_FILES);
    let width = files.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(60);
    for (name, size) in files {
        let size = size.map_or_else(unknown, output::bytes);
        let _ = writeln!(text, "    {:width$}  {size:>10}", visible(name).replace('\n', "␊"));
    }
    if rest > 0 {
        let _ = writeln!(text, "    and {rest} more");
    }
    text
}

/// The most files of a remote model that are listed.
const MAX_FILES: usize = 40;

#[derive(Serialize)]
struct Description {
    model: String,
    directory: PathBuf,
    #[serde(flatten)]
    info: ModelInfo,
    kept: Kept,
    chat_template: Option<Template>,
    special_tokens: BTreeMap<String, String>,
    stop_tokens: Vec<StopToken>,
    stop_strings: Vec<String>,
    files: Vec<File>,
}

/// What a sequence keeps between steps.
#[derive(Serialize)]
struct Kept {
    /// How keys and values are stored.
    format: &'static str,
    /// Bytes of keys and values for each token, over all layers.
    bytes_per_token: u64,
    /// The part of them that is kept while it is in a layer's window or chunk only, and how long the longest of these is.
    bytes_per_windowed_token: u64,
    longest_window: Option<usize>,
    /// Bytes that do not depend on its length.
    bytes_per_sequence: u64,
}

impl Kept {
    fn new(layout: &CacheLayout, format: KvFormat) -> Self {
        let windowed = layout.groups.iter().filter(|group| group.reach.limit().is_some());
        Self {
            format: format.as_str(),
            bytes_per_token: layout.token_bytes(format),
            bytes_per_windowed_token: windowed.clone().map(|group| group.token_bytes(format)).sum(),
            longest_window: windowed.filter_map(|group| group.reach.limit()).max(),
            bytes_per_sequence: layout.state_bytes,
        }
    }

    fn to_text(&self) -> String {
        let mut parts = Vec::new();
        if self.bytes_per_token > 0 {
            let mut text = format!("{} bytes per token ({})", self.bytes_per_token, self.format);
            if let Some(window) = self.longest_window {
                let windowed = self.bytes_per_windowed_token;
                let _ = write!(text, ", {windowed} of them for the last {window} tokens only");
            }
            parts.push(text);
        }
        if self.bytes_per_sequence > 0 {
            parts.push(format!("{} per sequence", output::bytes(self.bytes_per_sequence)));
        }
        if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") }
    }
}

#[derive(Serialize)]
struct Template {
    /// The variants: `default`, and `tool_use` where another one is used with tools.
    names: Vec<&'static str>,
    supports_tools: bool,
    /// Whether it can be used: one that cannot be read, or has a mistake, is told of by a warning.
    is_sound: bool,
    /// Whether thinking can be switched on and off (`enable_thinking`).
    thinking_switch: bool,
}

#[derive(Serialize)]
struct StopToken {
    id: u32,
    token: Option<String>,
}

#[derive(Serialize)]
struct File {
    name: String,
    bytes: u64,
}

impl Description {
    fn new(
        model: String,
        directory: &Path,
        info: ModelInfo,
        format: KvFormat,
        processor: &TextProcessor,
    ) -> Self {
        let tokenizer = &processor.tokenizer;
        let chat_template = processor.chat_template.as_deref().map(|template| {
            let (plain, with_tools) = (template.source(false), template.source(true));
            Template {
                names: if plain == with_tools { vec!["default"] } else { vec!["default", "tool_use"] },
                supports_tools: with_tools.contains("tools"),
                is_sound: template.is_sound(false),
                thinking_switch: plain.contains("enable_thinking"),
            }
        });
        let special = tokenizer.special_tokens().iter();
        let stop = processor.stop_tokens.iter();
        Self {
            model,
            directory: directory.to_owned(),
            kept: Kept::new(&info.cache, format),
            info,
            chat_template,
            special_tokens: special.map(|(name, token)| (name.to_owned(), token.to_owned())).collect(),
            stop_tokens: stop.map(|id| StopToken { id, token: tokenizer.id_to_token(id) }).collect(),
            stop_strings: processor.stop_strings.clone(),
            files: files_of(directory).into_iter().map(|(name, bytes)| File { name, bytes }).collect(),
        }
    }

    fn to_text(&self) -> String {
        let ModelInfo { model_type, family, layers, hidden_size, heads, kv_heads, head_dim, .. } = &self.info;
        let family =
            if model_type == family { family.to_string() } else { format!("{family} ({model_type})") };
        let dense = || format!("none ({})", self.info.dtype);
        let mut quantization =
            self.info.quantization.map_or_else(dense, |quantization| quantization.to_string());
        let all: u64 = self.info.stored.iter().map(|stored| stored.weights).sum();
        for StoredWeights { quantization: other, weights } in self.info.stored.iter().skip(1) {
            let name = other.map_or_else(|| self.info.dtype.to_string(), |other| other.to_string());
            let share = 100.0 * *weights as f64 / all.max(1) as f64;
            let _ = write!(quantization, "; {name} of {share:.1} % of the weights");
        }
        let template = match &self.chat_template {
            None => "none".to_owned(),
            Some(template) => {
                let mut words = template.names.join(", ");
                words.push_str(if template.supports_tools { "; supports tools" } else { "; no tools" });
                if !template.is_sound {
                    words = "cannot be used".to_owned();
                } else if template.thinking_switch {
                    words.push_str("; enable_thinking");
                }
                words
            }
        };
        let mut parameters = output::count(self.info.parameters);
        for Mixture { experts, used, .. } in &self.info.mixtures {
            let _ = write!(parameters, "; {used} of {experts} experts for each token");
        }
        if !self.info.mixtures.is_empty() {
            let _ = write!(parameters, ", {} active", output::count(self.info.active_parameters));
        }
        let mut rows = vec![
            ("family", family),
            ("parameters", parameters),
            (
                "weights",
                format!(
                    "{}, {:.2} bits per weight",
                    output::bytes(self.info.weight_bytes),
                    self.info.bits_per_weight
                ),
            ),
            ("quantization", quantization),
        ];
        if self.info.copied_bytes > 0 {
            let copied = output::bytes(self.info.copied_bytes);
            rows.push((
                "repacked",
                format!("{copied} of the weights, when the model is loaded: they are stored otherwise"),
            ));
        }
        rows.extend([
            ("context", format!("{} tokens", self.info.context_length)),
            ("layers", layers.to_string()),
            ("hidden size", hidden_size.to_string()),
        ]);
        if *heads > 0 {
            let heads = format!("{heads} ({kv_heads} for keys and values), dimension {head_dim}");
            rows.push(("heads", heads));
        }
        if let Some(window) = self.info.sliding_window {
            rows.push(("window", format!("{window} tokens")));
        }
        rows.push(("cache", self.kept.to_text()));
        rows.push(("vocabulary", format!("{} tokens", self.info.vocab_size)));
        rows.push(("output head", if self.info.tied_head { "the embedding" } else { "its own" }.to_owned()));
        rows.push(("chat template", template));
        let special = self.special_tokens.iter().map(|(name, token)| format!("{name} {token}"));
        rows.push(("special tokens", list(special)));
        let stop = self.stop_tokens.iter().map(|stop| match &stop.token {
            Some(token) => format!("{token} ({})", stop.id),
            None => stop.id.to_string(),
        });
        rows.push(("stop tokens", list(stop)));
        if !self.stop_strings.is_empty() {
            rows.push(("stop strings", list(self.stop_strings.iter().map(|text| format!("{text:?}")))));
        }
        let place = if self.directory.is_file() { "file" } else { "folder" };
        rows.push((place, self.directory.display().to_string()));

        let mut text = format!("{}\n", visible(&self.model));
        for (name, value) in rows {
            let _ = writeln!(text, "  {name:15} {}", visible(&value).replace('\n', "␊"));
        }
        let _ = writeln!(text, "  files");
        let width = self.files.iter().map(|file| file.name.chars().count()).max().unwrap_or(0).min(60);
        for File { name, bytes } in &self.files {
            let _ = writeln!(
                text,
                "    {:width$}  {:>10}",
                visible(name).replace('\n', "␊"),
                output::bytes(*bytes)
            );
        }
        text
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// The files of a folder with their sizes, by name. The hub's cache is made of links: sizes are those of their targets.
///
/// Of a GGUF file those are it and the others of its set.
pub(super) fn files_of(directory: &Path) -> Vec<(String, u64)> {
    if let (true, Some(folder)) = (directory.is_file(), directory.parent()) {
        let name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let names = SplitName::of(&name).map_or_else(|| vec![name.clone()], |set| set.names().collect());
        let size = |name: &String| std::fs::metadata(folder.join(name)).map_or(0, |metadata| metadata.len());
        return names.into_iter().map(|name| (name.clone(), size(&name))).collect();
    }
    let mut files: Vec<(String, u64)> = directory
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let metadata = std::fs::metadata(entry.path()).ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            (metadata.is_file() && !name.starts_with('.')).then_some((name, metadata.len()))
        })
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use pippin::models::CacheGroup;
    use pippin::tensor::{Reach, ValueStore};

    use super::*;

    #[test]
    fn what_a_sequence_keeps_is_the_architectures_formula() {
        let full = CacheGroup {
            layers: 3,
            kv_heads: 2,
            key_dim: 64,
            values: ValueStore::Own(64),
            reach: Reach::All,
        };
        let text = |groups: Vec<CacheGroup>, state_bytes, format| {
            Kept::new(&CacheLayout { groups, state_bytes }, format).to_text()
        };
        assert_eq!(text(vec![full], 0, KvFormat::Bf16), "1536 bytes per token (bf16)");
        let windowed = CacheGroup { layers: 1, reach: Reach::Window(512), ..full };
        assert_eq!(
            text(vec![full, windowed], 5_000_000, KvFormat::F16),
            "2048 bytes per token (f16), 512 of them for the last 512 tokens only; 5.0 MB per sequence"
        );
        // DeepSeek V3: 61 layers of a latent vector of 512 and a rotated key of 64.
        let latent = CacheGroup {
            layers: 61,
            kv_heads: 1,
            key_dim: 576,
            values: ValueStore::InKeys(512),
            reach: Reach::All,
        };
        assert_eq!(text(vec![latent], 0, KvFormat::Bf16), "70272 bytes per token (bf16)");
        assert_eq!(text(vec![], 1000, KvFormat::F32), "1.0 kB per sequence");
    }
}
