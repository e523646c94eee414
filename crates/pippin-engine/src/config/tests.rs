use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn file(text: &str) -> (tempfile::TempDir, ConfigInputs) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).expect("written");
    (folder, ConfigInputs::default().with_file(path))
}

fn from_file(text: &str) -> Result<EngineConfig, ConfigError> {
    EngineConfig::resolve(&file(text).1)
}

#[test]
fn defaults() {
    let config = EngineConfig::resolve(&ConfigInputs::default()).expect("valid");
    assert_eq!(config, EngineConfig::default());
    assert_eq!(config.load_options("x"), LoadOptions::default());
    assert_eq!(config.max_loaded_models, 3);
    assert_eq!(config.memory_budget.bytes(1000), 800);
    assert!(config.entries().iter().all(|entry| entry.source == "default"));
}

#[test]
fn every_setting_can_stand_in_the_file() {
    let (_folder, inputs) = file(
        "model = 'qwen3-4b'\ndevice = 'cpu'\nthreads = 4\ncontext = 8192\nexact = true\nkv_cache = 'int8'\nmax_sequences = 8\n\
         max_waiting = 100\nprefill_step_size = 256\nprefix_cache = '/data/kept'\nprefix_cache_size = '2GB'\nmemory_budget = '12 GB'\nmax_loaded_models = 2\nkeep_alive = '1h'\npreload = ['a', 'b']\npin = ['a']\n\
         [hub]\ncache_dir = '/data/hub'\nendpoint = 'https://mirror.example/'\noffline = true\n\
         [server]\nhost = 'localhost'\nport = 80\nkeys_file = '/data/keys'\nmanage_keys_file = '/data/managers'\nallowed_hosts = ['box.lan']\nallowed_origins = ['*']\n\
         max_requests = 7\nmax_requests_per_key = 3\nmax_answer_time = '10m'\n\
         [models.'qwen3-4b']\nkeep_alive = 'forever'\ncontext = 100\ndraft_model = 'qwen3-0.6b'\n",
    );
    let config = EngineConfig::resolve(&inputs).expect("valid");
    for (index, entry) in config.entries().iter().enumerate() {
        assert!(entry.source.contains("config.toml:"), "{entry:?}");
        let line: usize = entry.source.rsplit(':').next().expect("a line").parse().expect("a number");
        // The settings stand in their order, and tables begin with a line of their own.
        let expected = index
            + 1
            + usize::from(entry.key.starts_with("hub."))
            + 2 * usize::from(entry.key.starts_with("server."))
            + 3 * usize::from(entry.key.starts_with("models."));
        assert_eq!(line, expected, "{entry:?}");
    }
    assert_eq!(config.memory_budget, MemoryBudget::Bytes(12_000_000_000));
    assert_eq!(config.keep_alive, KeepAlive::For(Duration::from_secs(3600)));
    assert_eq!(config.keep_alive("qwen3-4b"), KeepAlive::Forever);
    assert_eq!(config.load_options("qwen3-4b").context, Some(100));
    assert_eq!(config.load_options("qwen3-4b").draft_model.as_deref(), Some("qwen3-0.6b".as_ref()));
    assert_eq!(config.load_options("other").context, Some(8192));
    assert_eq!(config.load_options("other").draft_model, None);
    assert_eq!(config.hub.endpoint.as_deref(), Some("https://mirror.example"));
    assert_eq!(config.numerics, Numerics::Exact);
    assert_eq!(config.load_options("other").kv_format, Some(KvFormat::Int8));
    assert_eq!(config.load_options("other").prefill_step_size, 256);
    let options = config.load_options("other");
    assert_eq!(options.prefix_cache.as_deref(), Some(Path::new("/data/kept")));
    assert_eq!(options.prefix_cache_size, 2_000_000_000);
    let server = &config.server;
    assert_eq!((server.host.as_str(), server.port, server.max_requests), ("localhost", 80, 7));
    assert_eq!(
        (server.max_requests_per_key, server.max_answer_time),
        (Some(3), Some(Duration::from_secs(600)))
    );
    let options = config.hub_options().expect("valid");
    assert!(options.is_offline && options.endpoint == "https://mirror.example");
}

#[test]
fn settings_of_a_model_hold_by_all_its_names() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let snapshot = root.path().join("models--mlx-community--Qwen3-4B-4bit/snapshots/c0ffee");
    let mine = root.path().join("mine");
    for folder in [&snapshot, &mine] {
        std::fs::create_dir_all(folder).expect("created");
    }
    let names = [
        "qwen3-4b".to_owned(),
        "Qwen3-4B".to_owned(),
        "mlx-community/Qwen3-4B-4bit".to_owned(),
        "mlx-community/qwen3-4b-4bit".to_owned(),
        format!("{}", snapshot.display()),
        format!("{}/", snapshot.display()),
    ];
    for setting in &names {
        let config = from_file(&format!("[models.'{setting}']\ncontext = 77\nkeep_alive = 'forever'"));
        let config = config.expect("valid");
        let options = crate::CacheOptions::from_config(&config);
        for name in names.iter().map(String::as_str).chain(["qwen3-4b@v1"]) {
            assert_eq!(config.load_options(name).context, Some(77), "{setting} {name}");
            assert_eq!(config.keep_alive(name), KeepAlive::Forever, "{setting} {name}");
            let model = Resolver::from_env().configuration(name).expect("known");
            assert_eq!(options.keep_alive(&model), KeepAlive::Forever, "{setting} {name}");
        }
        for other in ["qwen3-8b", "pippin-nano", &mine.display().to_string(), "no such model", ""] {
            assert_eq!(config.load_options(other).context, None, "{setting} {other}");
        }
    }
    // Folders however their paths are written.
    let config = from_file(&format!("[models.'{}/']\ncontext = 5", mine.display())).expect("valid");
    for name in [format!("{}", mine.display()), format!("{}/../mine/.", mine.display())] {
        assert_eq!(config.load_options(&name).context, Some(5), "{name}");
    }
    // One revision before all, value by value.
    let config = from_file(
        "[models.'qwen3-4b@v1']\ncontext = 1\n[models.'mlx-community/Qwen3-4B-4bit']\ncontext = 2\nkeep_alive = 3",
    );
    let config = config.expect("valid");
    for (name, context) in [("qwen3-4b@v1", 1), ("qwen3-4b", 2), ("QWEN3-4B@v2", 2)] {
        assert_eq!(config.load_options(name).context, Some(context), "{name}");
        assert_eq!(config.keep_alive(name), KeepAlive::For(Duration::from_secs(3)), "{name}");
    }

    // Two tables for one model.
    for (first, second) in [
        ("qwen3-4b", "qwen3"),
        ("mlx-community/Qwen3-4B-4bit", "QWEN3-4B"),
        ("nano", "pippin-nano"),
        ("a/b@v1", "A/B@v1"),
        (names[4].as_str(), "qwen3-4b"),
    ] {
        let error =
            from_file(&format!("[models.'{first}']\ncontext = 2\n[models.'{second}']\n\nkeep_alive = 3"));
        let error = error.expect_err(second);
        let expected = format!("config.toml:5: models.{second:?} is the same model as models.{first:?}");
        assert!(error.to_string().contains(&expected), "{error}");
        assert!(error.hint().is_some());
    }
    from_file("[models.'a/b']\ncontext = 2\n[models.'a/c']\ncontext = 3\n[models.'a/b@v1']\ncontext = 3")
        .expect("three");
}

#[test]
fn later_places_win() {
    let (_folder, inputs) = file("threads = 1\ncontext = 1\nmax_sequences = 1\n");
    let inputs = inputs
        .with_variable("PIPPIN_CONTEXT", "2")
        .with_variable("PIPPIN_MAX_SEQUENCES", "2")
        .with_flag("max_sequences", "--max-sequences", 3);
    let config = EngineConfig::resolve(&inputs).expect("valid");
    assert_eq!((config.threads, config.context, config.max_sequences), (Some(1), Some(2), 3));
    assert!(matches!(config.source("threads"), ConfigSource::File { line: 1, .. }));
    assert_eq!(config.source("context"), &ConfigSource::Environment("PIPPIN_CONTEXT"));
    assert_eq!(config.source("max_sequences"), &ConfigSource::Flag("--max-sequences".to_owned()));
    assert_eq!(config.source("device"), &ConfigSource::Default);
}

#[test]
fn lists_come_from_everywhere() {
    let inputs = ConfigInputs::default()
        .with_variable("PIPPIN_PRELOAD", "a, b,,")
        .with_flag("pin", "--pin", "x")
        .with_flag("pin", "--pin", "y");
    let config = EngineConfig::resolve(&inputs).expect("valid");
    assert_eq!(
        (config.preload, config.pin),
        (vec!["a".to_owned(), "b".to_owned()], vec!["x".to_owned(), "y".to_owned()])
    );
}

#[test]
fn the_hubs_own_variables_count() {
    let cache = |pairs: &[(&str, &str)]| {
        let inputs = pairs
            .iter()
            .fold(ConfigInputs::default(), |inputs, (name, value)| inputs.with_variable(name, *value));
        EngineConfig::resolve(&inputs).expect("valid").hub.cache_dir
    };
    assert_eq!(cache(&[("HF_HOME", "/h")]), Some(PathBuf::from("/h/hub")));
    assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), Some(PathBuf::from("/c")));
    let config =
        EngineConfig::resolve(&ConfigInputs::default().with_variable("HF_HUB_OFFLINE", "1")).expect("valid");
    assert!(config.hub.offline);
}

#[test]
fn mistakes_name_place_key_and_line() {
    for (text, part, hint) in [
        ("\nthread = 4", "config.toml:2: there is no setting \"thread\"", "did you mean threads?"),
        ("[hub]\nof_line = true", "config.toml:2: there is no setting \"hub.of_line\"", "hub.offline"),
        ("zzzzzzzzzz = 1", "config.toml:1: there is no setting", "the settings are model, device"),
        ("[hub]\n\nzzzzzzz.x = 1", "config.toml:3: there is no setting \"hub.zzzzzzz\"", "settings"),
        ("a = 1\nb = ", "config.toml:2: not valid TOML", ""),
        ("threads = 1\nthreads = 2", "config.toml:2: not valid TOML", ""),
        (
            "threads = '4'",
            "config.toml:1: threads is \"4\", but must be a number from 1 to 1024",
            "leave it out",
        ),
        ("threads = 0", "threads is 0", ""),
        ("threads = 1.5", "threads is something else", ""),
        ("\n\ndevice = 'abacus'", "config.toml:3: device is \"abacus\", but must be one of auto", ""),
        ("exact = 1", "exact is 1", ""),
        (
            "prefill_step_size = 1000000",
            "prefill_step_size is 1000000, but must be a number from 1 to 16384",
            "",
        ),
        ("kv_cache = 'int4'", "kv_cache is \"int4\", but must be one of f32, f16, bf16 and int8", ""),
        ("memory_budget = '0%'", "memory_budget", ""),
        ("memory_budget = '101%'", "memory_budget", ""),
        ("memory_budget = 'lots'", "memory_budget", ""),
        ("memory_budget = -1", "memory_budget is -1", ""),
        ("keep_alive = '5 fortnights'", "keep_alive", ""),
        ("preload = 'a'", "preload is \"a\", but must be a list", ""),
        ("preload = [1]", "preload is a list, but must be a list of model names", ""),
        ("hub = 3", "hub is 3, but must be a table", ""),
        ("[models]\nx = 3", "models.\"x\" is 3, but must be a table", ""),
        (
            "[models.x]\ntemperature = 3",
            "there is no setting \"models.\\\"x\\\".temperature\"",
            "keep_alive, context and draft_model",
        ),
        ("[models.x]\n\ncontext = 0", "config.toml:3: models.\"x\".context is 0", ""),
        ("[hub]\nendpoint = 'ftp://x'", "config.toml:2: hub.endpoint is \"ftp://x\"", ""),
    ] {
        let error = from_file(text).expect_err(text);
        assert!(error.to_string().contains(part), "{text:?}: {error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{text:?}: {:?}", error.hint());
    }
    let variable = ConfigInputs::default().with_variable("PIPPIN_THREADS", "many");
    let error = EngineConfig::resolve(&variable).expect_err("no number");
    assert_eq!(error.to_string(), "PIPPIN_THREADS is \"many\", but must be a number from 1 to 1024");
    let flag = ConfigInputs::default().with_flag("memory_budget", "--memory-budget", "much");
    assert!(
        EngineConfig::resolve(&flag)
            .expect_err("no size")
            .to_string()
            .starts_with("--memory-budget is \"much\"")
    );
    // A value that a later place replaces is still a mistake that somebody wants to know of.
    let (_folder, inputs) = file("threads = 0");
    assert!(EngineConfig::resolve(&inputs.with_flag("threads", "--threads", 2)).is_err());
}

#[test]
fn a_named_file_must_exist_and_be_sane() {
    let missing = ConfigInputs::default().with_file("/no/such/config.toml");
    let error = EngineConfig::resolve(&missing).expect_err("no file");
    assert!(error.to_string().contains("/no/such/config.toml") && error.hint().is_some());
    let usual = ConfigInputs { file: Some("/no/such/config.toml".into()), ..ConfigInputs::default() };
    assert_eq!(EngineConfig::resolve(&usual).expect("the defaults"), EngineConfig::default());
    assert!(from_file(&"#".repeat(2 << 20)).expect_err("too large").to_string().contains("1 MB"));
    assert!(from_file(&format!("preload = {}", "[".repeat(100_000))).is_err());
}

/// What a form promises is what is accepted, from every place.
#[test]
fn forms_say_what_is_accepted() {
    for setting in Setting::all() {
        let accepts = |value: &str| {
            let mut config = EngineConfig::default();
            let raw = Raw::Word(value.to_owned());
            let raw = if setting.is_list() { Raw::List(vec![raw]) } else { raw };
            config.apply(setting, &raw, ConfigSource::Default).is_ok()
        };
        let (good, bad) = match setting.kind {
            SettingKind::Text | SettingKind::List => (vec!["https://x".to_owned()], vec![String::new()]),
            SettingKind::Boolean => (vec!["true".into(), "0".into()], vec!["2".into()]),
            SettingKind::Integer(low, high) => (
                vec![low.to_string(), high.to_string()],
                vec![low.wrapping_sub(1).to_string(), (high + 1).to_string()],
            ),
            SettingKind::Choice(names) => {
                (names.iter().map(|name| (*name).to_owned()).collect(), vec![format!("{}x", names[0])])
            }
            SettingKind::Device => (
                Device::NAMES.into_iter().chain(["cuda:0", "cuda:1"]).map(str::to_owned).collect(),
                vec!["autox".into(), "cpu:1".into(), "cuda:x".into()],
            ),
            SettingKind::Size => (vec!["12 GB".into(), "80%".into()], vec!["30s".into()]),
            SettingKind::Bytes => (vec!["12 GB".into(), "100".into()], vec!["80%".into(), "0".into()]),
            SettingKind::Time => (vec!["30s".into(), "-1".into()], vec!["80%".into()]),
        };
        for value in good {
            assert!(accepts(&value), "{} refuses {value:?}", setting.key);
        }
        for value in bad.iter().filter(|value| !(setting.is_list() && value.is_empty())) {
            assert!(!accepts(value), "{} takes {value:?}", setting.key);
        }
        // Whoever reads the help can tell flags, variables and keys apart and to one another.
        let flag = setting.flag.as_ref().map(|flag| flag.name.trim_start_matches("--").replace('-', "_"));
        let key = setting.key.strip_prefix("server.").unwrap_or(setting.key);
        assert!(flag.is_none_or(|flag| flag == key), "{} has a flag of another name", setting.key);
        assert!(!setting.variables.is_empty() && !setting.purpose.ends_with('.'), "{}", setting.key);
    }
    let formats = KvFormat::ALL.map(KvFormat::as_str);
    let choices = |key| match Setting::find(key).expect("is one").kind {
        SettingKind::Choice(names) => names,
        kind => panic!("{kind:?}"),
    };
    assert_eq!(choices("kv_cache"), &formats[..]);
    // Not all lists are of models.
    assert!(environment_variables().iter().all(|(_, text)| !text.contains("several models")));
    let names: Vec<_> = environment_variables().into_iter().map(|(name, _)| name).collect();
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
}

#[test]
fn sizes_and_times_are_read_and_written() {
    for (text, bytes) in [
        ("1", 1),
        ("512MiB", 512 << 20),
        ("1.5 GB", 1_500_000_000),
        ("16g", 16_000_000_000),
        ("2 TiB", 2 << 40),
    ] {
        assert_eq!(MemoryBudget::read(text), Some(MemoryBudget::Bytes(bytes)), "{text}");
    }
    for text in ["", "GB", "-1", "0", "1e3", "1 EB", "1.2.3", "99999999999 TB", "50.5%", "%", "nan", "inf"] {
        assert_eq!(MemoryBudget::read(text), None, "{text}");
    }
    for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("5 m", 300), ("2h", 7200), ("1d", 86_400)] {
        assert_eq!(KeepAlive::read(text), Some(KeepAlive::For(Duration::from_secs(seconds))), "{text}");
    }
    assert_eq!(
        (KeepAlive::read("forever"), KeepAlive::read("-1")),
        (Some(KeepAlive::Forever), Some(KeepAlive::Forever))
    );
    for text in ["", "h", "-2", "5x", "99999999999999999999", "18446744073709551615d"] {
        assert_eq!(KeepAlive::read(text), None, "{text}");
    }
    assert_eq!(MemoryBudget::Percent(100).bytes(u64::MAX), u64::MAX);
}

proptest! {
    #[test]
    fn each_value_comes_from_the_last_place_that_has_it(
        values in prop::collection::vec((prop::option::of(1_usize..1000), prop::option::of(1_usize..1000), prop::option::of(1_usize..1000)), 4)
    ) {
        let keys = ["threads", "context", "max_sequences", "max_loaded_models"];
        let variables = ["PIPPIN_THREADS", "PIPPIN_CONTEXT", "PIPPIN_MAX_SEQUENCES", "PIPPIN_MAX_LOADED_MODELS"];
        let mut text = String::new();
        for (key, (in_file, ..)) in keys.iter().zip(&values) {
            if let Some(value) = in_file {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        let (_folder, mut inputs) = file(&text);
        for ((key, variable), (_, in_environment, flag)) in keys.iter().zip(variables).zip(&values) {
            if let Some(value) = in_environment {
                inputs = inputs.with_variable(variable, value.to_string());
            }
            inputs = inputs.with_optional_flag(key, "--flag", *flag);
        }
        let config = EngineConfig::resolve(&inputs).expect("valid");
        let defaults = EngineConfig::default().entries();
        for (key, (in_file, in_environment, flag)) in keys.iter().zip(&values) {
            let entry = config.entries().into_iter().find(|entry| entry.key == *key).expect("listed");
            let default = defaults.iter().find(|entry| entry.key == *key).expect("listed").value.clone();
            let expected = flag.or(*in_environment).or(*in_file).map_or(default, |value| json!(value));
            prop_assert_eq!(entry.value, expected);
            let place = match config.source(key) {
                ConfigSource::Default => 0,
                ConfigSource::File { .. } => 1,
                ConfigSource::Environment(_) => 2,
                ConfigSource::Flag(_) => 3,
            };
            let expected = if flag.is_some() { 3 } else if in_environment.is_some() { 2 } else { usize::from(in_file.is_some()) };
            prop_assert_eq!(place, expected);
        }
    }

    #[test]
    fn no_file_panics(text in "\\PC{0,200}") {
        let _ = EngineConfig::default().apply_file(Path::new("x"), &text);
    }

    #[test]
    fn no_value_panics(key in 0..Setting::all().len(), text in "\\PC{0,20}", number in any::<i64>()) {
        let mut config = EngineConfig::default();
        for raw in [Raw::Word(text.clone()), Raw::Text(text.clone()), Raw::Integer(number), Raw::Word(number.to_string()),
            Raw::List(vec![Raw::Text(text.clone())]), Raw::Boolean(true), Raw::Other] {
            let _ = config.apply(&Setting::all()[key], &raw, ConfigSource::Default);
        }
        config.entries();
    }

    #[test]
    fn shown_values_are_read_back(bytes in 1_u64..1_000_000_000_000, seconds in 0_u64..10_000_000) {
        let budget = MemoryBudget::Bytes(bytes);
        prop_assert_eq!(MemoryBudget::read(&budget.to_string()), Some(budget));
        let keep_alive = KeepAlive::For(Duration::from_secs(seconds));
        prop_assert_eq!(KeepAlive::read(&keep_alive.to_string()), Some(keep_alive));
    }
}
