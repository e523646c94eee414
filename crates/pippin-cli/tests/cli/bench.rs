//! Benchmarks.

use crate::support::{TinyModel, pippin};

#[test]
fn json_rows_name_test_tokens_mean_and_deviation() {
    let model = TinyModel::new();
    let rows =
        pippin(&["bench", model.write(), "-p", "8,16", "-n", "4", "-r", "3", "-o", "json", "--threads", "1"])
            .json();
    let rows = rows.as_array().expect("an array");
    let tests: Vec<&str> = rows.iter().filter_map(|row| row["test"].as_str()).collect();
    assert_eq!(tests, ["pp8", "pp16", "tg4"]);
    for row in rows {
        assert_eq!(row["repetitions"], 3);
        assert_eq!(row["samples"].as_array().map(Vec::len), Some(3));
        assert!(row["tokens_per_second_mean"].as_f64() > Some(0.0));
        assert!(row["tokens_per_second_stddev"].as_f64() >= Some(0.0));
        for name in ["bytes_per_token", "bandwidth_share", "operations_per_token", "peak_share"] {
            assert!(row[name].as_f64() > Some(0.0), "{name}");
        }
        assert_eq!((&row["threads"], &row["numerics"]), (&1.into(), &"fast".into()));
        for name in ["kind", "tokens", "model", "parameters", "weight_bytes", "device", "version"] {
            assert!(!row[name].is_null(), "{name}");
        }
    }
}

#[test]
fn tables_and_csv_have_a_line_for_each_test() {
    let model = TinyModel::new();
    let folder = model.write();
    let table = pippin(&["bench", folder, "-p", "8", "-n", "2-4+2", "-r", "1"]).answer();
    let (table, roofline) = table.split_once("\n\n").expect("a table, and what it says of the machine");
    assert_eq!(table.lines().count(), 5, "{table}");
    assert_eq!(roofline.lines().count(), 3, "{roofline}");
    assert!(
        roofline.lines().all(|line| line.contains(" per token, ")
            && (line.contains(" % of ") || line.contains("the processor's caches"))),
        "{roofline}"
    );
    assert!(table.contains(" pp8 ") && table.contains(" tg2 ") && table.contains(" tg4 "), "{table}");
    let csv = pippin(&["bench", folder, "-p", "8", "-n", "0", "-r", "1", "-o", "csv", "--exact"]).answer();
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(csv.contains("pp8,prefill,8,1,") && csv.contains(",exact,"), "{csv}");
}

#[test]
fn the_machine_is_measured_by_itself() {
    let limits = pippin(&["bench", "--machine", "-o", "json", "--threads", "1"]).json();
    for name in ["bytes_per_second", "float_operations_per_second", "byte_operations_per_second"] {
        assert!(limits[name].as_f64() > Some(1e6), "{name}: {limits}");
    }
    pippin(&["bench", "--machine", "-p", "8"]).fails(2, &["--machine"]);
}

#[test]
fn tests_must_fit_the_model() {
    let model = TinyModel::new();
    pippin(&["bench", model.write(), "-p", "513", "-n", "0"]).fails(2, &["513", "512"]).hints("512");
}

#[test]
fn answers_are_written_with_guesses_too() {
    let words =
        ["bench", "-p", "0", "-n", "24", "-r", "2", "--prompt-lookup", "--draft-model", "pippin-nano"];
    let rows = pippin(&[&words[..], &["--draft-tokens", "3", "-o", "json"]].concat()).json();
    let rows = rows.as_array().expect("an array");
    let tests: Vec<&str> = rows.iter().filter_map(|row| row["test"].as_str()).collect();
    assert_eq!(tests, ["tg24", "tg24+lookup", "tg24+draft"]);
    assert!(rows[0].get("guessed").is_none());
    for row in &rows[1..] {
        assert_eq!((&row["tokens"], &row["samples"].as_array().map(Vec::len)), (&24.into(), &Some(2)));
        assert!(row["tokens_per_second_mean"].as_f64() > Some(0.0), "{row}");
        assert!(row["guessed"]["right"].as_u64() <= row["guessed"]["drafted"].as_u64(), "{row}");
    }
    let text = pippin(&["bench", "-p", "0", "-n", "8", "-r", "1", "--prompt-lookup=2"]).answer();
    assert!(text.contains(" tg8+lookup ") && text.contains("tg8+lookup: "), "{text}");
    // As for an answer, 0 is off.
    let text = pippin(&["bench", "-p", "0", "-n", "8", "-r", "1", "--prompt-lookup=0"]).answer();
    assert!(text.contains("tg8") && !text.contains("lookup"), "{text}");
    pippin(&["bench", "--draft-tokens", "3"]).fails(2, &["--draft-model"]);
}
