//! Steps that fail.

use super::*;
use crate::testing::{NAN, POISON};

/// All ways in which a device may fail.
fn devices() -> impl Iterator<Item = (Feeds, bool)> {
    [Feeds::Never, Feeds::Always, Feeds::Sometimes]
        .into_iter()
        .flat_map(|feeds| [(feeds, false), (feeds, true)])
}

#[test]
fn a_failing_request_fails_alone() {
    for kind in Kind::all() {
        for (feeds, fails_late) in devices() {
            let mut rig = Setup { feeds, ..Setup::of(&kind, 256, 16, 6) }.build();
            lock(&rig.control).fails_late = fails_late;
            let good = prompt(21, 20);
            let sampled = GenerateParameters {
                temperature: 1.0,
                seed: Some(3),
                max_tokens: Some(30),
                ..Default::default()
            };
            let mut a = Client::submit(&mut rig, &good, greedy(10));
            let mut b = Client::submit(&mut rig, &good, sampled.clone());
            for _ in 0..3 {
                rig.step();
            }
            // The others are writing when these come.
            let mut poisoned = Client::submit(&mut rig, &[1, POISON, 2], greedy(10));
            let mut nan = Client::submit(&mut rig, &[1, NAN], greedy(10));
            rig.run();
            assert_eq!(a.finished(FinishReason::Length), kind.continuation(&good, 10));
            assert_eq!(
                b.finished(FinishReason::Length),
                reference(&kind, &good, &sampled),
                "{kind:?} {feeds:?}"
            );
            assert!(poisoned.error().contains("poison"));
            assert!(nan.error().contains("after 2 tokens"));
            rig.assert_nothing_is_lost();
        }
    }
}

/// Also when it fails late in a long prompt, and the others are in the midst of theirs.
#[test]
fn a_failure_in_a_long_prompt_is_found() {
    for kind in Kind::all() {
        for (feeds, fails_late) in devices() {
            let mut rig = Setup { feeds, step: 64, ..Setup::of(&kind, 1024, 96, 6) }.build();
            lock(&rig.control).fails_late = fails_late;
            let good = prompt(21, 500);
            let mut bad = prompt(22, 500);
            bad[400] = POISON;
            let mut a = Client::submit(&mut rig, &good, greedy(10));
            let mut b = Client::submit(&mut rig, &bad, greedy(10));
            let mut c = Client::submit(&mut rig, &good[..300], greedy(10));
            rig.run();
            assert_eq!(a.finished(FinishReason::Length), kind.continuation(&good, 10));
            assert!(b.error().contains("poison"));
            assert_eq!(c.finished(FinishReason::Length), kind.continuation(&good[..300], 10));
            rig.assert_nothing_is_lost();
        }
    }
}

/// What a request leaves behind that ended in an error is not found by others.
#[test]
fn nobody_continues_what_has_failed() {
    let mut rig = scheduler(256, 8, 2);
    let mut prompt = prompt(23, 100);
    prompt.push(NAN);
    for _ in 0..2 {
        let mut client = rig.ask(&prompt, greedy(5));
        assert!(client.error().contains("after 101 tokens"));
        assert_eq!(client.cached, Some(0));
    }
    assert_eq!(rig.scheduler.store.pool(0).free(), 8);
}

#[test]
fn scores_fail_with_their_errors() {
    for (feeds, fails_late) in devices() {
        let mut rig = Setup { feeds, ..Setup::new(256, 8, 2) }.build();
        lock(&rig.control).fails_late = fails_late;
        let good = prompt(24, 20);
        let mut client = Client::submit(&mut rig, &good, greedy(30));
        let [poisoned, nan] =
            [vec![1, POISON, 2], vec![1, NAN, 2]].map(|tokens| Scoring::submit(&mut rig, tokens, 0));
        rig.run();
        assert_eq!(client.finished(FinishReason::Length), Kind::full().continuation(&good, 30));
        assert!(poisoned.poll().expect("an answer").expect_err("failed").to_string().contains("poison"));
        assert!(nan.poll().expect("an answer").expect_err("failed").to_string().contains("after 2 tokens"));
        rig.assert_nothing_is_lost();
    }
}

/// A measurement that fails is an error, and nothing else.
#[test]
fn measurements_fail_with_their_errors() {
    for (feeds, fails_late) in devices() {
        let mut rig = Setup { feeds, ..Setup::new(256, 8, 2) }.build();
        lock(&rig.control).fails_late = fails_late;
        let (reply, answer) = channel();
        // Among so many made-up tokens is the one that the model refuses.
        rig.scheduler.submit_job(Job::Measure { workload: Workload::decode(200), repetitions: 2, reply });
        rig.run();
        assert!(answer.recv().expect("an answer").expect_err("failed").to_string().contains("poison"));
        let mut client = rig.ask(&[1, 2], greedy(5));
        assert_eq!(client.finished(FinishReason::Length), Kind::full().continuation(&[1, 2], 5));
        rig.assert_nothing_is_lost();
    }
}

/// When the device refuses a request's place, that request fails, and nothing else.
#[test]
fn lost_edits_are_one_requests_fault() {
    for kind in Kind::all() {
        let mut rig = Setup::of(&kind, 256, 16, 4).build();
        let first = prompt(25, 100);
        rig.ask(&first, greedy(3)).finished(FinishReason::Length);
        let mut running = Client::submit(&mut rig, &first, greedy(50));
        rig.step();
        rig.step();
        lock(&rig.control).fails_edits = true;
        let mut late = Client::submit(&mut rig, &prompt(26, 100), greedy(3));
        rig.run();
        assert!(late.error().contains("edits"));
        assert_eq!(running.finished(FinishReason::Length), kind.continuation(&first, 50));
        let mut again = rig.ask(&first, greedy(10));
        assert_eq!(again.finished(FinishReason::Length), kind.continuation(&first, 10));
        rig.assert_nothing_is_lost();
    }
}

/// When the device is lost, all fail, and nothing is tried again.
#[test]
fn a_lost_device_ends_everything() {
    for kind in Kind::all() {
        for (feeds, fails_late) in devices() {
            let mut rig = Setup { feeds, ..Setup::of(&kind, 256, 16, 2) }.build();
            lock(&rig.control).fails_late = fails_late;
            let mut writing = Client::submit(&mut rig, &prompt(27, 20), greedy(50));
            for _ in 0..3 {
                rig.step();
            }
            let mut reading = Client::submit(&mut rig, &prompt(28, 200), greedy(10));
            let mut waiting = Client::submit(&mut rig, &prompt(29, 20), greedy(10));
            let score = Scoring::submit(&mut rig, prompt(30, 20), 0);
            let (reply, measured) = channel();
            rig.step();
            rig.scheduler.submit_job(Job::Measure { workload: Workload::decode(5), repetitions: 1, reply });
            lock(&rig.control).is_lost = true;
            let steps = lock(&rig.control).steps.len();
            for _ in 0..10 {
                if rig.scheduler.lost().is_none() {
                    rig.step();
                }
            }
            assert!(rig.scheduler.lost().expect("lost").contains("fell off the bus"));
            for client in [&mut writing, &mut reading, &mut waiting] {
                assert!(client.error().contains("is lost"), "{kind:?} {feeds:?} {fails_late}");
            }
            assert!(score.poll().expect("an answer").expect_err("failed").to_string().contains("is lost"));
            assert!(measured.recv().expect("an answer").expect_err("failed").to_string().contains("is lost"));
            assert!(lock(&rig.control).steps.len() <= steps + 2);
        }
    }
}

/// A step for which there is no memory is made smaller; a request alone for which there is none fails.
#[test]
fn who_needs_too_much_memory_fails_alone() {
    for kind in Kind::all() {
        for feeds in [Feeds::Never, Feeds::Always, Feeds::Sometimes] {
            let mut rig = Setup { feeds, step: 64, ..Setup::of(&kind, 1024, 96, 6) }.build();
            lock(&rig.control).most_rows = Some(20);
            let [short, other, long] = [prompt(31, 15), prompt(32, 18), prompt(33, 50)];
            let mut a = Client::submit(&mut rig, &short, greedy(10));
            let mut b = Client::submit(&mut rig, &other, greedy(10));
            let mut c = Client::submit(&mut rig, &long, greedy(10));
            rig.run();
            assert_eq!(a.finished(FinishReason::Length), kind.continuation(&short, 10));
            assert_eq!(b.finished(FinishReason::Length), kind.continuation(&other, 10));
            assert!(c.error().contains("out of memory"), "{kind:?} {feeds:?}");
            assert!(rig.scheduler.lost().is_none());
            rig.assert_nothing_is_lost();
        }
    }
}
