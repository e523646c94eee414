//! What comes out, and when.

use super::*;
use crate::testing::{Step, continuation, logits};

#[test]
fn generates_what_the_model_says() {
    let mut rig = Setup { step: 32, ..Setup::new(256, 8, 4) }.build();
    let prompt = prompt(1, 70);
    let mut client = rig.ask(&prompt, greedy(40));
    assert_eq!(client.finished(FinishReason::Length), continuation(&prompt, 40));
    let steps = rig.steps();
    assert_eq!(steps[..4], [vec![(0, 32)], vec![(32, 32)], vec![(64, 6)], vec![(70, 1)]]);
    // The last token is never fed back.
    assert_eq!(steps.len(), 3 + 39);
    rig.assert_nothing_is_lost();
}

#[test]
fn every_kind_of_model_generates_what_it_says() {
    for kind in Kind::all() {
        for feeds in [Feeds::Never, Feeds::Always, Feeds::Sometimes] {
            let mut rig = Setup { step: 48, feeds, ..Setup::of(&kind, 512, 16, 4) }.build();
            for (seed, length) in [(1, 200), (2, 3), (1, 250), (1, 200), (3, 64)] {
                let prompt = prompt(seed, length);
                let mut client = rig.ask(&prompt, greedy(60));
                assert_eq!(
                    client.finished(FinishReason::Length),
                    kind.continuation(&prompt, 60),
                    "{kind:?} {feeds:?}"
                );
            }
            rig.assert_nothing_is_lost();
        }
    }
}

#[test]
fn none_and_one_token() {
    let mut rig = scheduler(256, 8, 4);
    let prompt = prompt(2, 40);
    let mut none = rig.ask(&prompt, greedy(0));
    assert!(none.finished(FinishReason::Length).is_empty());
    assert_eq!(rig.steps().len(), 1);
    // The prompt has been read, so that the next request finds it.
    let mut one = rig.ask(&prompt, greedy(1));
    assert_eq!(one.finished(FinishReason::Length), continuation(&prompt, 1));
    assert_eq!(one.cached, Some(39));
    assert_eq!(rig.steps()[1], [(39, 1)]);
}

#[test]
fn stop_tokens_end_the_answer() {
    for feeds in [Feeds::Never, Feeds::Always] {
        let mut rig = Setup { feeds, ..Setup::new(256, 8, 4) }.build();
        let bias = GenerateParameters { logit_bias: [(STOP, 100.0)].into(), ..GenerateParameters::greedy() };
        let mut client = rig.ask(&[1, 2], bias);
        assert_eq!(client.finished(FinishReason::Stop), [STOP]);
        // A device that feeds itself has computed one row that nobody needed, and no more.
        assert_eq!(rig.steps().len(), if feeds == Feeds::Always { 2 } else { 1 });
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn the_context_ends_the_answer() {
    for feeds in [Feeds::Never, Feeds::Always] {
        let mut rig = Setup { feeds, ..Setup::new(64, 2, 4) }.build();
        let prompt = prompt(3, 50);
        let mut client = rig.ask(&prompt, GenerateParameters::greedy());
        assert_eq!(client.finished(FinishReason::Length), continuation(&prompt, 14));
        // The end is known in advance: nothing is computed in vain.
        assert_eq!(rig.steps().len(), 14);
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn decoding_goes_on_while_prompts_are_read() {
    let mut rig = Setup { step: 100, ..Setup::new(1024, 64, 4) }.build();
    let short = prompt(4, 3);
    let mut writer = Client::submit(&mut rig, &short, greedy(30));
    rig.step();
    let long = prompt(5, 250);
    let mut reader = Client::submit(&mut rig, &long, greedy(5));
    let longer = prompt(6, 60);
    let mut second = Client::submit(&mut rig, &longer, greedy(5));
    rig.run();
    let expected: Vec<Step> = vec![
        vec![(0, 3)],
        // The one with less to read goes first; what it leaves is the other's.
        vec![(3, 1), (0, 40), (0, 60)],
        vec![(4, 1), (40, 100), (60, 1)],
        vec![(5, 1), (140, 100), (61, 1)],
        vec![(6, 1), (240, 10), (62, 1)],
        vec![(7, 1), (250, 1), (63, 1)],
    ];
    for (step, expected) in rig.steps().iter().zip(&expected) {
        let (mut step, mut expected) = (step.clone(), expected.clone());
        step.sort();
        expected.sort();
        assert_eq!(step, expected);
    }
    assert_eq!(writer.finished(FinishReason::Length), continuation(&short, 30));
    assert_eq!(reader.finished(FinishReason::Length), continuation(&long, 5));
    assert_eq!(second.finished(FinishReason::Length), continuation(&longer, 5));
    rig.assert_nothing_is_lost();
}

#[test]
fn a_cancelled_request_ends_within_a_step() {
    for feeds in [Feeds::Never, Feeds::Always] {
        let mut rig = Setup { feeds, ..Setup::new(256, 8, 1) }.build();
        let mut running = Client::submit(&mut rig, &prompt(7, 10), greedy(100));
        let mut waiting = Client::submit(&mut rig, &prompt(8, 10), greedy(100));
        rig.step();
        rig.step();
        running.cancel();
        waiting.cancel();
        let steps = rig.steps().len();
        rig.step();
        assert_eq!(rig.steps().len(), steps, "no step for nobody");
        assert_eq!(
            running.finished(FinishReason::Cancelled).len(),
            if feeds == Feeds::Always { 1 } else { 2 }
        );
        assert!(waiting.finished(FinishReason::Cancelled).is_empty());
        rig.run();
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn a_dropped_receiver_cancels() {
    let mut rig = scheduler(256, 8, 1);
    let mut client = Client::submit(&mut rig, &prompt(9, 10), greedy(100));
    rig.step();
    client.events = None;
    rig.step();
    rig.step();
    rig.assert_nothing_is_lost();
}

#[test]
fn requests_wait_for_pages_in_order() {
    let mut rig = scheduler(128, 4, 4);
    let (first, second, third) = (prompt(10, 70), prompt(11, 40), prompt(12, 5));
    let mut a = Client::submit(&mut rig, &first, greedy(20));
    let mut b = Client::submit(&mut rig, &second, greedy(20));
    let mut c = Client::submit(&mut rig, &third, greedy(20));
    rig.step();
    // The first takes three of four pages; the third would fit, but it is not its turn.
    assert_eq!(rig.scheduler.running.len(), 1);
    assert_eq!((a.poll().tokens.len(), b.poll().cached, c.poll().cached), (1, None, None));
    rig.run();
    assert_eq!(a.finished(FinishReason::Length), continuation(&first, 20));
    assert_eq!(b.finished(FinishReason::Length), continuation(&second, 20));
    assert_eq!(c.finished(FinishReason::Length), continuation(&third, 20));
    rig.assert_nothing_is_lost();
}

#[test]
fn the_youngest_makes_way_and_comes_back() {
    for kind in [Kind::full(), Kind { has_state: true, ..Kind::full() }] {
        for feeds in [Feeds::Never, Feeds::Always] {
            let mut rig = Setup { feeds, ..Setup::of(&kind, 128, 4, 4) }.build();
            let (first, second) = (prompt(13, 30), prompt(14, 30));
            // Each needs three pages in the end, of four that there are.
            let mut a = Client::submit(&mut rig, &first, greedy(60));
            let mut b = Client::submit(&mut rig, &second, greedy(60));
            rig.step();
            assert_eq!(rig.scheduler.running.len(), 2);
            let mut was_suspended = false;
            while !rig.scheduler.is_idle() {
                rig.step();
                b.poll();
                was_suspended |= b.end.is_none() && !rig.scheduler.waiting.is_empty();
            }
            assert!(was_suspended);
            assert_eq!(a.finished(FinishReason::Length), kind.continuation(&first, 60));
            assert_eq!(b.finished(FinishReason::Length), kind.continuation(&second, 60));
            rig.assert_nothing_is_lost();
        }
    }
}

#[test]
fn sampling_survives_suspension_and_neighbours() {
    let sampled = |seed: u32| GenerateParameters {
        max_tokens: Some(60),
        seed: Some(u64::from(seed)),
        temperature: 1.0,
        repetition_penalty: Some(1.3),
        xtc_probability: 0.3,
        ..Default::default()
    };
    let kind = Kind::full();
    assert_ne!(reference(&kind, &prompt(1, 30), &sampled(1)), continuation(&prompt(1, 30), 60));
    for feeds in [Feeds::Never, Feeds::Always] {
        let mut rig = Setup { feeds, ..Setup::new(128, 4, 4) }.build();
        let mut clients = [1, 2].map(|seed| Client::submit(&mut rig, &prompt(seed, 30), sampled(seed)));
        rig.run();
        for (client, seed) in clients.iter_mut().zip([1, 2]) {
            let expected = reference(&kind, &prompt(seed, 30), &sampled(seed));
            assert_eq!(client.finished(FinishReason::Length), expected);
        }
    }
}

/// Without a seed, each request has one of its own, which it keeps when it has to make way.
#[test]
fn requests_without_a_seed_differ() {
    let mut rig = scheduler(128, 16, 4);
    let sampled = GenerateParameters { max_tokens: Some(40), temperature: 1.0, ..Default::default() };
    let answers = [1, 2].map(|_| rig.ask(&prompt(1, 30), sampled.clone()).tokens);
    assert_ne!(answers[0], answers[1]);
}

#[test]
fn a_decoding_step_changes_no_slot() {
    for kind in Kind::all() {
        let mut rig = Setup { feeds: Feeds::Always, ..Setup::of(&kind, 1024, 64, 4) }.build();
        let mut clients = [1, 2, 3].map(|seed| Client::submit(&mut rig, &prompt(seed, 20), greedy(200)));
        for _ in 0..10 {
            rig.step();
        }
        let (edits, steps) = (rig.edits(), rig.steps().len());
        for _ in 0..100 {
            rig.step();
        }
        assert_eq!((rig.edits(), rig.steps().len()), (edits, steps + 100));
        rig.run();
        clients.iter_mut().for_each(|client| assert_eq!(client.finished(FinishReason::Length).len(), 200));
    }
}

#[test]
fn scores_are_log_probabilities() {
    for kind in Kind::all() {
        let mut rig = Setup { step: 30, feeds: Feeds::Always, ..Setup::of(&kind, 256, 8, 4) }.build();
        let tokens = prompt(22, 100);
        let scoring = Scoring::submit(&mut rig, tokens.clone(), 3);
        // It runs beside others.
        let mut client = Client::submit(&mut rig, &prompt(1, 10), greedy(2));
        rig.step();
        rig.step();
        client.poll();
        assert_eq!((client.tokens.is_empty(), scoring.poll().is_none()), (false, true));
        rig.run();
        client.finished(FinishReason::Length);
        let scores = scoring.poll().expect("an answer").expect("scores");
        assert_eq!(scores.len(), 99);
        for (index, TokenScore { logprob, top_logprobs }) in scores.iter().enumerate() {
            let logits = kind.logits(&tokens[..=index]);
            let expected = |token| pippin_sampling::log_probability(&logits, token).expect("finite");
            assert_eq!(*logprob, expected(tokens[index + 1]));
            assert_eq!((top_logprobs.len(), top_logprobs[0].token), (3, kind.next_token(&tokens[..=index])));
            assert!(top_logprobs.is_sorted_by(|a, b| a.logprob >= b.logprob));
            assert!(top_logprobs.iter().all(|top| (top.logprob - expected(top.token)).abs() < 1e-5));
        }
        let scoring = Scoring::submit(&mut rig, vec![1], 3);
        rig.run();
        assert!(scoring.poll().expect("an answer").expect("scores").is_empty());
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn cancelled_scores_end_within_a_step() {
    let mut rig = Setup { step: 10, ..Setup::new(256, 8, 1) }.build();
    let [running, waiting] = [25, 26].map(|seed| Scoring::submit(&mut rig, prompt(seed, 100), 0));
    rig.step();
    rig.step();
    for scoring in [&running, &waiting] {
        assert!(scoring.poll().is_none());
        scoring.cancelled.store(true, Ordering::Relaxed);
    }
    rig.step();
    assert!(rig.scheduler.is_idle());
    for scoring in [running, waiting] {
        assert!(matches!(scoring.poll(), Some(Err(crate::EngineError::ScoreCancelled))));
    }
    assert_eq!(rig.steps().len(), 2);
    rig.assert_nothing_is_lost();
}

/// A device that feeds itself draws ahead where that makes no difference, and waits where the least length is reached.
#[test]
fn nothing_ends_an_answer_before_its_least_length() {
    for feeds in [Feeds::Never, Feeds::Always, Feeds::Sometimes] {
        for least in [0, 1, 2, 7] {
            let mut rig = Setup { feeds, ..Setup::new(256, 8, 1) }.build();
            let parameters = GenerateParameters {
                min_tokens: least,
                logit_bias: [(STOP, 100.0), (5, 80.0)].into(),
                ..GenerateParameters::greedy()
            };
            let mut client = Client::submit_to(&mut rig.scheduler, &[1, 2], parameters, &[STOP, 5]);
            rig.run();
            let tokens = client.finished(FinishReason::Stop);
            assert_eq!((tokens.len(), tokens[least]), (least + 1, STOP), "{feeds:?}");
            assert!(tokens[..least].iter().all(|token| ![STOP, 5].contains(token)), "{tokens:?}");
            rig.assert_nothing_is_lost();
        }
    }
}

#[test]
fn measurements_wait_for_room_and_requests_for_them() {
    for feeds in [Feeds::Never, Feeds::Always, Feeds::Sometimes] {
        let mut rig = Setup { feeds, step: 60, ..Setup::new(128, 4, 4) }.build();
        // The tokens of a measurement are any.
        lock(&rig.control).ignores_poison = true;
        let first = prompt(23, 60);
        let mut client = Client::submit(&mut rig, &first, greedy(5));
        rig.step();
        let (reply, answer) = channel();
        let workload = Workload::Prefill { tokens: 120, step_size: 50 };
        rig.scheduler.submit_job(Job::Measure { workload, repetitions: 2, reply });
        let mut late = Client::submit(&mut rig, &[1], greedy(1));
        rig.run();
        assert_eq!(client.finished(FinishReason::Length), continuation(&first, 5));
        assert_eq!(late.finished(FinishReason::Length), continuation(&[1], 1));
        assert_eq!(answer.recv().expect("an answer").expect("samples").len(), 2);
        let steps: Vec<Step> = [(0, 50), (50, 50), (100, 20)].map(|step| vec![step]).into();
        let measured = [&steps[..], &steps[..], &[vec![(0, 1)]]].concat();
        assert!(rig.steps().ends_with(&measured), "{:?}", rig.steps());
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn every_kind_of_model_can_be_measured() {
    for kind in Kind::all() {
        for feeds in [Feeds::Never, Feeds::Always, Feeds::Sometimes] {
            let mut rig = Setup { feeds, step: 60, ..Setup::of(&kind, 512, 16, 1) }.build();
            lock(&rig.control).ignores_poison = true;
            for workload in [Workload::prefill(500), Workload::decode(500)] {
                let (reply, answer) = channel();
                rig.scheduler.submit_job(Job::Measure { workload, repetitions: 2, reply });
                rig.run();
                assert_eq!(answer.recv().expect("an answer").expect("samples").len(), 2);
            }
            rig.assert_nothing_is_lost();
        }
    }
}

#[test]
fn the_fake_model_is_what_the_tests_take_it_for() {
    assert!(continuation(&[1, 2, 3], 200).iter().all(|token| *token < 50));
    assert!(crate::testing::VOCAB > STOP as usize && logits(&[1]).len() > STOP as usize);
}
