use pippin_models::{CacheGroup, CacheLayout};
use pippin_tensor::{GIVEN_BACK, Reach, ValueStore};

use super::*;

fn layout(reaches: &[Reach], has_state: bool) -> CacheLayout {
    let group = |reach: &Reach| CacheGroup {
        layers: 1,
        kv_heads: 1,
        key_dim: 1,
        values: ValueStore::Own(1),
        reach: *reach,
    };
    CacheLayout { groups: reaches.iter().map(group).collect(), state_bytes: u64::from(has_state) }
}

fn store(pages: usize) -> Store {
    Store::new(&layout(&[Reach::All], false), &[pages], 4, 4)
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).collect()
}

/// Computes a sequence from what is found on, and leaves it behind.
fn leave(store: &mut Store, tokens: &[u32]) -> Pages {
    let found = store.find(tokens);
    let (mut pages, _) = store.adopt(&found);
    assert_eq!(store.grow(&mut pages, tokens.len()), tokens.len(), "there are pages");
    store.give_back(&mut pages, tokens.len());
    let kept = pages.clone();
    let snapshot = store.take_copy();
    store.leave(tokens, pages, snapshot);
    kept
}

fn free(store: &Store) -> usize {
    store.pool(0).free()
}

#[test]
fn continues_at_the_end_and_shares_full_pages() {
    let mut store = store(8);
    let pages = leave(&mut store, &tokens(40));

    let found = store.find(&tokens(50));
    assert_eq!((found.tokens, found.matched), (40, 32));
    // The same prompt again: its last token is wanted.
    assert_eq!(store.find(&tokens(40)).tokens, 39);

    // A shorter one, and one that differs in the second page: only the first page is shared.
    let mut other = tokens(40);
    other[35] = 99;
    for prompt in [&tokens(36), &other] {
        let found = store.find(prompt);
        assert_eq!(found.tokens, 32);
        let (shared, snapshot) = store.adopt(&found);
        assert_eq!((&shared[0][..], snapshot), (&pages[0][..1], None));
        store.release(shared);
    }
    // Nothing worth sharing.
    for prompt in [&tokens(20)[..], &[7, 8, 9], &[]] {
        assert_eq!(store.find(prompt).tokens, 0);
    }

    // Who goes on takes the last page over.
    let (taken, _) = store.adopt(&store.find(&tokens(50)));
    assert_eq!(taken, pages);
    assert_eq!(store.find(&tokens(50)).tokens, 32);
    store.leave(&tokens(40), taken, None);
    assert_eq!(store.find(&tokens(50)).tokens, 40);
    store.clear();
    assert_eq!(free(&store), 8);
}

#[test]
fn what_is_there_already_is_kept_once() {
    let mut store = store(8);
    for n in [40, 70, 33, 70] {
        leave(&mut store, &tokens(n));
    }
    // Two full pages; an end of 6 tokens after them, and one of 1 after the first. That of 8 was taken over.
    assert_eq!(free(&store), 8 - 4);
    assert_eq!([34, 41, 70, 71].map(|n| store.find(&tokens(n)).tokens), [33, 33, 69, 70]);
    store.clear();
    assert_eq!(free(&store), 8);
}

#[test]
fn gives_up_the_end_of_the_oldest_first() {
    let mut store = store(4);
    let old = leave(&mut store, &tokens(64));
    leave(&mut store, &[9; 40]);
    assert_eq!((free(&store), store.pool(0).available()), (0, 4));

    let mut new = vec![Vec::new()];
    assert_eq!(store.grow(&mut new, 32), 32);
    assert_eq!(store.find(&tokens(65)).tokens, 32, "the first page is left");

    // A page in use elsewhere is not available, and stays.
    let (used, _) = store.adopt(&store.find(&tokens(40)));
    assert_eq!(used[0], old[0][..1]);
    assert_eq!(store.pool(0).available(), 2);
    assert_eq!(store.grow(&mut new, 4 * 32), 3 * 32);
    assert_eq!(store.find(&tokens(40)).tokens, 32);
    assert_eq!(store.find(&[9; 50]).tokens, 0);
    store.release(used);
    assert_eq!(store.grow(&mut new, 4 * 32), 4 * 32);
    assert_eq!(store.find(&tokens(40)).tokens, 0);
    store.release(new);
    assert_eq!(free(&store), 4);
}

/// What ends within the first page is found too, and in a time that does not depend on how many there are.
#[test]
fn many_short_sequences_are_kept_apart() {
    let mut store = store(600);
    for i in 0..500 {
        leave(&mut store, &[i, i + 1, i + 2]);
    }
    for i in 0..500 {
        assert_eq!(store.find(&[i, i + 1, i + 2, 7]).tokens, 3);
        assert_eq!(store.find(&[i, i + 2, i + 1, 7]).tokens, 0);
    }
    store.clear();
    assert_eq!(free(&store), 600);
}

#[test]
fn windows_need_only_what_is_seen() {
    let mut store = Store::new(&layout(&[Reach::All, Reach::Window(40)], false), &[20, 4], 1, 1);
    let mut pages = vec![Vec::new(), Vec::new()];
    for length in [64, 128, 192, 256] {
        assert_eq!(store.grow(&mut pages, length), length);
        store.publish(&tokens(length), &mut pages);
        store.give_back(&mut pages, length);
    }
    // The next token sees 217 and what follows.
    assert_eq!(pages[1].iter().filter(|page| **page != GIVEN_BACK).count(), 2);
    assert_eq!((pages[0].len(), pages[1].len()), (8, 8));
    store.leave(&tokens(256), pages, None);
    // It is in the sixth page; the window's pages before it have been used again.
    assert_eq!(store.find(&tokens(300)).tokens, 256);
    assert_eq!(store.find(&tokens(250)).tokens, 224);
    let found = store.find(&tokens(150));
    assert_eq!((found.tokens, found.matched), (0, 128));
    let (pages, _) = store.adopt(&store.find(&tokens(300)));
    assert_eq!(pages[1][..6], [GIVEN_BACK; 6]);
    assert!(!pages[1][6..].contains(&GIVEN_BACK) && !pages[0].contains(&GIVEN_BACK));
    store.release(pages);
    store.clear();
    assert_eq!((store.pool(0).free(), store.pool(1).free()), (20, 4));
}

#[test]
fn states_are_found_only_where_they_are() {
    for reaches in [&[][..], &[Reach::All]] {
        let pages = vec![8; reaches.len()];
        let mut store = Store::new(&layout(reaches, true), &pages, 2, 4);
        leave(&mut store, &tokens(70));
        // Here, and nowhere before: not even one token less.
        assert_eq!(store.find(&tokens(71)).tokens, 70);
        assert_eq!(store.find(&tokens(70)).tokens, 0);
        let (pages, snapshot) = store.adopt(&store.find(&tokens(71)));
        assert_eq!(snapshot, Some(2));
        store.leave(&tokens(70), pages, None);

        leave(&mut store, &tokens(64));
        assert_eq!(store.find(&tokens(70)).tokens, 64);
        // A third takes the place of the least recently used.
        let copies: Vec<usize> = std::iter::from_fn(|| store.take_copy()).collect();
        assert_eq!(copies.len(), 2);
        assert_eq!(store.find(&tokens(71)).tokens, 0);
        copies.into_iter().for_each(|slot| store.release_copy(slot));
        store.clear();
        assert_eq!(store.free_slots(), (2, 2));
    }
}

#[test]
fn what_has_failed_is_forgotten() {
    let mut store = store(8);
    leave(&mut store, &tokens(64));
    let other: Vec<u32> = [&tokens(32)[..], &[99; 64]].concat();
    leave(&mut store, &other);
    store.forget(&other);
    // The part that both have stays.
    assert_eq!((store.find(&other).tokens, store.find(&tokens(65)).tokens), (32, 64));
    assert_eq!(free(&store), 6);
}

#[test]
fn room_is_counted_before_anything_is_given_up() {
    let mut store = store(4);
    leave(&mut store, &tokens(64));
    let fits = |store: &Store, prompt: &[u32], promised: usize| {
        store.fits(&store.find(prompt), prompt.len(), 512, &[promised])
    };
    assert!(
        fits(&store, &tokens(128), 0) && !fits(&store, &tokens(129), 0) && !fits(&store, &tokens(128), 1)
    );
    // What is found does not have to be found again, but is no room either.
    assert!(fits(&store, &[9; 128], 0) && !fits(&store, &[9; 129], 0));
    assert_eq!(store.find(&tokens(65)).tokens, 64);
}
