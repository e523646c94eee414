//! Measures what guessing ahead gains: the tables of `bench/results/`.
//!
//! ```console
//! $ cargo run --release -p pippin-engine --example speculation -- [MODEL] [-n TOKENS] [-k GUESSES] [-r REPETITIONS]
//! ```
//!
//! Each text is continued with and without guesses, by turns, greedily and sampled; the answers must be the same. Then the time of
//! a step by its rows, which is the limit: a step of `k + 1` rows gives `k + 1` tokens at most.

use std::time::{Duration, Instant};

use pippin_engine::{GenerateParameters, LoadOptions, ModelContainer, TokenEvent};

type Error = Box<dyn std::error::Error>;

/// A paragraph that is copied, and the beginning of the next copy.
const PARAGRAPH: &str = "Once upon a time there was a small fox who lived near a river. Every morning the fox walked to \
the old tree and looked for berries. One day the fox met a grey owl who had lost a key. They looked for the key until the evening, \
and at last they found it under a stone. The owl was very happy and gave the fox a lantern. ";

/// One answer: its tokens, the time from the first to the last, tokens that were guessed and that were right.
struct Answer {
    tokens: Vec<u32>,
    time: Duration,
    guessed: (usize, usize),
}

fn answer(model: &ModelContainer, prompt: &[u32], parameters: &GenerateParameters) -> Result<Answer, Error> {
    let mut tokens = Vec::new();
    for event in model.generate_tokens(prompt.to_vec(), parameters)? {
        match event? {
            TokenEvent::Token { id, .. } => tokens.push(id),
            TokenEvent::Info(info) => {
                let guessed = (info.drafted_tokens, info.accepted_tokens);
                return Ok(Answer { tokens, time: info.generate_time, guessed });
            }
            _ => {}
        }
    }
    Err("the answer has no end".into())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<(), Error> {
    let (mut name, mut tokens, mut most, mut repetitions) = ("pippin-nano".to_owned(), 256, 8, 9);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number =
            || -> Result<usize, Error> { Ok(arguments.next().ok_or("a number is missing")?.parse()?) };
        match argument.as_str() {
            "-n" => tokens = number()?,
            "-k" => most = number()?,
            "-r" => repetitions = number()?,
            _ => name = argument,
        }
    }
    let model = ModelContainer::load(&name, &LoadOptions::default())?;
    let copied = format!("{}{}", PARAGRAPH.repeat(3), &PARAGRAPH[..60]);
    let sentence = "The owl was very happy and gave the fox a lantern. ".repeat(24);
    let greedy = GenerateParameters::greedy();
    let sampled = GenerateParameters::default().with_seed(1);
    let wild = GenerateParameters::default().with_temperature(1.2).with_seed(1);
    let cases = [
        ("one sentence again and again, greedy", &sentence, &greedy),
        ("copies, greedy", &copied, &greedy),
        ("copies, temperature 0.6", &copied, &sampled),
        ("story, greedy", &PARAGRAPH[..60].to_owned(), &greedy),
        ("story, temperature 0.6", &PARAGRAPH[..60].to_owned(), &sampled),
        ("story, temperature 1.2", &PARAGRAPH[..60].to_owned(), &wild),
    ];
    println!("| text | tokens | tokens/s without | with | factor | guessed | right |");
    println!("|---|---|---|---|---|---|---|");
    for (title, text, parameters) in cases {
        let prompt = model.encode(text)?;
        // No stop token: all answers are as long.
        let stops = model.processor().stop_tokens.iter().map(|token| (token, -1e9));
        let without = parameters.clone().with_max_tokens(tokens).with_logit_bias(stops);
        let with = without.clone().with_prompt_lookup(most);
        let (mut rates, mut last) = ([Vec::new(), Vec::new()], None);
        for repetition in 0..=repetitions {
            let first = answer(&model, &prompt, &without)?;
            let second = answer(&model, &prompt, &with)?;
            if first.tokens != second.tokens {
                return Err("guesses have changed the answer".into());
            }
            if repetition > 0 {
                let rate = |answer: &Answer| (answer.tokens.len() - 1) as f64 / answer.time.as_secs_f64();
                rates[0].push(rate(&first));
                rates[1].push(rate(&second));
            }
            last = Some(second);
        }
        let factors = rates[1].iter().zip(&rates[0]).map(|(with, without)| with / without).collect();
        let (guessed, right) = last.map(|answer| answer.guessed).unwrap_or_default();
        let [without, with] = rates.map(median);
        let factor = median(factors);
        println!("| {title} | {tokens} | {without:.0} | {with:.0} | {factor:.2} | {guessed} | {right} |");
    }
    println!();
    steps(&model)?;
    index(&model)
}

/// What a step costs by its rows: prompts that have all but their last tokens in the cache.
fn steps(model: &ModelContainer) -> Result<(), Error> {
    let text = model.encode(&PARAGRAPH.repeat(4))?;
    println!("| rows | milliseconds | of one row |");
    println!("|---|---|---|");
    let mut one = f64::NAN;
    for rows in [1, 2, 3, 4, 5, 7, 9, 13, 17, 33] {
        let mut times = Vec::new();
        for _ in 0..30 {
            let parameters = GenerateParameters::greedy().with_max_tokens(1);
            let prompt = &text[..128];
            answer(model, prompt, &GenerateParameters::greedy().with_max_tokens(0))?;
            let longer = [prompt, &vec![times.len() as u32 + 7; rows - 1]].concat();
            let begin = Instant::now();
            answer(model, &longer, &parameters)?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            model.clear_cache()?;
        }
        let time = median(times);
        if rows == 1 {
            one = time;
        }
        println!("| {rows} | {time:.3} | {:.2} |", time / one);
    }
    println!();
    Ok(())
}

/// What entering a long prompt costs, beside reading it.
fn index(model: &ModelContainer) -> Result<(), Error> {
    let text = model.encode(PARAGRAPH)?;
    let prompt: Vec<u32> = text.iter().copied().cycle().take(model.context().min(4096) - 8).collect();
    let mut times = [Vec::new(), Vec::new()];
    for repetition in 0..10 {
        for (most, times) in [0, 8].into_iter().zip(&mut times) {
            let parameters = GenerateParameters::greedy().with_max_tokens(1).with_prompt_lookup(most);
            let begin = Instant::now();
            answer(model, &prompt, &parameters)?;
            if repetition > 0 {
                times.push(begin.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    let [without, with] = times.map(median);
    println!("entering a prompt of {} tokens: {:.3} ms", prompt.len(), with - without);
    Ok(())
}
