use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use pippin_tensor::KvFormat;
use pippin_text::StopTokens;
use proptest::prelude::*;

use super::*;
use crate::GenerateParameters;
use crate::channel::{self, Receiver};
use crate::testing::{Control, FakeModel, NAN, POISON, STOP, Step, VOCAB, continuation, lock, logits};

fn scheduler(context: usize, pages: usize, sequences: usize) -> (Scheduler, Arc<Mutex<Control>>) {
    let (mut model, control) = FakeModel::boxed(context);
    model.allocate_kv(pages, PAGE_SIZE, KvFormat::F32).expect("allocated");
    (Scheduler::new(model, Limits { context, pages, sequences }), control)
}

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(max_tokens), ..GenerateParameters::greedy() }
}

/// A request's side of its channel.
struct Client {
    events: Option<Receiver<Event>>,
    cancelled: Arc<AtomicBool>,
    cached: Option<usize>,
    tokens: Vec<u32>,
    end: Option<Result<FinishReason, String>>,
}

impl Client {
    fn submit(scheduler: &mut Scheduler, prompt: &[u32], parameters: GenerateParameters) -> Self {
        let (events, receiver) = channel::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        scheduler.submit(Request {
            tokens: prompt.to_vec(),
            parameters: Arc::new(parameters),
            stop: Arc::new(StopTokens::from_iter([STOP])),
            protected: Arc::default(),
            events,
            cancelled: Arc::clone(&cancelled),
        });
        Self { events: Some(receiver), cancelled, cached: None, tokens: Vec::new(), end: None }
    }

    /// Takes what has arrived.
    fn poll(&mut self) -> &mut Self {
        for event in self.events.iter().flat_map(Receiver::try_iter) {
            assert!(self.end.is_none(), "an event after the end: {event:?}");
            match event {
                Event::Started { cached, .. } => {
                    assert_eq!(self.cached, None, "started twice");
                    self.cached = Some(cached);
                }
                Event::Token { token, .. } => self.tokens.push(token),
                Event::Finished { reason, .. } => self.end = Some(Ok(reason)),
                Event::Failed(error) => self.end = Some(Err(error.to_string())),
            }
        }
        self
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn finished(&mut self, reason: FinishReason) -> &[u32] {
        self.poll();
        assert_eq!(self.end, Some(Ok(reason)));
        &self.tokens
    }
}

fn run(scheduler: &mut Scheduler) {
    for _ in 0..100_000 {
        if scheduler.is_idle() {
            return;
        }
        scheduler.step();
    }
    panic!("the scheduler makes no progress");
}

/// After everything has ended, every page is free or in the cache, and none is lost.
fn assert_no_page_is_lost(scheduler: &mut Scheduler) {
    assert!(scheduler.is_idle());
    scheduler.clear_cache();
    assert_eq!(scheduler.pool.free(), scheduler.pool.capacity());
}

fn prompt(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| i.wrapping_mul(i + seed).wrapping_add(seed) % 50).collect()
}

#[test]
fn generates_what_the_model_says() {
    let (mut scheduler, control) = scheduler(256, 8, 4);
    let prompt = prompt(1, 70);
    let mut client =
        Client::submit(&mut scheduler, &prompt, GenerateParameters { prefill_step_size: 32, ..greedy(40) });
    run(&mut scheduler);
    assert_eq!(client.finished(FinishReason::Length), continuation(&prompt, 40));
    let steps = &lock(&control).steps;
    assert_eq!(steps[..4], [vec![(0, 32)], vec![(32, 32)], vec![(64, 6)], vec![(70, 1)]]);
    // The last token is never fed back.
    assert_eq!(steps.len(), 3 + 39);
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn none_and_one_token() {
    let (mut scheduler, control) = scheduler(256, 8, 4);
    let prompt = prompt(2, 40);
    let mut none = Client::submit(&mut scheduler, &prompt, greedy(0));
    run(&mut scheduler);
    assert!(none.finished(FinishReason::Length).is_empty());
    assert_eq!(lock(&control).steps.len(), 1);
    // The prompt has been read, so that the next request finds it.
    let mut one = Client::submit(&mut scheduler, &prompt, greedy(1));
    run(&mut scheduler);
    assert_eq!(one.finished(FinishReason::Length), continuation(&prompt, 1));
    assert_eq!(one.cached, Some(39));
    assert_eq!(lock(&control).steps[1], [(39, 1)]);
}

#[test]
fn stop_tokens_end_the_answer() {
    let (mut scheduler, _) = scheduler(256, 8, 4);
    let bias = GenerateParameters { logit_bias: [(STOP, 100.0)].into(), ..GenerateParameters::greedy() };
    let mut client = Client::submit(&mut scheduler, &[1, 2], bias);
    run(&mut scheduler);
    assert_eq!(client.finished(FinishReason::Stop), [STOP]);
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn the_context_ends_the_answer() {
    let (mut scheduler, _) = scheduler(64, 2, 4);
    let prompt = prompt(3, 50);
    let mut client = Client::submit(&mut scheduler, &prompt, GenerateParameters::greedy());
    run(&mut scheduler);
    assert_eq!(client.finished(FinishReason::Length), continuation(&prompt, 14));
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn decoding_goes_on_while_prompts_are_read() {
    let (mut scheduler, control) = scheduler(1024, 64, 4);
    let short = prompt(4, 3);
    let mut writer = Client::submit(&mut scheduler, &short, greedy(30));
    scheduler.step();
    let long = prompt(5, 250);
    let chunked = GenerateParameters { prefill_step_size: 100, ..greedy(5) };
    let mut reader = Client::submit(&mut scheduler, &long, chunked);
    let longer = prompt(6, 60);
    let mut second = Client::submit(&mut scheduler, &longer, greedy(5));
    run(&mut scheduler);
    let expected: Vec<Step> = vec![
        vec![(0, 3)],
        vec![(3, 1), (0, 100)],
        vec![(4, 1), (100, 100)],
        // The rest of the first prompt leaves room for 50 tokens of the second.
        vec![(5, 1), (200, 50), (0, 50)],
        vec![(6, 1), (250, 1), (50, 10)],
        vec![(7, 1), (251, 1), (60, 1)],
    ];
    assert_eq!(lock(&control).steps[..expected.len()], expected);
    assert_eq!(writer.finished(FinishReason::Length), continuation(&short, 30));
    assert_eq!(reader.finished(FinishReason::Length), continuation(&long, 5));
    assert_eq!(second.finished(FinishReason::Length), continuation(&longer, 5));
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn a_cancelled_request_ends_within_a_step() {
    let (mut scheduler, control) = scheduler(256, 8, 1);
    let mut running = Client::submit(&mut scheduler, &prompt(7, 10), greedy(100));
    let mut waiting = Client::submit(&mut scheduler, &prompt(8, 10), greedy(100));
    scheduler.step();
    scheduler.step();
    running.cancel();
    waiting.cancel();
    let steps = lock(&control).steps.len();
    scheduler.step();
    assert_eq!(lock(&control).steps.len(), steps, "no step for nobody");
    assert_eq!(running.finished(FinishReason::Cancelled).len(), 2);
    assert!(waiting.finished(FinishReason::Cancelled).is_empty());
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn a_dropped_receiver_cancels() {
    let (mut scheduler, _) = scheduler(256, 8, 1);
    let mut client = Client::submit(&mut scheduler, &prompt(9, 10), greedy(100));
    scheduler.step();
    client.events = None;
    scheduler.step();
    scheduler.step();
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn requests_wait_for_pages_in_order() {
    let (mut scheduler, _) = scheduler(128, 4, 4);
    let (first, second, third) = (prompt(10, 70), prompt(11, 40), prompt(12, 5));
    let mut a = Client::submit(&mut scheduler, &first, greedy(20));
    let mut b = Client::submit(&mut scheduler, &second, greedy(20));
    let mut c = Client::submit(&mut scheduler, &third, greedy(20));
    scheduler.step();
    // The first takes three of four pages; the third would fit, but it is not its turn.
    assert_eq!(scheduler.running.len(), 1);
    assert_eq!((a.poll().tokens.len(), b.poll().cached, c.poll().cached), (1, None, None));
    run(&mut scheduler);
    assert_eq!(a.finished(FinishReason::Length), continuation(&first, 20));
    assert_eq!(b.finished(FinishReason::Length), continuation(&second, 20));
    assert_eq!(c.finished(FinishReason::Length), continuation(&third, 20));
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn the_youngest_makes_way_and_comes_back() {
    let (mut scheduler, _) = scheduler(128, 4, 4);
    let (first, second) = (prompt(13, 30), prompt(14, 30));
    // Each needs three pages in the end, of four that there are.
    let mut a = Client::submit(&mut scheduler, &first, greedy(60));
    let mut b = Client::submit(&mut scheduler, &second, greedy(60));
    scheduler.step();
    assert_eq!(scheduler.running.len(), 2);
    let mut was_suspended = false;
    while !scheduler.is_idle() {
        scheduler.step();
        b.poll();
        was_suspended |= b.end.is_none() && scheduler.running.len() == 1 && !scheduler.waiting.is_empty();
    }
    assert!(was_suspended);
    assert_eq!(a.finished(FinishReason::Length), continuation(&first, 60));
    assert_eq!(b.finished(FinishReason::Length), continuation(&second, 60));
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn sampling_survives_suspension_and_neighbours() {
    let sampled = |seed| GenerateParameters {
        max_tokens: Some(60),
        seed: Some(seed),
        temperature: 1.0,
        ..Default::default()
    };
    let alone: Vec<Vec<u32>> = [1, 2]
        .map(|seed| {
            let (mut scheduler, _) = scheduler(128, 4, 4);
            let mut client = Client::submit(&mut scheduler, &prompt(seed, 30), sampled(u64::from(seed)));
            run(&mut scheduler);
            client.finished(FinishReason::Length).to_vec()
        })
        .into();
    assert_ne!(alone[0], continuation(&prompt(1, 30), 60), "sampling should not be greedy");
    let (mut scheduler, _) = scheduler(128, 4, 4);
    let mut clients =
        [1, 2].map(|seed| Client::submit(&mut scheduler, &prompt(seed, 30), sampled(u64::from(seed))));
    run(&mut scheduler);
    for (client, alone) in clients.iter_mut().zip(&alone) {
        assert_eq!(client.finished(FinishReason::Length), alone);
    }
}

#[test]
fn a_conversation_continues_where_it_was() {
    let (mut scheduler, control) = scheduler(512, 16, 4);
    let first = prompt(15, 45);
    let mut turn = Client::submit(&mut scheduler, &first, greedy(10));
    run(&mut scheduler);
    assert_eq!(turn.poll().cached, Some(0));

    let mut second = first.clone();
    second.extend(turn.finished(FinishReason::Length));
    second.extend([7, 8, 9]);
    let mut turn = Client::submit(&mut scheduler, &second, greedy(10));
    run(&mut scheduler);
    // All but the last answer token, whose keys and values were never computed, and what is new.
    assert_eq!(turn.poll().cached, Some(54));
    assert!(lock(&control).steps.contains(&vec![(54, 4)]));
    assert_eq!(turn.finished(FinishReason::Length), continuation(&second, 10));

    // Another answer to the second message: full pages are shared.
    let mut again = Client::submit(&mut scheduler, &second, greedy(10));
    run(&mut scheduler);
    assert_eq!(again.poll().cached, Some(32));
    assert_eq!(again.finished(FinishReason::Length), continuation(&second, 10));
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn running_sequences_share_their_beginnings() {
    let (mut scheduler, control) = scheduler(512, 16, 4);
    let system = prompt(16, 100);
    let with = |end: u32| [&system[..], &[end]].concat();
    let mut a = Client::submit(&mut scheduler, &with(1), greedy(50));
    scheduler.step();
    let mut b = Client::submit(&mut scheduler, &with(2), greedy(50));
    scheduler.step();
    assert_eq!(b.poll().cached, Some(96));
    assert_eq!(lock(&control).steps[1], [(101, 1), (96, 5)]);
    run(&mut scheduler);
    assert_eq!(a.finished(FinishReason::Length), continuation(&with(1), 50));
    assert_eq!(b.finished(FinishReason::Length), continuation(&with(2), 50));
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn what_is_oldest_is_forgotten_first() {
    let (mut scheduler, _) = scheduler(128, 6, 4);
    let prompts = [17, 18, 19].map(|seed| prompt(seed, 60));
    for prompt in &prompts {
        Client::submit(&mut scheduler, prompt, greedy(2));
        // Dropped clients cancel their requests, but only after the prompt has been read.
        scheduler.step();
        run(&mut scheduler);
    }
    let mut cached = |index: usize| {
        let mut client = Client::submit(&mut scheduler, &prompts[index], greedy(1));
        run(&mut scheduler);
        client.finished(FinishReason::Length);
        client.cached
    };
    // Each has two pages, so all three are there. Asking for one makes it the most recent.
    assert_eq!(cached(0), Some(59));
    let mut other = Client::submit(&mut scheduler, &prompt(20, 60), greedy(1));
    run(&mut scheduler);
    other.finished(FinishReason::Length);
    let mut cached = |index: usize| {
        let mut client = Client::submit(&mut scheduler, &prompts[index], greedy(1));
        run(&mut scheduler);
        client.finished(FinishReason::Length);
        client.cached
    };
    assert_eq!(cached(0), Some(59));
    assert_eq!(cached(2), Some(59));
    assert_eq!(cached(1), Some(0));
}

#[test]
fn a_failing_request_fails_alone() {
    let (mut scheduler, _) = scheduler(256, 8, 4);
    let good = prompt(21, 20);
    let mut a = Client::submit(&mut scheduler, &good, greedy(10));
    let mut poisoned = Client::submit(&mut scheduler, &[1, POISON, 2], greedy(10));
    let mut nan = Client::submit(&mut scheduler, &[1, NAN], greedy(10));
    run(&mut scheduler);
    assert_eq!(a.finished(FinishReason::Length), continuation(&good, 10));
    let error = poisoned.poll().end.clone().expect("ended").expect_err("failed");
    assert!(error.contains("poison"), "{error}");
    let error = nan.poll().end.clone().expect("ended").expect_err("failed");
    assert!(error.contains("after 2 tokens"), "{error}");
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn scores_are_log_probabilities() {
    let (mut scheduler, _) = scheduler(256, 8, 4);
    let tokens = prompt(22, 100);
    let (reply, answer) = channel();
    scheduler.submit_job(Job::Score { tokens: tokens.clone(), reply });
    run(&mut scheduler);
    let scores = answer.recv().expect("an answer").expect("scores");
    assert_eq!(scores.len(), 99);
    for (index, score) in scores.iter().enumerate() {
        let expected = log_probability(&logits(&tokens[..=index]), tokens[index + 1]);
        assert_eq!(Some(*score), expected);
    }
    let (reply, answer) = channel();
    scheduler.submit_job(Job::Score { tokens: vec![1], reply });
    run(&mut scheduler);
    assert!(answer.recv().expect("an answer").expect("scores").is_empty());
    assert_no_page_is_lost(&mut scheduler);
}

#[test]
fn measurements_wait_for_room_and_requests_for_them() {
    let (mut scheduler, control) = scheduler(128, 4, 4);
    // The tokens of a measurement are any.
    lock(&control).ignores_poison = true;
    let first = prompt(23, 60);
    let mut client = Client::submit(&mut scheduler, &first, greedy(5));
    scheduler.step();
    let (reply, answer) = channel();
    let workload = Workload::Prefill { tokens: 120, step_size: 50 };
    scheduler.submit_job(Job::Measure { workload, repetitions: 2, reply });
    let mut late = Client::submit(&mut scheduler, &[1], greedy(1));
    run(&mut scheduler);
    assert_eq!(client.finished(FinishReason::Length), continuation(&first, 5));
    assert_eq!(late.finished(FinishReason::Length), continuation(&[1], 1));
    assert_eq!(answer.recv().expect("an answer").expect("samples").len(), 2);
    let steps: Vec<Step> = [(0, 50), (50, 50), (100, 20)].map(|step| vec![step]).into();
    let measured = [&steps[..], &steps[..], &[vec![(0, 1)]]].concat();
    assert!(lock(&control).steps.ends_with(&measured), "{:?}", lock(&control).steps);
    assert_no_page_is_lost(&mut scheduler);
}

#[derive(Clone, Debug)]
struct Arrival {
    at: usize,
    /// Which of a few conversations, and how much of it.
    seed: u32,
    length: usize,
    max_tokens: usize,
    prefill_step_size: usize,
    cancel_at: Option<usize>,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival =
        (0usize..60, 0u32..3, 1usize..100, 0usize..28, 1usize..70, prop::option::weighted(0.2, 0usize..80));
    let arrival = arrival.prop_map(|(at, seed, length, max_tokens, prefill_step_size, cancel_at)| Arrival {
        at,
        seed,
        length,
        max_tokens,
        prefill_step_size,
        cancel_at,
    });
    prop::collection::vec(arrival, 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever arrives when, is cancelled when, and fits or not: everyone gets the answer they would get alone.
    #[test]
    fn nobody_sees_the_others(arrivals in arrivals(), pages in 4usize..20, sequences in 1usize..6) {
        let (mut scheduler, _) = scheduler(128, pages, sequences);
        let mut clients: Vec<(Arrival, Option<Client>)> = arrivals.into_iter().map(|a| (a, None)).collect();
        for time in 0..10_000 {
            for (arrival, client) in &mut clients {
                if arrival.at == time {
                    let parameters =
                        GenerateParameters { prefill_step_size: arrival.prefill_step_size, ..greedy(arrival.max_tokens) };
                    let prompt = prompt(arrival.seed, arrival.length);
                    *client = Some(Client::submit(&mut scheduler, &prompt, parameters));
                }
                if let (Some(at), Some(client)) = (arrival.cancel_at, client)
                    && at <= time
                {
                    client.cancel();
                }
            }
            scheduler.step();
            prop_assert!(scheduler.running.len() <= sequences);
            if time > 100 && scheduler.is_idle() {
                break;
            }
        }
        prop_assert!(scheduler.is_idle());
        for (arrival, client) in &mut clients {
            let client = client.as_mut().expect("arrived");
            client.poll();
            let expected = continuation(&prompt(arrival.seed, arrival.length), arrival.max_tokens);
            match client.end.clone() {
                Some(Ok(FinishReason::Length)) => prop_assert_eq!(&client.tokens, &expected),
                Some(Ok(FinishReason::Cancelled)) => {
                    prop_assert!(arrival.cancel_at.is_some());
                    prop_assert!(expected.starts_with(&client.tokens));
                }
                end => prop_assert!(false, "unexpected end {:?}", end),
            }
        }
        scheduler.clear_cache();
        prop_assert_eq!(scheduler.pool.free(), pages);
    }
}

#[test]
fn the_fake_model_is_what_the_tests_take_it_for() {
    assert!(continuation(&[1, 2, 3], 200).iter().all(|token| *token < 50));
    assert!(VOCAB > STOP as usize);
}
