use pippin::{GenerateParameters, Message};
use serde_json::{Value, json};

use crate::support::{question, server};

const CHAT: &str = "/v1/chat/completions";

fn text_of(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().expect("a text")
}

#[test]
fn an_answer_is_the_models_own() {
    let server = server();
    let answer = server.post(CHAT, &question("What is 17 plus 25?")).answer();
    let model = server.cache.get("pippin-nano").expect("loads");
    let parameters = GenerateParameters::greedy().with_max_tokens(12);
    let input = vec![Message::user("What is 17 plus 25?")].into();
    let (text, info) =
        model.generate_chat(&input, &parameters).expect("accepted").collect_text().expect("answers");
    let info = info.expect("numbers");
    assert_eq!(text_of(&answer), text);
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "pippin-nano");
    assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")));
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    assert_eq!(answer["choices"][0]["finish_reason"], info.finish_reason.as_str());
    let usage = &answer["usage"];
    assert_eq!(usage["prompt_tokens"], info.prompt_tokens);
    assert_eq!(usage["completion_tokens"], info.generated_tokens);
    assert_eq!(usage["total_tokens"], info.prompt_tokens + info.generated_tokens);
    assert!(usage["prompt_tokens_details"]["cached_tokens"].is_u64());
}

#[test]
fn a_stream_adds_up_to_the_answer() {
    let server = server();
    let mut request = question("What is the capital of France?");
    let whole = server.post(CHAT, &request).answer();
    request["stream"] = json!(true);
    let events = server.events(CHAT, &request);
    let mut text = String::new();
    for event in &events {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!(event["id"], events[0]["id"]);
        assert!(event.get("usage").is_none());
        text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    assert_eq!(text, text_of(&whole));
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let last = &events.last().expect("events")["choices"][0];
    assert_eq!(last["finish_reason"], whole["choices"][0]["finish_reason"]);
    assert_eq!(last["delta"], json!({}));

    request["stream_options"] = json!({"include_usage": true});
    let mut events = server.events(CHAT, &request);
    let last = events.pop().expect("usage");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
    assert!(events.iter().all(|event| event["usage"].is_null() && event.get("usage").is_some()));
}

#[test]
fn several_answers_have_seeds_that_follow_each_other() {
    let server = server();
    let mut request = question("Tell me a story.");
    request["temperature"] = json!(1.5);
    request["seed"] = json!(-7);
    request["n"] = json!(3);
    let answer = server.post(CHAT, &request).answer();
    let choices = answer["choices"].as_array().expect("a list");
    assert_eq!(choices.len(), 3);
    let texts: Vec<&str> =
        choices.iter().map(|choice| choice["message"]["content"].as_str().expect("text")).collect();
    assert_ne!(texts[0], texts[1]);
    // The second is what its seed alone gives.
    request["seed"] = json!(-6);
    request["n"] = json!(1);
    let second = server.post(CHAT, &request).answer();
    assert_eq!(text_of(&second), texts[1]);
    assert_eq!(second["usage"]["prompt_tokens"], answer["usage"]["prompt_tokens"]);

    request["n"] = json!(2);
    request["stream"] = json!(true);
    let events = server.events(CHAT, &request);
    for index in 0..2 {
        let own = events.iter().map(|event| &event["choices"][0]).filter(|choice| choice["index"] == index);
        assert_eq!(own.clone().filter(|choice| choice["finish_reason"].is_string()).count(), 1);
        let text: String = own.filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(text, texts[index + 1]);
    }
}

#[test]
fn log_probabilities_are_of_the_tokens_that_were_written() {
    let server = server();
    let mut request = question("What is the capital of France?");
    request["logprobs"] = json!(true);
    let answer = server.post(CHAT, &request).answer();
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().expect("a list");
    let text: String = tokens.iter().map(|token| token["token"].as_str().expect("a text")).collect();
    assert_eq!(text.trim_start(), text_of(&answer).trim_start());
    for token in tokens {
        assert!(token["logprob"].as_f64().expect("a number") <= 0.0);
        assert_eq!(token["bytes"][0], token["token"].as_str().expect("a text").as_bytes()[0]);
    }
    request["stream"] = json!(true);
    let events = server.events(CHAT, &request);
    let streamed: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .collect();
    assert_eq!(streamed, tokens.iter().collect::<Vec<_>>());
}

#[test]
fn stop_texts_end_an_answer() {
    let server = server();
    let mut request = question("What is the capital of France?");
    let whole = server.post(CHAT, &request).answer();
    let text = text_of(&whole);
    let stop: String = text.chars().skip(4).take(4).collect();
    for value in [json!(stop), json!(["never to be seen", stop])] {
        request["stop"] = value;
        let answer = server.post(CHAT, &request).answer();
        assert_eq!(text_of(&answer), text.split(&stop).next().expect("a part"));
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
}

#[test]
fn fields_have_their_effect() {
    let server = server();
    let plain = server.post(CHAT, &question("Hello!")).answer();
    let changed = |field: &str, value: Value| {
        let mut request = question("Hello!");
        request[field] = value;
        server.post(CHAT, &request).answer()
    };
    assert_eq!(changed("max_tokens", json!(1))["usage"]["completion_tokens"], 1);
    assert_eq!(changed("max_completion_tokens", json!(2))["usage"]["completion_tokens"], 2);
    let first = server.post(
        "/tokenize",
        &json!({"model": "pippin-nano", "prompt": text_of(&plain), "add_special_tokens": false}),
    );
    let token = first.answer()["tokens"][0].to_string();
    assert_ne!(text_of(&changed("logit_bias", json!({token: -100}))), text_of(&plain));
    // Null is as good as absent, and what nobody knows is passed over.
    assert_eq!(text_of(&changed("stop", Value::Null)), text_of(&plain));
    assert_eq!(text_of(&changed("user", json!("someone"))), text_of(&plain));
    assert_eq!(text_of(&changed("never_heard_of", json!({"a": 1}))), text_of(&plain));
    // With one token left to draw from, heat changes nothing.
    let mut hot = question("Hello!");
    hot["temperature"] = json!(2);
    hot["top_k"] = json!(1);
    assert_eq!(text_of(&server.post(CHAT, &hot).answer()), text_of(&plain));
}

#[test]
fn an_answer_is_continued() {
    let server = server();
    let request = json!({
        "messages": [
            {"role": "user", "content": "What is the capital of France?"},
            {"role": "assistant", "content": "The capital of"},
        ],
        "continue_final_message": true,
        "temperature": 0,
        "max_tokens": 2,
    });
    // Without a model's name, the first of the server's answers.
    let answer = server.post(CHAT, &request).answer();
    assert_eq!(answer["model"], "pippin-nano");
    let template = server.post("/apply-template", &request).answer();
    assert!(template["prompt"].as_str().expect("a text").ends_with("The capital of"));
}

#[test]
fn many_clients_get_what_each_would_get_alone() {
    let server = server();
    let questions: Vec<String> =
        (0..12).map(|number| format!("What is {number} plus {}?", number * 3)).collect();
    let alone: Vec<Value> =
        questions.iter().map(|text| server.post(CHAT, &question(text)).answer()["choices"].clone()).collect();
    let together: Vec<Value> = std::thread::scope(|scope| {
        let ask = |text: &String| server.post(CHAT, &question(text)).answer()["choices"].clone();
        let clients: Vec<_> = questions.iter().map(|text| scope.spawn(move || ask(text))).collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn the_likeliest_tokens_stand_beside_those_that_were_written() {
    let server = server();
    let mut request = question("What is the capital of France?");
    (request["logprobs"], request["top_logprobs"]) = (json!(true), json!(3));
    let answer = server.post(CHAT, &request).answer();
    for token in answer["choices"][0]["logprobs"]["content"].as_array().expect("a list") {
        let top = token["top_logprobs"].as_array().expect("a list");
        assert_eq!(top.len(), 3);
        // Greedy: what was written is the likeliest.
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&token["token"], &token["logprob"]));
        assert!(top.windows(2).all(|pair| pair[0]["logprob"].as_f64() >= pair[1]["logprob"].as_f64()));
    }
}

#[test]
fn ends_can_be_forbidden_and_chosen() {
    let server = server();
    let model = server.cache.get("pippin-nano").expect("loads");
    let mut request = question("What is 17 plus 25?");
    request["max_tokens"] = json!(60);
    let plain = server.post(CHAT, &request).answer();
    let length = plain["usage"]["completion_tokens"].as_u64().expect("a number");
    assert_eq!(plain["choices"][0]["finish_reason"], "stop");
    request["ignore_eos"] = json!(true);
    let on = server.post(CHAT, &request).answer();
    assert_eq!(
        (&on["choices"][0]["finish_reason"], &on["usage"]["completion_tokens"]),
        (&json!("length"), &json!(60))
    );
    request["ignore_eos"] = json!(false);
    request["min_tokens"] = json!(length + 5);
    let longer = server.post(CHAT, &request).answer();
    assert!(longer["usage"]["completion_tokens"].as_u64() >= Some(length + 5));
    // The second token of the answer ends it.
    request["min_tokens"] = json!(null);
    let tokens = model.tokenizer().encode(text_of(&plain), false).expect("tokens");
    request["stop_token_ids"] = json!([tokens[1]]);
    let cut = server.post(CHAT, &request).answer();
    assert_eq!(text_of(&cut), model.decode(&tokens[..1]).expect("text"));
    assert_eq!(cut["choices"][0]["finish_reason"], "stop");
}

#[test]
fn a_stream_can_tell_how_much_of_the_prompt_has_been_read() {
    let server =
        crate::support::server_with(pippin::ModelCache::new(crate::support::options()), |options| options);
    let mut request = question(&"One two three four five six seven. ".repeat(120));
    (request["stream"], request["return_progress"]) = (json!(true), json!(true));
    let events = server.events(CHAT, &request);
    let told: Vec<(u64, u64)> = events
        .iter()
        .filter_map(|event| {
            let progress = event.get("prompt_progress")?;
            Some((progress["processed"].as_u64()?, progress["total"].as_u64()?))
        })
        .collect();
    let total = told.first().expect("progress").1;
    assert!(total > 600 && told.iter().all(|(_, all)| *all == total), "{told:?}");
    assert!(told.windows(2).all(|pair| pair[0].0 < pair[1].0), "{told:?}");
    assert_eq!((told[0].0, told.last().expect("progress").0), (0, total));
    // Without being asked, it says nothing.
    request["return_progress"] = json!(false);
    assert!(server.events(CHAT, &request).iter().all(|event| event.get("prompt_progress").is_none()));
}
