use super::GenerateParameters;

/// What bias and penalties do to the logit of a token. All of it, and in this order: the bias is added; the
/// [repetition penalty](GenerateParameters::repetition_penalty) divides it, or multiplies it below zero; the presence penalty is
/// subtracted, and the frequency penalty as often as is said here. What was finite stays so at each of these steps: beyond
/// [`f32::MAX`] it is that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The token.
    pub token: u32,
    /// What is added.
    pub bias: Option<f32>,
    /// Whether the repetition penalty counts it.
    pub repeats: bool,
    /// Whether the presence penalty counts it.
    pub is_present: bool,
    /// How often the frequency penalty counts it.
    pub times: u32,
}

/// What [`apply`] changes of so many logits, each token once, in ascending order.
pub(super) fn changes(parameters: &GenerateParameters, history: &[u32], vocab: usize) -> Vec<Change> {
    let is_one = |token: &u32| (*token as usize) < vocab;
    let none = |token| Change { token, bias: None, repeats: false, is_present: false, times: 0 };
    let biases = parameters.logit_bias.iter().filter(|(token, _)| is_one(token));
    let mut changes: Vec<Change> =
        biases.map(|(token, bias)| Change { bias: Some(*bias), ..none(*token) }).collect();
    let tokens = |penalty: Option<f32>, size| {
        let tokens = active(penalty).map_or(&[][..], |_| last(history, size));
        tokens.iter().copied().filter(is_one)
    };
    let p = parameters;
    let repeated = tokens(p.repetition_penalty, p.repetition_context_size);
    changes.extend(repeated.map(|token| Change { repeats: true, ..none(token) }));
    let present = tokens(p.presence_penalty, p.presence_context_size);
    changes.extend(present.map(|token| Change { is_present: true, ..none(token) }));
    let frequent = tokens(p.frequency_penalty, p.frequency_context_size);
    changes.extend(frequent.map(|token| Change { times: 1, ..none(token) }));
    changes.sort_unstable_by_key(|change| change.token);
    changes.dedup_by(|next, first| {
        let is_same = next.token == first.token;
        if is_same {
            first.bias = first.bias.or(next.bias);
            first.repeats |= next.repeats;
            first.is_present |= next.is_present;
            first.times += next.times;
        }
        is_same
    });
    changes
}

/// Applies bias and penalties to the logits that follow `history`, the prompt and what has been generated so far.
///
/// `window` is scratch space.
pub(super) fn apply(
    parameters: &GenerateParameters,
    history: &[u32],
    logits: &mut [f32],
    window: &mut Vec<u32>,
) {
    for (token, bias) in &parameters.logit_bias {
        if let Some(logit) = logits.get_mut(*token as usize) {
            change(logit, |logit| logit + bias);
        }
    }
    if let Some(penalty) = active(parameters.repetition_penalty) {
        distinct(history, parameters.repetition_context_size, window);
        for token in window.iter() {
            if let Some(logit) = logits.get_mut(*token as usize) {
                change(logit, |logit| if logit < 0.0 { logit * penalty } else { logit / penalty });
            }
        }
    }
    if let Some(penalty) = active(parameters.presence_penalty) {
        distinct(history, parameters.presence_context_size, window);
        for token in window.iter() {
            if let Some(logit) = logits.get_mut(*token as usize) {
                change(logit, |logit| logit - penalty);
            }
        }
    }
    if let Some(penalty) = active(parameters.frequency_penalty) {
        for token in last(history, parameters.frequency_context_size) {
            if let Some(logit) = logits.get_mut(*token as usize) {
                change(logit, |logit| logit - penalty);
            }
        }
    }
}

/// Changes a logit. One that was finite stays so, however large the change: what is infinite is the model's fault, or forbidden.
fn change(logit: &mut f32, change: impl FnOnce(f32) -> f32) {
    let changed = change(*logit);
    *logit = if logit.is_finite() { changed.clamp(f32::MIN, f32::MAX) } else { changed };
}

fn active(penalty: Option<f32>) -> Option<f32> {
    penalty.filter(|penalty| *penalty != 0.0)
}

/// The last `size` tokens, all of them when `size` is 0 (as Python's `tokens[-0:]` has it).
fn last(history: &[u32], size: usize) -> &[u32] {
    match size {
        0 => history,
        size => &history[history.len().saturating_sub(size)..],
    }
}

fn distinct(history: &[u32], size: usize, window: &mut Vec<u32>) {
    window.clear();
    window.extend_from_slice(last(history, size));
    window.sort_unstable();
    window.dedup();
}
