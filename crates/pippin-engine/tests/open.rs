//! From a name to a model: found, downloaded from a hub on loopback, loaded.

#[path = "../../pippin-hub/tests/support/mod.rs"]
mod hub;

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use hub::{FakeHub, Model};
use pippin_engine::{
    CancelHandle, EngineConfig, EngineError, GenerateParameters, LoadProgress, ModelCache, ModelContainer,
    ModelOpener,
};
use pippin_hub::{HubError, PullEvent};

const ID: &str = "org/nano";

struct Place {
    hub: FakeHub,
    cache: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pippin-nano-4bit");
        let hub = FakeHub::start();
        hub.add(ID, Model::from_folder(&folder));
        Self { hub, cache: tempfile::tempdir().expect("a temporary folder") }
    }

    fn config(&self) -> EngineConfig {
        let mut config = EngineConfig::default();
        config.hub.cache_dir = Some(self.cache.path().to_owned());
        config.hub.endpoint = Some(self.hub.endpoint());
        config.threads = Some(1);
        config.context = Some(256);
        config
    }

    fn open<'a>(&self) -> ModelOpener<'a> {
        ModelContainer::open(ID).with_config(&self.config())
    }

    /// So slow that a download does not end before something is done about it.
    fn slow(self) -> Self {
        self.hub.set_rate(200_000);
        self
    }
}

fn answers(model: &ModelContainer) {
    let parameters = GenerateParameters { max_tokens: Some(4), ..GenerateParameters::greedy() };
    let stream = model.generate_text("Once upon a time", &parameters).expect("accepted");
    assert!(!stream.collect_text().expect("no error").0.is_empty());
}

#[test]
fn nothing_is_downloaded_unless_asked_for() {
    let place = Place::new();
    let absent = |error: EngineError| assert!(matches!(error, EngineError::Hub(HubError::NotCached { .. })));
    absent(place.open().load().expect_err("not here"));
    absent(place.open().with_download(true).with_download(false).fetch().expect_err("not here"));
    let mut config = place.config();
    config.hub.offline = true;
    absent(ModelContainer::open(ID).with_config(&config).with_download(true).load().expect_err("offline"));
    assert!(place.hub.requests().is_empty());

    let mut asked = None;
    let opener = place.open().with_download_if(|plan| {
        asked = Some((plan.id.clone(), plan.missing_bytes() == plan.total_bytes()));
        false
    });
    absent(opener.load().expect_err("refused"));
    assert_eq!(asked, Some((ID.to_owned(), true)));
}

#[test]
fn one_call_downloads_and_loads() {
    let place = Place::new();
    let mut seen = Vec::new();
    let opener = place.open().with_download(true).with_progress(|progress| seen.push(progress));
    let model = opener.load().expect("downloaded and loaded");
    answers(&model);
    assert_eq!((model.name().as_str(), model.context()), (ID, 256));

    let LoadProgress::Downloading { id, total, missing } = &seen[0] else { panic!("{:?}", seen[0]) };
    assert_eq!((id.as_str(), total), (ID, missing));
    let downloads = seen.iter().filter(|step| matches!(step, LoadProgress::Download(_))).count();
    let last = seen.iter().rfind(|step| matches!(step, LoadProgress::Download(PullEvent::Progress { .. })));
    assert!(
        matches!(last, Some(LoadProgress::Download(PullEvent::Progress { done, .. })) if done == total),
        "{last:?}"
    );
    assert!(
        matches!(seen[1 + downloads..], [LoadProgress::Found(_), LoadProgress::Loading, LoadProgress::Ready]),
        "{seen:?}"
    );

    // What is here is not asked for again.
    place.hub.forget_requests();
    let found = place.open().with_download(true).fetch().expect("here");
    assert!(found.directory.starts_with(place.cache.path()) && place.hub.requests().is_empty());
    ModelOpener::from_configuration(found.configuration).with_config(&place.config()).load().expect("here");
}

#[test]
fn a_cache_downloads_what_it_is_asked_for() {
    let place = Place::new();
    let cache = ModelCache::from_config(&place.config()).expect("valid");
    assert!(place.open().load_in(&cache).is_err());
    let mut steps = 0;
    let opener = place.open().with_download(true).with_progress(|_| steps += 1);
    let lease = opener.load_in(&cache).expect("downloaded and loaded");
    answers(&lease);
    assert!(steps > 4);
    // A model that is loaded needs neither the hub nor its files.
    let again = place.open().with_download(true).spawn_in(&cache).expect("a thread").wait().expect("loaded");
    assert_eq!((cache.usage().counts.hits, cache.usage().models), (1, 1));
    drop((lease, again));
}

#[test]
fn downloads_are_cancelled_and_go_on_where_they_were() {
    let place = Place::new().slow();
    let cancel = CancelHandle::default();
    let error = {
        let cancel = cancel.clone();
        let opener = place.open().with_download(true).with_cancel(&cancel.clone());
        let opener = opener.with_progress(move |progress| {
            if let LoadProgress::Download(PullEvent::Progress { transferred: 1.., .. }) = progress {
                cancel.cancel();
            }
        });
        opener.load().expect_err("cancelled")
    };
    assert!(matches!(&error, EngineError::LoadCancelled { model } if model == ID), "{error}");
    // A handle that is cancelled stays so: nothing is even begun.
    place.hub.forget_requests();
    assert!(place.open().with_download(true).with_cancel(&cancel).load().is_err());
    assert!(place.hub.requests().is_empty());

    place.hub.set_rate(0);
    answers(&place.open().with_download(true).load().expect("goes on"));
}

#[test]
fn a_dropped_task_is_cancelled() {
    let place = Place::new().slow();
    let (sender, began) = channel();
    let task = place.open().with_download(true);
    let task = task.with_progress(move |progress| drop(sender.send(progress))).spawn().expect("a thread");
    let first = began.recv().expect("a step");
    assert!(matches!(first, LoadProgress::Downloading { .. }));
    drop(task);
    // The thread ends, and its callback with it, long before the model could be here.
    for step in began {
        assert!(!matches!(step, LoadProgress::Found(_) | LoadProgress::Ready), "{step:?}");
    }
    let handle = CancelHandle::default();
    let task = place.open().with_download(true).with_cancel(&handle).spawn().expect("a thread");
    handle.cancel();
    assert!(matches!(task.wait(), Err(EngineError::LoadCancelled { .. })));
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_task_is_a_future_and_can_be_looked_at() {
    let open = || ModelContainer::open("pippin-nano").spawn().expect("a thread");
    let mut future = pin!(open());
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let model = loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => break outcome.expect("the shipped model loads"),
            Poll::Pending => std::thread::park(),
        }
    };
    answers(&model);

    let mut task = open();
    let model = loop {
        match task.try_wait() {
            Poll::Ready(outcome) => break outcome.expect("the shipped model loads"),
            Poll::Pending => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    answers(&model);
    assert!(matches!(task.try_wait(), Poll::Ready(Err(_))), "it is given once");

    let panics = ModelContainer::open("pippin-nano").with_progress(|_| panic!("a callback that panics"));
    let error = panics.spawn().expect("a thread").wait().expect_err("no model");
    assert!(error.to_string().contains("a callback that panics"), "{error}");
}
