//! The whole way, from the shipped model's files to text, on the CPU.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use pippin_engine::{
    ChatInput, ChatSession, Constraint, Device, FinishReason, GenerateParameters, GenerationEvent,
    LoadOptions, LoadProgress, Message, ModelContainer, Numerics, TokenEvent, TokenLogprob, Workload,
};

fn nano() -> ModelContainer {
    static NANO: LazyLock<ModelContainer> = LazyLock::new(|| load(&LoadOptions::default()));
    NANO.clone()
}

fn load(options: &LoadOptions) -> ModelContainer {
    ModelContainer::load("pippin-nano", options).expect("the shipped model loads")
}

fn greedy(max_tokens: usize) -> GenerateParameters {
    GenerateParameters { max_tokens: Some(max_tokens), ..GenerateParameters::greedy() }
}

fn tokens(model: &ModelContainer, prompt: &[u32], parameters: &GenerateParameters) -> (Vec<u32>, usize) {
    let mut tokens = Vec::new();
    for event in model.generate_tokens(prompt.to_vec(), parameters).expect("accepted") {
        match event.expect("no error") {
            TokenEvent::Token { id, .. } => tokens.push(id),
            TokenEvent::Info(info) => return (tokens, info.cached_tokens),
            other => panic!("unexpected: {other:?}"),
        }
    }
    panic!("no end")
}

/// A few conversations, as token ids.
fn prompts(model: &ModelContainer) -> Vec<Vec<u32>> {
    let long = "Please tell me a story about a fox, a river and a very old tree. ".repeat(6);
    ["What is 17 plus 25?", "Hello! Who are you?", "What is the capital of France?", &long]
        .iter()
        .map(|text| model.prepare(&ChatInput::from(vec![Message::user(*text)])).expect("a prompt"))
        .collect()
}

#[test]
fn answers_in_a_conversation() {
    let mut chat = ChatSession::new(nano()).with_parameters(greedy(60));
    let answer = chat.respond("What is 17 plus 25?").expect("an answer");
    assert!(answer.contains("42"), "{answer}");
    let info = chat.last_info().expect("numbers");
    assert_eq!(info.finish_reason, FinishReason::Stop);
    let first = info.prompt_tokens + info.generated_tokens;
    chat.respond("What is the capital of France?").expect("an answer");
    let info = chat.last_info().expect("numbers");
    // Whatever the template writes between turns, the beginning is not computed again.
    assert!(info.cached_tokens > 0 && info.cached_tokens < first, "{info:?}");
}

#[test]
fn loading_reports_its_progress() {
    let mut seen = Vec::new();
    let options = LoadOptions { threads: Some(1), context: Some(256), ..LoadOptions::default() };
    let opener = ModelContainer::open("pippin-nano").with_options(options.clone());
    let model = opener.with_progress(|progress| seen.push(progress)).load().expect("the shipped model loads");
    assert!(matches!(seen[..], [LoadProgress::Found(_), LoadProgress::Loading, LoadProgress::Ready]));
    assert_eq!(model.context(), 256);
    assert_eq!(model.name(), "pippin-nano");
    assert!(model.info().parameters > 1_000_000);
    assert!(!model.device().is_empty());
    let unavailable =
        ModelContainer::load("pippin-nano", &LoadOptions { device: Device::Cuda(999), ..options });
    assert!(unavailable.is_err());
}

#[test]
fn greedy_tokens_depend_on_nothing_but_the_prompt() {
    for numerics in [Numerics::Fast, Numerics::Exact] {
        let model = load(&LoadOptions { numerics, ..LoadOptions::default() });
        let prompts = prompts(&model);
        // Alone and uncut.
        let expected: Vec<Vec<u32>> = prompts
            .iter()
            .map(|prompt| {
                model.clear_cache().expect("alive");
                tokens(&model, prompt, &greedy(40)).0
            })
            .collect();
        assert!(expected.iter().all(|tokens| !tokens.is_empty()));
        // Cut into pieces.
        for prefill_step_size in [1, 7, 64] {
            let cutting = load(&LoadOptions { numerics, prefill_step_size, ..LoadOptions::default() });
            for (prompt, expected) in prompts.iter().zip(&expected) {
                assert_eq!(&tokens(&cutting, prompt, &greedy(40)).0, expected);
            }
        }
        // From the cache.
        for (prompt, expected) in prompts.iter().zip(&expected) {
            let (again, cached) = tokens(&model, prompt, &greedy(40));
            assert_eq!(&again, expected);
            assert!(cached > 0 || prompt.len() <= 32);
            // Every turn of a conversation continues in the middle of a page.
            for end in 0..expected.len().min(12) {
                let longer = [&prompt[..], &expected[..end]].concat();
                assert_eq!(tokens(&model, &longer, &greedy(40 - end)).0, expected[end..]);
            }
        }
        // Side by side.
        model.clear_cache().expect("alive");
        std::thread::scope(|scope| {
            for (prompt, expected) in prompts.iter().zip(&expected).chain(prompts.iter().zip(&expected)) {
                let model = model.clone();
                scope.spawn(move || assert_eq!(&tokens(&model, prompt, &greedy(40)).0, expected));
            }
        });
    }
}

#[test]
fn guessing_ahead_changes_no_answer() {
    let story = "Once upon a time there was a fox who lived near a river. The fox looked for a key. ";
    for numerics in [Numerics::Fast, Numerics::Exact] {
        let model = load(&LoadOptions { numerics, prefill_step_size: 48, ..LoadOptions::default() });
        let mut prompts = prompts(&model);
        prompts.truncate(1);
        prompts.push(model.encode(&format!("{}Once upon", story.repeat(3))).expect("encoded"));
        let sampled = GenerateParameters { seed: Some(3), max_tokens: Some(20), ..Default::default() };
        let parameters = [
            greedy(30),
            GenerateParameters { stop: vec!["river".to_owned(), "42".to_owned()], ..greedy(30) },
            GenerateParameters { logprobs: true, ..sampled.clone() },
            GenerateParameters {
                repetition_penalty: Some(1.2),
                temperature: 1.0,
                top_p: 0.9,
                ..sampled.clone()
            },
            GenerateParameters { frequency_penalty: Some(0.3), xtc_probability: 0.2, ..sampled },
        ];
        let read = |prompt: &[u32], parameters: &GenerateParameters| {
            let mut events: Vec<GenerationEvent> = model
                .generate(prompt.to_vec(), parameters)
                .expect("accepted")
                .collect::<Result<_, _>>()
                .expect("no error");
            let Some(GenerationEvent::Info(info)) = events.pop() else { panic!("no end") };
            (events, info)
        };
        let (mut drafted, mut accepted) = (0, 0);
        for prompt in &prompts {
            for parameters in &parameters {
                let (expected, plain) = read(prompt, parameters);
                assert_eq!((plain.drafted_tokens, plain.accepted_tokens), (0, 0));
                // Afresh, and from the cache.
                model.clear_cache().expect("alive");
                for _ in 0..2 {
                    let (events, info) = read(prompt, &parameters.clone().with_prompt_lookup(6));
                    assert_eq!(events, expected);
                    assert_eq!(info.finish_reason, plain.finish_reason);
                    assert_eq!(info.generated_tokens, plain.generated_tokens);
                    assert!(info.accepted_tokens <= info.drafted_tokens.min(info.generated_tokens));
                    drafted += info.drafted_tokens as u64;
                    accepted += info.accepted_tokens as u64;
                }
            }
        }
        let counted = model.performance().tokens;
        assert_eq!((counted.drafted, counted.accepted), (drafted, accepted));
    }
    // With itself for a draft model, every guess of a greedy answer is right.
    let draft = nano().directory().map(std::path::Path::to_path_buf);
    let drafting = load(&LoadOptions::default().with_draft_model(draft));
    for prompt in prompts(&drafting) {
        let mut info = None;
        let answer: Vec<u32> = drafting
            .generate_tokens(prompt.clone(), &greedy(40))
            .expect("accepted")
            .filter_map(|event| match event.expect("no error") {
                TokenEvent::Token { id, .. } => Some(id),
                TokenEvent::Info(numbers) => {
                    info = Some(numbers);
                    None
                }
                _ => None,
            })
            .collect();
        assert_eq!(answer, tokens(&nano(), &prompt, &greedy(40)).0);
        let info = info.expect("numbers");
        assert_eq!(info.accepted_tokens, info.drafted_tokens);
    }
    // Of what is held to a form, what it leaves no choice about is guessed.
    let model = nano();
    let parameters =
        GenerateParameters::greedy().with_constraint(Constraint::regex("(ab){20}")).with_prompt_lookup(8);
    let prompt = model.encode("ababab").expect("encoded");
    let (text, info) =
        model.generate(prompt, &parameters).and_then(|stream| stream.collect_text()).expect("an answer");
    assert_eq!(text, "ab".repeat(20));
    let info = info.expect("numbers");
    assert!(info.drafted_tokens > 0 && info.accepted_tokens <= info.drafted_tokens, "{info:?}");
}

#[test]
fn a_seed_means_the_same_text() {
    let model = nano();
    let prompt = model.encode("Once upon a time").expect("encoded");
    let sampled = |seed| {
        let parameters = GenerateParameters {
            seed,
            max_tokens: Some(24),
            temperature: 1.0,
            top_p: 0.95,
            ..Default::default()
        };
        tokens(&model, &prompt, &parameters).0
    };
    assert_eq!(sampled(Some(1)), sampled(Some(1)));
    let different: BTreeSet<Vec<u32>> = (0..8).map(|seed| sampled(Some(seed))).collect();
    assert!(different.len() > 1);
}

#[test]
fn scores_agree_with_generation() {
    let model = nano();
    let prompt = model.encode("Once upon a time there was").expect("encoded");
    let parameters = greedy(20).with_logprobs(true).with_top_logprobs(3);
    let (mut sequence, mut drawn) = (prompt.clone(), Vec::new());
    for event in model.generate_tokens(prompt.clone(), &parameters).expect("accepted") {
        if let TokenEvent::Token { id, logprob, top_logprobs, .. } = event.expect("no error") {
            sequence.push(id);
            drawn.push((logprob.expect("asked for"), top_logprobs));
        }
    }
    let scores = model.score_tokens(sequence.clone(), 3).expect("accepted").wait().expect("scored");
    assert_eq!(scores.len(), sequence.len() - 1);
    for (score, (logprob, top_logprobs)) in scores[prompt.len() - 1..].iter().zip(&drawn) {
        assert!((score.logprob - logprob).abs() < 1e-4, "{score:?} and {logprob}");
        let ids = |top: &[TokenLogprob]| top.iter().map(|top| top.token).collect::<Vec<_>>();
        assert_eq!(ids(&score.top_logprobs), ids(top_logprobs));
    }
}

#[test]
fn measuring_leaves_no_trace() {
    let model = nano();
    let prompts = prompts(&model);
    let answers = || prompts.iter().map(|prompt| tokens(&model, prompt, &greedy(8)).0).collect::<Vec<_>>();
    let before = answers();
    for workload in [Workload::prefill(100), Workload::decode(10)] {
        for repetitions in [1, 3] {
            let measured = model.measure(workload, repetitions).expect("measured");
            assert_eq!((measured.workload, measured.samples.len()), (workload, repetitions));
        }
    }
    assert_eq!(answers(), before);
    // What does not fit is not cut to what does.
    let too_long = Workload::prefill(model.context() + 1);
    assert!(model.measure(too_long, 1).is_err());
    assert_eq!(answers(), before);
}

/// Where an answer goes on for ever it is cut; what comes to an end must be right.
#[test]
fn answers_have_the_form_that_was_asked_for() {
    let model = nano();
    let schema = serde_json::json!({
        "type": "object",
        "properties": {
            "answer": {"type": "integer", "minimum": 0, "maximum": 9999},
            "sure": {"type": "boolean"},
            "words": {"type": "array", "items": {"enum": ["sum", "plus"]}, "maxItems": 2}
        },
        "required": ["answer", "sure"],
        "additionalProperties": false
    });
    let input = ChatInput::from(vec![Message::user("What is 17 plus 25?")]);
    let ask = |parameters: &GenerateParameters| {
        let stream = model.generate_chat(&input, parameters).expect("accepted");
        let (text, info) = stream.collect_text().expect("no error");
        (text, info.expect("an end").finish_reason)
    };
    // The model knows how to think, and would at some temperatures.
    let bound = |most, constraint| greedy(most).with_constraint(constraint).with_constraint_after("");
    let constrained = bound(90, Constraint::json_schema(schema));
    let (greedy_text, reason) = ask(&constrained);
    assert_eq!(reason, FinishReason::Stop, "{greedy_text}");
    // At such a temperature a model knows nothing any more: whatever the logits, the form is kept.
    for (temperature, seed) in (0..4).map(|seed| ([0.8, 100.0][seed as usize % 2], seed)) {
        let (text, reason) = ask(&constrained.clone().with_temperature(temperature).with_seed(seed));
        assert_eq!(reason, FinishReason::Stop, "{text}");
        let document: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(document["answer"].as_f64().is_some_and(|answer| (0.0..=9999.0).contains(&answer)), "{text}");
        assert!(
            document["sure"].is_boolean() && document.as_object().is_some_and(|all| all.len() <= 3),
            "{text}"
        );
    }
    let (word, _) = ask(&bound(20, Constraint::choice(["forty-two", "one hundred"])));
    assert!(["forty-two", "one hundred"].contains(&word.as_str()), "{word}");
    let (number, _) = ask(&bound(20, Constraint::regex("[0-9]{2}")));
    assert!(number.len() == 2 && number.parse::<u8>().is_ok(), "{number}");

    // Beside free answers it is the same, and so are they.
    let prompts = &prompts(&model)[..2];
    let alone: Vec<_> = prompts.iter().map(|prompt| tokens(&model, prompt, &greedy(20)).0).collect();
    let bound: Vec<_> =
        (0..2).map(|_| model.generate_chat(&input, &constrained).expect("accepted")).collect();
    let free: Vec<_> = prompts
        .iter()
        .map(|prompt| model.generate_tokens(prompt.clone(), &greedy(20)).expect("accepted"))
        .collect();
    for stream in bound {
        assert_eq!(stream.collect_text().expect("no error").0, greedy_text);
    }
    for (stream, expected) in free.into_iter().zip(alone) {
        let found: Vec<u32> = stream
            .filter_map(|event| match event.expect("no error") {
                TokenEvent::Token { id, .. } => Some(id),
                _ => None,
            })
            .collect();
        assert_eq!(found, expected);
    }
}
