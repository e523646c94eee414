//! What a constraint leaves no choice about, and looks ahead.

mod common;

use std::sync::LazyLock;

use common::{Random, Tokens};
use pippin_grammar::{Constraint, Guide};
use proptest::prelude::*;
use serde_json::json;

static NANO: LazyLock<Tokens> = LazyLock::new(Tokens::nano);
static BYTES: LazyLock<Tokens> = LazyLock::new(Tokens::bytes);
static PIECES: LazyLock<Tokens> = LazyLock::new(Tokens::pieces);

fn form() -> Constraint {
    Constraint::json_schema(json!({
        "type": "object",
        "properties": {
            "description": {"type": "string", "maxLength": 9},
            "coordinates": {"type": "array", "items": {"enum": ["northern", "northwestern"]}, "minItems": 1, "maxItems": 3}
        },
        "required": ["description", "coordinates"],
        "additionalProperties": false
    }))
}

fn accept(guide: &mut Guide, tokens: &[u32]) {
    tokens.iter().for_each(|token| assert!(!guide.accept(*token).expect("an allowed token")));
}

#[test]
fn what_is_forced_is_written_as_the_tokenizer_would() {
    let guide = NANO.compile(&Constraint::regex("(yes|no), the answer is final[.!]")).expect("it compiles");
    assert!(guide.forced().is_empty(), "there is a choice");
    let mut guide = guide.clone();
    let encode = |text: &str| NANO.tokenizer.encode(text, false).expect("tokens");
    accept(&mut guide, &encode("yes"));
    assert_eq!(guide.forced(), encode(", the answer is final"));
    // Whatever pieces came before.
    let forced = guide.forced();
    accept(&mut guide, &forced[..2]);
    assert_eq!(guide.forced(), forced[2..]);
}

#[test]
fn markers_are_forced_too() {
    let [think, end] = ["<think>", "</think>"].map(|token| BYTES.id(token));
    let grammar = format!("start: <[{think}]> \"a\" /[bc]/ <[{end}]> \"done\"");
    let mut guide = BYTES.compile(&Constraint::grammar(grammar)).expect("it compiles");
    assert_eq!(guide.forced(), [think, u32::from(b'a')]);
    accept(&mut guide, &[think, u32::from(b'a'), u32::from(b'b')]);
    assert_eq!(guide.forced()[0], end);
}

/// Everything a guide says, for comparison.
fn said(guide: &Guide) -> (Vec<u32>, Vec<u32>) {
    let mut guide = guide.clone();
    (guide.mask().expect("a mask").words().to_vec(), guide.forced())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn looking_ahead_shows_what_will_be_and_changes_nothing(seed in any::<u64>(), which in 0..3_usize) {
        let tokens = [&*NANO, &*BYTES, &*PIECES][which];
        let mut guide = tokens.compile(&form()).expect("it compiles");
        let mut random = Random(seed);
        for _ in 0..60 {
            let before = said(&guide);
            let forced = guide.forced();
            // Some of what is guessed may be wrong.
            let mut guesses = forced.clone();
            if random.below(4) == 0 {
                guesses.push(random.below(200) as u32);
            }
            let masks = guide.ahead(&guesses);
            prop_assert!(masks.len() <= guesses.len());
            let mut follower = guide.clone();
            for (guess, mask) in guesses.iter().zip(&masks) {
                prop_assert!(follower.mask().expect("a mask").allows(*guess));
                prop_assert!(!follower.accept(*guess).expect("an allowed token"));
                let expected = follower.mask().expect("a mask");
                prop_assert_eq!(expected.words(), mask.words());
            }
            if let Some(wrong) = guesses.get(masks.len()) {
                let is_allowed = follower.mask().expect("a mask").allows(*wrong);
                prop_assert!(!is_allowed || follower.accept(*wrong).expect("allowed"), "it could have gone on");
            }
            prop_assert_eq!(said(&guide), before);
            let mask = guide.mask().expect("a mask");
            let allowed: Vec<u32> = (0..mask.vocab() as u32).filter(|id| mask.allows(*id)).collect();
            if let Some(first) = forced.first() {
                prop_assert!(mask.allows(*first), "{first} is forced, and not allowed");
            }
            if guide.accept(allowed[random.below(allowed.len())]).expect("an allowed token") {
                break;
            }
        }
    }
}
