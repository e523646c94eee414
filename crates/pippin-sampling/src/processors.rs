use super::GenerateParameters;

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
