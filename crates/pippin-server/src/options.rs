use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use pippin::GenerateParameters;
use pippin::hub::{HubCache, HubOptions};

use crate::{Keys, ServerError, gate};

/// How a server listens, whom it answers, and with what.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where it listens. One that others can reach needs keys, or [`without_keys`](Self::without_keys). Port 0 takes one that is free.
    pub address: SocketAddr,
    /// The keys that clients may show; empty: none is needed.
    pub keys: Keys,
    /// Allows everyone who reaches it to use a server that has no keys.
    pub without_keys: bool,
    /// Names by which the server may be asked (the header `Host`), besides `localhost` and addresses; `*` is any. Where keys
    /// are needed, any name is fine unless some are given here.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may ask it from a browser, such as `http://localhost:3000`; `*` is any. Nobody else gets CORS
    /// headers.
    pub allowed_origins: Vec<String>,
    /// The models by the names that requests use, and the names by which they are loaded. The first answers where a
    /// request names none.
    pub models: Vec<(String, String)>,
    /// Where there are models of the hub that requests may also name, by id or alias. `None`: they may not. It has to be the place
    /// where the model cache looks for them.
    pub local_models: Option<HubCache>,
    /// Lets requests with different keys use what has been computed of each other's prompts. Whether somebody else has asked
    /// alike can then be told from the time that an answer takes.
    pub shared_prefixes: bool,
    /// Who may load, unload, download and delete models.
    pub management: Management,
    /// Where models are downloaded from. `None`: from where the environment says.
    pub hub: Option<HubOptions>,
    /// Whether there is a web page at `/`.
    pub page: bool,
    /// What holds where a request says nothing else.
    pub parameters: GenerateParameters,
    /// What a request may ask for.
    pub limits: Limits,
}

/// Who may load, unload, download and delete models.
#[derive(Clone, Debug, Default)]
pub enum Management {
    /// Nobody: only what answers need happens by itself.
    #[default]
    Nobody,
    /// Those who show one of these keys, which are for everything else as well.
    Keys(Keys),
    /// All who may use the server.
    Everyone,
}

/// What a request may ask for, and how much at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Bytes of all headers.
    pub header_bytes: usize,
    /// Connections at a time. One more takes the place of the one that has waited longest for a request, if that is more than a second, or waits.
    pub connections: usize,
    /// Answers that are written or wait at a time; more are refused.
    pub requests: usize,
    /// The same for a single key.
    pub requests_per_key: usize,
    /// Answers of one request: `n` for each prompt.
    pub choices: usize,
    /// Messages of a conversation.
    pub messages: usize,
    /// Tools.
    pub tools: usize,
    /// Stop texts.
    pub stop: usize,
    /// Bytes of a stop text.
    pub stop_bytes: usize,
    /// Entries of `stop_token_ids`.
    pub stop_token_ids: usize,
    /// Entries of `logit_bias`.
    pub logit_bias: usize,
    /// Answers of `/v1/responses` that are kept.
    pub responses: usize,
    /// Bytes that they may take together.
    pub response_bytes: usize,
    /// In what time the headers of a request have to be there.
    pub header_time: Duration,
    /// In what time its body has to be there.
    pub body_time: Duration,
    /// How long a client may read nothing of what is sent to it; then its connection ends, and its answer with it.
    pub write_time: Duration,
    /// In what time an answer has to be finished. `None`: in any.
    pub answer_time: Option<Duration>,
    /// How long running answers may go on when the server shuts down.
    pub shutdown_time: Duration,
    /// How often a comment is sent while a stream has nothing to say.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 4 << 20,
            header_bytes: 64 << 10,
            connections: 512,
            requests: 256,
            requests_per_key: 256,
            choices: 64,
            messages: 4096,
            tools: 512,
            stop: 16,
            stop_bytes: 1024,
            stop_token_ids: 128,
            logit_bias: 1024,
            responses: 1024,
            response_bytes: 64 << 20,
            header_time: Duration::from_secs(10),
            body_time: Duration::from_secs(60),
            write_time: Duration::from_secs(60),
            answer_time: None,
            shutdown_time: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
        }
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            keys: Keys::default(),
            without_keys: false,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            models: Vec::new(),
            local_models: None,
            shared_prefixes: false,
            management: Management::Nobody,
            hub: None,
            page: true,
            parameters: GenerateParameters::default(),
            limits: Limits::default(),
        }
    }
}

impl ServerOptions {
    /// Listens here.
    #[must_use]
    pub fn with_address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Answers those who show one of these keys.
    #[must_use]
    pub fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// Answers everyone who reaches it, or only where nobody else can.
    #[must_use]
    pub fn with_without_keys(mut self, without_keys: bool) -> Self {
        self.without_keys = without_keys;
        self
    }

    /// May be asked by these names.
    #[must_use]
    pub fn with_allowed_hosts<S: Into<String>>(mut self, hosts: impl IntoIterator<Item = S>) -> Self {
        self.allowed_hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// May be asked by pages of these origins.
    #[must_use]
    pub fn with_allowed_origins<S: Into<String>>(mut self, origins: impl IntoIterator<Item = S>) -> Self {
        self.allowed_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// With one more model: the name that requests use, and that by which it is loaded.
    #[must_use]
    pub fn with_model(mut self, name: impl Into<String>, model: impl Into<String>) -> Self {
        self.models.push((name.into(), model.into()));
        self
    }

    /// With or without the models of the hub that are in this cache.
    #[must_use]
    pub fn with_local_models(mut self, local_models: impl Into<Option<HubCache>>) -> Self {
        self.local_models = local_models.into();
        self
    }

    /// Remembers the prompts of all keys together, or of each apart.
    #[must_use]
    pub fn with_shared_prefixes(mut self, shared_prefixes: bool) -> Self {
        self.shared_prefixes = shared_prefixes;
        self
    }

    /// Lets these load, unload, download and delete models.
    #[must_use]
    pub fn with_management(mut self, management: Management) -> Self {
        self.management = management;
        self
    }

    /// Downloads models from there.
    #[must_use]
    pub fn with_hub(mut self, hub: impl Into<Option<HubOptions>>) -> Self {
        self.hub = hub.into();
        self
    }

    /// With or without the web page.
    #[must_use]
    pub fn with_page(mut self, page: bool) -> Self {
        self.page = page;
        self
    }

    /// With these parameters where a request says nothing else.
    #[must_use]
    pub fn with_parameters(mut self, parameters: GenerateParameters) -> Self {
        self.parameters = parameters;
        self
    }

    /// With these limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ServerError> {
        if self.keys.is_empty() && !self.without_keys && !self.address.ip().is_loopback() {
            return Err(ServerError::Unprotected { address: self.address });
        }
        if let Some(origin) = self.allowed_origins.iter().find(|origin| !gate::is_origin(origin)) {
            return Err(ServerError::Origin { origin: origin.clone() });
        }
        self.parameters.validate().map_err(|error| ServerError::Parameters(error.to_string()))
    }
}
