//! The hub's API.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::cache::{is_hub_id, is_revision};
use crate::http::{Answer, Ask, Http, encode, same_origin};
use crate::{HubError, Patience, Result, Token};

/// The server that is asked when `HF_ENDPOINT` is not set.
pub(crate) const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// The short name of its host, which leads to the same models.
pub(crate) const SHORT_HOST: &str = "hf.co";
/// The longest answer of the API that is read.
const MAX_API_BYTES: u64 = 64 << 20;

/// How the hub is reached.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HubOptions {
    /// The server, without a slash at its end.
    pub endpoint: String,
    /// Sent to that server, and to no other.
    pub token: Option<Token>,
    /// No request is made at all.
    pub is_offline: bool,
    /// Timeouts and retries.
    pub patience: Patience,
}

impl HubOptions {
    /// A server, without a token.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into().trim_end_matches('/').to_owned(),
            token: None,
            is_offline: false,
            patience: Patience::default(),
        }
    }

    /// The environment's: `HF_ENDPOINT`; `HF_TOKEN`, or the file `HF_TOKEN_PATH`, or `token` in `HF_HOME`;
    /// `HF_HUB_OFFLINE`. `HF_HUB_DISABLE_IMPLICIT_TOKEN` leaves the token file unread.
    ///
    /// # Errors
    ///
    /// [`HubError::Setting`] for a token that cannot be one.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let get = |name: &str| variable(name).filter(|value| !value.to_string_lossy().trim().is_empty());
        let text = |name: &str| get(name).map(|value| value.to_string_lossy().into_owned());
        let is_set = |name: &str| {
            text(name)
                .is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let mut options = Self::new(text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()));
        options.is_offline = is_set("HF_HUB_OFFLINE");
        let token = match text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
            Some(token) => Some(token),
            None if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") => None,
            None => token_file(|name| get(name).map(PathBuf::from))
                .and_then(|path| crate::cache::read_limited(&path, 4096)),
        };
        options.token = token.map(|token| Token::new(&token)).transpose()?.flatten();
        Ok(options)
    }
}

/// Where the Python tools keep the token.
fn token_file(get: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    get("HF_TOKEN_PATH")
        .or_else(|| Some(get("HF_HOME")?.join("token")))
        .or_else(|| Some(get("XDG_CACHE_HOME")?.join("huggingface").join("token")))
        .or_else(|| Some(std::env::home_dir()?.join(".cache").join("huggingface").join("token")))
        .map(crate::expand_path)
}

/// A model as the hub describes it. What is of another kind than it should be counts as not said: many servers speak like the
/// hub, and one odd number is no reason to show nothing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RemoteModel {
    /// `organisation/name`.
    pub id: String,
    /// The commit.
    #[serde(default, deserialize_with = "odd::text")]
    pub sha: Option<String>,
    /// The files. Searches leave sizes and hashes out.
    #[serde(default, deserialize_with = "odd::files")]
    pub siblings: Vec<RemoteFile>,
    /// Whether only some see it.
    #[serde(default, deserialize_with = "odd::flag")]
    pub private: bool,
    /// Whether a licence has to be accepted.
    #[serde(default, deserialize_with = "gated")]
    pub gated: bool,
    /// Downloads of the last 30 days.
    #[serde(default, deserialize_with = "odd::number")]
    pub downloads: u64,
    /// Likes.
    #[serde(default, deserialize_with = "odd::number")]
    pub likes: u64,
    /// Tags: library, quantization, languages, base models.
    #[serde(default, deserialize_with = "odd::texts")]
    pub tags: Vec<String>,
    /// When it was changed, in the form of ISO 8601.
    #[serde(default, deserialize_with = "odd::text")]
    pub last_modified: Option<String>,
    /// When it was created, in the form of ISO 8601.
    #[serde(default, deserialize_with = "odd::text")]
    pub created_at: Option<String>,
    /// What it is for, such as `text-generation`.
    #[serde(rename = "pipeline_tag", default, deserialize_with = "odd::text")]
    pub pipeline_tag: Option<String>,
    /// What runs it, such as `mlx`.
    #[serde(rename = "library_name", default, deserialize_with = "odd::text")]
    pub library_name: Option<String>,
    /// What the hub read from the headers of the weights: `total` and `parameters` by dtype.
    pub safetensors: Option<Value>,
    /// What the hub keeps of `config.json`: `model_type`, `architectures`, and a little more.
    pub config: Option<Value>,
    /// Bytes of all files of all revisions.
    #[serde(default, deserialize_with = "odd::size")]
    pub used_storage: Option<u64>,
}

impl RemoteModel {
    /// The file of this name.
    pub fn file(&self, path: &str) -> Option<&RemoteFile> {
        self.siblings.iter().find(|file| file.path == path)
    }
}

/// A file of a model on the hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "RawFile")]
#[non_exhaustive]
pub struct RemoteFile {
    /// Its name within the model, as the hub gives it: not checked in any way.
    pub path: String,
    /// Bytes.
    pub size: Option<u64>,
    /// What its content has to hash to.
    pub hash: Option<FileHash>,
}

/// The hash by which the hub, and its cache, know a file's content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileHash {
    /// Of a large file: the SHA-256 of its bytes, in hexadecimal.
    Sha256(String),
    /// Of a small one: what git calls the blob, the SHA-1 of a short header and the bytes.
    GitBlob(String),
}

impl FileHash {
    /// Tells by its length what a hash is, as it stands in ETags and file names of the cache.
    pub fn from_hex(text: &str) -> Option<Self> {
        if !text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return None;
        }
        match text.len() {
            64 => Some(Self::Sha256(text.to_owned())),
            40 => Some(Self::GitBlob(text.to_owned())),
            _ => None,
        }
    }

    /// The hexadecimal digits: the name of the blob in the cache.
    pub fn as_hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }
}

#[derive(Deserialize)]
struct RawFile {
    rfilename: String,
    #[serde(default, deserialize_with = "odd::size")]
    size: Option<u64>,
    #[serde(rename = "blobId", default, deserialize_with = "odd::text")]
    blob_id: Option<String>,
    lfs: Option<RawLfs>,
}

#[derive(Deserialize)]
struct RawLfs {
    sha256: Option<String>,
    oid: Option<String>,
    size: Option<u64>,
}

impl From<RawFile> for RemoteFile {
    fn from(raw: RawFile) -> Self {
        let lower = |hash: String| hash.trim_start_matches("sha256:").to_ascii_lowercase();
        let hash = match &raw.lfs {
            // The git blob of a large file is only its pointer.
            Some(lfs) => lfs.sha256.clone().or_else(|| lfs.oid.clone()).map(lower),
            None => raw.blob_id.map(lower),
        };
        let size = raw.lfs.and_then(|lfs| lfs.size).or(raw.size);
        Self { path: raw.rfilename, size, hash: hash.and_then(|hash| FileHash::from_hex(&hash)) }
    }
}

/// Fields that are read whatever they hold.
mod odd {
    use super::{Deserialize, Deserializer, RemoteFile, Value};

    pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        Ok(pippin_weights::json::unsigned(&Value::deserialize(deserializer)?))
    }

    pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Ok(size(deserializer)?.unwrap_or_default())
    }

    pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        Ok(Value::deserialize(deserializer)?.as_bool().unwrap_or_default())
    }

    pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
        Ok(Value::deserialize(deserializer)?.as_str().map(str::to_owned))
    }

    pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        let Value::Array(values) = Value::deserialize(deserializer)? else { return Ok(Vec::new()) };
        Ok(values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    pub(super) fn files<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RemoteFile>, D::Error> {
        let Value::Array(values) = Value::deserialize(deserializer)? else { return Ok(Vec::new()) };
        Ok(values.into_iter().filter_map(|file| serde_json::from_value(file).ok()).collect())
    }
}

/// `false`, `"auto"` or `"manual"`.
fn gated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Bool(is_gated) => is_gated,
        Value::String(_) => true,
        _ => false,
    })
}

/// What to search for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchQuery {
    /// Words of the name.
    pub words: String,
    /// The organisation.
    pub author: Option<String>,
    /// Tags that all must be there, such as `mlx`.
    pub filters: Vec<String>,
    /// `downloads`, `likes`, `lastModified`, `createdAt`, `trendingScore`; the largest first.
    pub sort: Option<String>,
    /// Models on a page.
    pub limit: Option<u32>,
    /// Further fields of each model that the hub leaves out by default: `safetensors`, `config`, `usedStorage`, ….
    /// When there are any, the hub sends those and no others.
    pub expand: Vec<String>,
}

impl SearchQuery {
    /// With these words in the name.
    #[must_use]
    pub fn with_words(mut self, words: impl Into<String>) -> Self {
        self.words = words.into();
        self
    }

    /// Of this organisation.
    #[must_use]
    pub fn with_author(mut self, author: Option<impl Into<String>>) -> Self {
        self.author = author.map(Into::into);
        self
    }

    /// With all of these tags.
    #[must_use]
    pub fn with_filters<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.filters = tags.into_iter().map(Into::into).collect();
        self
    }

    /// In this order.
    #[must_use]
    pub fn with_sort(mut self, sort: Option<impl Into<String>>) -> Self {
        self.sort = sort.map(Into::into);
        self
    }

    /// With so many models on a page.
    #[must_use]
    pub fn with_limit(mut self, limit: impl Into<Option<u32>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// With these fields of each model.
    #[must_use]
    pub fn with_expand<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Self {
        self.expand = fields.into_iter().map(Into::into).collect();
        self
    }
}

/// A page of what was found.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SearchPage {
    /// The models, in the order that was asked for.
    pub models: Vec<RemoteModel>,
    /// Where the next page is, for [`HubClient::search_next`].
    pub next: Option<String>,
}

/// The hub: what it has, and its files.
///
/// Cloning shares the connections.
#[derive(Clone)]
pub struct HubClient {
    inner: Arc<Inner>,
}

struct Inner {
    http: Http,
    options: HubOptions,
}

impl std::fmt::Debug for HubClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubClient").field("options", &self.inner.options).finish()
    }
}

impl HubClient {
    /// The hub that the environment describes.
    ///
    /// # Errors
    ///
    /// [`HubError::Setting`] for an address or a token that cannot be one.
    pub fn from_env() -> Result<Self> {
        Self::new(HubOptions::from_env()?)
    }

    /// A hub.
    ///
    /// # Errors
    ///
    /// [`HubError::Setting`] for an address that cannot be one.
    pub fn new(options: HubOptions) -> Result<Self> {
        let http = Http::new(&options.endpoint, options.token.clone(), &options.patience)?;
        Ok(Self { inner: Arc::new(Inner { http, options }) })
    }

    /// How it is reached.
    pub fn options(&self) -> &HubOptions {
        &self.inner.options
    }

    /// The model's page.
    pub fn page(&self, id: &str) -> String {
        format!("{}/{id}", self.inner.options.endpoint)
    }

    /// What the hub says about a model, with sizes and hashes of its files.
    ///
    /// # Errors
    ///
    /// The names are invalid, the hub cannot be reached, or it has no such model or does not show it.
    pub fn model_info(&self, id: &str, revision: &str) -> Result<RemoteModel> {
        check_names(id, revision)?;
        let endpoint = &self.inner.options.endpoint;
        let url = format!("{endpoint}/api/models/{id}/revision/{}?blobs=true", encode(revision, false));
        let bytes = self.retried(|| self.ask(&url, Ask::default())?.bytes(MAX_API_BYTES));
        let bytes = bytes.map_err(|error| self.explain(error, id, revision, None))?;
        let model: RemoteModel = parse(&url, &bytes)?;
        // The name becomes folders and questions to the user: it must be the one that was asked for, or a proper one.
        if !is_hub_id(&model.id) {
            return Err(HubError::InvalidName { name: model.id, what: "hub id" });
        }
        Ok(model)
    }

    /// Searches for models.
    ///
    /// # Errors
    ///
    /// The hub cannot be reached, or its answer cannot be read.
    pub fn search(&self, query: &SearchQuery) -> Result<SearchPage> {
        let mut url = format!("{}/api/models?direction=-1", self.inner.options.endpoint);
        let mut add = |name: &str, value: &str| url.push_str(&format!("&{name}={}", encode(value, false)));
        if !query.words.trim().is_empty() {
            add("search", query.words.trim());
        }
        if let Some(author) = &query.author {
            add("author", author);
        }
        for filter in &query.filters {
            add("filter", filter);
        }
        if let Some(sort) = &query.sort {
            add("sort", sort);
        }
        if let Some(limit) = query.limit {
            add("limit", &limit.to_string());
        }
        for field in &query.expand {
            add("expand[]", field);
        }
        self.search_next(&url)
    }

    /// The next page of a search.
    ///
    /// # Errors
    ///
    /// As for [`search`](Self::search).
    pub fn search_next(&self, next: &str) -> Result<SearchPage> {
        if !same_origin(next, &self.inner.options.endpoint) {
            let problem = "a next page on another server".to_owned();
            return Err(HubError::Protocol { url: self.inner.options.endpoint.clone(), problem });
        }
        self.retried(|| {
            let answer = self.ask(next, Ask::default())?;
            let following = answer.header("link").and_then(next_link);
            let models: Vec<Value> = parse(next, &answer.bytes(MAX_API_BYTES)?)?;
            // One that has not even a name is none; but where none has, this is no list of models.
            let (models, failed): (Vec<_>, Vec<_>) =
                models.into_iter().map(serde_json::from_value).partition(Result::is_ok);
            if let (true, Some(Err(error))) = (models.is_empty(), failed.into_iter().next()) {
                return Err(no_sense(next, &error));
            }
            let models = models.into_iter().flatten().collect();
            Ok(SearchPage { models, next: following })
        })
    }

    /// A small file of a model, in memory.
    ///
    /// # Errors
    ///
    /// As for [`model_info`](Self::model_info); [`HubError::NoFile`]; [`HubError::TooLarge`].
    pub fn fetch_small(&self, id: &str, revision: &str, path: &str, max_bytes: u64) -> Result<Vec<u8>> {
        check_names(id, revision)?;
        crate::store::check_file_name(id, path)?;
        let url = self.file_url(id, revision, path);
        self.retried(|| self.ask(&url, Ask::default())?.bytes(max_bytes))
            .map_err(|error| self.explain(error, id, revision, Some(path)))
    }

    /// Where a file is.
    pub(crate) fn file_url(&self, id: &str, revision: &str, path: &str) -> String {
        let endpoint = &self.inner.options.endpoint;
        format!("{endpoint}/{id}/resolve/{}/{}", encode(revision, false), encode(path, true))
    }

    /// Asks once.
    pub(crate) fn ask(&self, url: &str, ask: Ask) -> Result<Answer> {
        if self.inner.options.is_offline {
            return Err(HubError::Offline { what: "this".to_owned() });
        }
        self.inner.http.get(url, ask)
    }

    pub(crate) fn patience(&self) -> &Patience {
        &self.inner.options.patience
    }

    /// Repeats what fails for reasons that may pass. Where there has not been as much as a connection, that is most often a machine
    /// without a network, and somebody who waits to be told so.
    pub(crate) fn retried<T>(&self, mut action: impl FnMut() -> Result<T>) -> Result<T> {
        let patience = self.patience();
        let begin = Instant::now();
        let (mut failures, mut was_connected) = (0, false);
        loop {
            match action() {
                Err(error) if error.is_transient() && failures < patience.retries => {
                    failures += 1;
                    was_connected |= !matches!(error, HubError::Network { is_connected: false, .. });
                    let wait = patience.wait(failures, &error);
                    if !was_connected && begin.elapsed() + wait > patience.unreachable {
                        return Err(error);
                    }
                    std::thread::sleep(wait);
                }
                result => return result,
            }
        }
    }

    /// Says what a failure means for a model.
    pub(crate) fn explain(&self, error: HubError, id: &str, revision: &str, path: Option<&str>) -> HubError {
        let has_token = self.inner.http.has_token();
        let id = id.to_owned();
        match error {
            HubError::Status { status: 401..=404, message, .. } if message.contains("GatedRepo") => {
                HubError::Gated { page: self.page(&id), id, has_token }
            }
            HubError::Status { status: 404, message, .. } if message.contains("RevisionNotFound") => {
                HubError::NoRevision { id, revision: revision.to_owned() }
            }
            HubError::Status { status: 404, message, .. }
                if path.is_some() && !message.contains("RepoNotFound") =>
            {
                HubError::NoFile { id, path: path.unwrap_or_default().to_owned() }
            }
            HubError::Status { status: 401, message, .. }
                if has_token && message.to_ascii_lowercase().contains("invalid credentials") =>
            {
                HubError::BadToken
            }
            // The hub says 401 where a model is not there, so as not to tell which private ones are.
            HubError::Status { status: 401 | 403 | 404, .. } => HubError::NotOnHub { id, has_token },
            HubError::Offline { .. } => HubError::Offline { what: format!("downloading {id}") },
            error => error,
        }
    }
}

pub(crate) fn check_names(id: &str, revision: &str) -> Result<()> {
    if !is_hub_id(id) {
        return Err(HubError::InvalidName { name: id.to_owned(), what: "hub id" });
    }
    if !is_revision(revision) {
        return Err(HubError::InvalidName { name: revision.to_owned(), what: "revision" });
    }
    Ok(())
}

fn parse<T: for<'de> Deserialize<'de>>(url: &str, bytes: &[u8]) -> Result<T> {
    pippin_weights::json::parse(bytes).and_then(serde_json::from_value).map_err(|error| no_sense(url, &error))
}

fn no_sense(url: &str, error: &serde_json::Error) -> HubError {
    let url = url.split('?').next().unwrap_or_default().to_owned();
    HubError::Protocol { url, problem: error.to_string() }
}

/// The address of `rel="next"` in a `Link` header.
fn next_link(header: &str) -> Option<String> {
    header.split(',').find_map(|link| {
        let (address, parameters) = link.split_once('>')?;
        parameters.contains("rel=\"next\"").then(|| address.trim().trim_start_matches('<').to_owned())
    })
}

impl HubOptions {
    /// With this token, or without.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<Option<Token>>) -> Self {
        self.token = token.into();
        self
    }

    /// Makes no request, or may.
    #[must_use]
    pub fn with_offline(mut self, is_offline: bool) -> Self {
        self.is_offline = is_offline;
        self
    }

    /// With these timeouts and retries.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn options(variables: &[(&str, &str)]) -> Result<HubOptions> {
        HubOptions::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn tokens_come_from_the_nearest_place() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(&path, text).expect("written");
            path.to_str().expect("UTF-8").to_owned()
        };
        let named = write("my token", " hf_named\n");
        let home = Path::new(&write("home/token", "hf_home\r\n")).parent().expect("a folder").to_owned();
        let home = home.to_str().expect("UTF-8");
        write("xdg/huggingface/token", "hf_xdg");
        let xdg = root.path().join("xdg");
        let xdg = ("XDG_CACHE_HOME", xdg.to_str().expect("UTF-8"));
        let token = |text: &str| Token::new(text).expect("valid");

        let all = [
            ("HF_TOKEN", "hf_variable"),
            ("HUGGING_FACE_HUB_TOKEN", "hf_old_variable"),
            ("HF_TOKEN_PATH", named.as_str()),
            ("HF_HOME", home),
            xdg,
        ];
        for (first, expected) in
            ["hf_variable", "hf_old_variable", "hf_named", "hf_home", "hf_xdg"].iter().enumerate()
        {
            assert_eq!(options(&all[first..]).expect("valid").token, token(expected));
        }
        // What is empty is not set.
        let empty = [("HF_TOKEN", " \n"), ("HF_TOKEN_PATH", ""), ("HF_HOME", home)];
        assert_eq!(options(&empty).expect("valid").token, token("hf_home"));
        // A file that was named is the only one that is read.
        assert_eq!(
            options(&[("HF_TOKEN_PATH", "/no/such/file"), ("HF_HOME", home)]).expect("valid").token,
            None
        );
        let implicit = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
        assert_eq!(options(&[implicit, ("HF_HOME", home)]).expect("valid").token, None);
        assert_eq!(options(&[implicit, all[0]]).expect("valid").token, token("hf_variable"));
        // A file that is no token says so rather than being sent.
        let wrong = write("wrong", "hf_one hf_two");
        assert!(matches!(options(&[("HF_TOKEN_PATH", &wrong)]), Err(HubError::Setting { .. })));
    }

    #[test]
    fn the_endpoint_and_the_network_are_the_environments() {
        let nothing = options(&[("HF_HOME", "/no/such/folder")]).expect("valid");
        assert_eq!((nothing.endpoint.as_str(), nothing.is_offline), (DEFAULT_ENDPOINT, false));
        let set =
            [("HF_ENDPOINT", "https://mirror.example/"), ("HF_HUB_OFFLINE", "yes"), ("HF_HOME", "/none")];
        let set = options(&set).expect("valid");
        assert_eq!((set.endpoint.as_str(), set.is_offline), ("https://mirror.example", true));
    }
}
