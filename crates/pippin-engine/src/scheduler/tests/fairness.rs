//! Who waits for whom, counted in steps.

use super::*;

/// Steps until each of the clients has its first token; those there at the end of the list arrive after `before` steps.
fn first_tokens(rig: &mut Rig, long: &[u32], before: usize, short: &[Vec<u32>]) -> (usize, Vec<usize>) {
    let mut clients = vec![Client::submit(rig, long, greedy(4))];
    for _ in 0..before {
        rig.step();
    }
    clients.extend(short.iter().map(|prompt| Client::submit(rig, prompt, greedy(4))));
    let mut steps = vec![0; clients.len()];
    for step in 1..1000 {
        rig.step();
        for (client, first) in clients.iter_mut().zip(&mut steps) {
            if *first == 0 && !client.poll().tokens.is_empty() {
                *first = step;
            }
        }
    }
    assert!(rig.scheduler.is_idle() && !steps.contains(&0));
    (steps.remove(0), steps)
}

/// Five short prompts arrive while one of 8,000 tokens is read: half of them have their first token in less than three
/// tenths of the time that the long one takes from then on.
#[test]
fn short_prompts_do_not_wait_for_a_long_one() {
    for (feeds, length) in
        [(Feeds::Never, 40), (Feeds::Never, 300), (Feeds::Never, 500), (Feeds::Always, 300)]
    {
        let mut rig = Setup { feeds, ..Setup::new(8192, 512, 8) }.build();
        let short: Vec<Vec<u32>> = (0..5).map(|seed| prompt(seed + 2, length)).collect();
        let (long, mut short) = first_tokens(&mut rig, &prompt(1, 8000), 2, &short);
        short.sort();
        println!("5 x {length} tokens: first tokens after {short:?} steps, of the long one after {long}");
        assert!(short[2] * 10 < long * 3, "{short:?} of {long}");
    }
}

/// A client cannot take the steps of others: how many rows a step has is not a request's business. And however many short
/// ones arrive, the long one goes on.
#[test]
fn a_long_prompt_is_not_put_off_for_ever() {
    let mut rig = Setup { step: 64, ..Setup::new(1024, 128, 4) }.build();
    let mut long = Client::submit(&mut rig, &prompt(1, 800), greedy(1));
    let mut steps = 0;
    while long.poll().tokens.is_empty() {
        // There is always one of the same length as a step.
        if rig.scheduler.running.len() + rig.scheduler.waiting.len() < 3 {
            Client::submit(&mut rig, &prompt(steps + 2, 64), greedy(0))
                .cancelled
                .store(false, Ordering::Relaxed);
        }
        rig.step();
        steps += 1;
        assert!(steps < 200, "it is put off");
    }
    // Every fifth step is its own.
    let own = 800_u32.div_ceil(64);
    println!("{steps} steps for {own} of its own");
    assert!(steps <= own * 5, "{steps}");
}

/// The order in which the clients have their first tokens.
fn order_of(rig: &mut Rig, clients: &mut [Client]) -> Vec<usize> {
    let mut order = Vec::new();
    for _ in 0..1000 {
        rig.step();
        for (index, client) in clients.iter_mut().enumerate() {
            if !order.contains(&index) && !client.poll().tokens.is_empty() {
                order.push(index);
            }
        }
    }
    assert!(rig.scheduler.is_idle());
    order
}

#[test]
fn those_of_a_higher_priority_leave_the_queue_first() {
    let mut rig = scheduler(256, 8, 1);
    let submit = |rig: &mut Rig, (seed, priority)| {
        Client::submit(rig, &prompt(seed, 10), greedy(3).with_priority(priority))
    };
    let mut first = vec![submit(&mut rig, (1, 0))];
    rig.step();
    let waiting = [(2, 0), (3, 5), (4, -1), (5, 5), (6, 0)].map(|request| submit(&mut rig, request));
    first.extend(waiting);
    // Who has begun is not interrupted, and equals come as they arrived.
    assert_eq!(order_of(&mut rig, &mut first), [0, 2, 4, 1, 5, 3]);
    rig.assert_nothing_is_lost();
}

#[test]
fn prompts_of_a_higher_priority_are_read_first() {
    let mut rig = Setup { step: 32, ..Setup::new(1024, 64, 4) }.build();
    let submit = |rig: &mut Rig, (seed, length, priority)| {
        Client::submit(rig, &prompt(seed, length), greedy(1).with_priority(priority))
    };
    let mut clients = [(1, 40, 0), (2, 60, 1), (3, 60, 0)].map(|request| submit(&mut rig, request));
    assert_eq!(order_of(&mut rig, &mut clients), [1, 0, 2]);
    rig.assert_nothing_is_lost();
}

/// Two that do not both fit: the one with the lower priority makes way, though it came first.
#[test]
fn those_of_a_lower_priority_make_way() {
    for (priorities, expected) in [([0, 0], 0), ([1, 0], 0), ([0, 1], 1)] {
        let mut rig = Setup::new(256, 8, 2).build();
        let mut clients = [0, 1].map(|index| {
            let prompt = prompt(index as u32 + 1, 60);
            Client::submit(&mut rig, &prompt, greedy(100).with_priority(priorities[index]))
        });
        let mut ends = Vec::new();
        while !rig.scheduler.is_idle() {
            rig.step();
            for (index, client) in clients.iter_mut().enumerate() {
                if client.poll().end.is_some() && !ends.contains(&index) {
                    ends.push(index);
                }
            }
        }
        assert_eq!((ends.len(), ends[0]), (2, expected), "{priorities:?}");
        for (index, client) in clients.iter_mut().enumerate() {
            let prompt = prompt(index as u32 + 1, 60);
            let tokens = client.finished(FinishReason::Length);
            assert_eq!(tokens, Kind::full().continuation(&prompt, 100));
        }
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn who_runs_out_of_time_keeps_what_there_is() {
    for feeds in [Feeds::Never, Feeds::Always] {
        let mut rig = Setup { feeds, ..Setup::new(256, 8, 1) }.build();
        let mut running = Client::submit(&mut rig, &prompt(1, 10), greedy(100));
        let mut waiting = Client::submit(&mut rig, &prompt(2, 10), greedy(100));
        for _ in 0..10 {
            rig.step();
        }
        let now = Some(Instant::now());
        rig.scheduler.running[0].deadline = now;
        rig.scheduler.waiting[0].deadline = now;
        rig.run();
        let tokens = running.finished(FinishReason::TimeLimit);
        assert!(tokens.len() > 5 && Kind::full().continuation(&prompt(1, 10), 100).starts_with(tokens));
        assert!(waiting.finished(FinishReason::TimeLimit).is_empty());
        rig.assert_nothing_is_lost();
    }
}
