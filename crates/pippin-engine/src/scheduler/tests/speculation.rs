//! Guessing ahead changes when tokens come, and nothing else.

use pippin_grammar::Constraint;

use super::*;

/// A model whose next token depends on the last two alone, so that it repeats itself as soon as a pair comes back.
fn repeating(groups: &[Reach]) -> Kind {
    Kind { groups: groups.to_vec(), recall: 2, ..Kind::full() }
}

/// A rig in which rows beyond the first cost nothing, or as much as a step of their own.
fn rig_with(setup: &Setup, times: fn(usize) -> f64) -> Rig {
    let mut rig = setup.build();
    rig.scheduler.times = StepTimes::fixed(times);
    rig
}

fn free(_: usize) -> f64 {
    1.0
}

fn dear(rows: usize) -> f64 {
    rows as f64
}

fn guessing(parameters: GenerateParameters) -> GenerateParameters {
    parameters.with_prompt_lookup(6)
}

/// A prompt that holds its own answer: the model goes on with what it has been shown.
fn copying(kind: &Kind) -> Vec<u32> {
    let text = prompt(3, 5);
    let answer = kind.continuation(&text, 90);
    [&text[..], &answer, &[40], &text].concat()
}

#[test]
fn what_repeats_takes_fewer_steps() {
    for groups in [&[Reach::All][..], &[Reach::Window(40)], &[Reach::All, Reach::Window(5)]] {
        let kind = repeating(groups);
        let prompt = copying(&kind);
        let mut rig = rig_with(&Setup::of(&kind, 512, 24, 4), free);
        let mut client = rig.ask(&prompt, guessing(greedy(80)));
        assert_eq!(client.finished(FinishReason::Length), kind.continuation(&prompt, 80));
        let steps = rig.steps().len();
        assert!(steps <= 80 / 7 + 6, "{steps} steps");
        let (guessed, right) = client.guessed;
        // The first step reads the prompt, and every step gives a token of its own.
        assert_eq!(right + steps, 80);
        assert!(guessed >= right);
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn answers_are_the_same_whatever_is_guessed() {
    let plain =
        GenerateParameters { seed: Some(5), logprobs: true, max_tokens: Some(50), ..Default::default() };
    let parameters = [
        GenerateParameters { temperature: 0.0, ..plain.clone() },
        GenerateParameters { temperature: 0.4, ..plain.clone() },
        GenerateParameters { temperature: 1.0, top_p: 0.8, top_k: 5, ..plain.clone() },
        GenerateParameters { xtc_probability: 0.5, temperature: 0.3, ..plain.clone() },
        GenerateParameters { repetition_penalty: Some(1.1), repetition_context_size: 3, ..plain.clone() },
        GenerateParameters { frequency_penalty: Some(0.2), frequency_context_size: 0, ..plain },
    ];
    let kinds = Kind::all().into_iter().map(|kind| Kind { recall: 2, ..kind });
    for (index, kind) in kinds.enumerate() {
        for feeds in [Feeds::Never, Feeds::Always, Feeds::Sometimes] {
            let setup = Setup { step: 48, feeds, ..Setup::of(&kind, 512, 40, 8) };
            let prompts = [copying(&kind), prompt(1, 70), [prompt(2, 30), prompt(2, 30)].concat()];
            let mut together = rig_with(&setup, free);
            let mut clients = Vec::new();
            for prompt in &prompts {
                for parameters in &parameters {
                    let client = Client::submit(&mut together, prompt, guessing(parameters.clone()));
                    let mut alone = setup.build().ask(prompt, parameters.clone());
                    alone.finished(FinishReason::Length);
                    clients.push((client, alone));
                }
            }
            together.run();
            let mut right = 0;
            for (mut client, alone) in clients {
                assert_eq!(client.finished(FinishReason::Length), alone.tokens, "{kind:?} {feeds:?}");
                assert_eq!(client.logprobs, alone.logprobs);
                assert_eq!(alone.guessed, (0, 0), "nobody asked for it");
                right += client.guessed.1;
            }
            // State cannot be cut back.
            assert_eq!(right > 0, !kind.has_state, "kind {index} {feeds:?}");
            together.assert_nothing_is_lost();
        }
    }
}

#[test]
fn limits_and_stop_tokens_end_answers_where_they_would() {
    let kind = repeating(&[Reach::All]);
    let prompt = copying(&kind);
    let expected = kind.continuation(&prompt, 40);
    for count in 0..20 {
        let mut rig = rig_with(&Setup::of(&kind, 512, 16, 2), free);
        let mut client = rig.ask(&prompt, guessing(greedy(count)));
        assert_eq!(client.finished(FinishReason::Length), &expected[..count]);
        // Nothing is computed beyond the end.
        let last = rig.steps().last().map(|step| step[0].0 + step[0].1);
        assert!(last.is_some_and(|end| end < prompt.len() + count.max(1)), "{last:?}");
        rig.assert_nothing_is_lost();
    }
    // The context's end.
    let mut rig = rig_with(&Setup::of(&kind, prompt.len() + 9, 7, 2), free);
    let mut client = rig.ask(&prompt, guessing(GenerateParameters::greedy()));
    assert_eq!(client.finished(FinishReason::Length), &expected[..9]);
    rig.assert_nothing_is_lost();
    // A stop token among the guesses, and a request that goes on with what was computed until then.
    for stop in 0..20 {
        if expected[..stop].contains(&expected[stop]) {
            continue;
        }
        let mut rig = rig_with(&Setup::of(&kind, 512, 16, 2), free);
        let parameters = guessing(greedy(40));
        let mut client =
            Client::submit_to(&mut rig.scheduler, &prompt, parameters.clone(), &[expected[stop]]);
        rig.run();
        assert_eq!(client.finished(FinishReason::Stop), &expected[..=stop]);
        let longer = [&prompt[..], &expected[..=stop], &[7, 8]].concat();
        let mut next = rig.ask(&longer, parameters);
        assert_eq!(next.finished(FinishReason::Length), kind.continuation(&longer, 40));
        // All is found but what the last token, and a guess behind it, would have left.
        assert!(next.cached.is_some_and(|cached| cached >= prompt.len() + stop), "{:?}", next.cached);
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn wrong_guesses_leave_nothing_behind() {
    // The model remembers everything, so what repeats in the prompt is guessed and is wrong.
    for groups in
        [&[Reach::All][..], &[Reach::All, Reach::Window(40)], &[Reach::Window(33)], &[Reach::Chunk(50)]]
    {
        let kind = Kind { groups: groups.to_vec(), ..Kind::full() };
        let mut rig = rig_with(&Setup::of(&kind, 512, 30, 2), free);
        let mut prompt = [4, 5, 6, 4, 5, 7, 4, 5].repeat(8);
        for turn in 0..6 {
            let mut client = rig.ask(&prompt, guessing(greedy(30)));
            let answer = client.finished(FinishReason::Length).to_vec();
            assert_eq!(answer, kind.continuation(&prompt, 30));
            assert!(turn == 0 || client.cached.is_some_and(|cached| cached + 40 > prompt.len()));
            prompt.extend(answer);
            // What comes next has been guessed wrong before, at this very place.
            prompt.extend([4, 5]);
        }
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn guesses_that_cost_too_much_are_not_computed() {
    for kind in [repeating(&[Reach::All]), Kind::full()] {
        for feeds in [Feeds::Never, Feeds::Always] {
            let prompt = copying(&kind);
            let setup = Setup { feeds, ..Setup::of(&kind, 512, 24, 2) };
            let mut rig = rig_with(&setup, dear);
            let mut client = rig.ask(&prompt, guessing(greedy(80)));
            assert_eq!(client.finished(FinishReason::Length), kind.continuation(&prompt, 80));
            assert_eq!(client.guessed, (0, 0));
            assert_eq!(rig.steps().len(), 80);
        }
    }
}

#[test]
fn sequences_with_and_without_guesses_share_steps() {
    let kind = repeating(&[Reach::All]);
    let copied = copying(&kind);
    let mut rig = rig_with(&Setup { step: 64, ..Setup::of(&kind, 512, 48, 4) }, free);
    let mut with = Client::submit(&mut rig, &copied, guessing(greedy(60)));
    let mut without = Client::submit(&mut rig, &copied[1..], greedy(60));
    let other = prompt(9, 200);
    let mut reader = Client::submit(&mut rig, &other, guessing(greedy(5)));
    rig.run();
    assert_eq!(with.finished(FinishReason::Length), kind.continuation(&copied, 60));
    assert_eq!(without.finished(FinishReason::Length), kind.continuation(&copied, 60));
    assert_eq!(reader.finished(FinishReason::Length), kind.continuation(&other, 5));
    assert_eq!(without.guessed, (0, 0));
    let rows: Vec<usize> = rig.steps().iter().flatten().map(|(_, rows)| *rows).collect();
    assert!(rows.contains(&7) && rows.contains(&1));
    rig.assert_nothing_is_lost();
}

#[test]
fn guesses_have_the_room_that_is_left() {
    let kind = repeating(&[Reach::All]);
    let prompt = copying(&kind);
    for step in [1, 2, 3, 100] {
        let mut rig = rig_with(&Setup { step, ..Setup::of(&kind, 512, 16, 2) }, free);
        let mut clients = [0; 2].map(|_| Client::submit(&mut rig, &prompt, guessing(greedy(40))));
        rig.run();
        for client in &mut clients {
            assert_eq!(client.finished(FinishReason::Length), kind.continuation(&prompt, 40));
        }
        // Rows of a step: one for each sequence, and as many as the engine's budget has.
        let most = rig.steps().iter().map(|parts| parts.iter().map(|(_, rows)| rows).sum()).max();
        assert!(most.is_some_and(|rows: usize| rows <= 2 + step.max(1)), "{most:?}");
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn failed_steps_are_tried_again_without_guesses() {
    let kind = repeating(&[Reach::All]);
    let prompt = copying(&kind);
    for fails_late in [false, true] {
        let mut rig = rig_with(&Setup::of(&kind, 512, 48, 4), free);
        lock(&rig.control).fails_late = fails_late;
        let mut client = Client::submit(&mut rig, &prompt, guessing(greedy(60)));
        for _ in 0..4 {
            rig.step();
        }
        let mut poisoned = Client::submit(&mut rig, &[1, 2, crate::testing::POISON], guessing(greedy(5)));
        rig.run();
        assert!(poisoned.error().contains("poison"));
        assert_eq!(client.finished(FinishReason::Length), kind.continuation(&prompt, 60));
        assert!(client.guessed.1 > 0);
        rig.assert_nothing_is_lost();
    }
}

/// A draft model that is always right, one that is mostly wrong, and one with windows.
fn drafts(kind: &Kind) -> [Kind; 3] {
    [kind.clone(), Kind { recall: 3, ..kind.clone() }, repeating(&[Reach::Window(40), Reach::All])]
}

#[test]
fn a_draft_model_that_knows_saves_steps() {
    let kind = Kind::full();
    let prompt = prompt(1, 70);
    for feeds in [Feeds::Never, Feeds::Always] {
        let setup = Setup { feeds, step: 48, ..Setup::of(&kind, 512, 24, 4) };
        let mut rig = rig_with(&setup, free);
        with_draft(&mut rig, &kind, 512);
        let mut client = rig.ask(&prompt, greedy(80));
        assert_eq!(client.finished(FinishReason::Length), kind.continuation(&prompt, 80));
        let (guessed, right) = client.guessed;
        assert_eq!(guessed, right, "they say the same");
        let steps = rig.steps().len();
        // Two steps read the prompt, and five tokens come of a step with four guesses; the draft model reads it in two as well.
        assert!(steps <= 2 + 80 / 5 + 4, "{steps} steps");
        // Whoever does not want guesses has none.
        let mut client = rig.ask(&prompt, greedy(20).with_draft_tokens(0));
        assert_eq!(client.finished(FinishReason::Length), kind.continuation(&prompt, 20));
        assert_eq!(client.guessed, (0, 0));
        rig.assert_nothing_is_lost();
    }
}

#[test]
fn answers_are_the_same_whatever_a_draft_model_says() {
    let plain =
        GenerateParameters { seed: Some(5), logprobs: true, max_tokens: Some(40), ..Default::default() };
    let parameters = [
        GenerateParameters { temperature: 0.0, ..plain.clone() },
        GenerateParameters { temperature: 0.5, draft_tokens: 7, ..plain.clone() },
        GenerateParameters { repetition_penalty: Some(1.1), prompt_lookup: 5, ..plain },
    ];
    for kind in [Kind::full(), repeating(&[Reach::All]), repeating(&[Reach::Window(40), Reach::Window(5)])] {
        for draft in drafts(&kind) {
            for (feeds, tokens) in [(Feeds::Never, 1024), (Feeds::Sometimes, 1024), (Feeds::Never, 96)] {
                let setup = Setup { step: 48, feeds, ..Setup::of(&kind, 512, 40, 3) };
                let prompts = [copying(&kind), prompt(1, 70), [prompt(2, 30), prompt(2, 30)].concat()];
                let mut together = rig_with(&setup, free);
                with_draft(&mut together, &draft, tokens);
                let mut clients = Vec::new();
                // Twice, so that the second finds what the first has left, in both models.
                for prompt in prompts.iter().chain(&prompts) {
                    for parameters in &parameters {
                        let client = Client::submit(&mut together, prompt, parameters.clone());
                        let mut alone = setup.build().ask(prompt, parameters.clone());
                        alone.finished(FinishReason::Length);
                        clients.push((client, alone));
                    }
                }
                together.run();
                for (mut client, alone) in clients {
                    assert_eq!(client.finished(FinishReason::Length), alone.tokens, "{kind:?} {draft:?}");
                    assert_eq!(client.logprobs, alone.logprobs);
                }
                together.assert_nothing_is_lost();
            }
        }
    }
}

#[test]
fn a_draft_model_that_fails_is_done_without() {
    let kind = Kind::full();
    let prompt = prompt(1, 70);
    let mut rig = rig_with(&Setup::of(&kind, 512, 24, 4), free);
    let control = with_draft(&mut rig, &kind, 512);
    let mut client = Client::submit(&mut rig, &prompt, greedy(60));
    for _ in 0..5 {
        rig.step();
    }
    lock(&control).fails_steps = true;
    rig.run();
    assert_eq!(client.finished(FinishReason::Length), kind.continuation(&prompt, 60));
    assert!(client.guessed.1 > 0 && client.guessed.1 < 30, "{:?}", client.guessed);
    rig.assert_nothing_is_lost();
}

#[test]
fn a_draft_model_that_is_wrong_is_hardly_asked() {
    let kind = Kind::full();
    let other = Kind { recall: 3, ..Kind::full() };
    let prompt = prompt(1, 70);
    let mut rig = rig_with(&Setup::of(&kind, 1024, 40, 4), |rows| 0.9 + 0.1 * rows as f64);
    let control = with_draft(&mut rig, &other, 1024);
    let mut client = rig.ask(&prompt, greedy(800));
    assert_eq!(client.finished(FinishReason::Length), kind.continuation(&prompt, 800));
    let (guessed, right) = client.guessed;
    assert!(guessed < 80 && right < 20, "{guessed} guessed, {right} right");
    assert!(lock(&control).steps.len() < 80);
}

/// An answer of rows of tokens among which there is a choice now and then, with a seed.
fn in_rows(seed: u64) -> GenerateParameters {
    let grammar = "start: (\"I\" | \"J\") row+\nrow: \"ABC\" (\"D\" | \"EF\") \"G\"+ \"H\"";
    GenerateParameters {
        constraint: Some(Constraint::grammar(grammar)),
        temperature: 1.0,
        seed: Some(seed),
        min_tokens: 20,
        ..greedy(60)
    }
}

#[test]
fn what_a_constraint_forces_takes_fewer_steps() {
    let kind = repeating(&[Reach::All]);
    for feeds in [Feeds::Never, Feeds::Always, Feeds::Sometimes] {
        let mut saved = 0;
        for seed in 0..6 {
            let setup = Setup { feeds, ..Setup::of(&kind, 512, 40, 8) };
            let (mut plain, mut forced) = (rig_with(&setup, dear), rig_with(&setup, free));
            let prompt = prompt(seed as u32, 20);
            let mut alone = plain.ask(&prompt, in_rows(seed));
            let mut client = forced.ask(&prompt, in_rows(seed));
            // Beside another one that looks for what repeats as well, and one that may say anything.
            let mut looking = Client::submit(&mut forced, &prompt, guessing(in_rows(seed)));
            let mut free = Client::submit(&mut forced, &prompt, greedy(60));
            forced.run();
            alone.poll();
            let end = alone.end.clone();
            assert!(matches!(end, Some(Ok(FinishReason::Length | FinishReason::Stop))), "{end:?}");
            for client in [&mut client, &mut looking] {
                client.poll();
                assert_eq!((&client.tokens, &client.end), (&alone.tokens, &end), "{feeds:?} {seed}");
                assert_eq!(client.logprobs, alone.logprobs);
                assert!(client.guessed.1 > 10, "{:?}", client.guessed);
            }
            assert_eq!(free.finished(FinishReason::Length), kind.continuation(&prompt, 60));
            assert_eq!(alone.guessed, (0, 0), "that would have cost too much");
            saved += client.guessed.1;
            forced.assert_nothing_is_lost();
        }
        assert!(saved > 100, "{feeds:?} {saved}");
    }
}

#[test]
fn nothing_is_guessed_that_a_constraint_forbids() {
    let kind = repeating(&[Reach::All]);
    // The prompt repeats what the answer must not say.
    let prompt = copying(&kind);
    let parameters = |guesses| GenerateParameters {
        constraint: Some(Constraint::regex("([A-I][T-Za-h])+")),
        prompt_lookup: guesses,
        ..greedy(40)
    };
    let setup = Setup::of(&kind, 512, 40, 8);
    let mut alone = rig_with(&setup, free).ask(&prompt, parameters(0));
    let mut client = rig_with(&setup, free).ask(&prompt, parameters(8));
    assert_eq!(client.finished(FinishReason::Length), alone.finished(FinishReason::Length));
}
