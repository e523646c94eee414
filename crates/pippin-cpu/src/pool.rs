//! The thread pool all kernels share.
//!
//! A decode step of a small model is a few hundred parallel regions of some tens of microseconds each, so what counts
//! is the cost of starting and ending a region. Workers spin for a short while after a region before they park, and a
//! region does not wait for workers that have not arrived: the calling thread takes tasks too, and closes the region
//! when none are left.
//!
//! Tasks are handed out in order, each thread beginning with a range of its own, so that neighbouring tasks run on one
//! thread and what one fetches ahead the next one finds. A thread that has finished its range takes from the others'.

use std::{
    cell::UnsafeCell,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long an idle worker spins before it parks. Longer than the gaps between the regions of a step (norms, sampling),
/// short enough not to burn a core while the user types.
const SPIN: Duration = Duration::from_micros(200);

type Task<'a> = dyn Fn(usize) + Sync + 'a;

struct Job {
    task: *const Task<'static>,
    tasks: usize,
}

/// Keeps a value on cache lines of its own: waiting threads read some of these counters all the time, and others are
/// written for every task. (Two lines, because processors fetch them in pairs.)
#[repr(align(128))]
struct Alone<T>(T);

impl<T> std::ops::Deref for Alone<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

struct Shared {
    job: UnsafeCell<Job>,
    /// Whether workers may enter the current job.
    open: Alone<AtomicBool>,
    /// Counts jobs, so that a worker can tell a new one from the one it has finished.
    epoch: AtomicUsize,
    /// The next task of each thread's range.
    next: Vec<Alone<AtomicUsize>>,
    /// Workers inside the current job.
    active: Alone<AtomicUsize>,
    sleepers: AtomicUsize,
    gate: Mutex<()>,
    wake: Condvar,
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `job` is written only by the thread that holds `Pool::region`, and only while `open` is false and `active` is
// zero; workers read it only after they have raised `active` and then seen `open` (both sequentially consistent).
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is only dereferenced under the protocol above, while its referent is borrowed by
// `Pool::run`.
unsafe impl Send for Shared {}

/// A persistent pool of worker threads.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    region: Mutex<()>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Pool {
    /// A pool that computes on `threads` threads, the caller of [`run`](Self::run) included. Where the system refuses
    /// to start a thread the pool is smaller.
    pub(crate) fn new(threads: usize) -> Self {
        fn nothing(_: usize) {}
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(Job { task: &nothing as &Task<'static>, tasks: 0 }),
            open: Alone(AtomicBool::new(false)),
            epoch: AtomicUsize::new(0),
            next: (0..threads.max(1)).map(|_| Alone(AtomicUsize::new(0))).collect(),
            active: Alone(AtomicUsize::new(0)),
            sleepers: AtomicUsize::new(0),
            gate: Mutex::new(()),
            wake: Condvar::new(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers = (1..threads.max(1))
            .filter_map(|index| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("pippin-cpu-{index}"))
                    .spawn(move || work(&shared, index))
                    .ok()
            })
            .collect();
        Self { shared, region: Mutex::new(()), workers }
    }

    /// Number of threads that compute.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` with every number below `tasks`, in parallel, and returns when all calls have returned.
    pub(crate) fn run(&self, tasks: usize, task: &Task<'_>) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(task);
            return;
        }
        // One region at a time: several models share the pool.
        let _region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: the region lock is held, and the previous region ended with `open` false and `active` zero. The
        // lifetime of `task` is erased here; `close` below ends all use of it before this function returns.
        unsafe {
            *shared.job.get() =
                Job { task: std::mem::transmute::<*const Task<'_>, *const Task<'static>>(task), tasks };
        }
        for (thread, next) in shared.next.iter().enumerate() {
            next.store(shared.range(thread, tasks).start, SeqCst);
        }
        shared.epoch.fetch_add(1, SeqCst);
        shared.open.store(true, SeqCst);
        if shared.sleepers.load(SeqCst) > 0 {
            let _gate = shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        let result = catch_unwind(AssertUnwindSafe(|| take_tasks(shared, task, tasks, 0)));
        shared.open.store(false, SeqCst);
        if result.is_err() {
            // Nobody needs the remaining tasks.
            shared.next.iter().for_each(|next| next.store(tasks, SeqCst));
        }
        while shared.active.load(SeqCst) > 0 {
            std::hint::spin_loop();
        }
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, SeqCst), "a kernel panicked on a worker thread");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        {
            let _gate = self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker never unwinds: panics of tasks are caught.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The tasks a thread begins with.
    fn range(&self, thread: usize, tasks: usize) -> Range<usize> {
        let threads = self.next.len();
        thread * tasks / threads..(thread + 1) * tasks / threads
    }
}

fn take_tasks(shared: &Shared, task: &Task<'_>, tasks: usize, thread: usize) {
    let threads = shared.next.len();
    for owner in (thread..threads).chain(0..thread) {
        let end = shared.range(owner, tasks).end;
        loop {
            let index = shared.next[owner].fetch_add(1, SeqCst);
            if index >= end {
                break;
            }
            task(index);
        }
    }
}

fn work(shared: &Shared, thread: usize) {
    let mut finished = 0;
    let mut idle_since = Instant::now();
    let mut spins = 0u32;
    let is_new = |finished| shared.open.load(SeqCst) && shared.epoch.load(SeqCst) != finished;
    while !shared.stop.load(SeqCst) {
        if is_new(finished) {
            shared.active.fetch_add(1, SeqCst);
            if shared.open.load(SeqCst) {
                // While `active` is raised there is no next job, so this is the open one's number.
                finished = shared.epoch.load(SeqCst);
                // SAFETY: `active` was raised before `open` was seen, so `run` waits for this thread before it returns
                // (which ends the borrow of the task) or writes a new job.
                let (task, tasks) = unsafe { (&*(*shared.job.get()).task, (*shared.job.get()).tasks) };
                if catch_unwind(AssertUnwindSafe(|| take_tasks(shared, task, tasks, thread))).is_err() {
                    shared.panicked.store(true, SeqCst);
                }
            }
            shared.active.fetch_sub(1, SeqCst);
            idle_since = Instant::now();
            continue;
        }
        std::hint::spin_loop();
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(64) && idle_since.elapsed() > SPIN {
            let mut gate = shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
            shared.sleepers.fetch_add(1, SeqCst);
            while !is_new(finished) && !shared.stop.load(SeqCst) {
                gate = shared.wake.wait(gate).unwrap_or_else(PoisonError::into_inner);
            }
            shared.sleepers.fetch_sub(1, SeqCst);
            idle_since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        let pool = Pool::new(4);
        for tasks in [0, 1, 2, 3, 7, 64, 1000] {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, &|i| {
                counts[i].fetch_add(1, SeqCst);
            });
            assert!(counts.iter().all(|c| c.load(SeqCst) == 1));
        }
    }

    #[test]
    fn many_short_regions_from_several_threads() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        pool.run(5, &|i| {
                            total.fetch_add(i, SeqCst);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(SeqCst), 3 * 2000 * 10);
    }

    #[test]
    fn workers_wake_after_parking() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(SPIN * 5);
            // Neither task returns before the other has begun, which takes two threads.
            let begun = AtomicUsize::new(0);
            pool.run(2, &|_| {
                begun.fetch_add(1, SeqCst);
                let start = Instant::now();
                while begun.load(SeqCst) < 2 {
                    assert!(start.elapsed() < Duration::from_secs(60), "the worker did not wake");
                    std::thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_panicking_task_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(3);
        for bad in [0, 1, 2, 3] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(4, &|i| {
                    std::thread::sleep(Duration::from_millis(2));
                    assert!(i != bad, "task {i}");
                });
            }));
            assert!(result.is_err());
        }
        let sum = AtomicUsize::new(0);
        pool.run(10, &|i| {
            sum.fetch_add(i, SeqCst);
        });
        assert_eq!(sum.load(SeqCst), 45);
    }
}
