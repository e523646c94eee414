//! The way of events from a model's thread to a stream.
//!
//! A channel of the standard library can be waited for by a thread alone, and a server has more answers under way than
//! it wants threads. Here the receiver blocks, looks, or leaves a [`Waker`] that the sender's thread calls: no thread
//! and no runtime in between.
//!
//! A channel has no limit of its own. What is sent through it has: a request sends one event for each token that it may
//! generate and two more, so a stream that nobody reads holds no more than that.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What to do while there is nothing to receive.
#[derive(Debug)]
pub(crate) enum Wait<'a, 'b> {
    /// Wait for it.
    Block,
    /// Return at once.
    Not,
    /// Return at once, and have this task woken when there is.
    Wake(&'a mut Context<'b>),
}

/// A channel with one end each.
pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared { state: Mutex::new(State::default()), arrived: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    /// The sender is gone: what is in the queue is all there will be.
    has_ended: bool,
    /// The receiver is gone.
    is_unwanted: bool,
    /// A thread waits. Waking one costs a system call, which nobody should pay for a receiver that polls.
    is_blocked: bool,
    waker: Option<Waker>,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), has_ended: false, is_unwanted: false, is_blocked: false, waker: None }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the receiver that there is news. A waker is code of others, and may drop the receiver: it runs without the
    /// lock, and its panic is not the sender's.
    fn notify(&self, mut state: MutexGuard<'_, State<T>>) {
        let (is_blocked, waker) = (std::mem::take(&mut state.is_blocked), state.waker.take());
        drop(state);
        if is_blocked {
            self.arrived.notify_one();
        }
        if let Some(waker) = waker {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

/// The end that sends.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Sends an item, without waiting. Gives it back when nobody will receive it.
    pub(crate) fn send(&self, item: T) -> Result<(), T> {
        let mut state = self.0.lock();
        if state.is_unwanted {
            return Err(item);
        }
        state.queue.push_back(item);
        self.0.notify(state);
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_ended = true;
        self.0.notify(state);
    }
}

/// The end that receives.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// The next item, or `None` when the sender is gone and all it sent has been received. Pending only where `wait`
    /// does not block.
    pub(crate) fn receive(&self, wait: &mut Wait<'_, '_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        loop {
            if let Some(item) = state.queue.pop_front() {
                return Poll::Ready(Some(item));
            }
            if state.has_ended {
                return Poll::Ready(None);
            }
            match wait {
                Wait::Block => {
                    state.is_blocked = true;
                    state = self.0.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.is_blocked = false;
                }
                Wait::Not => return Poll::Pending,
                Wait::Wake(context) => {
                    let is_known = state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
                    let old = if is_known { None } else { state.waker.replace(context.waker().clone()) };
                    // Dropping a waker may run code of others.
                    drop(state);
                    drop(old);
                    return Poll::Pending;
                }
            }
        }
    }

    /// What has arrived, without waiting.
    #[cfg(test)]
    pub(crate) fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| match self.receive(&mut Wait::Not) {
            Poll::Ready(item) => item,
            Poll::Pending => None,
        })
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_unwanted = true;
        let rest = (std::mem::take(&mut state.queue), state.waker.take());
        drop(state);
        drop(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Fatal;

    impl Wake for Fatal {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics")
        }
    }

    fn poll<T>(receiver: &Receiver<T>, waker: &Waker) -> Poll<Option<T>> {
        receiver.receive(&mut Wait::Wake(&mut Context::from_waker(waker)))
    }

    #[test]
    fn what_was_sent_is_received_in_order_and_then_the_end() {
        let (sender, receiver) = channel();
        assert_eq!(receiver.receive(&mut Wait::Not), Poll::Pending);
        for item in 0..3 {
            sender.send(item).expect("wanted");
        }
        drop(sender);
        for item in 0..3 {
            assert_eq!(receiver.receive(&mut Wait::Block), Poll::Ready(Some(item)));
        }
        assert_eq!(receiver.receive(&mut Wait::Block), Poll::Ready(None));
        assert_eq!(receiver.receive(&mut Wait::Not), Poll::Ready(None));
    }

    #[test]
    fn the_sender_learns_that_nobody_listens() {
        let (sender, receiver) = channel();
        sender.send(1).expect("wanted");
        drop(receiver);
        assert_eq!(sender.send(2), Err(2));
    }

    #[test]
    fn a_thread_that_waits_is_woken_by_items_and_by_the_end() {
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(move || {
            let mut sum = 0;
            while let Poll::Ready(Some(item)) = receiver.receive(&mut Wait::Block) {
                sum += item;
            }
            sum
        });
        for item in 1..=1000 {
            sender.send(item).expect("wanted");
            if item % 100 == 0 {
                std::thread::yield_now();
            }
        }
        drop(sender);
        assert_eq!(thread.join().expect("no panic"), 500_500);
    }

    #[test]
    fn a_task_is_woken_once_for_each_time_that_it_waits() {
        let (sender, receiver) = channel();
        let count = Arc::new(Count::default());
        let (waker, other) = (Waker::from(Arc::clone(&count)), Waker::noop());
        assert_eq!(poll(&receiver, &waker), Poll::Pending);
        sender.send(1).expect("wanted");
        sender.send(2).expect("wanted");
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(poll(&receiver, &waker), Poll::Ready(Some(1)));
        assert_eq!(poll(&receiver, &waker), Poll::Ready(Some(2)));
        // The last task that asked is the one that is woken.
        assert_eq!(poll(&receiver, &waker), Poll::Pending);
        assert_eq!(poll(&receiver, other), Poll::Pending);
        sender.send(3).expect("wanted");
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(poll(&receiver, &waker), Poll::Ready(Some(3)));
        assert_eq!(poll(&receiver, &waker), Poll::Pending);
        drop(sender);
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert_eq!(poll(&receiver, &waker), Poll::Ready(None));
    }

    #[test]
    fn a_waker_may_panic_or_drop_the_receiver() {
        let (sender, receiver) = channel();
        assert_eq!(poll(&receiver, &Waker::from(Arc::new(Fatal))), Poll::Pending);
        sender.send(1).expect("wanted");
        assert_eq!(poll(&receiver, Waker::noop()), Poll::Ready(Some(1)));

        struct Owner(Mutex<Option<Receiver<i32>>>);
        impl Wake for Owner {
            fn wake(self: Arc<Self>) {
                self.0.lock().expect("no panic").take();
            }
        }
        let owner = Arc::new(Owner(Mutex::new(None)));
        assert_eq!(poll(&receiver, &Waker::from(Arc::clone(&owner))), Poll::Pending);
        *owner.0.lock().expect("no panic") = Some(receiver);
        sender.send(2).expect("wanted");
        assert_eq!(sender.send(3), Err(3));
    }
}
