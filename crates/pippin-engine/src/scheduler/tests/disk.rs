//! Prefixes on disk: after a restart the same answers, with less to compute.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::disk::{Disk, Identified, Identity, Shape};

const BUDGET: u64 = 1 << 30;

fn identity(kept_as: &str) -> Arc<Identified> {
    Arc::new(Identified::known(Identity::new(kept_as, [])))
}

/// A rig that keeps prefixes in a folder, as a process of its own would.
fn rig(setup: &Setup, folder: &Path, budget: u64, kept_as: &str) -> Rig {
    let mut rig = setup.build();
    let shape = Shape::of(&*rig.scheduler.model).expect("the fake model gives its pages");
    let disk = Disk::open(folder.to_owned(), budget, shape, identity(kept_as)).expect("a folder");
    rig.scheduler.set_disk(disk);
    rig
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|i| (i * 7 + i / 13) % 50).collect()
}

/// All files of entries.
fn files(folder: &Path) -> Vec<PathBuf> {
    let list =
        |path: &Path| std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        list(folder).filter(|path| path.is_dir()).flat_map(|path| list(&path).collect::<Vec<_>>()).collect();
    files.sort();
    files
}

fn bytes(folder: &Path) -> u64 {
    files(folder).iter().map(|file| file.metadata().expect("a file").len()).sum()
}

/// Asks, and compares the answer with that of a model without any cache. Returns how many tokens were not computed.
#[track_caller]
fn assert_answers(rig: &mut Rig, prompt: &[u32], parameters: GenerateParameters) -> usize {
    let expected = rig.setup.kind.continuation(prompt, 12);
    let mut client = rig.ask(prompt, GenerateParameters { max_tokens: Some(12), ..parameters });
    assert_eq!(client.finished(FinishReason::Length), expected);
    client.cached.expect("started")
}

#[test]
fn a_restart_goes_on_where_the_last_answer_ended() {
    for kind in Kind::all() {
        let folder = tempfile::tempdir().expect("a folder");
        let setup = Setup { feeds: Feeds::Sometimes, step: 48, ..Setup::of(&kind, 2048, 64, 4) };
        let start = || rig(&setup, folder.path(), BUDGET, "x");
        let question = prompt(200);
        assert_eq!(assert_answers(&mut start(), &question, greedy(12)), 0, "{kind:?}");

        // The same again, in another process. Where states are kept, one was at the prompt's last full page.
        let cached = assert_answers(&mut start(), &question, greedy(12));
        assert_eq!(cached, 192, "{kind:?}");
        // A turn more: the last token of the answer was never computed.
        let answer = setup.kind.continuation(&question, 12);
        let longer = [&question[..], &answer, &[3, 1, 4]].concat();
        let mut again = start();
        assert_eq!(assert_answers(&mut again, &longer, greedy(12)), 211, "{kind:?}");
        // And from memory.
        let cached = assert_answers(&mut again, &longer, greedy(12));
        assert!(cached >= 192, "{kind:?}: {cached}");
        again.assert_nothing_is_lost();

        // Somebody else's beginning, and nobody's.
        let other = [&question[..100], &[9; 60]].concat();
        let cached = assert_answers(&mut start(), &other, greedy(12));
        let is_plain = !kind.has_state && kind.groups == [pippin_tensor::Reach::All];
        assert!(cached <= 96 && (!is_plain || cached == 96), "{kind:?}: {cached}");
        assert_eq!(assert_answers(&mut start(), &[5; 150], greedy(12)), 0, "{kind:?}");
    }
}

#[test]
fn what_is_in_memory_is_not_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new(2048, 64, 4);
    let question = prompt(300);
    assert_answers(&mut rig(&setup, folder.path(), BUDGET, "x"), &question, greedy(12));
    let mut rig = rig(&setup, folder.path(), BUDGET, "x");
    assert_eq!(assert_answers(&mut rig, &question[..100], greedy(12)), 96);
    // Three pages are in memory, the rest is on disk: the files of those three nobody needs.
    let folder = files(folder.path())[0].parent().expect("a folder").to_owned();
    let mut chain = crate::disk::Chain::new(&[]);
    for chunk in question[..96].chunks(PAGE_SIZE) {
        let name = crate::disk::file_name(&chain.advance(chunk), crate::disk::Part::Page(0));
        std::fs::remove_file(folder.join(name)).expect("removed");
    }
    assert_eq!(assert_answers(&mut rig, &question, greedy(12)), 288);
    rig.assert_nothing_is_lost();
}

#[test]
fn namespaces_find_only_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::of(
        &Kind { groups: vec![pippin_tensor::Reach::All], has_state: true, ..Kind::full() },
        2048,
        64,
        4,
    );
    let question = prompt(200);
    let names = [None, Some("a"), Some("b"), Some("ab")];
    let of = |name: Option<&str>| greedy(12).with_cache_namespace(name.map(str::to_owned));
    let mut first = rig(&setup, folder.path(), BUDGET, "x");
    for name in names {
        assert_eq!(assert_answers(&mut first, &question, of(name)), 0, "{name:?} in memory");
    }
    for name in names {
        assert_eq!(assert_answers(&mut first, &question, of(name)), 192, "{name:?} again");
    }
    first.assert_nothing_is_lost();
    drop(first);
    let kept = files(folder.path()).len();
    for name in names {
        let mut rig = rig(&setup, folder.path(), BUDGET, "x");
        assert_eq!(assert_answers(&mut rig, &question, of(name)), 192, "{name:?} on disk");
    }
    assert_eq!(files(folder.path()).len(), kept, "nothing was written twice");
    let mut rig = rig(&setup, folder.path(), BUDGET, "x");
    assert_eq!(assert_answers(&mut rig, &question, of(Some("nobody"))), 0);
    drop(rig);
    assert_eq!(files(folder.path()).len(), kept + kept / names.len(), "a namespace has files of its own");
}

#[test]
fn other_models_are_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new(2048, 64, 4);
    let question = prompt(200);
    assert_answers(&mut rig(&setup, folder.path(), BUDGET, "x"), &question, greedy(12));
    assert_eq!(assert_answers(&mut rig(&setup, folder.path(), BUDGET, "y"), &question, greedy(12)), 0);
    assert_eq!(assert_answers(&mut rig(&setup, folder.path(), BUDGET, "x"), &question, greedy(12)), 192);

    // Not even where the files lie in the other's folder.
    let [x, y] = ["x", "y"].map(|name| folder.path().join(Identity::new(name, []).to_hex()));
    std::fs::remove_dir_all(&x).expect("removed");
    std::fs::rename(y, x).expect("renamed");
    assert_eq!(assert_answers(&mut rig(&setup, folder.path(), BUDGET, "x"), &question, greedy(12)), 0);
    assert_eq!(assert_answers(&mut rig(&setup, folder.path(), BUDGET, "x"), &question, greedy(12)), 192);
}

#[test]
fn what_cannot_be_restored_is_computed() {
    for kind in [Kind::full(), Kind { groups: vec![], has_state: true, ..Kind::full() }] {
        let folder = tempfile::tempdir().expect("a folder");
        let setup = Setup::of(&kind, 2048, 64, 4);
        let question = prompt(200);
        assert_answers(&mut rig(&setup, folder.path(), BUDGET, "x"), &question, greedy(12));
        let mut rig = rig(&setup, folder.path(), BUDGET, "x");
        lock(&rig.control).fails_writes = true;
        assert_eq!(assert_answers(&mut rig, &question, greedy(12)), 0);
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn the_budget_is_kept_and_ends_go_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new(2048, 64, 4);
    // Of 32 tokens, each of 8 bytes, with its header.
    let budget = 20 * (32 * 8 + 100 + 32 * 4 + 32);
    for round in 0..8 {
        let mut rig = rig(&setup, folder.path(), budget, "x");
        let question: Vec<u32> = prompt(160).iter().map(|token| (token + round) % 50).collect();
        assert_answers(&mut rig, &question, greedy(12));
        assert_answers(&mut rig, &prompt(200), greedy(12));
        drop(rig);
        assert!(bytes(folder.path()) <= budget, "{} of {budget} bytes", bytes(folder.path()));
    }
    // What is used again and again has stayed.
    assert_eq!(assert_answers(&mut rig(&setup, folder.path(), budget, "x"), &prompt(200), greedy(12)), 192);
    // Another process with less room takes what was used last: the beginning.
    drop(rig(&setup, folder.path(), budget / 5, "x"));
    assert!(bytes(folder.path()) <= budget / 5);
    let cached = assert_answers(&mut rig(&setup, folder.path(), budget / 5, "x"), &prompt(200), greedy(12));
    assert!((32..=128).contains(&cached), "{cached}");
    // There may be room for nothing at all.
    let mut rig = rig(&setup, folder.path(), 10, "x");
    assert_answers(&mut rig, &prompt(100), greedy(12));
    drop(rig);
    assert_eq!(bytes(folder.path()), 0);
}

#[test]
fn several_write_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::of(&Kind::all()[5], 2048, 64, 4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for length in [100, 150, 200, 150] {
                    // With so little room that all remove what others write and read.
                    let mut rig = rig(&setup, folder.path(), 20_000, "x");
                    assert_answers(&mut rig, &prompt(length), greedy(12));
                }
            });
        }
    });
    assert!(files(folder.path()).iter().all(|file| file.extension().is_none_or(|end| end != "tmp")));
}

#[cfg(unix)]
#[test]
fn nobody_else_may_look() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("above/kept");
    assert_answers(&mut rig(&Setup::new(2048, 64, 4), &kept, BUDGET, "x"), &prompt(100), greedy(12));
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&kept), 0o700);
    let all = files(&kept);
    assert_eq!(mode(all[0].parent().expect("a folder")), 0o700);
    assert!(all.len() >= 3 && all.iter().all(|file| mode(file) == 0o600));
}

#[test]
fn a_folder_that_cannot_be_used_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let rig = Setup::new(2048, 64, 4).build();
    let shape = Shape::of(&*rig.scheduler.model).expect("a shape");
    let error = Disk::open(file.clone(), BUDGET, shape, identity("x")).expect_err("a file");
    assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");
}

#[test]
fn other_files_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join(Identity::new("x", []).to_hex());
    let notes =
        [folder.path().join("notes.0"), folder.path().join("0123/a"), own.join("notes"), own.join("1.state")];
    for path in &notes {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, [0; 5000]).expect("written");
    }
    let mut rig = rig(&Setup::new(2048, 64, 4), folder.path(), 1000, "x");
    assert_answers(&mut rig, &prompt(200), greedy(12));
    drop(rig);
    assert!(notes.iter().all(|path| path.exists()));
}

/// A pipe, of which opening it would not come to an end, is no entry; neither is what a link leads to.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new(2048, 64, 4);
    let start = || rig(&setup, folder.path(), BUDGET, "x");
    let question = prompt(200);
    assert_answers(&mut start(), &question, greedy(12));
    let all = files(folder.path());
    let target = folder.path().join("target");
    std::fs::write(&target, "mine").expect("written");
    for (index, file) in all.iter().enumerate() {
        std::fs::remove_file(file).expect("removed");
        if index == 0 {
            std::os::unix::fs::symlink(&target, file).expect("a link");
        } else {
            assert!(std::process::Command::new("mkfifo").arg(file).status().expect("runs").success());
        }
    }
    let begin = Instant::now();
    assert_eq!(assert_answers(&mut start(), &question, greedy(12)), 0);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    // They have made room.
    assert!(assert_answers(&mut start(), &question, greedy(12)) > 100);
    assert_eq!(std::fs::read_to_string(&target).expect("there"), "mine");
}

/// How a file is damaged.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
    /// Another file's contents.
    Swap(prop::sample::Index),
    Remove,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Damage::Append),
        1 => any::<prop::sample::Index>().prop_map(Damage::Swap),
        1 => Just(Damage::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever becomes of the files, answers are right, and what is damaged is written anew.
    #[test]
    fn damage_is_noticed(
        kind in prop::sample::select(Kind::all()),
        damages in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..6),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let setup = Setup::of(&kind, 2048, 64, 4);
        let start = || rig(&setup, folder.path(), BUDGET, "x");
        let question = prompt(200);
        assert_answers(&mut start(), &question, greedy(12));
        let all = files(folder.path());
        for (which, damage) in damages {
            let file = &all[which.index(all.len())];
            let Ok(mut contents) = std::fs::read(file) else { continue };
            match damage {
                Damage::Flip(at, bit) if !contents.is_empty() => {
                    let at = at.index(contents.len());
                    contents[at] ^= 1 << bit;
                }
                Damage::Flip(..) => {}
                Damage::Cut(at) => contents.truncate(at.index(contents.len() + 1)),
                Damage::Append(more) => contents.extend(more),
                Damage::Swap(other) => contents = std::fs::read(&all[other.index(all.len())]).unwrap_or_default(),
                Damage::Remove => {
                    std::fs::remove_file(file).expect("removed");
                    continue;
                }
            }
            std::fs::write(file, contents).expect("written");
        }
        let answer = setup.kind.continuation(&question, 12);
        let longer = [&question[..], &answer, &[3, 1, 4]].concat();
        assert_answers(&mut start(), &longer, greedy(12));
        assert_answers(&mut start(), &question, greedy(12));
        prop_assert_eq!(assert_answers(&mut start(), &longer, greedy(12)), 211);
    }
}
