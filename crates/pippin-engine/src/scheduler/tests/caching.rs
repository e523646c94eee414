//! What requests find of earlier ones.

use pippin_tensor::Reach;

use super::*;
use crate::testing::continuation;

#[test]
fn a_conversation_continues_where_it_was() {
    for kind in Kind::all() {
        for feeds in [Feeds::Never, Feeds::Always] {
            let mut rig = Setup { feeds, ..Setup::of(&kind, 512, 16, 4) }.build();
            let first = prompt(15, 45);
            let mut turn = rig.ask(&first, greedy(10));
            assert_eq!(turn.cached, Some(0));

            let second = [&first, turn.finished(FinishReason::Length), &[7, 8, 9]].concat();
            let mut turn = rig.ask(&second, greedy(10));
            // All but the last answer token, whose keys and values were never computed, and what is new.
            assert_eq!(turn.cached, Some(54), "{kind:?}");
            assert_eq!(turn.finished(FinishReason::Length), kind.continuation(&second, 10));

            // Another answer to the second message: full pages are shared, up to the last before its end. Where there are only
            // states, nothing has to be taken over.
            let mut again = rig.ask(&second, greedy(10));
            assert_eq!(again.cached, Some(if kind.groups.is_empty() { 54 } else { 32 }), "{kind:?}");
            assert_eq!(again.finished(FinishReason::Length), kind.continuation(&second, 10));
            rig.assert_nothing_is_lost();
        }
    }
}

/// After a stop token, a device that feeds itself has already computed it: the next turn finds it too.
#[test]
fn a_conversation_continues_after_a_stop_token() {
    let bias = GenerateParameters { logit_bias: [(STOP, 100.0)].into(), ..GenerateParameters::greedy() };
    for kind in Kind::all() {
        for (feeds, cached) in [(Feeds::Never, 45), (Feeds::Always, 46)] {
            let mut rig = Setup { feeds, ..Setup::of(&kind, 512, 16, 4) }.build();
            let first = prompt(15, 45);
            let mut turn = rig.ask(&first, bias.clone());
            let second = [&first, turn.finished(FinishReason::Stop), &[7, 8, 9]].concat();
            let mut turn = rig.ask(&second, greedy(10));
            assert_eq!(turn.cached, Some(cached), "{kind:?}");
            assert_eq!(turn.finished(FinishReason::Length), kind.continuation(&second, 10));
        }
    }
}

#[test]
fn running_sequences_share_their_beginnings() {
    let mut rig = scheduler(512, 16, 4);
    let system = prompt(16, 100);
    let with = |end: u32| [&system[..], &[end]].concat();
    let mut a = Client::submit(&mut rig, &with(1), greedy(50));
    rig.step();
    let mut b = Client::submit(&mut rig, &with(2), greedy(50));
    rig.step();
    assert_eq!(b.poll().cached, Some(96));
    assert_eq!(rig.steps()[1], [(101, 1), (96, 5)]);
    rig.run();
    assert_eq!(a.finished(FinishReason::Length), continuation(&with(1), 50));
    assert_eq!(b.finished(FinishReason::Length), continuation(&with(2), 50));
    rig.assert_nothing_is_lost();
}

/// Two who compute the same at the same time keep it once.
#[test]
fn the_same_prompt_twice_at_once_is_kept_once() {
    let mut rig = scheduler(512, 16, 4);
    let prompt = prompt(17, 100);
    let mut clients = [0, 1].map(|_| Client::submit(&mut rig, &prompt, greedy(50)));
    rig.step();
    // Three full pages, and one for each.
    assert_eq!(rig.scheduler.store.pool(0).free(), 16 - 5);
    rig.run();
    clients.iter_mut().for_each(|client| {
        assert_eq!(client.finished(FinishReason::Length), continuation(&prompt, 50));
    });
    rig.assert_nothing_is_lost();
}

#[test]
fn what_is_oldest_is_forgotten_first() {
    let mut rig = scheduler(128, 6, 4);
    let prompts = [17, 18, 19].map(|seed| prompt(seed, 60));
    for prompt in &prompts {
        rig.ask(prompt, greedy(0));
    }
    let cached = |rig: &mut Rig, index: usize| rig.ask(&prompts[index], greedy(1)).cached;
    // Each has two pages, so all three are there. Asking for one makes it the most recent.
    assert_eq!(cached(&mut rig, 0), Some(59));
    rig.ask(&prompt(20, 60), greedy(1)).finished(FinishReason::Length);
    assert_eq!(cached(&mut rig, 0), Some(59));
    assert_eq!(cached(&mut rig, 2), Some(59));
    assert_eq!(cached(&mut rig, 1), Some(0));
}

/// A request that has to wait leaves what others have left behind where it is.
#[test]
fn who_waits_takes_nothing() {
    let mut rig = scheduler(256, 8, 4);
    let known = prompt(21, 60);
    rig.ask(&known, greedy(0));
    // One that takes most of the rest, and keeps it.
    let running = Client::submit(&mut rig, &prompt(22, 100), greedy(20));
    rig.step();
    let waiting = Scoring::submit(&mut rig, prompt(24, 200), 0);
    rig.step();
    assert_eq!(rig.scheduler.running.len(), 1);
    running.cancel();
    waiting.cancelled.store(true, Ordering::Relaxed);
    // Had the pages been given up for it, this would find none.
    assert_eq!(rig.scheduler.store.find(&known).tokens, 59);
    rig.run();
    rig.assert_nothing_is_lost();
}

/// Where the state is kept: at intervals, at the last page before the end of a prompt, and where prompts part.
#[test]
fn states_are_found_where_they_are_kept() {
    let kind = Kind { has_state: true, ..Kind::full() };
    for kind in [kind.clone(), Kind { groups: vec![], ..kind.clone() }] {
        let mut rig = Setup { snapshots: 32, ..Setup::of(&kind, 4096, 256, 4) }.build();
        let base = prompt(25, 2000);
        rig.ask(&base, greedy(1)).finished(FinishReason::Length);
        let mut cached = |length: usize, end: u32| {
            let prompt = [&base[..length], &[end; 300]].concat();
            let mut client = rig.ask(&prompt, greedy(3));
            assert_eq!(client.finished(FinishReason::Length), kind.continuation(&prompt, 3));
            client.cached
        };
        // Where the first ended; and once that is taken over, at its last full page.
        assert_eq!(cached(2000, 1), Some(2000));
        assert_eq!(cached(2000, 4), Some(if kind.groups.is_empty() { 2000 } else { 2000 / 32 * 32 }));
        // Less of it at the last multiple of 512. Where the two part, the state is kept from then on.
        assert_eq!(cached(1400, 2), Some(1024));
        assert_eq!(cached(1400, 3), Some(1400 / 32 * 32));
        rig.run();
        rig.assert_nothing_is_lost();
    }
}

/// A model with windows remembers what a continuation sees, although its pool is much smaller than its context.
#[test]
fn windows_need_few_pages() {
    let kind = Kind { groups: vec![Reach::All, Reach::Window(64)], ..Kind::full() };
    let mut rig = Setup { step: 128, ..Setup::of(&kind, 4096, 128, 1) }.build();
    assert_eq!(rig.scheduler.store.pool(1).capacity(), 2 + 3 + 8);
    let first = prompt(26, 3000);
    let mut turn = rig.ask(&first, greedy(10));
    let second = [&first, turn.finished(FinishReason::Length), &[7, 8, 9]].concat();
    let mut turn = rig.ask(&second, greedy(10));
    assert_eq!(turn.cached, Some(3009));
    assert_eq!(turn.finished(FinishReason::Length), kind.continuation(&second, 10));
    // What was at the beginning is gone from the window's pages.
    let mut other = rig.ask(&first[..2000], greedy(10));
    assert_eq!(other.cached, Some(0));
    assert_eq!(other.finished(FinishReason::Length), kind.continuation(&first[..2000], 10));
    rig.assert_nothing_is_lost();
}

/// Snapshots are few: the least recently used one makes way, and what depends on it is computed again.
#[test]
fn snapshots_are_bounded() {
    let kind = Kind { has_state: true, ..Kind::full() };
    let mut rig = Setup { snapshots: 3, ..Setup::of(&kind, 1024, 256, 4) }.build();
    for round in 0..3 {
        for seed in 30..36 {
            let prompt = prompt(seed, 300);
            let mut client = rig.ask(&prompt, greedy(5));
            assert_eq!(client.finished(FinishReason::Length), kind.continuation(&prompt, 5), "{round}");
        }
    }
    rig.assert_nothing_is_lost();
}

/// Snapshots can be switched off.
#[test]
fn a_model_with_state_runs_without_snapshots() {
    for kind in Kind::all().into_iter().filter(|kind| kind.has_state) {
        let mut rig = Setup { snapshots: 0, ..Setup::of(&kind, 1024, 32, 4) }.build();
        for _ in 0..2 {
            let prompt = prompt(40, 100);
            let mut client = rig.ask(&prompt, greedy(5));
            assert_eq!(
                (client.cached, client.finished(FinishReason::Length)),
                (Some(0), &kind.continuation(&prompt, 5)[..])
            );
        }
        rig.assert_nothing_is_lost();
    }
}
