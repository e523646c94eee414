use pippin::GenerateParameters;
use serde_json::{Value, json};

use crate::support::server;

const PATH: &str = "/v1/completions";

fn request(prompt: Value) -> Value {
    json!({"model": "pippin-nano", "prompt": prompt, "temperature": 0, "max_tokens": 6})
}

#[test]
fn a_text_is_continued_as_it_stands() {
    let server = server();
    let answer = server.post(PATH, &request(json!("Once upon a time"))).answer();
    let model = server.cache.get("pippin-nano").expect("loads");
    let parameters = GenerateParameters::greedy().with_max_tokens(6);
    let stream = model.generate_text("Once upon a time", &parameters).expect("accepted");
    let (text, _) = stream.collect_text().expect("continues");
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["text"], text);
    assert_eq!(answer["choices"][0]["logprobs"], Value::Null);
    // Tokens are the same, and so is a stream.
    let tokens = model.encode("Once upon a time").expect("tokens");
    let again = server.post(PATH, &request(json!(tokens))).answer();
    assert_eq!(again["choices"], answer["choices"]);
    let mut streamed = request(json!("Once upon a time"));
    streamed["stream"] = json!(true);
    let events = server.events(PATH, &streamed);
    let pieces: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(pieces, text);
    assert_eq!(
        events.last().expect("events")["choices"][0]["finish_reason"],
        answer["choices"][0]["finish_reason"]
    );
}

#[test]
fn several_prompts_are_answered_in_their_order() {
    let server = server();
    let mut all = request(json!(["Once upon", "The sun", "Hello"]));
    all["n"] = json!(2);
    let answer = server.post(PATH, &all).answer();
    let choices = answer["choices"].as_array().expect("a list");
    assert_eq!(choices.len(), 6);
    let mut prompt_tokens = 0;
    for (index, prompt) in ["Once upon", "The sun", "Hello"].iter().enumerate() {
        let alone = server.post(PATH, &request(json!(prompt))).answer();
        prompt_tokens += alone["usage"]["prompt_tokens"].as_u64().expect("a number");
        for choice in &choices[2 * index..2 * index + 2] {
            assert_eq!(choice["text"], alone["choices"][0]["text"]);
        }
        assert_eq!(choices[2 * index]["index"], 2 * index);
    }
    assert_eq!(answer["usage"]["prompt_tokens"], prompt_tokens);
}

#[test]
fn a_prompt_is_shown_again_with_its_log_probabilities() {
    let server = server();
    let model = server.cache.get("pippin-nano").expect("loads");
    let tokens = model.encode("Once upon a time").expect("tokens");
    let scores = model.score(&tokens).expect("scores");
    for max_tokens in [0, 3] {
        let mut echo = request(json!("Once upon a time"));
        echo["echo"] = json!(true);
        echo["logprobs"] = json!(0);
        echo["max_tokens"] = json!(max_tokens);
        let answer = server.post(PATH, &echo).answer();
        let choice = &answer["choices"][0];
        assert!(choice["text"].as_str().expect("a text").starts_with("Once upon a time"));
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().expect("a list");
        assert_eq!(logprobs.len(), tokens.len() + max_tokens);
        assert_eq!(logprobs[0], Value::Null);
        for (found, expected) in logprobs[1..].iter().zip(&scores) {
            assert!((found.as_f64().expect("a number") - f64::from(*expected)).abs() < 1e-5);
        }
        assert_eq!(choice["logprobs"]["text_offset"].as_array().expect("a list").len(), logprobs.len());
        assert_eq!(choice["finish_reason"], "length");

        echo["stream"] = json!(true);
        let events = server.events(PATH, &echo);
        let parts = |field: &str| -> Vec<Value> {
            let lists = events.iter().filter_map(|event| event["choices"][0]["logprobs"][field].as_array());
            lists.flatten().cloned().collect()
        };
        for field in ["token_logprobs", "tokens", "text_offset"] {
            assert_eq!(&parts(field), choice["logprobs"][field].as_array().expect("a list"), "{field}");
        }
    }
    let mut echo = request(json!("Once upon"));
    echo["echo"] = json!(true);
    let answer = server.post(PATH, &echo).answer();
    assert!(answer["choices"][0]["text"].as_str().expect("a text").starts_with("Once upon"));
    assert_eq!(answer["choices"][0]["logprobs"], Value::Null);
}

#[test]
fn evaluation_harnesses_find_what_they_need() {
    // As lm-evaluation-harness asks: the prompt again, with the likeliest token in each place.
    let server = server();
    let model = server.cache.get("pippin-nano").expect("loads");
    let tokens = model.encode("The capital of France is Paris").expect("tokens");
    let request = json!({"prompt": [tokens], "max_tokens": 1, "logprobs": 1, "echo": true, "temperature": 0, "seed": 1234});
    let answer = server.post("/v1/completions", &request).answer();
    let logprobs = &answer["choices"][0]["logprobs"];
    let list = |field: &str| logprobs[field].as_array().expect("a list").clone();
    let (texts, own, top) = (list("tokens"), list("token_logprobs"), list("top_logprobs"));
    assert_eq!((texts.len(), own.len(), top.len()), (tokens.len() + 1, tokens.len() + 1, tokens.len() + 1));
    assert!(own[0].is_null() && top[0].is_null());
    let scores = model.score(&tokens).expect("scores");
    for (index, score) in (1..).zip(scores) {
        assert!((own[index].as_f64().expect("a number") - f64::from(score)).abs() < 1e-4);
        let all = top[index].as_object().expect("an object");
        let best = all.values().map(|one| one.as_f64().expect("a number")).fold(f64::MIN, f64::max);
        assert!(best >= own[index].as_f64().expect("a number") && all.len() <= 2);
        assert!(all.contains_key(texts[index].as_str().expect("a text")));
    }
}
