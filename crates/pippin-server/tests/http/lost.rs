//! A device that fails for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pippin::cache::{LoadPlan, LoadReporter, LocalLoader, ModelLoader};
use pippin::hub::ModelConfiguration;
use pippin::models::{
    CachePlan, LanguageModel, ModelError, ModelInfo, Output, SlotEdit, StepId, Submitted, describe,
};
use pippin::tensor::{Batch, StepLimits, TensorError, Want};
use pippin::{EngineError, LoadOptions, ModelCache, ModelContainer};
use serde_json::json;

use crate::support::{Connection, options, question, server_with};

/// A model that never ends its answer, on a device that is lost when it is told so.
struct Endless {
    info: ModelInfo,
    limits: StepLimits,
    outputs: Vec<Output>,
    is_lost: Arc<AtomicBool>,
}

impl LanguageModel for Endless {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn allocate(&mut self, plan: &CachePlan) -> Result<(), ModelError> {
        let (page_size, pages) = (plan.page_size, plan.pages.clone());
        self.limits =
            StepLimits { vocab: self.info.vocab_size, slots: plan.slots, page_size, pages, axes: 1 };
        Ok(())
    }

    fn limits(&self) -> &StepLimits {
        &self.limits
    }

    fn submit(&mut self, batch: Batch) -> Result<Submitted, ModelError> {
        std::thread::sleep(Duration::from_millis(1));
        if self.is_lost.load(Ordering::SeqCst) {
            let (device, message) = ("a GPU".to_owned(), "an illegal memory access".to_owned());
            return Err(TensorError::DeviceLost { device, message }.into());
        }
        let drawn = |want: &Want| match want {
            Want::Sample => Output::Sampled(Some(pippin::models::Sampled {
                token: 100,
                logprob: None,
                top_logprobs: Vec::new(),
            })),
            _ => Output::Nothing,
        };
        self.outputs = batch.wants().iter().map(drawn).collect();
        Ok(Submitted { id: StepId(0), feeds: false })
    }

    fn finish(&mut self, _: StepId) -> Result<Vec<Output>, ModelError> {
        Ok(std::mem::take(&mut self.outputs))
    }

    fn edit(&mut self, _: Vec<SlotEdit>) -> Result<(), ModelError> {
        Ok(())
    }
}

/// Loads it in place of pippin-nano, as long as there is the device.
struct Loader {
    inner: LocalLoader,
    is_lost: Arc<AtomicBool>,
}

impl ModelLoader for Loader {
    fn configuration(&self, model: &str) -> Result<ModelConfiguration, EngineError> {
        self.inner.configuration(model)
    }

    fn plan(
        &self,
        configuration: &ModelConfiguration,
        options: &LoadOptions,
        budget: u64,
    ) -> Result<LoadPlan, EngineError> {
        self.inner.plan(configuration, options, budget)
    }

    fn load(
        &self,
        configuration: &ModelConfiguration,
        plan: &LoadPlan,
        _: &LoadReporter<'_>,
    ) -> Result<ModelContainer, EngineError> {
        let folder = plan.directory.clone().expect("a folder");
        let (info, is_lost) = (describe(&folder)?, Arc::clone(&self.is_lost));
        let processor = pippin::loading::TextProcessor::from_dir(&folder, configuration)?;
        let build = move || -> Result<Box<dyn LanguageModel>, EngineError> {
            if is_lost.load(Ordering::SeqCst) {
                let (device, message) = ("a GPU".to_owned(), "no such device".to_owned());
                return Err(ModelError::from(TensorError::DeviceLost { device, message }).into());
            }
            Ok(Box::new(Endless { info, limits: StepLimits::default(), outputs: Vec::new(), is_lost }))
        };
        ModelContainer::from_parts(build, processor, configuration.clone(), &plan.options)
    }
}

#[test]
fn a_lost_device_ends_its_requests_and_nothing_else() {
    const CHAT: &str = "/v1/chat/completions";
    let is_lost = Arc::<AtomicBool>::default();
    let loader = Loader { inner: LocalLoader::new(), is_lost: Arc::clone(&is_lost) };
    let server = server_with(ModelCache::from_loader(options(), loader), |options| options);
    let mut request = question("Count.");
    request["max_tokens"] = json!(100_000);
    request["stream"] = json!(true);
    let mut streams: Vec<Connection> = (0..3)
        .map(|_| Connection::open(server.address(), "POST", CHAT, &[], request.to_string().as_bytes()))
        .collect();
    for stream in &mut streams {
        stream.read_until("content\":\"");
    }
    assert_eq!(server.get("/health").status, 200);

    is_lost.store(true, Ordering::SeqCst);
    for stream in streams {
        let rest = stream.rest();
        assert!(rest.contains("device_lost") && !rest.contains("[DONE]"), "{rest}");
    }
    let begin = Instant::now();
    while server.get("/health").status == 200 {
        assert!(begin.elapsed() < Duration::from_secs(30), "it is well");
        std::thread::sleep(Duration::from_millis(5));
    }
    // As long as the device is gone, the model cannot be loaded again, and the server is not well.
    for _ in 0..2 {
        let reply = server.post(CHAT, &question("Hello!"));
        assert!(reply.status >= 500, "{reply:?}");
        let health = server.get("/health");
        assert_eq!((health.status, &health.json()["status"]), (503, &json!("a device is lost")));
    }
    is_lost.store(false, Ordering::SeqCst);
    assert_eq!(server.post(CHAT, &question("Hello!")).status, 200);
    assert_eq!(server.get("/health").status, 200);
}
