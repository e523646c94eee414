//! `GET /metrics`: numbers for Prometheus.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use pippin::cache::{Occupancy, PrefixCacheCounts};
use pippin::monitor::{Distribution, ModelPerformance};

use crate::error::ApiResult;
use crate::shared::{Shared, blocking};

pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> ApiResult<Response> {
    let text = blocking(move || page(&shared)).await?;
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn page(shared: &Shared) -> String {
    let snapshot = shared.cache.monitor().snapshot();
    let usage = shared.cache.usage();
    let mut page = Page(String::new());
    for (name, kind, help, value) in MODEL_METRICS {
        page.metric(name, kind, help);
        for model in &snapshot.models {
            page.value(name, &[("model", &model.model)], value(model));
        }
    }
    page.metric("pippin_requests_total", "counter", "Answers by how they ended.");
    for model in &snapshot.models {
        let counts = &model.requests;
        let reasons = [
            ("stop", counts.stop),
            ("length", counts.length),
            ("cancelled", counts.cancelled),
            ("failed", counts.failed),
        ];
        for (reason, count) in reasons {
            page.value("pippin_requests_total", &[("model", &model.model), ("reason", reason)], count);
        }
    }
    for (name, help, distribution) in DISTRIBUTIONS {
        page.metric(name, "gauge", help);
        for model in &snapshot.models {
            let Distribution { p50, p95, .. } = *distribution(model);
            for (quantile, value) in [("0.5", p50), ("0.95", p95)] {
                if let Some(value) = value {
                    page.value(name, &[("model", &model.model), ("quantile", quantile)], value);
                }
            }
        }
    }
    // Gateways of Kubernetes (inference extension) read these by the names that vLLM has.
    let loaded = shared.cache.models();
    for (name, help, value) in VLLM_GAUGES {
        page.metric(name, "gauge", help);
        for model in &loaded {
            if let Some(occupancy) = &model.occupancy {
                page.value(name, &[("model_name", &shared.name_of(&model.model))], value(occupancy));
            }
        }
    }
    for (name, help, value) in PREFIX_COUNTS {
        page.metric(name, "counter", help);
        for model in &loaded {
            if let Some(counts) = &model.prefix_cache {
                page.value(name, &[("model", &model.model)], value(counts));
            }
        }
    }
    let process = &snapshot.process;
    let resident =
        process.anonymous_memory_bytes.zip(process.file_memory_bytes).map(|(own, files)| own + files);
    let singles: [(&str, &str, &str, Option<f64>); 8] = [
        (
            "pippin_answers_under_way",
            "gauge",
            "Answers that are written or wait.",
            Some(shared.under_way() as f64),
        ),
        (
            "pippin_models_loaded",
            "gauge",
            "Models that are loaded or being loaded.",
            Some(usage.models as f64),
        ),
        ("pippin_model_loads_total", "counter", "Loads that have begun.", Some(usage.counts.loads as f64)),
        (
            "pippin_model_load_failures_total",
            "counter",
            "Loads that have failed.",
            Some(usage.counts.failures as f64),
        ),
        (
            "pippin_model_memory_bytes",
            "gauge",
            "Memory that models take, as the budget counts it.",
            Some(usage.used as f64),
        ),
        (
            "pippin_model_memory_budget_bytes",
            "gauge",
            "Memory that models may take.",
            Some(usage.budget as f64),
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Memory of the process.",
            resident.map(|bytes| bytes as f64),
        ),
        ("process_cpu_seconds_total", "counter", "Processor time of the process.", process.processor_time_s),
    ];
    for (name, kind, help, value) in singles {
        if let Some(value) = value {
            page.metric(name, kind, help);
            page.value(name, &[], value);
        }
    }
    page.0
}

type OfModel = fn(&ModelPerformance) -> u64;

const MODEL_METRICS: [(&str, &str, &str, OfModel); 6] = [
    ("pippin_requests_running", "gauge", "Answers that have not ended.", |model| model.requests.running),
    ("pippin_prompt_tokens_total", "counter", "Tokens of prompts.", |model| model.tokens.prompt),
    (
        "pippin_prompt_tokens_cached_total",
        "counter",
        "Tokens of prompts that needed no computing.",
        |model| model.tokens.cached,
    ),
    ("pippin_generated_tokens_total", "counter", "Tokens of answers.", |model| model.tokens.generated),
    (
        "pippin_drafted_tokens_total",
        "counter",
        "Tokens that were guessed ahead and computed, right or wrong.",
        |model| model.tokens.drafted,
    ),
    ("pippin_accepted_tokens_total", "counter", "Tokens that were guessed ahead and right.", |model| {
        model.tokens.accepted
    }),
];

type OfOccupancy = fn(&Occupancy) -> f64;

const VLLM_GAUGES: [(&str, &str, OfOccupancy); 3] = [
    ("vllm:num_requests_running", "Requests that are computed.", |now| now.running as f64),
    ("vllm:num_requests_waiting", "Requests that wait.", |now| now.waiting as f64),
    ("vllm:kv_cache_usage_perc", "How much of the cache of keys and values is in use, from 0 to 1.", |now| {
        now.cache_use
    }),
];

type OfPrefixes = fn(&PrefixCacheCounts) -> u64;

/// Of models whose prefixes are kept on disk.
const PREFIX_COUNTS: [(&str, &str, OfPrefixes); 8] = [
    ("pippin_prefix_cache_hits_total", "Requests whose beginning was found on disk.", |counts| counts.hits),
    ("pippin_prefix_cache_misses_total", "Requests that asked the disk in vain.", |counts| counts.misses),
    ("pippin_prefix_cache_entries_read_total", "Entries that were read from disk for requests.", |counts| {
        counts.entries_read
    }),
    ("pippin_prefix_cache_read_bytes_total", "Bytes of these.", |counts| counts.bytes_read),
    ("pippin_prefix_cache_entries_written_total", "Entries that were written to disk.", |counts| {
        counts.entries_written
    }),
    ("pippin_prefix_cache_written_bytes_total", "Bytes of these.", |counts| counts.bytes_written),
    (
        "pippin_prefix_cache_read_failures_total",
        "Entries that were damaged or could not be read.",
        |counts| counts.read_failures,
    ),
    ("pippin_prefix_cache_write_failures_total", "Entries that could not be written.", |counts| {
        counts.write_failures
    }),
];

type DistributionOf = fn(&ModelPerformance) -> &Distribution;

const DISTRIBUTIONS: [(&str, &str, DistributionOf); 3] = [
    (
        "pippin_time_to_first_token_seconds",
        "From the request to the first token, over the last 256 answers.",
        |model| &model.time_to_first_token_s,
    ),
    (
        "pippin_prefill_tokens_per_second",
        "Prompt tokens computed per second, over the last 256 answers.",
        |model| &model.prefill_tokens_per_second,
    ),
    (
        "pippin_decode_tokens_per_second",
        "Tokens generated per second by an answer, over the last 256.",
        |model| &model.decode_tokens_per_second,
    ),
];

struct Page(String);

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page(String::new());
        page.value("x", &[("model", "a\"b\\c\nd"), ("kind", "e")], 1.5);
        assert_eq!(page.0, "x{model=\"a\\\"b\\\\c\\nd\",kind=\"e\"} 1.5\n");
    }
}
