use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::{is_folder_of_gguf, is_hub_id, missing};
use crate::{
    HubCache, HubError, ModelConfiguration, ModelLocation, ModelRegistry, Result, address, expand_path, gguf,
    nano,
};

/// A model that is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResolvedModel {
    /// What was asked for.
    pub configuration: ModelConfiguration,
    /// The folder with its files, or its GGUF file, the first of a set.
    pub directory: PathBuf,
}

/// Which model it is, by whatever name or folder it was asked for: what is the same model is equal.
///
/// Revisions of a model are one model. The case of a hub id does not matter, a folder is the same however its path is
/// written, and a folder of the Hugging Face cache is the model that it holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelIdentity(Identity);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Identity {
    /// The id, and which of its quantizations.
    Hub(String, Option<String>),
    Folder(PathBuf),
    Shipped,
}

/// Finds a model by folder, hub id, alias, or the name of the shipped model, in the environment's places.
///
/// # Errors
///
/// Whatever [`Resolver::resolve`] returns.
pub fn resolve(model: &str) -> Result<ResolvedModel> {
    ModelRegistry::local()?;
    Resolver::from_env().resolve(model)
}

/// Whether an argument names a model rather than being a prompt: an existing folder, something written like a path, a hub
/// id or an address of the hub, or a name of the registry.
///
/// ```
/// use pippin_hub::looks_like_model;
///
/// assert!(looks_like_model("mlx-community/Qwen3-4B-4bit"));
/// assert!(looks_like_model("qwen3-4b"));
/// assert!(looks_like_model("./no-such-folder"));
/// assert!(!looks_like_model("What is 17 plus 25?"));
/// ```
pub fn looks_like_model(argument: &str) -> bool {
    if argument.is_empty() {
        return false;
    }
    if Path::new(argument).is_dir() || is_gguf_file(Path::new(argument)) {
        return true;
    }
    let argument = address::trimmed(argument);
    if argument.contains(char::is_whitespace) {
        return false;
    }
    // An address of another server may be a question about it.
    let is_address = || match address::parse(argument, environment_endpoint().as_deref()) {
        Ok(found) => found.is_some(),
        Err(error) => {
            !matches!(error, HubError::Address { problem, .. } if problem.contains("another server"))
        }
    };
    is_path(argument)
        || is_hub_id(address::named(argument).name)
        || local_registry().get(argument).is_some()
        || is_address()
}

/// The server that the environment names.
fn environment_endpoint() -> Option<String> {
    std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.trim().is_empty())
}

/// Whether a text can only be meant as a path.
fn is_path(text: &str) -> bool {
    ["/", "./", "../", "~/", ".\\", "..\\"].iter().any(|prefix| text.starts_with(prefix))
        || matches!(text, "." | "..")
        || Path::new(text).is_absolute()
}

/// The registry with the user's additions, or without them where their file is wrong: [`resolve`] says so.
fn local_registry() -> &'static ModelRegistry {
    ModelRegistry::local().unwrap_or_else(|_| ModelRegistry::shared())
}

/// Finds models in given places.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// The names that are known.
    pub registry: ModelRegistry,
    /// The Hugging Face cache, where one is known.
    pub cache: Option<HubCache>,
    /// The folders that may hold the shipped model, in order.
    pub shipped: Vec<PathBuf>,
    /// The server whose addresses are models besides those of the hub itself, where another one is asked.
    pub endpoint: Option<String>,
}

impl Resolver {
    /// The [local registry](ModelRegistry::local), the environment's cache, and the usual places of the shipped model: `$PIPPIN_NANO_DIR`
    /// alone when it is set; else `models/` beside the executable, `../share/pippin/models/`, `models/` in the folders
    /// above the executable and above the current one, and the source tree.
    pub fn from_env() -> Self {
        Self {
            registry: local_registry().clone(),
            cache: HubCache::from_env().ok(),
            shipped: nano::candidates(),
            endpoint: environment_endpoint(),
        }
    }

    /// Finds a model by folder, hub id, address, alias, or the name of the shipped model.
    ///
    /// An existing folder wins over a name of the same spelling. A file of a model stands for its folder. Spaces and quotes
    /// around a name do not count.
    ///
    /// # Errors
    ///
    /// Every [`HubError`]: the name is unknown, the model is not on this machine, or its files are not complete.
    pub fn resolve(&self, model: &str) -> Result<ResolvedModel> {
        self.locate(&self.configuration(model)?)
    }

    /// What a name stands for, without looking for its files.
    ///
    /// # Errors
    ///
    /// [`HubError::UnknownModel`]; [`HubError::NoFolder`] for a path that does not exist, [`HubError::NotAFolder`] for a file;
    /// [`HubError::Address`] for an address of something else.
    pub fn configuration(&self, model: &str) -> Result<ModelConfiguration> {
        if !model.is_empty() && Path::new(model).is_dir() {
            return Ok(ModelConfiguration::directory(model));
        }
        let model = address::trimmed(model);
        if let Some(configuration) = self.registry.get(model) {
            return Ok(configuration.clone());
        }
        let path = expand_path(model.strip_prefix("file://").unwrap_or(model));
        if !model.is_empty() && path.is_dir() {
            return Ok(ModelConfiguration::directory(path));
        }
        if is_gguf_file(&path) {
            return Ok(ModelConfiguration::directory(path));
        }
        if path.is_file() {
            return Ok(ModelConfiguration::directory(folder_of(path)?));
        }
        if is_path(model) || model.starts_with("file://") {
            return Err(HubError::NoFolder { path });
        }
        if let Some(address::Address { id, revision, quantization }) =
            address::parse(model, self.endpoint.as_deref())?
        {
            // What the registry knows of the model holds for it by this name, too.
            let known = self.registry.get(&id).cloned().unwrap_or_else(|| ModelConfiguration::hub(id));
            return Ok(known.with_revision(revision).with_quantization(quantization));
        }
        let address::Named { name: id, revision, quantization } = address::named(model);
        let revision = revision.unwrap_or("main");
        if let Some(configuration) = self.registry.get(id) {
            return Ok(configuration.clone().with_revision(revision).with_quantization(quantization));
        }
        if is_hub_id(id) {
            return Ok(ModelConfiguration::hub(id).with_revision(revision).with_quantization(quantization));
        }
        Err(HubError::UnknownModel { name: model.to_owned(), suggestions: self.registry.suggest(model) })
    }

    /// Finds a model's folder.
    ///
    /// # Errors
    ///
    /// The model is not on this machine, or its files are not complete.
    pub fn locate(&self, configuration: &ModelConfiguration) -> Result<ResolvedModel> {
        let directory = match &configuration.location {
            ModelLocation::Directory(path) if is_gguf_file(path) => path.clone(),
            ModelLocation::Directory(path) => file_of(model_folder(path)?, None)?,
            ModelLocation::Shipped => self.shipped()?,
            ModelLocation::Hub { id, revision } => {
                let cache = self.cache.as_ref().ok_or(HubError::NoCache)?;
                let wanted = configuration.quantization.as_deref();
                let absent = |error| match error {
                    // What else is there of the model does not help.
                    HubError::NotCached { id, revision, cache, there, .. } => HubError::NotCached {
                        quantization: configuration.quantization.clone().map(Arc::new),
                        there: there.filter(|_| wanted.is_none()),
                        id,
                        revision,
                        cache,
                    },
                    error => error,
                };
                let folder = cache.find(id, revision).map_err(absent)?;
                // Another quantization may be there, but not this one.
                file_of(folder, wanted).map_err(|error| match (error, wanted) {
                    (_, Some(_)) => absent(cache.not_cached(id, revision)),
                    (HubError::Quantization { problem, .. }, None) => {
                        HubError::Quantization { model: id.clone(), problem }
                    }
                    (error, None) => error,
                })?
            }
        };
        Ok(ResolvedModel { configuration: configuration.clone(), directory })
    }

    /// Which model this is. Nothing need be there for it.
    pub fn identity(&self, configuration: &ModelConfiguration) -> ModelIdentity {
        ModelIdentity(match &configuration.location {
            ModelLocation::Hub { id, .. } => {
                let quantization = configuration.quantization.as_ref().map(|name| name.to_ascii_lowercase());
                Identity::Hub(id.to_ascii_lowercase(), quantization)
            }
            ModelLocation::Shipped => Identity::Shipped,
            ModelLocation::Directory(path) => {
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                let is_shipped =
                    || self.shipped().is_ok_and(|own| own.canonicalize().is_ok_and(|own| own == path));
                match snapshot(&path) {
                    Some((id, _)) => Identity::Hub(id.to_ascii_lowercase(), None),
                    None if is_shipped() => Identity::Shipped,
                    None => Identity::Folder(path),
                }
            }
        })
    }

    fn shipped(&self) -> Result<PathBuf> {
        match self.shipped.as_slice() {
            // The only candidate was chosen by the user: what is wrong with it matters.
            [only] if only.is_dir() => model_folder(only),
            candidates => candidates
                .iter()
                .find(|folder| matches!(missing(folder), Ok(None)))
                .cloned()
                .ok_or_else(|| HubError::NoShippedModel { searched: candidates.to_vec() }),
        }
    }
}

/// Whether a path is a GGUF file.
pub(crate) fn is_gguf_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && path.is_file()
}

/// What is loaded of a model's folder: its GGUF file, if it has no other weights or that is wanted; else the folder.
fn file_of(folder: PathBuf, wanted: Option<&str>) -> Result<PathBuf> {
    if wanted.is_none() && !is_folder_of_gguf(&folder) {
        return Ok(folder);
    }
    match gguf::in_folder(&folder, wanted) {
        None => Ok(folder),
        Some(Ok(file)) => Ok(file),
        Some(Err(problem)) if problem.starts_with("no \"") => {
            Err(HubError::NotAModel { path: folder, problem })
        }
        Some(Err(problem)) => Err(HubError::Quantization { model: folder.display().to_string(), problem }),
    }
}

/// The hub id and the commit of a folder that is one of a Hugging Face cache.
pub(crate) fn snapshot(path: &Path) -> Option<(String, String)> {
    let snapshots = path.parent()?;
    let id = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?.replacen("--", "/", 1);
    let commit = path.file_name()?.to_str()?;
    (snapshots.file_name()? == "snapshots" && is_hub_id(&id)).then(|| (id, commit.to_owned()))
}

/// The model's folder that a file is in.
fn folder_of(path: PathBuf) -> Result<PathBuf> {
    let has_extension =
        |wanted: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted));
    // `Path::parent` of a plain name is empty, and that is not the name of a folder.
    let folder =
        path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let is_of_a_model = has_extension("safetensors") || has_extension("json");
    if let Some(folder) = folder.filter(|folder| is_of_a_model && folder.join("config.json").is_file()) {
        return Ok(folder.to_owned());
    }
    let problem = if has_extension("safetensors") {
        "there is no config.json beside it"
    } else if ["bin", "pt", "pth", "npz", "onnx"].into_iter().any(has_extension) {
        "only safetensors and GGUF files are read"
    } else {
        "this is no file of one"
    };
    Err(HubError::NotAFolder { path, problem })
}

fn model_folder(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Err(HubError::NoFolder { path: path.to_owned() });
    }
    match missing(path)? {
        None => Ok(path.to_owned()),
        Some(problem) => {
            let is_absent = matches!(problem.as_str(), "no config.json" | "no model*.safetensors file");
            let problem = format!("{problem}{}", if is_absent { instead(path) } else { "" });
            Err(HubError::NotAModel { path: path.to_owned(), problem })
        }
    }
}

/// What a folder holds that is no model.
fn instead(path: &Path) -> &'static str {
    let names: Vec<String> = path
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let has = |ending: &str| names.iter().any(|name| name.ends_with(ending));
    let is_cache = |name: &String| name == "snapshots" || name.starts_with("models--");
    let is_adapter = |name: &String| name.starts_with("adapter");
    if has("model_index.json") {
        "; it holds the parts of an image generator"
    } else if names.iter().any(is_adapter) {
        "; it holds an adapter: give the folder of the model that it was made for"
    } else if has(".safetensors") {
        "; *.safetensors files of other names are not read"
    } else if has(".bin") || has(".npz") {
        "; only safetensors and GGUF files are read"
    } else if names.iter().any(is_cache) {
        "; it is a part of a Hugging Face cache: give the model's hub id"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn model_at(folder: &Path) {
        fs::create_dir_all(folder).expect("created");
        fs::write(folder.join("config.json"), "{}").expect("written");
        fs::write(folder.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").expect("written");
    }

    fn resolver(root: &Path) -> Resolver {
        Resolver {
            registry: ModelRegistry::shared().clone(),
            cache: Some(HubCache::new(root.join("hub"))),
            shipped: vec![root.join("first/pippin-nano-4bit"), root.join("second/pippin-nano-4bit")],
            endpoint: Some("http://127.0.0.1:8080".to_owned()),
        }
    }

    #[test]
    fn folders_win_and_are_checked() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = root.path().join("my model");
        model_at(&folder);
        let name = folder.to_str().expect("UTF-8");
        assert_eq!(resolver(root.path()).resolve(name).expect("found").directory, folder);
        assert!(looks_like_model(name));

        fs::remove_file(folder.join("config.json")).expect("removed");
        let error = resolver(root.path()).resolve(name).expect_err("no config.json");
        assert!(error.to_string().contains("no config.json"), "{error}");
        let error = resolver(root.path()).resolve("./no-such-folder").expect_err("no folder");
        assert!(matches!(error, HubError::NoFolder { .. }));
    }

    #[test]
    fn ids_and_aliases_are_found_in_the_cache() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let repository = root.path().join("hub/models--mlx-community--Qwen3-4B-4bit");
        model_at(&repository.join("snapshots/c0ffee"));
        fs::create_dir_all(repository.join("refs")).expect("created");
        fs::write(repository.join("refs/main"), "c0ffee").expect("written");
        let resolver = resolver(root.path());
        for name in
            ["qwen3-4b", "mlx-community/Qwen3-4B-4bit", "mlx-community/Qwen3-4B-4bit@main", "qwen3-4b@c0ffee"]
        {
            let found = resolver.resolve(name).expect(name);
            assert!(found.directory.ends_with("snapshots/c0ffee"));
            assert_eq!(found.configuration.aliases, ["qwen3-4b", "qwen3"]);
        }
        let error = resolver.resolve("qwen3-8b").expect_err("not downloaded");
        assert!(matches!(&error, HubError::NotCached { there: None, .. }));
        assert!(error.hint().expect("a hint").contains("mlx-community/Qwen3-8B-4bit"));
    }

    #[test]
    fn a_model_is_the_same_by_all_its_names() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let snapshot = root.path().join("hub/models--mlx-community--Qwen3-4B-4bit/snapshots/c0ffee");
        let shipped = root.path().join("second/pippin-nano-4bit");
        let (mine, other) = (root.path().join("mine"), root.path().join("other"));
        for folder in [&snapshot, &shipped, &mine, &other] {
            model_at(folder);
        }
        let resolver = resolver(root.path());
        let path = |folder: &Path, rest: &str| format!("{}{rest}", folder.display());
        let groups: [&[String]; 4] = [
            &[
                "qwen3-4b".to_owned(),
                "QWEN3-4B".to_owned(),
                "mlx-community/Qwen3-4B-4bit".to_owned(),
                "MLX-Community/qwen3-4b-4bit@v1".to_owned(),
                path(&snapshot, ""),
                path(&snapshot, "/"),
                path(&snapshot, "/../c0ffee"),
            ],
            &["pippin-nano".to_owned(), "nano".to_owned(), path(&shipped, "/.")],
            &[path(&mine, ""), path(&mine, "/"), path(&other, "/../mine")],
            &[path(&other, "")],
        ];
        let identity = |name: &String| resolver.identity(&resolver.configuration(name).expect("known"));
        for (number, group) in groups.iter().enumerate() {
            for name in *group {
                for (other, names) in groups.iter().enumerate() {
                    assert_eq!(identity(name) == identity(&names[0]), number == other, "{name} {}", names[0]);
                }
            }
        }
    }

    #[test]
    fn the_shipped_model_is_the_first_that_is_whole() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let resolver = resolver(root.path());
        let error = resolver.resolve("pippin-nano").expect_err("nowhere");
        assert!(error.to_string().contains("first") && error.to_string().contains("second"), "{error}");
        fs::create_dir_all(root.path().join("first/pippin-nano-4bit")).expect("created");
        model_at(&root.path().join("second/pippin-nano-4bit"));
        let found = resolver.resolve("nano").expect("found");
        assert!(found.directory.ends_with("second/pippin-nano-4bit"));
    }

    #[test]
    fn unknown_names_suggest_near_ones() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let error = resolver(root.path()).resolve("qwen3-4bb").expect_err("unknown");
        assert_eq!(error.hint().as_deref(), Some("did you mean qwen3-4b?"));
        for name in ["", "hello there", "@", "a/b/c", "\u{0}"] {
            assert!(resolver(root.path()).resolve(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn addresses_and_quotes_are_names() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let resolver = resolver(root.path());
        let hub = |id: &str, revision: &str| ModelLocation::Hub {
            id: id.to_owned(),
            revision: revision.to_owned(),
        };
        for (name, expected) in [
            (" org/name\n", hub("org/name", "main")),
            ("'org/name@v1'", hub("org/name", "v1")),
            ("org/name:Q4_K_M", hub("org/name", "main")),
            ("org/name@v1:Q4_K_M", hub("org/name", "v1")),
            ("http://127.0.0.1:8080/org/name/tree/v1", hub("org/name", "v1")),
            ("hf://org/name", hub("org/name", "main")),
            ("\"qwen3-4b\"", hub("mlx-community/Qwen3-4B-4bit", "main")),
        ] {
            assert_eq!(resolver.configuration(name).expect(name).location, expected, "{name}");
        }
        // The registry knows the model by its address, too.
        let known = resolver.configuration("hf://mlx-community/Qwen3-4B-4bit").expect("known");
        assert!(known.aliases.contains(&"qwen3-4b".to_owned()));
        for (name, expected) in [
            ("org/name", None),
            ("org/name:Q4_K_M", Some("Q4_K_M")),
            ("hf:org/name:Q4_K_M", Some("Q4_K_M")),
            ("qwen3-4b:q8_0", Some("q8_0")),
            ("http://127.0.0.1:8080/org/name/blob/main/name-Q8_0.gguf", Some("name-Q8_0.gguf")),
        ] {
            let found = resolver.configuration(name).expect(name).quantization;
            assert_eq!(found.as_deref(), expected, "{name}");
        }
        for name in ["http://127.0.0.1:8080/datasets/org/name", "https://elsewhere.example/org/name"] {
            let error = resolver.configuration(name).expect_err(name);
            assert!(matches!(error, HubError::Address { .. }) && error.hint().is_some(), "{name}: {error}");
        }
        for (argument, is_model) in [
            ("hf://org/name", true),
            ("hf:org/name:Q4_K_M", true),
            ("org/name:Q4_K_M", true),
            ("hf://datasets/org/name", true),
            (" org/name ", true),
            ("https://elsewhere.example/org/name", false),
            ("\"What is this?\"", false),
        ] {
            assert_eq!(looks_like_model(argument), is_model, "{argument}");
        }
    }

    #[test]
    fn files_of_a_model_stand_for_its_folder() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let resolver = resolver(root.path());
        let folder = root.path().join("m");
        model_at(&folder);
        let file = |name: &str| root.path().join(name).to_str().expect("UTF-8").to_owned();
        for name in ["m/config.json", "m/model.safetensors"] {
            for text in [file(name), format!("file://{}", file(name)), format!("\"{}\"", file(name))] {
                assert_eq!(resolver.resolve(&text).expect("found").directory, folder, "{text}");
            }
        }
        for (name, part) in [
            ("x.safetensors", "no config.json beside it"),
            ("x.bin", "only safetensors"),
            ("m/README.md", "this is no file of one"),
        ] {
            fs::write(file(name), "").expect("written");
            let error = resolver.resolve(&file(name)).expect_err("no model");
            assert!(matches!(error, HubError::NotAFolder { .. }), "{name}: {error:?}");
            assert!(error.to_string().contains(part) && error.hint().is_some(), "{name}: {error}");
        }
        // A GGUF file is a model by itself, whatever lies beside it.
        for name in ["x.gguf", "x.GGUF", "m/x.gguf"] {
            fs::write(file(name), "").expect("written");
            assert_eq!(resolver.resolve(&file(name)).expect("found").directory, Path::new(&file(name)));
            assert!(looks_like_model(&file(name)), "{name}");
        }
        // A folder is its weights, or else the only GGUF file in it.
        assert_eq!(resolver.resolve(&file("m")).expect("found").directory, folder);
        fs::remove_file(file("m/model.safetensors")).expect("removed");
        assert_eq!(resolver.resolve(&file("m")).expect("found").directory, folder.join("x.gguf"));
        fs::write(file("m/mmproj-x.gguf"), "").expect("written");
        assert_eq!(resolver.resolve(&file("m")).expect("found").directory, folder.join("x.gguf"));
        fs::write(file("m/x-Q8_0.gguf"), "").expect("written");
        let error = resolver.resolve(&file("m")).expect_err("two");
        assert!(error.to_string().contains("several quantizations: Q8_0, x"), "{error}");
        assert!(matches!(resolver.resolve(&file("absent.gguf")), Err(HubError::NoFolder { .. })));
        // Folders that hold something else.
        for (name, part) in [
            ("model_index.json", "image generator"),
            ("adapter_config.json", "adapter"),
            ("adapters.safetensors", "adapter"),
            ("consolidated.safetensors", "of other names"),
            ("pytorch_model.bin", "only safetensors"),
            ("snapshots", "hub id"),
            ("README.md", "no config.json"),
        ] {
            let folder = root.path().join(format!("folder of {name}"));
            fs::create_dir(&folder).expect("created");
            fs::write(folder.join(name), "").expect("written");
            let error = resolver.resolve(folder.to_str().expect("UTF-8")).expect_err("no model");
            assert!(matches!(error, HubError::NotAModel { .. }), "{name}: {error:?}");
            assert!(error.to_string().contains(part), "{name}: {error}");
        }
    }

    #[test]
    fn prompts_are_not_models() {
        for prompt in ["", "hello", "What is 17/25?", "tell me a story", "1/2/3", "/ is a path separator"] {
            assert!(!looks_like_model(prompt), "{prompt}");
        }
        for model in ["org/name", "org/name@v1", "pippin-nano", "../models/x", "/opt/model"] {
            assert!(looks_like_model(model), "{model}");
        }
    }
}
