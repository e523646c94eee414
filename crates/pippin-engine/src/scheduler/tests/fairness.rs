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
