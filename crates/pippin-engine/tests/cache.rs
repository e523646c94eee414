//! The cache with the shipped model.

use std::time::Duration;

use pippin_engine::{
    CacheOptions, GenerateParameters, KeepAlive, LoadOptions, MemoryBudget, ModelCache, ModelMemory,
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

/// A thousand loads and unloads do not grow the process by what they leave behind. In a process of its own: other tests allocate too.
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
            // Once a KV cache was given back, glibc keeps room for the next one of its size: up to 64 MB in all, for ever.
            .env("MALLOC_MMAP_THRESHOLD_", "131072")
            .output()
            .expect("runs");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        println!("{text}");
        assert!(output.status.success(), "{text}");
        return;
    }
    let cache = ModelCache::new(CacheOptions { keep_alive: KeepAlive::For(Duration::ZERO), ..options() });
    let count = |folder: &str| std::fs::read_dir(folder).expect("Linux").count();
    // Threads that have just ended are seen for a moment, and pages that were just freed, too: the least of many readings
    // is what is kept.
    let least = |cycles: usize| {
        let mut least = [u64::MAX; 4];
        for cycle in 0..cycles {
            // Most of them only load and unload; some answer as well.
            if cycle % 20 == 0 {
                ask(&cache);
            } else {
                cache.preload("pippin-nano").expect("loaded");
            }
            assert_eq!(cache.usage().used, 0);
            let (written, all) = resident();
            let now = [written, all, count("/proc/self/task") as u64, count("/proc/self/fd") as u64];
            least = std::array::from_fn(|index| least[index].min(now[index]));
        }
        least
    };
    // What is made once is made by then.
    least(100);
    let stretches: [[u64; 4]; 5] = std::array::from_fn(|_| least(200));
    println!("least of each two hundred cycles, written, all, threads, files: {stretches:?}");
    assert_eq!(cache.usage().counts.loads, 1100);
    // The allocator's heap grows now and then, as pieces come to lie in its way, and settles. What each load leaves behind
    // makes every stretch grow: by 200 kB, if it is a kilobyte.
    for index in 0..4 {
        let steps = stretches.windows(2).map(|pair| pair[1][index] as i64 - pair[0][index] as i64);
        let most = if index < 2 { 64 << 10 } else { 0 };
        assert!(steps.min().is_some_and(|step| step <= most), "{stretches:?}");
    }
}
