//! Searching the hub for models that Pippin can run on this machine.

use pippin_weights::WeightFiles;
use serde::Serialize;
use serde_json::Value;

use crate::{Fit, HubClient, HubError, MemoryEstimate, ModelShape, RemoteModel, Result, SearchQuery};

/// The organisation whose models are searched unless another one is asked for.
pub const DEFAULT_AUTHOR: &str = "mlx-community";
/// Models on a page of the hub.
const PAGE: u32 = 100;
/// Pages that one search reads at most, when filters leave little of each.
const MAX_PAGES: usize = 20;
/// What the hub is asked to say about each model.
const FIELDS: &[&str] = &[
    "config",
    "createdAt",
    "downloads",
    "gated",
    "lastModified",
    "library_name",
    "likes",
    "pipeline_tag",
    "private",
    "safetensors",
    "tags",
];

/// Orders of search results; the largest or latest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SearchSort {
    /// By downloads of the last month.
    #[default]
    Downloads,
    /// By likes.
    Likes,
    /// By the time of the last change.
    Updated,
    /// By the time of creation.
    Created,
    /// By what the hub calls trending.
    Trending,
}

impl SearchSort {
    fn parameter(self) -> &'static str {
        match self {
            Self::Downloads => "downloads",
            Self::Likes => "likes",
            Self::Updated => "lastModified",
            Self::Created => "createdAt",
            Self::Trending => "trendingScore",
        }
    }
}

/// What to look for on the hub.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelSearch {
    /// Words of the name.
    pub words: String,
    /// The organisation; `None`: all, but only models made for MLX.
    pub author: Option<String>,
    /// Only models of this `model_type`.
    pub family: Option<String>,
    /// Only models whose weights have so many bits.
    pub bits: Option<u8>,
    /// Only models that fit this machine.
    pub fits_only: bool,
    /// Only models that Pippin can run.
    pub supported_only: bool,
    /// The order.
    pub sort: SearchSort,
    /// Models on a page of results.
    pub limit: usize,
    /// The page, from 1.
    pub page: usize,
}

impl Default for ModelSearch {
    fn default() -> Self {
        Self {
            words: String::new(),
            author: Some(DEFAULT_AUTHOR.to_owned()),
            family: None,
            bits: None,
            fits_only: false,
            supported_only: false,
            sort: SearchSort::default(),
            limit: 20,
            page: 1,
        }
    }
}

impl ModelSearch {
    /// With these words in the name.
    #[must_use]
    pub fn with_words(mut self, words: impl Into<String>) -> Self {
        self.words = words.into();
        self
    }

    /// Of this organisation, or of all.
    #[must_use]
    pub fn with_author(mut self, author: Option<impl Into<String>>) -> Self {
        self.author = author.map(Into::into);
        self
    }

    /// Only of this `model_type`, or of all.
    #[must_use]
    pub fn with_family(mut self, family: Option<impl Into<String>>) -> Self {
        self.family = family.map(Into::into);
        self
    }

    /// Only with weights of so many bits.
    #[must_use]
    pub fn with_bits(mut self, bits: impl Into<Option<u8>>) -> Self {
        self.bits = bits.into();
        self
    }

    /// Only such as fit this machine, or all.
    #[must_use]
    pub fn with_fits_only(mut self, fits_only: bool) -> Self {
        self.fits_only = fits_only;
        self
    }

    /// Only such as Pippin can run, or all.
    #[must_use]
    pub fn with_supported_only(mut self, supported_only: bool) -> Self {
        self.supported_only = supported_only;
        self
    }

    /// In this order.
    #[must_use]
    pub fn with_sort(mut self, sort: SearchSort) -> Self {
        self.sort = sort;
        self
    }

    /// With so many models on a page.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// This page, from 1.
    #[must_use]
    pub fn with_page(mut self, page: usize) -> Self {
        self.page = page;
        self
    }
}

/// What decides whether a model is of use here.
pub struct Judge<'a> {
    /// Whether Pippin runs models of a `model_type`. The engine knows; the hub only asks.
    pub is_supported: &'a dyn Fn(&str) -> bool,
    /// Bytes that models may take; `None` where that is not known.
    pub budget: Option<u64>,
    /// Bytes of memory that there are.
    pub total_memory: Option<u64>,
    /// Tokens of the context that has to fit.
    pub context: u64,
}

impl Judge<'_> {
    /// Whether so many bytes fit.
    pub fn fit(&self, need: u64) -> Option<Fit> {
        let budget = self.budget?;
        Some(Fit::of(need, budget, self.total_memory.unwrap_or(budget)))
    }
}

impl std::fmt::Debug for Judge<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge")
            .field("budget", &self.budget)
            .field("total_memory", &self.total_memory)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// A model that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FoundModel {
    /// `organisation/name`.
    pub id: String,
    /// The organisation.
    pub author: String,
    /// Downloads of the last month.
    pub downloads: u64,
    /// Likes.
    pub likes: u64,
    /// Bytes of the weights.
    pub bytes: Option<u64>,
    /// Number of weights.
    pub parameters: Option<u64>,
    /// Bits of a weight.
    pub bits: Option<u8>,
    /// `model_type`.
    pub family: Option<String>,
    /// Whether Pippin runs it; `None` where the hub does not know the family.
    pub supported: Option<bool>,
    /// Whether it fits this machine; `None` where its size or the memory is not known.
    pub fits: Option<Fit>,
    /// Bytes of memory it needs with the context that was asked for; an estimate.
    pub memory: Option<u64>,
    /// Whether a licence has to be accepted before it can be downloaded.
    pub gated: bool,
    /// When it was changed last.
    pub last_modified: Option<String>,
}

impl FoundModel {
    /// Puts together what the hub says about a model.
    pub fn new(model: &RemoteModel, judge: &Judge<'_>) -> Self {
        let shape = model.config.as_ref().map(ModelShape::from_config).unwrap_or_default();
        let family = shape.family.clone();
        let weights = RemoteWeights::new(model, &shape);
        let memory = weights
            .bytes
            .map(|bytes| MemoryEstimate::new(bytes, shape.kv_bytes_per_token, judge.context).total());
        Self {
            author: model.id.split_once('/').map_or("", |(author, _)| author).to_owned(),
            id: model.id.clone(),
            downloads: model.downloads,
            likes: model.likes,
            bytes: weights.bytes,
            parameters: weights.parameters,
            bits: weights.bits,
            supported: family.as_deref().map(judge.is_supported),
            family,
            fits: memory.and_then(|memory| judge.fit(memory)),
            memory,
            gated: model.gated,
            last_modified: model.last_modified.clone(),
        }
    }
}

/// What can be told of a remote model's weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemoteWeights {
    pub(crate) bytes: Option<u64>,
    pub(crate) parameters: Option<u64>,
    pub(crate) bits: Option<u8>,
}

impl RemoteWeights {
    pub(crate) fn new(model: &RemoteModel, shape: &ModelShape) -> Self {
        let bits = shape.bits.or_else(|| bits_of_name(&model.id));
        let counts = model.safetensors.as_ref().and_then(|value| value.get("parameters")?.as_object());
        let of_headers = counts.map(|counts| {
            counts
                .iter()
                .filter_map(|(dtype, count)| Some((dtype_bits(dtype)?, count.as_u64()?)))
                .collect::<Vec<_>>()
        });
        let of_files = {
            let all = model.siblings.iter().map(|file| (file.path.as_str(), file.size));
            // The index is not asked for: by their names alone it is nearly always the same files.
            let chosen =
                WeightFiles::choose(all.clone(), None).map(|chosen| chosen.files).unwrap_or_default();
            let is_weight = |path: &str| {
                if chosen.is_empty() {
                    path.ends_with(".safetensors") && !path.contains('/')
                } else {
                    chosen.iter().any(|chosen| chosen == path)
                }
            };
            let sizes: Vec<Option<u64>> =
                all.filter(|(path, _)| is_weight(path)).map(|(_, size)| size).collect();
            let known = !sizes.is_empty() && sizes.iter().all(Option::is_some);
            known.then(|| sizes.into_iter().flatten().fold(0_u64, u64::saturating_add))
        };
        let bytes = of_files.or_else(|| {
            let sum = of_headers.as_ref()?.iter().fold(0_u64, |sum, (bits, count)| {
                sum.saturating_add(count.saturating_mul(u64::from(*bits)) / 8)
            });
            (sum > 0).then_some(sum)
        });
        // MLX packs quantized weights into words of 32 bits, so the hub counts those; and it counts the scales and biases.
        let parameters = of_headers.as_ref().and_then(|counts| {
            let sum = |wanted: fn(u32) -> bool| {
                counts
                    .iter()
                    .filter(|(bits, _)| wanted(*bits))
                    .fold(0_u64, |sum, (_, count)| sum.saturating_add(*count))
            };
            let words = model
                .safetensors
                .as_ref()
                .and_then(|value| value.get("parameters")?.get("U32")?.as_u64())
                .unwrap_or(0);
            let all = sum(|_| true);
            let parameters = match bits.filter(|bits| words > 0 && (1..=16).contains(bits)) {
                Some(bits) => {
                    let packed = words.saturating_mul(32) / u64::from(bits);
                    let scales = packed.saturating_mul(2) / u64::from(shape.group_size.unwrap_or(64).max(1));
                    packed.saturating_add(all.saturating_sub(words).saturating_sub(scales))
                }
                None => all,
            };
            (parameters > 0).then_some(parameters)
        });
        let dense =
            || of_headers.as_ref()?.iter().max_by_key(|(_, count)| *count).map(|(bits, _)| *bits as u8);
        Self { bytes, parameters, bits: bits.or_else(dense) }
    }
}

fn dtype_bits(dtype: &str) -> Option<u32> {
    Some(match dtype {
        "F64" | "I64" | "U64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "BOOL" | "I8" | "U8" => 8,
        dtype if dtype.starts_with("F8") => 8,
        _ => return None,
    })
}

/// The bits that a name such as `Qwen3-4B-4bit` states.
fn bits_of_name(id: &str) -> Option<u8> {
    let name = id.rsplit('/').next()?.to_ascii_lowercase();
    name.split(['-', '_', '.']).find_map(|part| match part {
        "bf16" | "fp16" => Some(16),
        "mxfp4" | "nvfp4" => Some(4),
        "mxfp8" => Some(8),
        part => part.strip_suffix("bit")?.parse().ok().filter(|bits| (1..=32).contains(bits)),
    })
}

/// A page of results.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FoundModels {
    /// The models.
    pub models: Vec<FoundModel>,
    /// The page, from 1.
    pub page: usize,
    /// Whether there are more.
    pub has_more: bool,
    /// Models of the hub that were looked at.
    pub examined: usize,
    /// Whether the search ended before the hub's list did, because the filters left too little of it.
    pub is_cut: bool,
}

/// Searches the hub. Family, bits and room are told from what the hub knows of each model, so these filters may need
/// several of its pages; at most 20 are read.
///
/// # Errors
///
/// The hub cannot be reached, or its answer cannot be read.
pub fn search(client: &HubClient, search: &ModelSearch, judge: &Judge<'_>) -> Result<FoundModels> {
    let query = SearchQuery {
        words: search.words.clone(),
        author: search.author.clone(),
        // The organisation's models are for MLX, though not all are tagged so.
        filters: if search.author.is_some() { Vec::new() } else { vec!["mlx".to_owned()] },
        sort: Some(search.sort.parameter().to_owned()),
        limit: Some(PAGE),
        expand: FIELDS.iter().map(|field| (*field).to_owned()).collect(),
    };
    let explain = |error| match error {
        HubError::Offline { .. } => HubError::Offline { what: "searching the hub".to_owned() },
        error => error,
    };
    let limit = search.limit.clamp(1, 1000);
    let mut skip = search.page.max(1).saturating_sub(1).saturating_mul(limit);
    let mut found = FoundModels { page: search.page.max(1), ..FoundModels::default() };
    let mut page = client.search(&query).map_err(explain)?;
    for pages in 1.. {
        for model in &page.models {
            found.examined += 1;
            // A name that is none cannot be downloaded, and might be anything.
            if !crate::cache::is_hub_id(&model.id) {
                continue;
            }
            let model = FoundModel::new(model, judge);
            if !search.admits(&model) {
                continue;
            }
            if skip > 0 {
                skip -= 1;
            } else if found.models.len() < limit {
                found.models.push(model);
            } else {
                found.has_more = true;
                return Ok(found);
            }
        }
        // An empty page that names a next one would lead on for ever.
        let Some(next) = page.next.filter(|_| !page.models.is_empty()) else { break };
        if pages >= MAX_PAGES {
            found.is_cut = true;
            break;
        }
        page = client.search_next(&next).map_err(explain)?;
    }
    Ok(found)
}

impl ModelSearch {
    fn admits(&self, model: &FoundModel) -> bool {
        let is_family = self.family.as_deref().is_none_or(|wanted| {
            model.family.as_deref().is_some_and(|family| family.eq_ignore_ascii_case(wanted))
        });
        is_family
            && self.bits.is_none_or(|wanted| model.bits == Some(wanted))
            && (!self.fits_only || model.fits == Some(Fit::Yes))
            && (!self.supported_only || model.supported == Some(true))
    }
}

/// The largest `config.json` that is read.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// A model of the hub before it is downloaded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RemoteDescription {
    /// `organisation/name`.
    pub id: String,
    /// The revision that was asked for.
    pub revision: String,
    /// The commit that it is.
    pub commit: Option<String>,
    /// Its page.
    pub page: String,
    /// Whether Pippin runs it; `None` where the configuration does not tell the family.
    pub supported: Option<bool>,
    /// What its configuration says.
    pub shape: ModelShape,
    /// Number of weights.
    pub parameters: Option<u64>,
    /// Bits of a weight.
    pub bits: Option<u8>,
    /// Bytes of the weights.
    pub weight_bytes: Option<u64>,
    /// The memory it needs; an estimate.
    pub memory: Option<MemoryEstimate>,
    /// Whether it fits this machine.
    pub fits: Option<Fit>,
    /// The licence, as its tags name it.
    pub license: Option<String>,
    /// Whether a licence has to be accepted before it can be downloaded.
    pub gated: bool,
    /// Downloads of the last month.
    pub downloads: u64,
    /// Likes.
    pub likes: u64,
    /// When it was changed last.
    pub last_modified: Option<String>,
    /// Its files with their sizes in bytes.
    pub files: Vec<(String, Option<u64>)>,
}

/// Describes a model of the hub. Only the list of its files and its `config.json` are downloaded.
///
/// # Errors
///
/// The hub cannot be reached, has no such model, or its `config.json` is not JSON or larger than 4 MiB.
pub fn describe_remote(
    client: &HubClient,
    id: &str,
    revision: &str,
    judge: &Judge<'_>,
) -> Result<RemoteDescription> {
    let explain = |error| match error {
        HubError::Offline { .. } => HubError::Offline { what: format!("asking the hub about {id}") },
        error => error,
    };
    let model = client.model_info(id, revision).map_err(explain)?;
    // The commit, so that the description is of one state.
    let commit = model.sha.as_deref().filter(|commit| crate::cache::is_revision(commit));
    let config = match model.file("config.json") {
        Some(_) => {
            match client.fetch_small(id, commit.unwrap_or(revision), "config.json", MAX_CONFIG_BYTES) {
                Ok(bytes) => pippin_weights::json::parse(&bytes).map_err(|error| HubError::Protocol {
                    url: format!("{}/config.json", client.page(id)),
                    problem: error.to_string(),
                })?,
                // Of a model whose licence has to be accepted first, everybody may see what the hub says of it.
                Err(HubError::Gated { .. } | HubError::NoFile { .. } | HubError::NotOnHub { .. }) => {
                    model.config.clone().unwrap_or(Value::Null)
                }
                Err(error) => return Err(explain(error)),
            }
        }
        None => model.config.clone().unwrap_or(Value::Null),
    };
    let shape = ModelShape::from_config(&config);
    let weights = RemoteWeights::new(&model, &shape);
    let memory =
        weights.bytes.map(|bytes| MemoryEstimate::new(bytes, shape.kv_bytes_per_token, judge.context));
    Ok(RemoteDescription {
        id: model.id.clone(),
        revision: revision.to_owned(),
        commit: model.sha.clone(),
        page: client.page(id),
        supported: shape.family.as_deref().map(judge.is_supported),
        parameters: weights.parameters,
        bits: weights.bits,
        weight_bytes: weights.bytes,
        fits: memory.and_then(|memory| judge.fit(memory.total())),
        memory,
        shape,
        license: model.tags.iter().find_map(|tag| tag.strip_prefix("license:")).map(str::to_owned),
        gated: model.gated,
        downloads: model.downloads,
        likes: model.likes,
        last_modified: model.last_modified.clone(),
        files: model.siblings.into_iter().map(|file| (file.path, file.size)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model(value: Value) -> RemoteModel {
        serde_json::from_value(value).expect("a model")
    }

    #[test]
    fn packed_weights_are_counted_one_by_one() {
        // What the hub says about mlx-community/Qwen3-4B-4bit.
        let model = model(json!({
            "id": "mlx-community/Qwen3-4B-4bit",
            "safetensors": {"parameters": {"BF16": 125_906_944, "U32": 502_784_000}, "total": 628_690_944},
            "config": {"model_type": "qwen3", "quantization_config": {"bits": 4, "group_size": 64}}
        }));
        let shape = ModelShape::from_config(model.config.as_ref().expect("given"));
        let weights = RemoteWeights::new(&model, &shape);
        assert_eq!(weights.bits, Some(4));
        assert_eq!(weights.bytes, Some(125_906_944 * 2 + 502_784_000 * 4));
        assert!(weights.parameters.expect("counted").abs_diff(4_022_000_000) < 10_000_000, "{weights:?}");
    }

    #[test]
    fn sizes_of_files_win_over_headers() {
        let model = model(json!({
            "id": "a/b-8bit",
            "siblings": [{"rfilename": "model-1.safetensors", "size": 10}, {"rfilename": "model-2.safetensors", "size": 20},
                {"rfilename": "original/x.safetensors", "size": 500}, {"rfilename": "README.md", "size": 5}],
            "safetensors": {"parameters": {"BF16": 1000}}
        }));
        let weights = RemoteWeights::new(&model, &ModelShape::default());
        assert_eq!((weights.bytes, weights.bits, weights.parameters), (Some(30), Some(8), Some(1000)));
    }

    #[test]
    fn nonsense_is_no_size() {
        for safetensors in
            [json!(null), json!(3), json!({"parameters": [1]}), json!({"parameters": {"BF16": "many"}})]
        {
            let model = model(json!({"id": "a/b", "safetensors": safetensors}));
            assert_eq!(RemoteWeights::new(&model, &ModelShape::default()), RemoteWeights::default());
        }
        let huge =
            model(json!({"id": "a/b", "safetensors": {"parameters": {"F64": u64::MAX, "U32": u64::MAX}}}));
        RemoteWeights::new(&huge, &ModelShape { bits: Some(4), ..ModelShape::default() });
    }

    #[test]
    fn names_state_bits() {
        for (id, bits) in [
            ("a/Qwen3-4B-4bit", Some(4)),
            ("a/Qwen3-4B-4bit-DWQ-053125", Some(4)),
            ("a/x-bf16", Some(16)),
            ("a/gpt-oss-20b-MXFP4-Q8", Some(4)),
            ("4bit-org/x", None),
            ("a/x-99bit", None),
        ] {
            assert_eq!(bits_of_name(id), bits, "{id}");
        }
    }
}
