//! Conversations in files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pippin_text::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::disk::replace;
use crate::{ChatSession, EngineError, GenerateParameters, ModelContainer, Result};

/// The form of the files that are written, and the latest that is read.
const VERSION: u32 = 1;
/// Larger files are no conversations.
const MAX_BYTES: u64 = 256 << 20;

/// A conversation as a file holds it, in JSON.
#[derive(Debug, Serialize, Deserialize)]
struct SessionFile {
    /// The form of what follows.
    pippin_session: u32,
    /// The model that was asked, for whoever reads the file.
    #[serde(default)]
    model: String,
    #[serde(default)]
    system: Option<String>,
    #[serde(default)]
    history: Vec<Message>,
    #[serde(default)]
    tools: Vec<Value>,
    #[serde(default)]
    max_tool_rounds: Option<usize>,
    #[serde(default)]
    template_kwargs: Map<String, Value>,
    #[serde(default)]
    parameters: GenerateParameters,
}

impl ChatSession {
    /// Writes the conversation to a file, in place of what is there: instructions, history, tools, parameters and variables of the template, as
    /// JSON. Only its owner may read the file. A [dispatch](Self::with_tool_dispatch) of tools is not part of it, and an answer that is being
    /// written is not either.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let file = SessionFile {
            pippin_session: VERSION,
            model: self.container().name(),
            system: self.system().map(str::to_owned),
            history: self.history(),
            tools: self.tools().to_vec(),
            max_tool_rounds: Some(self.max_tool_rounds()),
            template_kwargs: self.template_kwargs().clone(),
            parameters: self.parameters().clone(),
        };
        let failed = |source| EngineError::SessionFile { action: "write", path: path.to_owned(), source };
        let mut text = serde_json::to_string_pretty(&file).map_err(|error| failed(error.into()))?;
        text.push('\n');
        replace(path, |file| file.write_all(text.as_bytes())).map_err(failed)
    }

    /// [`save`](Self::save), and beside it, in a file whose name has `.prefix` at its end, what the model has computed of the conversation so far: the
    /// next turn after [`load`](Self::load) then begins at once. That file is as large as the conversation's part of the KV cache. It waits
    /// for the step that is being computed.
    ///
    /// # Errors
    ///
    /// A file cannot be written, or the model's thread has died. Where there is nothing to write, because the
    /// model does not support it or has made room for others, the conversation alone is written; returns whether there was.
    pub fn save_with_prefix(&self, path: impl AsRef<Path>) -> Result<bool> {
        let path = path.as_ref();
        self.save(path)?;
        let prefix = prefix_path(path);
        let failed = |source| EngineError::SessionFile { action: "write", path: prefix.clone(), source };
        if let Some(unused) = self.prefix() {
            return unused.write_again(&prefix).map(|()| true).map_err(failed);
        }
        let namespace = self.parameters().cache_namespace.as_deref();
        let is_written = self.container().export(namespace, self.computed(), &prefix, failed)?;
        if !is_written
            && let Err(source) = std::fs::remove_file(&prefix)
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(source));
        }
        Ok(is_written)
    }

    /// A conversation from the file that [`save`](Self::save) has written, with a model that need not be the same. What
    /// [`save_with_prefix`](Self::save_with_prefix) has written beside it is used if it is of this model, loaded in the same way, and whole; else
    /// the next turn computes the conversation again, with the same result.
    ///
    /// # Errors
    ///
    /// The file cannot be read ([`EngineError::SessionFile`]), or is not one of a conversation ([`EngineError::NoSession`]).
    pub fn load(container: ModelContainer, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = read(path)?;
        let prefix = container.import(&prefix_path(path)).map(Arc::new);
        let mut session = Self::new(container)
            .with_parameters(file.parameters)
            .with_tools(file.tools)
            .with_template_kwargs(file.template_kwargs)
            .with_history(file.history);
        if let Some(rounds) = file.max_tool_rounds {
            session = session.with_max_tool_rounds(rounds);
        }
        session.set_system(file.system);
        session.set_prefix(prefix);
        Ok(session)
    }
}

fn read(path: &Path) -> Result<SessionFile> {
    let failed = |source| EngineError::SessionFile { action: "read", path: path.to_owned(), source };
    let refused = |problem: String| EngineError::NoSession { path: path.to_owned(), problem };
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(refused(format!("more than {MAX_BYTES} bytes are no conversation")));
    }
    let no_session = |error: serde_json::Error| refused(format!("not a saved conversation: {error}"));
    // The form decides how the rest is read.
    let fields: Map<String, Value> = serde_json::from_slice(&text).map_err(no_session)?;
    let Some(form) = fields.get("pippin_session") else {
        return Err(refused("not a saved conversation: it has no field `pippin_session`".to_owned()));
    };
    if form.as_u64().is_none_or(|form| !(1..=u64::from(VERSION)).contains(&form)) {
        return Err(refused(format!(
            "the conversation has form {form}, this version of Pippin knows those up to {VERSION}"
        )));
    }
    let file: SessionFile = serde_json::from_slice(&text).map_err(no_session)?;
    file.parameters.validate().map_err(|error| refused(format!("parameters: {error}")))?;
    Ok(file)
}

/// The file beside a conversation's with what has been computed of it.
fn prefix_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".prefix");
    PathBuf::from(name)
}
