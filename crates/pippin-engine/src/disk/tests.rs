use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use pippin_tensor::{Reach, ValueStore};
use proptest::prelude::*;

use super::entry::{decode, encode, read};
use super::folder::{Entries, Folder, file_name};
use super::*;

const SOON: Duration = Duration::from_secs(60);

fn identity() -> Identity {
    Identity::new("a device", [("config.json", "00"), ("model.safetensors", "11")])
}

/// One group with pages of 64 bytes, and perhaps a state of 12.
fn shape(reach: Reach, has_state: bool) -> Shape {
    let group = CacheGroup { layers: 1, kv_heads: 1, key_dim: 1, values: ValueStore::Own(1), reach };
    Shape { groups: vec![group], pages: vec![64], state: has_state.then_some(12) }
}

fn places(tokens: &[u32]) -> Vec<Place> {
    let mut chain = Chain::new(&[]);
    tokens.chunks(PAGE_SIZE).map(|tokens| chain.advance(tokens)).collect()
}

fn tokens(length: u32) -> Vec<u32> {
    (0..length).collect()
}

fn payload(index: usize, part: Part) -> Vec<u8> {
    match part {
        Part::Page(_) => vec![index as u8; 64],
        Part::State => vec![index as u8; 12],
    }
}

/// Entries in a folder: these parts of the pages of these tokens.
fn write(folder: &Path, tokens: &[u32], parts: &[(usize, Part)]) -> Entries {
    let entries = Folder::new(folder.to_owned(), 1 << 20).of(identity());
    for (index, part) in parts {
        entries.write(&places(tokens)[*index], *part, &payload(*index, *part)).expect("written");
    }
    entries
}

fn found(tokens: &[u32], from: usize, shape: &Shape, entries: &Entries) -> Option<usize> {
    let saved = search(tokens, from, shape, entries, Instant::now() + SOON)?;
    for (index, group, bytes) in &saved.pages {
        assert_eq!(bytes.bytes(), payload(*index, Part::Page(*group as u32)));
    }
    assert_eq!(saved.state.is_some(), shape.state.is_some());
    Some(saved.tokens)
}

#[test]
fn everything_is_part_of_the_identity() {
    let all = [
        Identity::new("a device", [("a", "0")]),
        Identity::new("another", [("a", "0")]),
        Identity::new("a device", [("a", "1")]),
        Identity::new("a device", [("b", "0")]),
        Identity::new("a device", [("a", "0"), ("b", "0")]),
        Identity::new("a device", []),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(all[index + 1..].iter().all(|other| one != other && one.to_hex() != other.to_hex()));
    }
}

/// A model's files decide by their contents, wherever they are; a change of any of them is another model.
#[test]
fn the_identity_is_that_of_the_files() {
    let home = tempfile::tempdir().expect("a folder");
    let model = |name: &str| {
        let folder = home.path().join(name);
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join("config.json"), "{}").expect("written");
        fs::write(folder.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").expect("written");
        fs::write(folder.join("README.md"), name).expect("written");
        folder
    };
    let of = |folder: &Path| Identified::new(folder.to_owned(), "device".to_owned()).get();
    let (a, b) = (model("a"), model("b"));
    let before = of(&a);
    assert!(before.is_some() && before == of(&b));
    for (name, contents) in [("config.json", "{ }"), ("model.safetensors", "\x03\0\0\0\0\0\0\0{} ")] {
        fs::write(b.join(name), contents).expect("written");
        assert_ne!(of(&b), before, "{name}");
        fs::copy(a.join(name), b.join(name)).expect("copied");
        assert_eq!(of(&b), before, "{name}");
    }
    assert_eq!(of(&home.path().join("nothing")), None);
}

#[test]
fn the_longest_prefix_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let (all, shape) = (tokens(150), shape(Reach::All, false));
    let pages: Vec<(usize, Part)> = (0..5).map(|index| (index, Part::Page(0))).collect();
    let entries = write(folder.path(), &all, &pages);
    // The last page has 22 tokens. The last token of a prompt is computed again.
    for (length, expected) in [(151, 150), (180, 150), (150, 149), (149, 128), (97, 96), (96, 64), (33, 32)] {
        assert_eq!(found(&tokens(length), 0, &shape, &entries), Some(expected), "{length}");
    }
    assert_eq!(found(&tokens(32), 0, &shape, &entries), None);
    assert_eq!(found(&[], 0, &shape, &entries), None);
    assert_eq!(found(&tokens(151), 3, &shape, &entries), Some(150));
    assert_eq!(found(&tokens(151), 5, &shape, &entries), None);
    // Without a page, what follows is of no use; but the caller may have it.
    fs::remove_file(folder.path().join(identity().to_hex()).join(file_name(&places(&all)[2], Part::Page(0))))
        .expect("removed");
    assert_eq!(found(&tokens(151), 0, &shape, &entries), Some(64));
    assert_eq!(found(&tokens(151), 3, &shape, &entries), Some(150));
}

#[test]
fn windows_and_states_need_what_they_need() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = tokens(150);
    let entries = write(
        folder.path(),
        &all,
        &[(2, Part::Page(0)), (3, Part::Page(0)), (3, Part::State), (0, Part::State)],
    );
    assert_eq!(found(&all, 0, &shape(Reach::Window(40), false), &entries), Some(128));
    assert_eq!(found(&all, 0, &shape(Reach::Window(40), true), &entries), Some(128));
    assert_eq!(found(&all, 0, &shape(Reach::Window(100), false), &entries), None);
    let only_state = Shape { groups: Vec::new(), pages: Vec::new(), state: Some(12) };
    assert_eq!(found(&all, 0, &only_state, &entries), Some(128));
    assert_eq!(found(&all[..128], 0, &only_state, &entries), Some(32));
}

#[test]
fn when_time_is_up_what_has_been_read_is_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let (all, shape) = (tokens(150), shape(Reach::All, false));
    let pages: Vec<(usize, Part)> = (0..5).map(|index| (index, Part::Page(0))).collect();
    let entries = write(folder.path(), &all, &pages);
    assert!(search(&all, 0, &shape, &entries, Instant::now()).is_none());

    /// A disk that is slow from the third read on.
    struct Slow(Entries, std::cell::Cell<usize>);
    impl search::Source for Slow {
        fn has(&self, place: &Place, part: Part) -> bool {
            self.0.has(place, part)
        }
        fn read(&self, place: &Place, part: Part, bytes: usize) -> Option<entry::Payload> {
            self.1.set(self.1.get() + 1);
            if self.1.get() == 3 {
                std::thread::sleep(Duration::from_secs(2));
            }
            self.0.read(place, part, bytes)
        }
    }
    let slow = Slow(entries, Default::default());
    let saved = search(&all, 0, &shape, &slow, Instant::now() + Duration::from_secs(1)).expect("a part");
    assert_eq!((saved.tokens, saved.pages.len()), (96, 3));
}

#[test]
fn leftovers_go_in_time() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &tokens(40), &[(0, Part::Page(0))]);
    let own = folder.path().join(identity().to_hex());
    let [old, new, other] = ["12-34-0.tmp", "12-34-1.tmp", "mine.tmp"].map(|name| own.join(name));
    for (path, age) in [(&old, 7200), (&new, 60), (&other, 7200)] {
        let file = fs::File::create(path).expect("created");
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("set");
    }
    let (bytes, gone) = Folder::new(folder.path().to_owned(), 0).tidy(1 << 20);
    assert!(!old.exists() && new.exists() && other.exists());
    assert_eq!((bytes, gone), (64 + 100 + 128 + 32, Vec::new()));
}

#[test]
fn bundles_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, again) = (folder.path().join("one"), folder.path().join("two"));
    let (all, shape) = (tokens(80), shape(Reach::All, true));
    let part = |index: usize, part| (places(&all)[index].clone(), part, payload(index, part));
    let parts = [part(0, Part::Page(0)), part(1, Part::Page(0)), part(1, Part::State)];
    Bundle::write(&path, &identity(), &parts).expect("written");
    let bundle = Bundle::read(&path, &identity(), &shape).expect("a bundle");
    bundle.write_again(&again).expect("written");
    let bundle = Bundle::read(&again, &identity(), &shape).expect("a bundle");
    let saved = search(&all, 0, &shape, &bundle, Instant::now() + SOON).expect("found");
    assert_eq!((saved.tokens, saved.pages.len(), saved.state.is_some()), (64, 2, true));
    let other = Identity::new("another device", []);
    assert!(Bundle::read(&path, &other, &shape).is_none());
    assert!(Bundle::read(&path, &identity(), &Shape { pages: vec![65], ..shape.clone() }).is_none());
    assert!(Bundle::read(&folder.path().join("three"), &identity(), &shape).is_none());

    let whole = fs::read(&path).expect("read");
    for length in 0..whole.len() {
        fs::write(&again, &whole[..length]).expect("written");
        // Where it is cut between two, the first are still right.
        let left = Bundle::read(&again, &identity(), &shape)
            .map(|bundle| search(&all, 0, &shape, &bundle, Instant::now() + SOON));
        assert!(left.flatten().is_none(), "{length}");
    }
    for at in 0..whole.len() {
        let mut broken = whole.clone();
        broken[at] ^= 0x10;
        fs::write(&again, broken).expect("written");
        assert!(Bundle::read(&again, &identity(), &shape).is_none(), "byte {at}");
    }
}

proptest! {
    /// An entry is what was written, or none.
    #[test]
    fn entries_are_whole_or_nothing(
        count in 1usize..=PAGE_SIZE,
        bytes in prop::collection::vec(any::<u8>(), 64),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..=255), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let shape = shape(Reach::All, false);
        let place = Place::new([3; 32], 96, &tokens(count as u32));
        let whole = encode(&identity(), &place, Part::Page(0), &bytes);
        let mut damaged = whole.clone();
        for (at, mask) in flips {
            damaged[at.index(whole.len())] ^= mask;
        }
        if let Some(cut) = cut {
            damaged.truncate(cut.index(whole.len() + 1));
        }
        let is_whole = damaged == whole;
        let decoded = decode(&identity(), &place, Part::Page(0), 64, damaged.clone());
        prop_assert_eq!(decoded.is_some(), is_whole);
        let read = read(&identity(), &shape, damaged);
        prop_assert_eq!(read.is_some(), is_whole);
        if let Some((found, part, payload)) = read {
            prop_assert_eq!((found, part, payload.bytes()), (place, Part::Page(0), &bytes[..]));
        }
        // Of other tokens, another place, another part, another model.
        let refused = |identity: Identity, place: &Place, part| decode(&identity, place, part, 64, whole.clone()).is_none();
        let place = Place::new([3; 32], 96, &tokens(count as u32));
        let others = [
            Place { position: 64, ..place.clone() },
            Place { parent: [4; 32], ..place.clone() },
            Place { tokens: vec![99; count].into(), ..place.clone() },
        ];
        prop_assert!(others.iter().all(|other| refused(identity(), other, Part::Page(0))));
        prop_assert!(refused(identity(), &place, Part::Page(1)) && refused(identity(), &place, Part::State));
        prop_assert!(refused(Identity::new("another", []), &place, Part::Page(0)));
    }
}
