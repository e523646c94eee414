//! Listening, and shutting down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use pippin::ModelCache;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tracing::{debug, info, warn};

use crate::connections::Connections;
use crate::impatient::Impatient;
use crate::shared::{Phase, Shared};
use crate::{ServerError, ServerOptions, routes};

/// The most headers of a request.
const MAX_HEADERS: usize = 100;
/// How long a client that has not sent all of a request may still take when the server shuts down.
const UNREAD: Duration = Duration::from_secs(1);
/// How long connections may take to notice that their answers have been cut.
const CUT: Duration = Duration::from_secs(5);

/// Starts servers.
#[derive(Debug)]
pub struct Server;

/// A server that listens. Dropping it shuts it down, and waits for that.
#[derive(Debug)]
pub struct RunningServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Taken when it is shut down.
    runtime: Option<Arc<Runtime>>,
    thread: Option<JoinHandle<()>>,
    /// Once they are watched.
    signals: Option<Signals>,
}

impl Server {
    /// Listens, and answers from now on, on threads of its own. `/health` says that it is loading until
    /// [`set_ready`](RunningServer::set_ready) is called.
    ///
    /// # Errors
    ///
    /// The options contradict each other, the address cannot be had, or the system refuses threads.
    pub fn start(cache: &ModelCache, options: ServerOptions) -> Result<RunningServer, ServerError> {
        options.check()?;
        // What takes time is done elsewhere: by the models' threads, and by those for blocking work.
        let runtime = Builder::new_multi_thread()
            .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).min(4))
            .thread_name("pippin-http")
            .enable_all()
            .build()
            .map_err(ServerError::Threads)?;
        let runtime = Arc::new(runtime);
        let address = options.address;
        let listen = |error| ServerError::Listen { address, error };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let shared = Shared::new(cache, options);
        let thread = {
            let (runtime, shared) = (Arc::clone(&runtime), Arc::clone(&shared));
            std::thread::Builder::new()
                .name("pippin-serve".to_owned())
                .spawn(move || runtime.block_on(serve(listener, shared)))
                .map_err(ServerError::Threads)?
        };
        Ok(RunningServer { address, shared, runtime: Some(runtime), thread: Some(thread), signals: None })
    }
}

impl RunningServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `/health` says that all is well.
    pub fn set_ready(&self) {
        self.shared.set_ready();
    }

    /// Waits for Ctrl-C, or for the signal that ends programs, and then shuts down: running answers are finished, for as
    /// long as [`Limits::shutdown_time`](crate::Limits::shutdown_time) says or until a second signal. `on_signal` is called
    /// when it begins.
    pub fn wait_for_signal_with(mut self, on_signal: impl FnOnce()) {
        self.watch_signals();
        if let (Some(runtime), Some(mut signals)) = (&self.runtime, self.signals.take()) {
            runtime.block_on(signals.next());
            on_signal();
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move {
                signals.next().await;
                shared.advance(Phase::Ending);
            });
        }
        self.shut_down();
    }

    /// Watches for signals from now on: one that comes before [`wait_for_signal`](Self::wait_for_signal) is called is not lost,
    /// and does not end the program by itself.
    pub fn watch_signals(&mut self) {
        if let (Some(runtime), None) = (&self.runtime, &self.signals) {
            let _inside = runtime.enter();
            self.signals = Some(Signals::new());
        }
    }

    /// The same without being told.
    pub fn wait_for_signal(self) {
        self.wait_for_signal_with(|| {});
    }

    /// Shuts down: no more connections are taken and no more answers begun; those that are being written are finished in
    /// the time that there is for it.
    pub fn shut_down(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.advance(Phase::Draining);
        if let Some(thread) = self.thread.take() {
            // It has panicked if it has; there is nothing left to end.
            let _ = thread.join();
        }
        // What still runs on a thread for blocking work ends there by itself.
        if let Some(runtime) = self.runtime.take().and_then(Arc::into_inner) {
            runtime.shutdown_background();
        }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// The signals that end a server, from the moment it was made.
#[derive(Debug)]
struct Signals {
    #[cfg(unix)]
    streams: Vec<tokio::signal::unix::Signal>,
}

impl Signals {
    /// Must be called within a runtime.
    fn new() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
            Self { streams: kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect() }
        }
        #[cfg(not(unix))]
        Self {}
    }

    /// Waits for the next one. If signals cannot be had, for ever: the program can still be ended from outside.
    async fn next(&mut self) {
        #[cfg(unix)]
        {
            let received = self.streams.iter_mut().map(|stream| Box::pin(stream.recv()));
            match received.len() {
                0 => std::future::pending().await,
                _ => drop(futures_util::future::select_all(received).await),
            }
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let routes = routes(&shared);
    let limits = shared.options.limits.clone();
    let connections = Connections::new(limits.connections);
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        // The least that hyper allows.
        .max_buf_size(limits.header_bytes.max(8192))
        .max_headers(MAX_HEADERS);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.reached(Phase::Draining) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Too many files are open, say.
            Err(error) => {
                warn!("cannot take a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Each piece of an answer is to leave at once.
        let _ = stream.set_nodelay(true);
        let place = tokio::select! {
            place = connections.place() => place,
            () = shared.reached(Phase::Draining) => break,
        };
        let service = place.service(routes.clone());
        let stream = TokioIo::new(Impatient::new(stream, limits.write_time));
        let connection = graceful.watch(http.serve_connection(stream, service));
        tokio::spawn(async move {
            tokio::select! {
                outcome = connection => if let Err(error) = outcome {
                    debug!("a connection has ended: {error}");
                },
                () = place.is_closed() => debug!("a connection without a request has been closed"),
            }
        });
    }
    drop(listener);
    match shared.is_ready() {
        true => info!(under_way = shared.under_way(), "shutting down"),
        // It never began: why not is said by whoever has started it.
        false => debug!("shutting down before all was ready"),
    }
    let mut finished = std::pin::pin!(graceful.shutdown());
    tokio::select! {
        () = &mut finished => return,
        () = tokio::time::sleep(UNREAD.min(limits.shutdown_time)) => connections.close_waiting(),
        () = shared.reached(Phase::Ending) => {}
    }
    tokio::select! {
        () = &mut finished => return,
        () = tokio::time::sleep(limits.shutdown_time.saturating_sub(UNREAD)) => {}
        () = shared.reached(Phase::Ending) => {}
    }
    shared.advance(Phase::Ending);
    let _ = tokio::time::timeout(CUT, finished).await;
}
