//! A model that says what it is told to: the one that comes with Pippin, held to a text, with a template of a model that thinks and
//! calls tools.

use std::path::Path;
use std::sync::LazyLock;

use pippin::GenerateParameters;
use pippin::generate::Constraint;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{TestServer, cache, server_with};

const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pippin-nano-4bit");

const TEMPLATE: &str = "{% if tools %}tools: {{ tools | tojson }} <tool_call></tool_call>\n{% endif %}\
    {% for m in messages %}<|im_start|>{{ m.role }}\n\
    {% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}\
    {% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}\
    {# effort: #}{% if reasoning_effort %}{% endif %}";

/// The folder of the model.
fn folder() -> &'static Path {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| folder_with(TEMPLATE));
    FOLDER.path()
}

/// A folder with the model and this template.
fn folder_with(template: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for file in std::fs::read_dir(NANO).expect("the model").map(|file| file.expect("a file").path()) {
        std::fs::copy(&file, folder.path().join(file.file_name().expect("a name"))).expect("copied");
    }
    let path = folder.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("read")).expect("JSON");
    config["chat_template"] = template.into();
    std::fs::write(&path, config.to_string()).expect("written");
    folder
}

/// A server with a model of another template.
pub(crate) struct Templated {
    pub(crate) server: TestServer,
    _folder: TempDir,
}

pub(crate) fn with_template(template: &str) -> Templated {
    let folder = folder_with(template);
    let path = folder.path().to_str().expect("UTF-8").to_owned();
    let server = server_with(cache(), |mut options| {
        options.models.clear();
        options.with_model("scripted", path)
    });
    Templated { server, _folder: folder }
}

/// A server whose answers are this text, unless a request asks for another form.
pub(crate) fn saying(text: &str) -> TestServer {
    let parameters = GenerateParameters::greedy().with_constraint(Constraint::choice([text]));
    let parameters = parameters.with_constraint_after("");
    let folder = folder().to_str().expect("UTF-8");
    server_with(cache(), |mut options| {
        options.models.clear();
        options.with_model("scripted", folder).with_parameters(parameters)
    })
}

/// The same model without anything to say.
pub(crate) fn free() -> TestServer {
    let folder = folder().to_str().expect("UTF-8");
    server_with(cache(), |mut options| {
        options.models.clear();
        options.with_model("scripted", folder)
    })
}

/// Tools of the OpenAI API.
pub(crate) fn tools() -> Value {
    json!([
        {"type": "function", "function": {
            "name": "get_weather",
            "description": "The weather of a place",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 5}},
                "required": ["city", "days"],
                "additionalProperties": false,
            },
        }},
        {"type": "function", "function": {"name": "get_time"}},
    ])
}
