//! The connections of a server: how many there may be, and which of them wait for their clients.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Notify;

/// How long a connection may wait for its client before others take its place.
const PATIENCE: Duration = Duration::from_secs(1);

/// All connections, and how many there may be. Where there are as many, the one that has waited longest for its client to send a
/// request gives way to a new one: whoever opens connections and says nothing keeps nobody out.
#[derive(Debug)]
pub(crate) struct Connections {
    most: usize,
    all: Mutex<All>,
    /// Told when a place becomes free, or a connection begins to wait.
    changed: Notify,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    open: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    /// Since when it has waited for a request to be sent, to its end. `None`: one is answered.
    waits_since: Option<Instant>,
    close: Arc<Notify>,
    is_closed: bool,
}

impl Connections {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), all: Mutex::default(), changed: Notify::new() })
    }

    /// A place for one more, when there is one.
    pub(crate) async fn place(self: &Arc<Self>) -> Place {
        loop {
            // Before looking, so that no change is missed.
            let changed = self.changed.notified();
            let again = match self.try_place() {
                Ok(place) => return place,
                Err(again) => again,
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(again) => {}
            }
        }
    }

    /// A place, if there is one. If not, makes one free where a connection has waited too long, or says when one will have.
    fn try_place(self: &Arc<Self>) -> Result<Place, Option<Instant>> {
        let mut all = self.lock();
        if all.open.len() < self.most {
            let (id, close) = (all.next, Arc::new(Notify::new()));
            all.next += 1;
            let connection =
                Connection { waits_since: Some(Instant::now()), close: Arc::clone(&close), is_closed: false };
            all.open.insert(id, connection);
            return Ok(Place { connections: Arc::clone(self), id, close });
        }
        if all.open.values().any(|connection| connection.is_closed) {
            // It is about to go.
            return Err(None);
        }
        let longest = all
            .open
            .values_mut()
            .filter_map(|connection| Some((connection.waits_since?, connection)))
            .min_by_key(|(since, _)| *since);
        match longest {
            Some((since, connection)) if since.elapsed() >= PATIENCE => {
                connection.end();
                Err(None)
            }
            Some((since, _)) => Err(since.checked_add(PATIENCE)),
            None => Err(None),
        }
    }

    /// Closes all connections whose clients have not sent a request, or only a part of one.
    pub(crate) fn close_waiting(&self) {
        let mut all = self.lock();
        all.open.values_mut().filter(|open| open.waits_since.is_some()).for_each(Connection::end);
    }

    fn set(&self, id: u64, waits_since: Option<Instant>) {
        if let Some(connection) = self.lock().open.get_mut(&id) {
            connection.waits_since = waits_since;
        }
        if waits_since.is_some() {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn end(&mut self) {
        self.is_closed = true;
        self.close.notify_one();
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// The place of a connection, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    id: u64,
    close: Arc<Notify>,
}

impl Place {
    /// Waits until others need the place.
    pub(crate) async fn is_closed(&self) {
        self.close.notified().await;
    }

    /// Answers requests of this connection.
    pub(crate) fn service(&self, routes: Router) -> Watched {
        Watched {
            routes: TowerToHyperService::new(routes),
            connections: Arc::clone(&self.connections),
            id: self.id,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.id);
        self.connections.changed.notify_one();
    }
}

/// Routes that say when a request of a connection has been read, and when it has been answered.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    routes: TowerToHyperService<Router>,
    connections: Arc<Connections>,
    id: u64,
}

impl Service<Request<Incoming>> for Watched {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let told = |is_answer| Told { connections: Arc::clone(&self.connections), id: self.id, is_answer };
        let answer = told(true);
        let request = request.map(|body| {
            // It waits for the body from now on, if one is to come.
            let wait = (!body.is_end_stream()).then(|| told(false));
            self.connections.set(self.id, wait.as_ref().map(|_| Instant::now()));
            Body::new(Counted { body, told: wait })
        });
        let response = self.routes.call(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(response.map(|body| Body::new(Counted { body, told: Some(answer) })))
        })
    }
}

/// Tells, when it is dropped, that the request has been read or its answer written.
#[derive(Debug)]
struct Told {
    connections: Arc<Connections>,
    id: u64,
    is_answer: bool,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.connections.set(self.id, self.is_answer.then(Instant::now));
    }
}

/// A body whose end is told.
#[derive(Debug)]
struct Counted<B> {
    body: B,
    told: Option<Told>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let is_end = matches!(frame, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream();
        // An answer has ended when it is dropped: until then it may not have been written.
        if is_end && self.told.as_ref().is_some_and(|told| !told.is_answer) {
            self.told = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
