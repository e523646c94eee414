//! Containers, streams and sessions around the fake model.

use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use pippin_text::{ChatTemplate, ParsedOutput, StopTokens, Tokenizer, ToolCall};
use serde_json::json;

use crate::testing::{
    Control, FakeModel, Feeds, Kind, NAN, POISON, STOP, VOCAB, continuation, lock, processor,
    thinking_processor, tokenizer_with,
};
use crate::{
    ChatInput, ChatSession, Constraint, EngineError, FinishReason, GenerateInfo, GenerateParameters,
    GenerationEvent, LoadOptions, Message, ModelConfiguration, ModelContainer, Role, TextProcessor,
    TokenEvent, Workload,
};

fn with_processor(context: usize, processor: TextProcessor) -> (ModelContainer, Arc<Mutex<Control>>) {
    let (model, control) = FakeModel::new(Kind::full(), context);
    let configuration = ModelConfiguration::directory("fake");
    let container =
        ModelContainer::from_parts(|| Ok(Box::new(model)), processor, configuration, &LoadOptions::default());
    (container.expect("loaded"), control)
}

fn container(context: usize) -> (ModelContainer, Arc<Mutex<Control>>) {
    with_processor(context, processor())
}

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(max_tokens), ..GenerateParameters::greedy() }
}

fn tokens(
    container: &ModelContainer,
    prompt: &[u32],
    parameters: &GenerateParameters,
) -> (Vec<u32>, GenerateInfo) {
    let mut tokens = Vec::new();
    for event in container.generate_tokens(prompt.to_vec(), parameters).expect("accepted") {
        match event.expect("no error") {
            TokenEvent::Token { id, .. } => tokens.push(id),
            TokenEvent::Info(info) => return (tokens, info),
            TokenEvent::Prompt { .. } => panic!("not asked for"),
        }
    }
    panic!("no end")
}

fn words(tokens: &[u32]) -> String {
    tokens.iter().map(|token| format!("w{token}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn streams_tokens_text_and_numbers() {
    let (container, _) = container(256);
    let prompt = [1, 2, 3];
    let expected = continuation(&prompt, 10);
    let (found, info) = tokens(&container, &prompt, &greedy(10));
    assert_eq!(found, expected);
    assert_eq!(
        (info.prompt_tokens, info.cached_tokens, info.generated_tokens, &info.finish_reason),
        (3, 0, 10, &FinishReason::Length)
    );
    assert!(info.time_to_first_token.is_some());
    assert!(info.tokens_per_second() > 0.0);

    let parameters = GenerateParameters { logprobs: true, ..greedy(10) };
    let (mut text, mut count) = (String::new(), 0);
    for event in container.generate_text("w1 w2 w3", &parameters).expect("accepted") {
        let event = event.expect("no error");
        text.push_str(event.text());
        match event {
            GenerationEvent::Token { id, logprob, .. } => {
                assert_eq!(id, expected[count]);
                assert!(logprob.expect("asked for") < 0.0);
                count += 1;
            }
            GenerationEvent::Chunk(_) | GenerationEvent::Prompt { .. } => {}
            GenerationEvent::Info(info) => assert_eq!(info.generated_tokens, 10),
        }
    }
    assert_eq!(text, words(&expected));
    assert_eq!(count, 10);
}

#[test]
fn stop_tokens_are_counted_but_not_shown() {
    let (container, _) = container(256);
    let parameters =
        GenerateParameters { logit_bias: [(STOP, 100.0)].into(), ..GenerateParameters::greedy() };
    let (found, info) = tokens(&container, &[1], &parameters);
    assert!(found.is_empty());
    assert_eq!((info.generated_tokens, info.finish_reason), (1, FinishReason::Stop));
    let (text, info) =
        container.generate(vec![1], &parameters).expect("accepted").collect_text().expect("no error");
    assert_eq!((text.as_str(), info.expect("an end").finish_reason), ("", FinishReason::Stop));
}

#[test]
fn stop_strings_end_the_answer_and_are_not_part_of_it() {
    let (container, control) = container(4096);
    let expected = continuation(&[1, 2, 3], 30);
    let stop = words(&expected[5..7]);
    let parameters = GenerateParameters { stop: vec!["never".into(), stop.clone()], ..greedy(4000) };
    let stream = container.generate(vec![1, 2, 3], &parameters).expect("accepted");
    let (text, info) = stream.collect_text().expect("no error");
    assert_eq!(text, words(&expected[..5]) + " ");
    let info = info.expect("an end");
    assert_eq!(info.finish_reason, FinishReason::StopString(stop));
    assert_eq!(info.finish_reason.as_str(), "stop");
    assert_eq!(info.generated_tokens, 7);
    // The model stops soon, too.
    drop(container);
    assert!(lock(&control).steps.len() < 3000);
}

#[test]
fn text_held_back_comes_out_at_the_end() {
    let (container, _) = container(256);
    let expected = continuation(&[4, 5], 3);
    let almost = words(&expected) + " and more";
    let parameters = GenerateParameters { stop: vec![almost], ..greedy(3) };
    let events: Vec<GenerationEvent> = container
        .generate(vec![4, 5], &parameters)
        .expect("accepted")
        .map(|event| event.expect("no error"))
        .collect();
    let texts: Vec<&str> = events.iter().map(GenerationEvent::text).collect();
    assert_eq!(texts, ["", "", "", &words(&expected), ""]);
    assert!(matches!(events[3], GenerationEvent::Chunk(_)));
}

#[test]
fn the_configurations_stop_strings_count_too() {
    let expected = continuation(&[1, 2, 3], 30);
    let mut processor = processor();
    processor.stop_strings = vec![words(&expected[2..4])];
    let (container, _) = with_processor(256, processor);
    let stream = container.generate(vec![1, 2, 3], &greedy(20)).expect("accepted");
    assert_eq!(stream.collect_text().expect("no error").0, words(&expected[..2]) + " ");
}

#[test]
fn the_likeliest_tokens_come_with_the_one_that_is_drawn() {
    let (container, _) = container(256);
    let parameters = greedy(8).with_logprobs(true).with_top_logprobs(4);
    let stream = container.generate(vec![1, 2, 3], &parameters).expect("accepted");
    let mut count = 0;
    for event in stream {
        let GenerationEvent::Token { id, logprob, top_logprobs, .. } = event.expect("no error") else {
            continue;
        };
        assert_eq!((top_logprobs.len(), top_logprobs[0].token), (4, id));
        assert_eq!(Some(top_logprobs[0].logprob), logprob);
        assert!(top_logprobs.is_sorted_by(|a, b| a.logprob >= b.logprob));
        count += 1;
    }
    assert_eq!(count, 8);
    let plain = container.generate(vec![1, 2, 3], &greedy(8).with_logprobs(true)).expect("accepted");
    for event in plain {
        if let GenerationEvent::Token { top_logprobs, .. } = event.expect("no error") {
            assert!(top_logprobs.is_empty());
        }
    }
}

#[test]
fn a_request_has_stop_tokens_of_its_own() {
    let (container, _) = container(256);
    let expected = continuation(&[1, 2, 3], 30);
    let at = (1..30).find(|at| !expected[..*at].contains(&expected[*at])).expect("one that comes once");
    let (found, info) = tokens(&container, &[1, 2, 3], &greedy(30).with_stop_token_ids([expected[at]]));
    assert_eq!(found, expected[..at]);
    assert_eq!((info.generated_tokens, info.finish_reason), (at + 1, FinishReason::Stop));
    let parameters = greedy(30).with_stop_token_ids([VOCAB as u32]);
    let error = container.generate(vec![1], &parameters).expect_err("refused");
    assert!(matches!(error, EngineError::Parameter { field: "stop_token_ids", .. }), "{error}");
}

#[test]
fn an_answer_goes_on_past_the_models_end() {
    let mut processor = processor();
    processor.stop_strings = vec!["<stop> <stop> <stop>".to_owned()];
    let (container, _) = with_processor(256, processor);
    let parameters = greedy(5).with_logit_bias([(STOP, 100.0)]).with_ignore_eos(true);
    let (found, info) = tokens(&container, &[1], &parameters);
    assert_eq!((found, info.finish_reason), (vec![STOP; 5], FinishReason::Length));
    let stream = container.generate(vec![1], &parameters).expect("accepted");
    assert_eq!(stream.collect_text().expect("no error").0, ["<stop>"; 5].join(" "));
    // What the request itself names ends it all the same.
    for ends in [parameters.clone().with_stop_token_ids([STOP]), parameters.with_stop(["<stop>"])] {
        let (text, info) =
            container.generate(vec![1], &ends).expect("accepted").collect_text().expect("no error");
        let info = info.expect("an end");
        assert_eq!((text.as_str(), info.generated_tokens, info.finish_reason.as_str()), ("", 1, "stop"));
    }
}

#[test]
fn stop_strings_count_after_the_least_length() {
    let (container, _) = container(256);
    // The same token again and again.
    let parameters =
        |least| greedy(20).with_logit_bias([(7, 100.0)]).with_stop(["w7"]).with_min_tokens(least);
    for least in [0, 1, 4] {
        let stream = container.generate(vec![1], &parameters(least)).expect("accepted");
        let (text, info) = stream.collect_text().expect("no error");
        let info = info.expect("an end");
        assert_eq!(text.trim_end(), ["w7"].repeat(least).join(" "));
        assert_eq!((info.generated_tokens, info.finish_reason.as_str()), (least + 1, "stop"));
    }
}

#[test]
fn a_thought_ends_with_its_budget() {
    const OPEN: u32 = 57;
    const CLOSE: u32 = 58;
    for feeds in [Feeds::Never, Feeds::Always, Feeds::Sometimes] {
        let (container, control) = with_processor(256, thinking_processor());
        lock(&control).feeds = feeds;
        for budget in [0, 1, 5] {
            // The prompt ends in a thought.
            let parameters = greedy(12).with_thinking_budget(budget).with_logprobs(true);
            let (found, info) = tokens(&container, &[1, OPEN], &parameters);
            let mut expected = continuation(&[1, OPEN], budget);
            expected.push(CLOSE);
            let begun = [&[1, OPEN], &expected[..]].concat();
            expected.extend(continuation(&begun, 11 - budget));
            assert_eq!((found, info.generated_tokens), (expected, 12), "{feeds:?} {budget}");
            let stream = container.generate_tokens(vec![1, OPEN], &parameters).expect("accepted");
            let closing = stream.filter_map(|event| match event.expect("no error") {
                TokenEvent::Token { id: CLOSE, logprob, .. } => logprob,
                _ => None,
            });
            assert_eq!(closing.collect::<Vec<_>>(), [0.0]);
            // The answer begins with one. No token comes twice.
            let once = GenerateParameters {
                logit_bias: [(OPEN, 50.0)].into(),
                frequency_penalty: Some(100.0),
                frequency_context_size: 0,
                ..greedy(12).with_thinking_budget(budget)
            };
            let (found, _) = tokens(&container, &[1], &once);
            assert_eq!((found[0], found[1 + budget]), (OPEN, CLOSE), "{found:?}");
            assert_eq!(found.iter().filter(|token| **token == CLOSE).count(), 1);
            // There is none.
            assert_eq!(tokens(&container, &[1], &parameters).0, continuation(&[1], 12));
        }
    }
    let (plain, _) = container(256);
    let error = plain.generate(vec![1], &greedy(5).with_thinking_budget(5)).expect_err("refused");
    assert!(matches!(error, EngineError::Parameter { field: "thinking_budget", .. }), "{error}");
}

#[test]
fn a_form_begins_after_a_thought_that_was_closed() {
    let (container, _) = with_processor(256, thinking_processor());
    // Behind a marker, a word begins with a space.
    let parameters = GenerateParameters::greedy().with_constraint(Constraint::choice([" w7", " w9"]));
    for budget in [0, 3] {
        let parameters = parameters.clone().with_thinking_budget(budget);
        let (found, info) = tokens(&container, &[1, 57], &parameters);
        assert_eq!(info.finish_reason, FinishReason::Stop);
        assert_eq!((found.len(), found[budget]), (budget + 2, 58), "{found:?}");
        assert!([7, 9].contains(&found[budget + 1]), "{found:?}");
    }
}

#[test]
fn a_form_goes_before_a_least_length() {
    let (container, _) = container(256);
    let least = |constraint, tokens| {
        let parameters = greedy(20).with_logit_bias([(STOP, 100.0)]).with_constraint(Some(constraint));
        parameters.with_min_tokens(tokens)
    };
    for count in [0, 1, 4] {
        let (found, info) = tokens(&container, &[1], &least(Constraint::regex("w7( w7)*"), count));
        assert_eq!((found, info.finish_reason), (vec![7; count.max(1)], FinishReason::Stop));
    }
    // There is no more to say.
    let (found, info) = tokens(&container, &[1], &least(Constraint::choice(["w7 w9"]), 10));
    assert_eq!((found, info.finish_reason), (vec![7, 9], FinishReason::Stop));
}

#[test]
fn a_form_is_compiled_once() {
    let (container, _) = container(256);
    let compiled = || container.inner.constraints.compiled();
    let forms = |texts: [&str; 2]| GenerateParameters::greedy().with_constraint(Constraint::choice(texts));
    let (ab, ba) = (forms(["w7", "w9"]), forms(["w9", "w7"]));
    for _ in 0..3 {
        let (found, info) = tokens(&container, &[1], &ab);
        assert!(found == [7] || found == [9], "{found:?}");
        assert_eq!(info.finish_reason, FinishReason::Stop);
    }
    assert_eq!(compiled(), 1);
    // Two at the same time do not disturb each other.
    let [first, second] = [2, 3].map(|token| container.generate(vec![token], &ab).expect("accepted"));
    for stream in [second, first] {
        assert!(["w7", "w9"].contains(&stream.collect_text().expect("no error").0.as_str()));
    }
    assert_eq!(compiled(), 1);
    tokens(&container, &[1], &ba);
    assert_eq!(compiled(), 2);
    // Only so many are kept.
    for count in 1..=40 {
        let texts = [["w9"].repeat(count).join(" ")];
        tokens(&container, &[1], &GenerateParameters::greedy().with_constraint(Constraint::choice(texts)));
    }
    tokens(&container, &[1], &ab);
    assert_eq!(compiled(), 43);
    // Of long ones fewer.
    let long = |word: &str| {
        let grammar = format!("start: \"{word}\"\n// {}", "x".repeat(200_000));
        GenerateParameters::greedy().with_constraint(Constraint::grammar(grammar))
    };
    for (word, expected) in [("w7", 44), ("w7", 44), ("w9", 45), ("w9", 45), ("w7", 46)] {
        tokens(&container, &[1], &long(word));
        assert_eq!(compiled(), expected);
    }
}

#[test]
fn a_form_can_be_compiled_before() {
    let (container, _) = container(256);
    let parameters = GenerateParameters::greedy().with_constraint(Constraint::choice(["w7", "w9"]));
    let prepared = container.prepare_constraint(&[1], &parameters).expect("compiled");
    let stream = container.generate_prepared(vec![1], &parameters, prepared.clone()).expect("accepted");
    assert!(["w7", "w9"].contains(&stream.collect_text().expect("no error").0.as_str()));
    assert_eq!(container.inner.constraints.compiled(), 1);
    // It is for nothing else.
    let refuse = |container: &ModelContainer, parameters: &GenerateParameters, prepared: &Option<_>| {
        let error =
            container.generate_prepared(vec![1], parameters, Clone::clone(prepared)).expect_err("refused");
        assert!(matches!(error, EngineError::Parameter { field: "constraint", .. }), "{error}");
    };
    refuse(&container, &GenerateParameters::greedy(), &prepared);
    refuse(&container, &parameters, &None);
    let another = GenerateParameters::greedy().with_constraint(Constraint::choice(["w7"]));
    refuse(&container, &another, &prepared);
    let (stranger, _) = self::container(256);
    refuse(&stranger, &parameters, &prepared);
    assert!(container.prepare_constraint(&[1], &greedy(1)).expect("nothing to do").is_none());
}

#[test]
fn scoring_can_be_awaited_and_cancelled() {
    let (container, control) = container(100_000);
    let tokens: Vec<u32> = (0..40).map(|i| i % 7).collect();
    let scores = container.score_tokens(tokens.clone(), 2).expect("accepted").wait().expect("scored");
    let plain = container.score(&tokens).expect("scored");
    assert_eq!(scores.iter().map(|score| score.logprob).collect::<Vec<_>>(), plain);
    assert!(scores.iter().all(|score| score.top_logprobs.len() == 2));
    let error = container.score_tokens(tokens, 21).expect_err("refused");
    assert!(matches!(error, EngineError::Parameter { field: "top_logprobs", .. }), "{error}");

    lock(&control).delay = Duration::from_millis(1);
    let task = container.score_tokens(vec![1; 90_000], 0).expect("accepted");
    let handle = task.cancel_handle();
    assert!(!handle.is_cancelled());
    std::thread::spawn(move || handle.cancel()).join().expect("no panic");
    assert!(matches!(task.wait(), Err(EngineError::ScoreCancelled)));
    // Nobody waits for this one, and it holds up nobody.
    drop(container.score_tokens(vec![1; 90_000], 0).expect("accepted"));
    drop(container);
    assert!(lock(&control).steps.len() < 90_000 / 512);
}

#[test]
fn a_full_queue_refuses_more() {
    let (model, control) = FakeModel::new(Kind::full(), 100_000);
    lock(&control).delay = Duration::from_millis(1);
    let options = LoadOptions::default().with_max_sequences(1).with_max_waiting(1);
    let configuration = ModelConfiguration::directory("fake");
    let container = ModelContainer::from_parts(|| Ok(Box::new(model)), processor(), configuration, &options);
    let container = container.expect("loaded");
    let mut first = container.generate(vec![1], &greedy(90_000)).expect("accepted");
    first.next().expect("an event").expect("no error");
    let second = container.generate(vec![2], &greedy(3)).expect("accepted");
    let error = container.generate(vec![3], &greedy(1)).expect_err("refused");
    assert!(matches!(error, EngineError::QueueFull { waiting: 1 }), "{error}");
    let busy = container.occupancy();
    assert_eq!((busy.running, busy.waiting), (1, 1));
    // As of the last step: that of the first token has ended when there is a second.
    first.next().expect("an event").expect("no error");
    let busy = container.occupancy();
    assert!(busy.cache_use > 0.0 && busy.cache_use <= 1.0, "{busy:?}");
    assert!(error.hint().expect("a hint").contains("max_waiting"));
    assert!(matches!(container.score(&[1, 2]), Err(EngineError::QueueFull { .. })));
    // Who has heard of the end of one can ask anew.
    first.cancel_handle().cancel();
    first.collect_text().expect("no error");
    let third = container.generate(vec![3], &greedy(3)).expect("accepted");
    for (stream, prompt) in [(second, 2), (third, 3)] {
        assert_eq!(stream.collect_text().expect("no error").0, words(&continuation(&[prompt], 3)));
    }
    assert_eq!(container.score(&[1, 2]).expect("scored").len(), 1);
    let idle = container.occupancy();
    assert_eq!((idle.running, idle.waiting), (0, 0));
}

#[test]
fn an_answer_ends_when_its_time_is_up() {
    let (container, _) = container(256);
    let parameters = greedy(5).with_max_time(Duration::from_nanos(1));
    let stream = container.generate(vec![1], &parameters).expect("accepted");
    let info = stream.collect_text().expect("no error").1.expect("an end");
    assert_eq!((info.generated_tokens, &info.finish_reason), (0, &FinishReason::TimeLimit));
    assert_eq!(info.finish_reason.as_str(), "length");
    let (found, _) = tokens(&container, &[1], &greedy(5).with_max_time(Duration::MAX));
    assert_eq!(found, continuation(&[1], 5));
}

/// A stray token of a fine-tune: the model has no row for it.
#[test]
fn a_tokenizer_may_have_more_tokens_than_the_model() {
    let processor =
        || TextProcessor { tokenizer: tokenizer_with(json!({"pad_token": "[PAD]"})), ..processor() };
    let (container, control) = with_processor(64, processor());
    let warnings = container.warnings();
    assert!(warnings.iter().any(|warning| warning.contains("65 tokens, the model 64")), "{warnings:?}");
    assert_eq!(container.encode("w1 [PAD]").expect("encoded"), [1, VOCAB as u32]);
    let error = container.generate_text("w1 [PAD]", &greedy(1)).expect_err("refused");
    assert!(error.to_string().contains("token id 64 (\"[PAD]\")") && error.hint().is_some(), "{error}");
    assert!(lock(&control).steps.is_empty());
    assert!(container.generate_text("w1 w2", &greedy(1)).is_ok());
    // One that the user names is to end answers, and never could.
    for (token, is_fine) in [("w5", true), ("[PAD]", false)] {
        let configuration = ModelConfiguration::directory("fake").with_extra_eos_tokens([token]);
        let (model, _) = FakeModel::new(Kind::full(), 64);
        let options = LoadOptions::default();
        let loaded = ModelContainer::from_parts(|| Ok(Box::new(model)), processor(), configuration, &options);
        assert_eq!(loaded.is_ok(), is_fine, "{token}");
    }
}

#[test]
fn bad_requests_are_refused_before_anything_runs() {
    let (container, control) = container(64);
    let refuse = |prompt: Vec<u32>, parameters: &GenerateParameters| {
        container.generate(prompt, parameters).expect_err("refused")
    };
    assert!(matches!(refuse(vec![], &greedy(1)), EngineError::EmptyPrompt));
    let error = refuse(vec![1; 64], &greedy(1));
    assert!(matches!(error, EngineError::PromptTooLong { prompt: 64, context: 64 }));
    assert!(error.to_string().contains("64 tokens") && error.hint().is_some());
    let error = refuse(vec![1, VOCAB as u32], &greedy(1));
    assert!(matches!(error, EngineError::TokenOutOfRange { token: 64, vocab: VOCAB, .. }));
    let error = refuse(vec![1], &GenerateParameters { temperature: f32::NAN, ..greedy(1) });
    assert!(matches!(error, EngineError::Parameter { field: "temperature", .. }));
    let error = refuse(vec![1], &GenerateParameters { logit_bias: [(1000, 1.0)].into(), ..greedy(1) });
    assert!(matches!(error, EngineError::Parameter { field: "logit_bias", .. }));
    assert!(container.score(&[]).is_err() && container.score(&[1; 65]).is_err());
    assert!(container.measure(Workload::decode(0), 1).is_err());
    assert!(container.measure(Workload::prefill(65), 1).is_err());
    assert!(lock(&control).steps.is_empty());
}

#[test]
fn options_must_fit_the_model() {
    let load = |options: &LoadOptions| {
        let (model, _) = FakeModel::new(Kind::full(), 128);
        let configuration = ModelConfiguration::directory("fake");
        ModelContainer::from_parts(|| Ok(Box::new(model)), processor(), configuration, options)
    };
    let error = load(&LoadOptions { context: Some(129), ..Default::default() }).expect_err("too long");
    assert!(matches!(error, EngineError::ContextTooLong { requested: 129, maximum: 128 }));
    assert!(load(&LoadOptions { threads: Some(0), ..Default::default() }).is_err());
    let container = load(&LoadOptions { context: Some(50), ..Default::default() }).expect("loaded");
    assert_eq!(container.context(), 50);
}

#[test]
fn a_draft_model_that_cannot_guess_is_refused_when_it_is_loaded() {
    let nano = pippin_hub::resolve("pippin-nano").expect("it ships with the repository").directory;
    let load = |kind: Kind, draft: &str| {
        let (model, _) = FakeModel::new(kind, 64);
        let options = LoadOptions::default().with_draft_model(std::path::PathBuf::from(draft));
        let configuration = ModelConfiguration::directory("fake");
        let loaded = ModelContainer::from_parts(|| Ok(Box::new(model)), processor(), configuration, &options);
        loaded.expect_err("refused").to_string()
    };
    let nano = nano.to_str().expect("a path");
    let error = load(Kind::full(), nano);
    assert!(error.contains(nano) && error.contains("vocabulary is another one"), "{error}");
    let error = load(Kind { has_state: true, ..Kind::full() }, nano);
    assert!(error.contains(nano) && error.contains("recurrent state"), "{error}");
    assert!(load(Kind::full(), "no/such/folder").contains("no/such/folder"));
}

#[test]
fn dropping_a_stream_frees_the_model_for_others() {
    let (container, control) = container(100_000);
    lock(&control).delay = Duration::from_millis(1);
    let mut stream = container.generate_tokens(vec![1, 2], &greedy(90_000)).expect("accepted");
    stream.next().expect("an event").expect("no error");
    drop(stream);
    let (found, _) = tokens(&container, &[3], &greedy(5));
    assert_eq!(found, continuation(&[3], 5));
    let steps = lock(&control).steps.len();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(lock(&control).steps.len(), steps, "nothing runs for a dropped stream");
}

#[test]
fn a_cancelled_stream_still_gives_its_numbers() {
    let (container, control) = container(100_000);
    lock(&control).delay = Duration::from_millis(1);
    let mut stream = container.generate(vec![1, 2], &greedy(90_000)).expect("accepted");
    stream.next().expect("an event").expect("no error");
    let handle = stream.cancel_handle();
    assert!(!handle.is_cancelled());
    std::thread::spawn(move || handle.cancel()).join().expect("no panic");
    let (_, info) = stream.collect_text().expect("no error");
    assert_eq!(info.expect("an end").finish_reason, FinishReason::Cancelled);
}

#[test]
fn handles_are_shared_between_threads() {
    let (container, _) = container(512);
    std::thread::scope(|scope| {
        for seed in 0..8u32 {
            let container = container.clone();
            scope.spawn(move || {
                let prompt: Vec<u32> = (0..40).map(|i| (i * seed + i) % 50).collect();
                let (found, _) = tokens(&container, &prompt, &greedy(50));
                assert_eq!(found, continuation(&prompt, 50));
            });
        }
    });
}

#[test]
fn a_stream_outlives_its_container() {
    let (container, _) = container(256);
    let stream = container.generate(vec![1, 2, 3], &greedy(10)).expect("accepted");
    drop(container);
    assert_eq!(stream.collect_text().expect("no error").0, words(&continuation(&[1, 2, 3], 10)));
}

#[test]
fn the_last_handle_ends_the_thread() {
    let (container, control) = container(100_000);
    lock(&control).delay = Duration::from_millis(1);
    let stream = container.generate(vec![1, 2, 3], &greedy(90_000)).expect("accepted");
    drop(stream);
    drop(container);
    // The model is gone with its thread, which did not finish what nobody reads.
    assert_eq!(Arc::strong_count(&control), 1);
    assert!(lock(&control).steps.len() < 90_000);
}

#[test]
fn a_panic_of_the_model_reaches_everyone() {
    let (container, control) = container(4096);
    lock(&control).delay = Duration::from_millis(1);
    let mut running = container.generate(vec![1, 2, 3], &greedy(4000)).expect("accepted");
    running.next().expect("an event").expect("no error");
    let waiting = container.generate(vec![4], &greedy(4000)).expect("accepted");
    {
        let mut control = lock(&control);
        control.panic_at = Some(control.steps.len() + 3);
    }
    for stream in [running, waiting] {
        let error = stream.collect_text().expect_err("the thread is dead");
        assert!(
            matches!(&error, EngineError::ModelThreadDied { message } if message.contains("as told")),
            "{error}"
        );
    }
    // Requests after it fail at once.
    let error = container.generate(vec![1], &greedy(1)).map(|_| ()).expect_err("the thread is dead");
    assert!(matches!(error, EngineError::ModelThreadDied { .. }));
    assert!(matches!(container.score(&[1, 2]), Err(EngineError::ModelThreadDied { .. })));
    assert!(matches!(container.measure(Workload::decode(1), 1), Err(EngineError::ModelThreadDied { .. })));
    assert!(!container.is_alive());
    drop(container);
}

#[test]
fn a_panic_while_loading_is_an_error() {
    let worker = crate::scheduler::Worker::start::<()>(|| panic!("no model today"));
    let error = worker.map(|_| ()).expect_err("no worker");
    assert!(
        matches!(&error, EngineError::ModelThreadDied { message } if message == "no model today"),
        "{error}"
    );
}

#[test]
fn errors_of_a_step_reach_the_stream() {
    let (container, _) = container(256);
    let error = container.generate(vec![1, POISON], &greedy(5)).expect("accepted").collect_text();
    assert!(matches!(error, Err(EngineError::Model(_))));
    let error = container.generate(vec![1, NAN], &greedy(5)).expect("accepted").collect_text();
    assert!(matches!(error, Err(EngineError::NonFiniteLogits { tokens: 2 })));
    // And the model goes on.
    assert_eq!(tokens(&container, &[1], &greedy(5)).0, continuation(&[1], 5));
}

#[test]
fn measures_and_scores() {
    let (container, control) = container(256);
    let measured = container.measure(Workload::decode(7), 3).expect("measured");
    assert_eq!(measured.samples.len(), 3);
    assert!(measured.mean() > 0.0);
    // One more to warm up.
    assert_eq!(lock(&control).steps.len(), 4 * 7);
    assert_eq!(container.score(&[1, 2, 3]).expect("scored").len(), 2);
}

fn text_of(prompt: &str, count: usize) -> (String, String) {
    let ids: Vec<u32> = processor().tokenizer.encode(prompt, false).expect("encoded");
    let answer = processor().tokenizer.decode(&continuation(&ids, count), false).expect("decoded");
    (prompt.to_owned(), answer)
}

#[test]
fn a_session_remembers_and_reuses() {
    let (container, _) = container(512);
    let mut chat = ChatSession::new(container).with_system("w1 w2").with_parameters(greedy(6));
    let (_, expected) = text_of("<system> w1 w2 <user> w3 <assistant>", 6);
    assert_eq!(chat.respond("w3").expect("an answer"), expected);
    let info = chat.last_info().expect("numbers");
    assert_eq!((info.prompt_tokens, info.cached_tokens), (6, 0));

    let second = format!("<system> w1 w2 <user> w3 <assistant> {expected} <user> w4 <assistant>");
    let (_, expected_second) = text_of(&second, 6);
    let streamed: Result<String, EngineError> = chat.stream("w4").expect("a stream").collect();
    assert_eq!(streamed.expect("no error"), expected_second);
    // All of the first turn but its last token.
    assert_eq!(chat.last_info().expect("numbers").cached_tokens, 6 + 5);
    assert_eq!(texts(&chat.messages()), ["w1 w2", "w3", &expected, "w4", &expected_second]);

    chat.clear();
    assert_eq!(chat.messages().len(), 1);
    assert!(chat.last_info().is_none());
    assert_eq!(chat.respond("w3").expect("an answer"), expected);
}

#[test]
fn a_dropped_answer_is_remembered_as_far_as_it_was_shown() {
    let (container, _) = container(512);
    let mut chat = ChatSession::new(container).with_parameters(greedy(20));
    let mut shown = String::new();
    {
        let mut stream = chat.stream("w3").expect("a stream");
        for _ in 0..3 {
            shown.push_str(&stream.next().expect("text").expect("no error"));
        }
        assert_eq!(stream.text(), shown);
    }
    assert_eq!(texts(&chat.messages()), ["w3", &shown]);
    // Nothing was shown: nothing is remembered.
    drop(chat.stream("w4").expect("a stream"));
    assert_eq!(chat.messages().len(), 2);
}

#[test]
fn a_failed_turn_leaves_the_conversation_as_it_was() {
    let (container, _) = container(64);
    let mut chat = ChatSession::new(container).with_parameters(greedy(3));
    chat.respond("w1").expect("an answer");
    let long = vec!["w2"; 80].join(" ");
    assert!(matches!(chat.respond(&long), Err(EngineError::PromptTooLong { .. })));
    assert!(matches!(chat.respond(&format!("w{POISON}")), Err(EngineError::Model(_))));
    assert_eq!(chat.messages().len(), 2);
    chat.respond("w2").expect("an answer");
    assert_eq!(chat.messages().len(), 4);
}

#[test]
fn history_and_system_can_be_given_and_changed() {
    let (container, _) = container(512);
    let history = vec![Message::user("w5"), Message::assistant("w6")];
    let mut chat = ChatSession::new(container).with_history(history).with_parameters(greedy(2));
    let (_, expected) = text_of("<user> w5 <assistant> w6 <user> w7 <assistant>", 2);
    assert_eq!(chat.respond("w7").expect("an answer"), expected);
    chat.set_system(Some("w8".into()));
    assert_eq!(chat.system(), Some("w8"));
    chat.set_system(Some(String::new()));
    assert_eq!(chat.system(), None);
    let mut history = chat.history();
    history.pop();
    chat.set_history(history);
    assert_eq!(chat.messages().len(), 3);
    chat.parameters_mut().max_tokens = Some(1);
    chat.respond_to(Message::tool("call", "w9")).expect("an answer");
    assert_eq!(chat.last_info().expect("numbers").generated_tokens, 1);
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().filter_map(Message::text).collect()
}

#[test]
fn an_answer_can_be_read_elsewhere_and_outlives_its_session() {
    let (container, _) = container(512);
    let mut chat = ChatSession::new(container).with_parameters(greedy(6));
    let stream = chat.stream("w3").expect("a stream");
    let reader = std::thread::spawn(move || stream.collect::<Result<String, EngineError>>());
    let answer = reader.join().expect("no panic").expect("no error");
    assert_eq!(texts(&chat.messages()), ["w3", &answer]);
    assert_eq!(chat.last_info().expect("numbers").generated_tokens, 6);

    let stream = chat.stream("w4").expect("a stream");
    drop(chat);
    assert!(!stream.collect::<Result<String, EngineError>>().expect("no error").is_empty());
}

#[test]
fn the_next_turn_waits_for_the_answer() {
    let (container, _) = container(512);
    let mut chat = ChatSession::new(container).with_parameters(greedy(6));
    let mut stream = chat.stream("w3").expect("a stream");
    let shown = stream.next().expect("text").expect("no error");
    // Neither a second turn nor anybody who looks sees half an answer.
    let error = chat.respond("w4").expect_err("an answer is being written");
    assert!(matches!(error, EngineError::SessionBusy) && error.hint().is_some());
    assert!(chat.is_answering() && chat.messages().is_empty());
    // A clone goes its own way.
    let mut other = chat.clone();
    other.respond("w5").expect("an answer");
    assert_eq!(other.messages().len(), 2);

    drop(stream);
    assert!(!chat.is_answering());
    assert_eq!(texts(&chat.messages()), ["w3", &shown]);
    chat.respond("w4").expect("an answer");
    assert_eq!(chat.messages().len(), 4);
}

#[test]
fn what_was_forgotten_does_not_come_back() {
    let (container, _) = container(512);
    let mut chat = ChatSession::new(container).with_parameters(greedy(6));
    let mut old = chat.stream("w3").expect("a stream");
    old.next().expect("text").expect("no error");
    chat.clear();
    let mut new = chat.stream("w4").expect("a stream");
    // The old answer can be read on, and ends without a trace.
    assert!(old.by_ref().all(|text| text.is_ok()) && old.info().is_some());
    drop(old);
    assert!(chat.is_answering() && chat.messages().is_empty());
    let answer: String = new.by_ref().collect::<Result<_, _>>().expect("no error");
    assert_eq!(texts(&chat.messages()), ["w4", &answer]);

    let old = chat.stream("w5").expect("a stream");
    chat.set_history([Message::user("w6"), Message::assistant("w7")]);
    drop(old.collect::<Vec<_>>());
    assert_eq!(texts(&chat.messages()), ["w6", "w7"]);
}

#[test]
fn streams_can_be_looked_at_without_waiting() {
    let (container, control) = container(100_000);
    lock(&control).delay = Duration::from_millis(1);
    let mut chat = ChatSession::new(container.clone()).with_parameters(greedy(5));
    let mut slow = container.generate(vec![1, 2, 3], &greedy(90_000)).expect("accepted");
    let mut answer = chat.stream("w3").expect("a stream");
    let (mut pending, mut text) = (0, String::new());
    // One thread reads two answers.
    loop {
        if let Poll::Ready(item) = slow.try_next() {
            item.expect("far from its end").expect("no error");
        }
        match answer.try_next() {
            Poll::Pending => pending += 1,
            Poll::Ready(Some(piece)) => text.push_str(&piece.expect("no error")),
            Poll::Ready(None) => break,
        }
        std::thread::yield_now();
    }
    assert!(pending > 0, "nothing was there before it was computed");
    assert_eq!(texts(&chat.messages()), ["w3", &text]);
    assert!(matches!(answer.try_next(), Poll::Ready(None)));
    assert!(answer.next().is_none());
    // The ways to read can be mixed.
    slow.cancel_handle().cancel();
    let Some(Ok(GenerationEvent::Info(info))) = slow.last() else { panic!("no numbers") };
    assert_eq!(info.finish_reason, FinishReason::Cancelled);
}

#[test]
fn what_nobody_reads_is_no_more_than_was_asked_for() {
    let (container, _) = container(100_000);
    let mut unread = container.generate_tokens(vec![1], &greedy(50)).expect("accepted");
    // A later request that is longer ends later, so the first one is complete.
    tokens(&container, &[2], &greedy(100));
    let mut events = 0;
    while let Poll::Ready(Some(event)) = unread.try_next() {
        event.expect("no error");
        events += 1;
    }
    assert_eq!(events, 51);
}

#[cfg(feature = "async")]
mod asynchronous {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::task::{Context, Wake, Waker};
    use std::thread::Thread;

    use futures_core::Stream;
    use futures_core::stream::FusedStream;

    use super::*;
    use crate::AsyncStream;

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// Runs a future on this thread, which sleeps until it is woken.
    fn block_on<F: Future>(future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
        poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
    }

    #[test]
    fn streams_are_read_from_a_task() {
        fn assert_task<T: Send + 'static>(_: &T) {}
        let (container, control) = container(512);
        lock(&control).delay = Duration::from_millis(1);
        let mut stream = container.generate(vec![1, 2, 3], &greedy(10)).expect("accepted").into_async();
        assert_task(&stream);
        let text = block_on(async {
            let mut text = String::new();
            while let Some(event) = next(&mut stream).await {
                text.push_str(event.expect("no error").text());
            }
            text
        });
        assert_eq!(text, words(&continuation(&[1, 2, 3], 10)));
        assert!(stream.is_terminated() && block_on(next(&mut stream)).is_none());

        let mut chat = ChatSession::new(container.clone()).with_parameters(greedy(6));
        let mut stream = chat.stream("w3").expect("a stream").into_async();
        assert_task(&stream);
        while block_on(next(&mut stream)).transpose().expect("no error").is_some() {}
        assert_eq!(texts(&chat.messages()), ["w3", stream.get_ref().text()]);

        let mut tokens = container.generate_tokens(vec![1, 2, 3], &greedy(4)).expect("accepted").into_async();
        assert_task(&tokens);
        let mut count = 0;
        while block_on(next(&mut tokens)).transpose().expect("no error").is_some() {
            count += 1;
        }
        assert_eq!(count, 5);
    }

    #[test]
    fn one_thread_reads_many_answers() {
        let (container, control) = container(512);
        lock(&control).delay = Duration::from_millis(1);
        let prompts: Vec<Vec<u32>> = (0..20).map(|first| vec![first, 7]).collect();
        let begin = |prompt: &Vec<u32>| {
            container.generate(prompt.clone(), &greedy(10)).expect("accepted").into_async()
        };
        let mut streams: Vec<AsyncStream<_>> = prompts.iter().map(begin).collect();
        let mut texts = vec![String::new(); streams.len()];
        // As a runtime's join does: every stream has the same waker, and each is asked when it was called.
        block_on(poll_fn(|context| {
            let mut is_done = true;
            for (stream, text) in streams.iter_mut().zip(&mut texts) {
                loop {
                    match Pin::new(&mut *stream).poll_next(context) {
                        Poll::Ready(Some(event)) => text.push_str(event.expect("no error").text()),
                        Poll::Ready(None) => break,
                        Poll::Pending => {
                            is_done = false;
                            break;
                        }
                    }
                }
            }
            if is_done { Poll::Ready(()) } else { Poll::Pending }
        }));
        for (prompt, text) in prompts.iter().zip(texts) {
            assert_eq!(text, words(&continuation(prompt, 10)));
        }
    }

    #[test]
    fn the_death_of_a_model_wakes_its_readers() {
        let (container, control) = container(4096);
        lock(&control).delay = Duration::from_millis(1);
        let mut stream = container.generate(vec![1, 2, 3], &greedy(4000)).expect("accepted").into_async();
        block_on(next(&mut stream)).expect("an event").expect("no error");
        {
            let mut control = lock(&control);
            control.panic_at = Some(control.steps.len() + 3);
        }
        let error = block_on(async {
            loop {
                if let Err(error) = next(&mut stream).await.expect("an error comes first") {
                    return error;
                }
            }
        });
        assert!(matches!(error, EngineError::ModelThreadDied { .. }));
    }
}

#[test]
fn tools_and_variables_reach_the_template() {
    let mut processor = processor();
    let source = "{% for t in tools %}{{ t.name }} {% endfor %}{{ mood }} {{ messages[0].content }}";
    let template = pippin_text::ChatTemplate::from_source("test", source).expect("valid");
    processor.chat_template = Some(Arc::new(template));
    let (container, _) = with_processor(256, processor);
    let input = ChatInput {
        messages: vec![Message::user("w3")],
        tools: vec![json!({"name": "w1"})],
        template_kwargs: [("mood".to_owned(), json!("w2"))].into_iter().collect(),
        ..ChatInput::default()
    };
    assert_eq!(container.apply_chat_template(&input).expect("rendered"), "w1 w2 w3");
    assert_eq!(container.prepare(&input).expect("prepared"), [1, 2, 3]);
    let mut chat = ChatSession::new(container)
        .with_tools(input.tools)
        .with_template_kwargs(input.template_kwargs)
        .with_parameters(greedy(4));
    assert_eq!(chat.respond("w3").expect("an answer"), words(&continuation(&[1, 2, 3], 4)));
}

#[test]
fn prompts_end_with_a_header_or_inside_the_last_message() {
    let mut processor = processor();
    let source =
        "{% for m in messages %}{{ m.content }} w9 {% endfor %}{% if add_generation_prompt %}w8{% endif %}";
    let template = pippin_text::ChatTemplate::from_source("test", source).expect("valid");
    processor.chat_template = Some(Arc::new(template));
    let (container, _) = with_processor(256, processor);
    let input = ChatInput::from(vec![Message::user("w3"), Message::assistant("w4")]);
    let rendered = |input: &ChatInput| container.apply_chat_template(input).expect("rendered");
    assert_eq!(rendered(&input), "w3 w9 w4 w9 w8");
    assert_eq!(rendered(&input.clone().with_add_generation_prompt(false)), "w3 w9 w4 w9 ");
    assert_eq!(rendered(&input.with_continue_final_message(true)), "w3 w9 w4");
}

#[test]
fn parts_that_are_not_text_are_refused() {
    let (container, _) = with_processor(256, processor());
    let parts =
        json!([{"type": "input_text", "text": "w1"}, {"type": "image_url", "image_url": {"url": "x"}}]);
    let message: Message =
        serde_json::from_value(json!({"role": "user", "content": parts})).expect("a message");
    let input = ChatInput::from(vec![Message::user("w1"), message]);
    let error = container.apply_chat_template(&input).expect_err("an image").to_string();
    assert!(error.contains("messages[1].content[1]") && error.contains("image_url"), "{error}");
}

#[test]
fn without_a_template_there_is_a_hint() {
    let mut processor = processor();
    processor.chat_template = None;
    let (container, _) = with_processor(256, processor);
    let error = ChatSession::new(container).respond("w1").expect_err("no template");
    assert!(matches!(&error, EngineError::NoChatTemplate { model } if model == "fake"));
    assert!(error.hint().expect("a hint").contains("--raw"));
}

/// Texts that the fake model would never say of its own accord.
const CHOICES: [&str; 3] = ["w1 w2 w3 w4 w5 w6", "w1 w2 w9", "w7"];

fn choosing(max_tokens: usize) -> GenerateParameters {
    greedy(max_tokens).with_constraint(Constraint::choice(CHOICES))
}

#[test]
fn a_constraint_holds_whatever_the_device_does() {
    let neighbours: Vec<Vec<u32>> = (0..4).map(|i| vec![i, 20 + i, 3]).collect();
    for feeds in [Feeds::Never, Feeds::Always, Feeds::Sometimes] {
        let (container, control) = container(256);
        lock(&control).feeds = feeds;
        let free: Vec<_> = neighbours
            .iter()
            .map(|prompt| container.generate_tokens(prompt.clone(), &greedy(40)).expect("accepted"))
            .collect();
        let bound: Vec<_> =
            (0..4).map(|i| container.generate(vec![i, 5], &choosing(20)).expect("accepted")).collect();
        for (i, stream) in bound.into_iter().enumerate() {
            let (text, info) = stream.collect_text().expect("no error");
            assert!(CHOICES.contains(&text.as_str()), "{text:?}");
            let info = info.expect("an end");
            assert_eq!(info.finish_reason, FinishReason::Stop);
            // Nothing follows, so no stop token is waited for.
            assert_eq!(info.generated_tokens, text.split(' ').count());
            let alone = container.generate(vec![i as u32, 5], &choosing(20)).expect("accepted");
            assert_eq!(alone.collect_text().expect("no error").0, text);
        }
        for (prompt, stream) in neighbours.iter().zip(free) {
            let found: Vec<u32> = stream
                .filter_map(|event| match event.expect("no error") {
                    TokenEvent::Token { id, .. } => Some(id),
                    TokenEvent::Info(_) | TokenEvent::Prompt { .. } => None,
                })
                .collect();
            assert_eq!(found, continuation(prompt, 40));
        }
    }
}

#[test]
fn a_constraint_survives_a_step_that_fails() {
    let (container, control) = container(256);
    let alone = container.generate(vec![8, 5], &choosing(20)).expect("accepted");
    let expected = alone.collect_text().expect("no error").0;
    for fails_late in [false, true] {
        lock(&control).fails_late = fails_late;
        let bound = container.generate(vec![8, 5], &choosing(20)).expect("accepted");
        let poisoned = container.generate(vec![1, POISON, 2], &greedy(5)).expect("accepted");
        assert!(poisoned.collect_text().is_err());
        assert_eq!(bound.collect_text().expect("no error").0, expected);
        lock(&control).fails_edits = true;
        let outcome = container.generate(vec![8, 5], &choosing(20)).expect("accepted").collect_text();
        assert!(outcome.is_err());
        let again = container.generate(vec![8, 5], &choosing(20)).expect("accepted");
        assert_eq!(again.collect_text().expect("no error").0, expected);
    }
}

#[test]
fn a_constraint_can_wait_for_a_marker() {
    let config = json!({"additional_special_tokens": ["<assistant>"]});
    let processor = TextProcessor::new(tokenizer_with(config), None, [STOP].into_iter().collect());
    let (container, _) = with_processor(256, processor);
    // The marker and the stop token are what the model likes best. What follows the marker is not the beginning of a text, so that
    // the first word has its space.
    let choosing = |most| choosing(most).with_constraint(Constraint::choice([" w1 w2", " w7"]));
    let parameters =
        choosing(20).with_constraint_after("<assistant>").with_logit_bias([(55, 100.0), (STOP, 200.0)]);
    let (found, info) = tokens(&container, &[1, 2], &parameters);
    assert_eq!(found[0], 55, "the stop token does not end an answer before it has begun");
    assert!([&[1, 2][..], &[7]].contains(&&found[1..]), "{found:?}");
    assert_eq!(info.finish_reason, FinishReason::Stop);
    // It does not come: the answer is cut, and free of anything that looks complete.
    let never = choosing(5).with_constraint_after("<assistant>").with_logit_bias([(55, -100.0)]);
    let (_, info) = tokens(&container, &[1, 2], &never);
    assert_eq!((info.generated_tokens, info.finish_reason), (5, FinishReason::Length));
}

#[test]
fn a_constraint_that_cannot_be_followed_is_an_error() {
    let (container, control) = container(256);
    let schema = json!({"type": "object", "properties": {"a": {"not": {}}}});
    for constraint in
        [Constraint::json_schema(schema), Constraint::regex("("), Constraint::choice(["words of others"])]
    {
        let parameters = greedy(5).with_constraint(constraint);
        match container.generate(vec![1], &parameters) {
            Err(error @ EngineError::Grammar(_)) => assert!(error.hint().is_some(), "{error}"),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("accepted"),
        }
    }
    let early = choosing(5).with_constraint_after("w1");
    assert!(matches!(container.generate(vec![1], &early), Err(EngineError::Grammar(_))));
    let nothing = greedy(5).with_constraint_after("<assistant>");
    assert!(matches!(
        container.generate(vec![1], &nothing),
        Err(EngineError::Parameter { field: "constraint_after", .. })
    ));
    assert!(lock(&control).steps.is_empty(), "nothing of it reached the model");
    let cut = container.generate(vec![1, 5], &choosing(1).with_logit_bias([(1, 50.0)])).expect("accepted");
    let (text, info) = cut.collect_text().expect("no error");
    assert_eq!((text.as_str(), info.expect("an end").finish_reason), ("w1", FinishReason::Length));
}

/// The fake model with words that think, call, and answer: each token is a whole thought, call or word.
fn calling() -> ModelContainer {
    let word = |id: u32| match id % 4 {
        0 => format!("<tool_call>{{\"name\":\"f\",\"arguments\":{{\"x\":{id}}}}}</tool_call>"),
        1 => format!("<think>t{id}</think>"),
        _ => format!("w{id}"),
    };
    let mut vocab: serde_json::Map<String, serde_json::Value> =
        (0..VOCAB).map(|id| (word(id as u32), json!(id))).collect();
    for (word, id) in [("<think>", 53), ("</think>", 54), ("[UNK]", 59), ("<stop>", STOP)] {
        vocab.retain(|_, value| *value != json!(id));
        vocab.insert(word.to_owned(), json!(id));
    }
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" }
    });
    let tokenizer = Tokenizer::from_json(&tokenizer.to_string(), &serde_json::Map::new()).expect("valid");
    let template = ChatTemplate::from_source(
        "test",
        "{# <tool_call> #}{% for m in messages %}<{{ m.role }}> {{ m.content or 'w2' }} {% endfor %}w3",
    )
    .expect("valid");
    with_processor(2048, TextProcessor::new(tokenizer, Some(template), StopTokens::from_iter([STOP]))).0
}

#[test]
fn a_session_takes_answers_apart() {
    let container = calling();
    let (mut thoughts, mut calls) = (0, 0);
    for prompt in 0..20 {
        let mut chat = ChatSession::new(container.clone()).with_parameters(greedy(6));
        let prompt = vec!["w6"; prompt + 1].join(" ");
        let mut stream = chat.stream(&prompt).expect("a stream");
        let text: String = (&mut stream).map(|piece| piece.expect("no error")).collect();
        assert_eq!(stream.text(), text);
        assert!(!text.contains('<'), "{text}");
        assert!(!stream.reasoning().contains('<'), "{}", stream.reasoning());
        let messages = chat.history();
        let answer = messages.last().expect("an answer");
        assert_eq!(answer.tool_calls(), stream.tool_calls());
        assert_eq!(answer.reasoning().unwrap_or_default(), stream.reasoning());
        assert_eq!(answer.text().unwrap_or_default(), text);
        for (at, call) in stream.tool_calls().iter().enumerate() {
            assert_eq!(
                (call.id.as_deref(), call.function.name.as_str()),
                (Some(&*format!("call{at:05}")), "f")
            );
        }
        thoughts += usize::from(!stream.reasoning().is_empty());
        calls += stream.tool_calls().len();
        drop(stream);

        chat.clear();
        let events = chat.stream(&prompt).expect("a stream").into_events();
        let mut output = ParsedOutput::default();
        output.extend(events.map(|event| event.expect("no error")));
        assert_eq!(output.content, text);
        assert_eq!(output.into_message(), messages[1]);
    }
    assert!(thoughts > 2 && calls > 2, "{thoughts} {calls}");
}

#[test]
fn calls_are_carried_out_until_there_are_no_more() {
    let container = calling();
    let mut rounds = 0;
    for prompt in 0..20 {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let calls = Arc::clone(&seen);
        let mut chat = ChatSession::new(container.clone())
            .with_parameters(greedy(1))
            .with_max_tool_rounds(100)
            .with_tool_dispatch(move |call: &ToolCall| {
                let mut calls = calls.lock().expect("no panic");
                calls.push(call.clone());
                match calls.len() % 2 {
                    0 => Err("broken"),
                    _ => Ok("w7 w10"),
                }
            });
        let text = chat.respond(&vec!["w6"; prompt + 1].join(" ")).expect("an answer");
        let seen = seen.lock().expect("no panic");
        let messages = chat.history();
        let made: Vec<ToolCall> = messages.iter().flat_map(Message::tool_calls).collect();
        assert_eq!(made, *seen);
        let results: Vec<&Message> = messages.iter().filter(|message| message.role() == Role::Tool).collect();
        assert_eq!(results.len(), seen.len());
        for (at, (result, call)) in results.iter().zip(seen.iter()).enumerate() {
            assert_eq!(result.tool_call_id(), call.id.as_deref());
            let expected = if at % 2 == 0 { "w7 w10" } else { "error: broken" };
            assert_eq!(result.text().as_deref(), Some(expected));
            assert!(seen[..at].iter().all(|earlier| earlier.id != call.id));
        }
        let last = messages.last().expect("an answer");
        assert!(last.tool_calls().is_empty());
        assert_eq!(last.text().unwrap_or_default(), text);
        rounds += seen.len();

        // As often as it may: the conversation is as it was.
        if !seen.is_empty() {
            let mut chat = ChatSession::new(container.clone())
                .with_parameters(greedy(1))
                .with_max_tool_rounds(seen.len() - 1)
                .with_tool_dispatch(|_| Ok::<_, String>("w7 w10"));
            let first = chat.respond(&vec!["w6"; prompt + 1].join(" "));
            if let Err(error) = first {
                assert!(matches!(error, EngineError::TooManyToolRounds { .. }), "{error}");
                assert!(chat.history().is_empty());
            }
            let mut chat = ChatSession::new(container.clone())
                .with_parameters(greedy(1))
                .with_max_tool_rounds(0)
                .with_tool_dispatch(|_| Ok::<_, String>("w7 w10"));
            let error = chat.respond(&vec!["w6"; prompt + 1].join(" ")).expect_err("no round is allowed");
            assert!(matches!(error, EngineError::TooManyToolRounds { limit: 0 }), "{error}");
            assert!(chat.history().is_empty());
        }
    }
    assert!(rounds > 2, "{rounds}");
}
