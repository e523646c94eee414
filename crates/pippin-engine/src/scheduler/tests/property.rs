//! Anything may happen: everyone gets what they would get alone, and nothing is lost.

use proptest::prelude::*;

use super::*;
use crate::testing::{NAN, POISON};

#[derive(Clone, Debug)]
struct Arrival {
    at: usize,
    /// Which of a few conversations, how much of it, and where it parts from the others of its kind.
    seed: u32,
    length: usize,
    fork: usize,
    /// Whether the answer to that, and another question, is part of the prompt.
    is_second_turn: bool,
    max_tokens: usize,
    min_tokens: usize,
    is_sampled: bool,
    cancel_at: Option<usize>,
    /// A token that the model does not bear.
    bad: Option<(u32, usize)>,
    is_score: bool,
    /// How many tokens are guessed ahead.
    prompt_lookup: usize,
}

impl Arrival {
    fn prompt(&self, kind: &Kind) -> Vec<u32> {
        let mut tokens = prompt(self.seed, self.length);
        tokens.iter_mut().skip(self.fork).for_each(|token| *token = (*token + 1) % 50);
        if self.is_second_turn {
            let answer = kind.continuation(&tokens, 12);
            tokens.extend(answer);
            tokens.extend([7, 8, 9]);
        }
        if let Some((token, at)) = self.bad {
            let at = at % tokens.len();
            tokens[at] = token;
            if token == NAN {
                // Only what comes last is sampled from.
                tokens.truncate(at + 1);
            }
        }
        tokens
    }

    fn parameters(&self) -> GenerateParameters {
        let temperature = if self.is_sampled { 1.0 } else { 0.0 };
        let (repetition_penalty, seed) = (Some(1.2), Some(u64::from(self.seed) + self.length as u64));
        // Without its least length an answer would end at once.
        let logit_bias = (self.min_tokens > 0).then_some((STOP, 100.0)).into_iter().collect();
        GenerateParameters {
            max_tokens: Some(self.max_tokens),
            min_tokens: self.min_tokens,
            logit_bias,
            // Who goes first changes nothing.
            priority: (self.length % 3) as i32,
            temperature,
            repetition_penalty,
            seed,
            prompt_lookup: self.prompt_lookup,
            ..GenerateParameters::default()
        }
    }
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let content = (0u32..3, 1usize..140, 0usize..140, any::<bool>());
    let bad = (prop::sample::select(vec![POISON, NAN]), 0usize..140);
    let fate = (
        prop::option::weighted(0.2, 0usize..80),
        prop::option::weighted(0.1, bad),
        prop::bool::weighted(0.1),
        prop::option::weighted(0.2, 1usize..28),
        0usize..8,
    );
    let arrival = (0usize..60, content, 0usize..28, any::<bool>(), fate);
    let arrival = arrival.prop_map(
        |(at, content, max_tokens, is_sampled, (cancel_at, bad, is_score, least, prompt_lookup))| {
            let (seed, length, fork, is_second_turn) = content;
            let min_tokens = least.unwrap_or(0).min(max_tokens);
            Arrival {
                at,
                seed,
                length,
                fork,
                is_second_turn,
                max_tokens,
                min_tokens,
                is_sampled,
                cancel_at,
                bad,
                is_score,
                prompt_lookup,
            }
        },
    );
    prop::collection::vec(arrival, 1..14)
}

fn setups() -> impl Strategy<Value = (Setup, bool)> {
    let kinds = Kind::all().into_iter().flat_map(|kind| [Kind { recall: 2, ..kind.clone() }, kind]);
    let kind = prop::sample::select(kinds.collect::<Vec<_>>());
    let feeds = prop::sample::select(vec![Feeds::Never, Feeds::Always, Feeds::Sometimes]);
    let setup = (kind, 6usize..24, 1usize..6, 1usize..80, 0usize..8, feeds, any::<bool>());
    setup.prop_map(|(kind, pages, sequences, step, snapshots, feeds, fails_late)| {
        let snapshots = if kind.has_state { snapshots } else { 0 };
        (Setup { step, snapshots, feeds, ..Setup::of(&kind, 192, pages, sequences) }, fails_late)
    })
}

enum Waiting {
    Answer(Client),
    Score(Scoring),
}

fn check(
    setup: &Setup,
    fails_late: bool,
    arrivals: &[Arrival],
    clear_at: usize,
) -> Result<(), TestCaseError> {
    let mut rig = setup.build();
    // Whatever is guessed is computed.
    rig.scheduler.times = crate::speculation::StepTimes::fixed(|_| 1.0);
    let kind = &setup.kind;
    lock(&rig.control).fails_late = fails_late;
    let mut clients: Vec<Option<Waiting>> = arrivals.iter().map(|_| None).collect();
    for time in 0..20_000 {
        for (arrival, client) in arrivals.iter().zip(&mut clients) {
            if arrival.at == time {
                let prompt = arrival.prompt(kind);
                *client = Some(if arrival.is_score {
                    Waiting::Score(Scoring::submit(&mut rig, prompt, 0))
                } else {
                    Waiting::Answer(Client::submit(&mut rig, &prompt, arrival.parameters()))
                });
            }
            if let (Some(at), Some(Waiting::Answer(client))) = (arrival.cancel_at, client)
                && at <= time
            {
                client.cancel();
            }
        }
        if time == clear_at {
            rig.scheduler.clear_cache();
        }
        rig.step();
        prop_assert!(rig.scheduler.running.len() <= setup.sequences);
        if time > 100 && rig.scheduler.is_idle() {
            break;
        }
    }
    prop_assert!(rig.scheduler.is_idle());
    for (arrival, client) in arrivals.iter().zip(&mut clients) {
        let prompt = arrival.prompt(kind);
        let poison = arrival.bad.is_some_and(|(token, _)| token == POISON);
        match client.as_mut().expect("arrived") {
            Waiting::Score(scoring) => match scoring.poll().expect("an answer") {
                Ok(scores) => {
                    // Nobody computes the last token.
                    prop_assert!(!prompt[..prompt.len() - 1].contains(&POISON));
                    for (index, score) in scores.iter().enumerate() {
                        let logits = kind.logits(&prompt[..=index]);
                        let expected = pippin_sampling::log_probability(&logits, prompt[index + 1]);
                        prop_assert_eq!(Some(score.logprob), expected);
                    }
                    prop_assert_eq!(scores.len(), prompt.len() - 1);
                }
                Err(error) => prop_assert!(poison, "unexpected: {}", error),
            },
            Waiting::Answer(client) => match client.poll().end.clone() {
                Some(Ok(reason @ (FinishReason::Length | FinishReason::Stop))) => {
                    let ends = arrival.min_tokens > 0 && arrival.min_tokens < arrival.max_tokens;
                    prop_assert!(arrival.bad.is_some() || ends == (reason == FinishReason::Stop));
                    prop_assert!(arrival.bad.is_none() || (!poison && arrival.max_tokens == 0));
                    let expected = if arrival.bad.is_some() {
                        vec![]
                    } else {
                        reference(kind, &prompt, &arrival.parameters())
                    };
                    prop_assert_eq!(&client.tokens, &expected);
                }
                Some(Ok(FinishReason::Cancelled)) => {
                    prop_assert!(arrival.cancel_at.is_some());
                    if arrival.bad.is_none() {
                        prop_assert!(
                            reference(kind, &prompt, &arrival.parameters()).starts_with(&client.tokens)
                        );
                    }
                }
                Some(Err(error)) => {
                    let expected = if poison { "poison" } else { "logits" };
                    prop_assert!(arrival.bad.is_some() && error.contains(expected), "unexpected: {}", error);
                }
                end => prop_assert!(false, "unexpected end {:?}", end),
            },
        }
    }
    rig.assert_nothing_is_lost();
    Ok(())
}

/// The same on a larger scale: prompts of several steps, with snapshots in between.
fn enlarged(setup: Setup, arrivals: Vec<Arrival>) -> (Setup, Vec<Arrival>) {
    let Setup { context, tokens, step, .. } = setup;
    let setup = Setup { context: 12 * context, tokens: 12 * tokens, step: 9 * step, ..setup };
    let enlarge =
        |arrival: Arrival| Arrival { length: 12 * arrival.length, fork: 12 * arrival.fork, ..arrival };
    (setup, arrivals.into_iter().map(enlarge).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever arrives when, is cancelled when, fits or not, or makes steps fail: everyone gets the answer they would get
    /// alone, on every kind of model and device.
    #[test]
    fn nobody_sees_the_others((setup, fails_late) in setups(), arrivals in arrivals(), clear_at in 0usize..200) {
        check(&setup, fails_late, &arrivals, clear_at)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn nobody_sees_the_others_at_length((setup, fails_late) in setups(), arrivals in arrivals(), clear_at in 0usize..200) {
        let (setup, arrivals) = enlarged(setup, arrivals);
        check(&setup, fails_late, &arrivals, clear_at)?;
    }
}
