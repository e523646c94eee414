//! Stop strings against a naive search over the whole text.

use pippin_text::{StopStrings, TextError};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// The match that ends first; of those the longest; of equal strings the first.
fn naive(stops: &[String], text: &str) -> Option<(usize, usize)> {
    let ends = stops.iter().enumerate().flat_map(|(index, stop)| {
        text.char_indices()
            .filter(move |(at, _)| text[*at..].starts_with(stop.as_str()))
            .map(move |(at, _)| (at + stop.len(), at, index))
    });
    ends.min().map(|(_, start, index)| (start, index))
}

fn run(stops: &[String], chunks: &[&str]) -> (String, Option<usize>) {
    let mut matcher = StopStrings::new(stops).unwrap();
    let mut text = String::new();
    for chunk in chunks {
        let output = matcher.push(chunk);
        text += &output.text;
        if output.stopped.is_some() {
            // Nothing comes after.
            let after = matcher.push("more");
            assert_eq!((after.text.as_str(), after.stopped), ("", output.stopped));
            assert_eq!(matcher.finish(), "");
            return (text, output.stopped);
        }
        // What has been shown cannot be the beginning of a match, and nothing is held back without reason.
        let seen: String = chunks.concat();
        assert!(seen.starts_with(&text));
    }
    (text + &matcher.finish(), None)
}

fn cut(text: &str, cuts: &[usize]) -> Vec<String> {
    let mut places: Vec<usize> =
        text.char_indices().map(|(at, _)| at).filter(|at| cuts.contains(&(at % 7))).collect();
    places.push(text.len());
    let mut start = 0;
    places
        .into_iter()
        .map(|end| {
            let piece = text[start..end].to_owned();
            start = end;
            piece
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_naive_search(
        stops in prop::collection::vec("[abé🙂]{1,4}", 0..5),
        text in "[abcé🙂]{0,24}",
        cuts in prop::collection::vec(0usize..7, 0..7),
    ) {
        let chunks = cut(&text, &cuts);
        let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
        let (shown, stopped) = run(&stops, &chunks);
        match naive(&stops, &text) {
            Some((start, index)) => {
                prop_assert_eq!(shown.as_str(), &text[..start]);
                prop_assert_eq!(&stops[stopped.unwrap()], &stops[index]);
            }
            None => prop_assert_eq!((shown.as_str(), stopped), (text.as_str(), None)),
        }
    }

    /// At every moment exactly the longest suffix that begins a stop string is held back.
    #[test]
    fn holds_back_no_more_than_needed(stops in prop::collection::vec("[ab]{2,5}", 1..4), text in "[abc]{0,20}") {
        let mut matcher = StopStrings::new(&stops).unwrap();
        let mut shown = String::new();
        for (at, c) in text.char_indices() {
            let output = matcher.push(&text[at..at + c.len_utf8()]);
            shown += &output.text;
            if output.stopped.is_some() {
                break;
            }
            let seen = &text[..at + 1];
            let held = (0..=seen.len()).find(|start| stops.iter().any(|stop| stop.starts_with(&seen[*start..])));
            prop_assert_eq!(shown.len(), held.unwrap());
        }
    }
}

#[test]
fn overlapping_strings() {
    let stops = |list: &[&str]| list.iter().map(|stop| (*stop).to_owned()).collect::<Vec<_>>();
    assert_eq!(run(&stops(&["aab"]), &["a", "a", "a", "b"]), ("a".to_owned(), Some(0)));
    assert_eq!(run(&stops(&["abcd", "bc"]), &["xabcd"]), ("xa".to_owned(), Some(1)));
    assert_eq!(run(&stops(&["bc", "abc"]), &["xabc"]), ("x".to_owned(), Some(1)));
    assert_eq!(run(&stops(&["same", "same"]), &["same"]), (String::new(), Some(0)));
    assert_eq!(
        run(&stops(&["<|im_end|>"]), &["a <", "|im_", "start|>"]),
        ("a <|im_start|>".to_owned(), None)
    );
}

#[test]
fn impossible_strings_are_refused() {
    let error = StopStrings::new(["a", ""]).unwrap_err();
    assert!(matches!(error, TextError::InvalidStopString { index: 1, .. }), "{error}");
    let error = StopStrings::new(["a".repeat(100_000)]).unwrap_err().to_string();
    assert!(error.contains("stop string 0"), "{error}");
    let mut none = StopStrings::new(Vec::<String>::new()).unwrap();
    assert!(none.is_empty());
    assert_eq!(none.push("text").text, "text");
}
