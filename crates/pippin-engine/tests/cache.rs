//! The cache with the shipped model.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pippin_engine::{
    CacheOptions, GenerateParameters, KeepAlive, LoadOptions, MemoryBudget, ModelCache, ModelContainer,
    ModelMemory,
};

fn options() -> CacheOptions {
    CacheOptions {
        load: LoadOptions { threads: Some(2), ..LoadOptions::default() },
        maintenance: None,
        ..CacheOptions::default()
    }
}

fn ask(cache: &ModelCache) -> usize {
    let model = cache.get("pippin-nano").expect("loaded");
    let parameters = GenerateParameters { max_tokens: Some(2), ..GenerateParameters::greedy() };
    let stream = model.generate_text("Once upon a time", &parameters).expect("accepted");
    let (_, info) = stream.collect_text().expect("an answer");
    info.expect("numbers").generated_tokens
}

#[test]
fn estimates_are_compared_with_what_a_load_took() {
    let cache = ModelCache::new(options());
    assert_eq!(ask(&cache), 2);
    let models = cache.models();
    let model = &models[0];
    assert_eq!((model.model.as_str(), model.is_in_use, model.is_pinned), ("pippin-nano", false, false));
    let memory = model.memory.expect("loaded");
    // Both count the same weights and the same KV cache.
    assert_eq!(memory.difference_bytes, 0, "{memory:?}");
    assert_eq!(model.bytes, memory.accounted.total());
    assert!(memory.accounted.weights > 1_000_000 && memory.accounted.kv_cache > 0);
    assert_eq!(cache.usage().used, model.bytes);

    let numbers = cache.monitor().model("pippin-nano").expect("known");
    assert_eq!((numbers.loads, numbers.requests.total, numbers.tokens.generated), (1, 1, 2));
    assert!(numbers.load_s > Some(0.0) && numbers.time_to_first_token_s.last > Some(0.0));
    assert_eq!(numbers.load_memory.expect("compared").estimated, memory.estimated);
    // A second load goes on in the same place.
    assert_eq!(cache.unload_idle(), 1);
    assert_eq!(ask(&cache), 2);
    let numbers = cache.monitor().model("pippin-nano").expect("known");
    assert_eq!((numbers.loads, numbers.requests.total, numbers.tokens.generated), (2, 2, 4));
    assert_eq!(numbers.requests.length, 2);
    serde_json::to_string(&cache.monitor().snapshot()).expect("numbers are data");
}

#[test]
fn the_context_is_planned_for_the_budget() {
    let load = |budget: u64| {
        let cache = ModelCache::new(CacheOptions { memory_budget: MemoryBudget::Bytes(budget), ..options() });
        cache.get("pippin-nano").map(|model| model.memory())
    };
    let whole = load(1 << 40).expect("loaded");
    let info = pippin_models::describe(&pippin_hub::resolve("pippin-nano").expect("shipped").directory)
        .expect("a model");
    assert_eq!(whole.context, info.context_length);
    assert_eq!(whole, ModelMemory::estimate(&info, &options().load, 1 << 40));
    let error = load(1 << 20).expect_err("no room").to_string();
    assert!(error.contains("pippin-nano needs") && error.contains("1.0 MB"), "{error}");
    // Without a cache it is the same.
    let alone = |budget: u64| {
        let options = LoadOptions { memory_budget: Some(budget), ..options().load };
        ModelContainer::load("pippin-nano", &options).map(|model| model.memory())
    };
    assert_eq!(alone(1 << 40).expect("loaded"), whole);
    assert_eq!(alone(1 << 20).expect_err("no room").to_string(), error);
}

/// Counts what Rust code has allocated and not freed. The system's own numbers say how it is cut into pages, too, which
/// differs from one run to the next by more than a leak would.
struct Counting(AtomicUsize);

#[global_allocator]
static HEAP: Counting = Counting(AtomicUsize::new(0));

// SAFETY: the system's allocator does the work, with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.0.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Of this process in RAM, in bytes: what it has written, and all of it.
#[cfg(target_os = "linux")]
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
    };
    (field("RssAnon:"), field("VmRSS:"))
}

/// A thousand loads and unloads do not grow the process. In a process of its own: other tests allocate too.
#[cfg(target_os = "linux")]
#[test]
fn loading_again_and_again_takes_no_more_memory() {
    const MARKER: &str = "PIPPIN_TEST_CYCLES";
    if std::env::var_os(MARKER).is_none() {
        let program = std::env::current_exe().expect("this test");
        let output = std::process::Command::new(program)
            .args(["--exact", "loading_again_and_again_takes_no_more_memory", "--nocapture"])
            .env(MARKER, "1")
            // glibc has an arena for each of many threads; how many of them are warm is a matter of timing, not of leaks.
            .env("MALLOC_ARENA_MAX", "2")
            .output()
            .expect("runs");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        println!("{text}");
        assert!(output.status.success(), "{text}");
        return;
    }
    let cache = ModelCache::new(CacheOptions { keep_alive: KeepAlive::For(Duration::ZERO), ..options() });
    let threads = || std::fs::read_dir("/proc/self/task").expect("Linux").count();
    let files = || std::fs::read_dir("/proc/self/fd").expect("Linux").count();
    let first = threads();
    let state = || {
        // The thread that loaded last may be on its way out.
        for _ in 0..1000 {
            if threads() <= first {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // The least of several readings: what the system takes back, it takes back when it likes.
        let readings = (0..20).map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            resident()
        });
        let least = readings.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1))).expect("readings");
        (HEAP.0.load(Ordering::Relaxed), least, threads(), files())
    };
    for _ in 0..100 {
        ask(&cache);
    }
    let (before, begin) = (state(), Instant::now());
    let mut most = 0;
    for cycle in 0..1000 {
        // Most of them only load and unload; some answer as well.
        if cycle % 20 == 0 {
            ask(&cache);
        } else {
            cache.preload("pippin-nano").expect("loaded");
        }
        most = most.max(resident().1);
        assert_eq!(cache.usage().used, 0);
    }
    let after = state();
    println!("cycles: {before:?} -> {after:?}, at most {most}, {:?}", begin.elapsed());
    assert_eq!(cache.usage().counts.loads, 1100);
    let ((heap, ram, threads, files), (heap_before, ram_before, threads_before, files_before)) =
        (after, before);
    // A kilobyte for each tokenizer that was used on this thread is the tokenizers crate's own cache.
    assert!(heap <= heap_before + (256 << 10), "{before:?} -> {after:?}");
    // What is mapped from files, and what other languages allocate: 32 kB lost in each cycle would show.
    let mapped = |(written, all): (u64, u64)| all - written;
    assert!(mapped(ram) as f64 <= mapped(ram_before) as f64 * 1.05, "{before:?} -> {after:?}");
    assert!(ram.0 <= ram_before.0 + (16 << 20), "{before:?} -> {after:?}");
    assert!(threads <= threads_before && files <= files_before, "{before:?} -> {after:?}");
}
