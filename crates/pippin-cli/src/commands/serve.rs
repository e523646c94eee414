//! `pippin serve`.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use pippin::cache::LoadRequest;
use pippin::loading::LoadProgress;
use pippin::monitor::RunState;
use pippin::{EngineConfig, ModelCache};
use pippin_server::{Keys, Limits, Management, Server, ServerOptions, log_to_stderr};
use serde_json::json;

use crate::browser;
use crate::error::{CliError, Result};
use crate::model::{self, Download};
use crate::output;
use crate::settings::ServeSettings;

/// Serves until a signal comes.
pub(super) fn run(settings: ServeSettings, is_verbose: bool) -> Result<()> {
    let ServeSettings { models, pinned, only, no_key, manage, share_prefixes, open, no_page, config, yes } =
        settings;
    let management = management(&config, manage)?;
    let options = options(&config, &models, only, no_key)?
        .with_management(management)
        .with_page(!no_page)
        .with_shared_prefixes(share_prefixes);
    let is_open = options.keys.is_empty();
    // Names are looked up, and questions asked, before anything listens.
    let download = if yes { Download::Agreed } else { Download::Ask };
    let found: Vec<_> =
        models.iter().map(|(_, model)| model::find(model, &config, download)).collect::<Result<_>>()?;
    let cache = ModelCache::from_config(&config)?;
    for model in &pinned {
        cache.pin(model)?;
    }
    log_to_stderr(is_verbose);
    let mut server = Server::start(&cache, options)?;
    // Where nothing can be published, the models answer all the same.
    let _state = RunState::publish(&cache).ok();
    let mut lines = String::new();
    let mut leases = Vec::new();
    for (configuration, (name, _)) in found.iter().zip(&models) {
        let request = LoadRequest::new().with_progress(|step| {
            if let (true, LoadProgress::Found(folder)) = (is_verbose, step) {
                output::note(&format!("loading {name} from {}", folder.display()));
            }
        });
        let lease = cache.get_configured(configuration, request)?;
        for warning in lease.warnings() {
            output::warning(warning);
        }
        let memory = output::bytes(lease.memory().total());
        let context = lease.context();
        let _ = writeln!(lines, "  {name}: {memory}, context of {context} tokens, {}", lease.device());
        leases.push(lease);
    }
    drop(leases);
    // Whoever has read that it is ready may end it at once; before, a signal ends the loading as well.
    server.watch_signals();
    server.set_ready();
    let first = models.first().map_or("", |(name, _)| name.as_str());
    let base = base(server.address());
    let page = (!no_page).then(|| format!("{base}/"));
    let reach = match server.address().ip().is_unspecified() {
        true => format!(" (and at every address of this machine, port {})", server.address().port()),
        false => String::new(),
    };
    let key = config.server.keys_file.as_deref().filter(|_| !is_open).map(|file| file.display().to_string());
    let about = format!(
        "{reach}\n{}{lines}",
        page.as_deref().map(|page| format!("web page at {page}\n")).unwrap_or_default()
    );
    output::lines(&screen(&base, &about, &cache, first, key.as_deref()));
    if is_open && !server.address().ip().is_loopback() {
        output::warning("everyone who reaches this address may use the models, for no key is needed");
    }
    if let Some(page) = page.filter(|_| open) {
        let hint = format!("no browser could be opened; the page is at {page}");
        browser::open(&page, move || output::hint(&hint));
    }
    server.wait_for_signal_with(|| output::note("finishing running answers; Ctrl-C again cuts them"));
    Ok(())
}

fn options(
    config: &EngineConfig,
    models: &[(String, String)],
    only: bool,
    no_key: bool,
) -> Result<ServerOptions> {
    let settings = &config.server;
    let found = (settings.host.as_str(), settings.port).to_socket_addrs().ok().and_then(|mut all| all.next());
    let Some(address) = found else {
        let message = format!("{} is no address, and no name that is known here", settings.host);
        return Err(CliError::usage(message, "give --host an address such as 127.0.0.1 or 0.0.0.0"));
    };
    let keys = match &settings.keys_file {
        Some(path) if !no_key => Keys::from_file(path)?,
        _ => Keys::default(),
    };
    let requests = settings.max_requests;
    let limits = Limits {
        requests,
        requests_per_key: settings.max_requests_per_key.unwrap_or(requests),
        answer_time: settings.max_answer_time,
        ..Limits::default()
    };
    let options = ServerOptions::default()
        .with_address(address)
        .with_keys(keys)
        .with_without_keys(no_key)
        .with_allowed_hosts(settings.allowed_hosts.iter().cloned())
        .with_allowed_origins(settings.allowed_origins.iter().cloned())
        // Without a cache there is nothing to name.
        .with_local_models(config.hub_cache().ok().filter(|_| !only))
        .with_hub(config.hub_options().ok())
        .with_limits(limits);
    Ok(models.iter().fold(options, |options, (name, model)| options.with_model(name, model)))
}

/// Who may load, unload, download and delete models.
fn management(config: &EngineConfig, everyone: bool) -> Result<Management> {
    Ok(match &config.server.manage_keys_file {
        _ if everyone => Management::Everyone,
        Some(path) => Management::Keys(Keys::from_file(path)?),
        None => Management::Nobody,
    })
}

/// Where the server can be asked from this machine.
fn base(address: SocketAddr) -> String {
    // An address that means all of them is none that can be asked.
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    format!("http://{host}:{}", address.port())
}

/// What is shown when all is ready.
///
/// `about` follows the address; `keys` is the file of keys, where one is needed.
fn screen(base: &str, about: &str, cache: &ModelCache, model: &str, keys: Option<&str>) -> String {
    let usage = cache.usage();
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let body = json!({"model": model, "messages": [{"role": "user", "content": "What is 17 plus 25?"}]});
    let body = quoted(&body.to_string());
    let (setting, key) = match keys {
        // Lines that begin with # are comments.
        Some(file) => {
            let setting = format!("  KEY=$(grep -m1 '^[^#]' {})\n", quoted(file));
            (setting, " -H \"Authorization: Bearer $KEY\"")
        }
        None => (String::new(), ""),
    };
    format!(
        "serving at {base}/v1{about}memory: {} of {}\n\ntry:\n{setting}  curl {base}/v1/chat/completions{key} -H 'Content-Type: application/json' -d {body}\n",
        output::bytes(usage.used),
        output::bytes(usage.budget),
    )
}
