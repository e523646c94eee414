//! Streams for tasks of an async runtime, whichever it is.

use std::task::{Context, Poll};

use futures_core::Stream;
use futures_core::stream::FusedStream;

/// A stream of the engine as a [`futures_core::Stream`]: what [`into_async`](crate::GenerationStream::into_async) returns.
///
/// The model's thread wakes the task when there is an item. No thread waits in between and no runtime is needed, so a
/// server may have as many answers under way as it likes. Reading turns tokens into text on the task's thread, which takes
/// microseconds. Dropping it cancels the request, as dropping the stream itself does.
///
/// Whoever drops the last handle to a model, a stream's included, waits until its thread has ended, which takes one step at
/// most. A server keeps a [`ModelContainer`](crate::ModelContainer) or a [`ModelCache`](crate::ModelCache), so this is never a stream.
///
/// It is a type of its own because an iterator and a stream with one name would have two methods `next`.
///
/// ```no_run
/// use std::pin::pin;
/// use std::task::{Context, Poll, Waker};
///
/// use futures_core::Stream;
/// use pippin_engine::{GenerateParameters, LoadOptions, ModelContainer};
///
/// let model = ModelContainer::load("pippin-nano", &LoadOptions::default())?;
/// let mut stream = pin!(model.generate_text("Once", &GenerateParameters::greedy())?.into_async());
/// // A runtime does this, with a waker of its own: `while let Some(event) = stream.next().await`.
/// let mut context = Context::from_waker(Waker::noop());
/// while let Poll::Ready(Some(event)) = stream.as_mut().poll_next(&mut context) {
///     print!("{}", event?.text());
/// }
/// # Ok::<(), pippin_engine::EngineError>(())
/// ```
#[derive(Debug)]
pub struct AsyncStream<S> {
    stream: S,
    has_ended: bool,
}

impl<S> AsyncStream<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, has_ended: false }
    }

    /// The next item, by the stream's own `poll`.
    pub(crate) fn advance<T>(
        &mut self,
        poll: impl FnOnce(&mut S, &mut Context<'_>) -> Poll<Option<T>>,
        context: &mut Context<'_>,
    ) -> Poll<Option<T>> {
        let item = poll(&mut self.stream, context);
        self.has_ended |= matches!(item, Poll::Ready(None));
        item
    }

    /// The stream itself: for its cancel handle, say.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream itself, to be read in another way too.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream itself, at the place where it is.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S> FusedStream for AsyncStream<S>
where
    Self: Stream,
{
    fn is_terminated(&self) -> bool {
        self.has_ended
    }
}
