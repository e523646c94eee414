//! A server as its clients see it: over loopback, with the model that comes with Pippin.

mod agents;
mod anthropic;
mod chat;
mod completions;
#[path = "../../../pippin-hub/tests/support/mod.rs"]
mod hub;
mod lifecycle;
mod load;
mod lost;
mod manage;
#[path = "../../examples/load/mix/mod.rs"]
mod mix;
mod mutations;
mod ollama;
mod page;
mod refusals;
mod responses;
mod scripted;
mod security;
mod structure;
mod support;
mod text;
mod tools;
