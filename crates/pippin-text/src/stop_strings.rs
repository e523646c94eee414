//! Texts that end an answer.

use crate::error::{Result, TextError};

/// All stop strings together may have this many bytes.
const MAX_TOTAL: usize = 64 << 10;

/// What [`StopStrings::push`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopOutput {
    /// Text that is certainly not part of a stop string: show it now.
    pub text: String,
    /// The index of the stop string that was found; generation ends, and nothing more will come out.
    pub stopped: Option<usize>,
}

/// Finds stop strings in a stream of text, whichever way the stream is cut.
///
/// Text that may still turn out to be the beginning of a stop string is held back; everything else passes at once. The
/// match that *ends* first wins; of several that end at the same place, the longest. The stop string itself and
/// everything after it are swallowed.
///
/// The matcher is an Aho-Corasick automaton over bytes: its state is the longest suffix of the text so far that begins a
/// stop string, which is exactly the text to hold back. Each byte takes constant time on average, however many stop
/// strings there are.
///
/// ```
/// use pippin_text::StopStrings;
///
/// let mut stop = StopStrings::new(["\nUser:", "<end>"])?;
/// assert_eq!(stop.push("1 < 2 <e").text, "1 < 2 ");
/// assert_eq!(stop.push("lse\n").text, "<else");
/// assert_eq!(stop.finish(), "\n");
/// # Ok::<(), pippin_text::TextError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StopStrings {
    nodes: Vec<Node>,
    state: usize,
    held: String,
    stopped: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Sorted by byte.
    next: Vec<(u8, usize)>,
    /// The state of the longest proper suffix that is also a prefix of a stop string.
    fail: usize,
    /// Bytes from the root: the length of the text held back in this state.
    depth: usize,
    /// The longest stop string that ends here: its index and length.
    found: Option<(usize, usize)>,
}

impl StopStrings {
    /// Builds the matcher. An empty list never stops; an empty string is an error, because it would always match.
    pub fn new<S: AsRef<str>>(strings: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut nodes = vec![Node::default()];
        let mut total = 0;
        for (index, string) in strings.into_iter().enumerate() {
            let string = string.as_ref();
            total += string.len();
            let problem = if string.is_empty() {
                "is empty; remove it".to_owned()
            } else if total > MAX_TOTAL {
                format!("all stop strings together exceed {MAX_TOTAL} bytes; give fewer or shorter ones")
            } else {
                insert(&mut nodes, index, string);
                continue;
            };
            return Err(TextError::InvalidStopString { index, problem });
        }
        link(&mut nodes);
        Ok(Self { nodes, state: 0, held: String::new(), stopped: None })
    }

    /// Whether there is anything to look for.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Takes the next piece of text. After a match, every further piece is swallowed.
    pub fn push(&mut self, text: &str) -> StopOutput {
        if self.stopped.is_some() {
            return StopOutput { text: String::new(), stopped: self.stopped };
        }
        if self.is_empty() {
            return StopOutput { text: text.to_owned(), stopped: None };
        }
        let start = self.held.len();
        self.held.push_str(text);
        for (offset, byte) in text.bytes().enumerate() {
            self.state = step(&self.nodes, self.state, byte);
            if let Some((index, length)) = self.nodes[self.state].found {
                let mut text = std::mem::take(&mut self.held);
                // A match starts in the text held back, never before it: the state covers every open match.
                text.truncate((start + offset + 1).saturating_sub(length));
                self.stopped = Some(index);
                return StopOutput { text, stopped: self.stopped };
            }
        }
        // A suffix that begins a stop string begins at the start of a character, because the stop string does.
        let rest = self.held.split_off(self.held.len().saturating_sub(self.nodes[self.state].depth));
        StopOutput { text: std::mem::replace(&mut self.held, rest), stopped: None }
    }

    /// Ends the stream: returns the text still held back, which no stop string can claim any more. The matcher is then
    /// ready for a new stream.
    pub fn finish(&mut self) -> String {
        self.state = 0;
        self.stopped = None;
        std::mem::take(&mut self.held)
    }
}

fn child(nodes: &[Node], state: usize, byte: u8) -> Option<usize> {
    let next = &nodes[state].next;
    next.binary_search_by_key(&byte, |(label, _)| *label).ok().map(|at| next[at].1)
}

fn step(nodes: &[Node], mut state: usize, byte: u8) -> usize {
    loop {
        #[cfg(test)]
        tests::STEPS.set(tests::STEPS.get() + 1);
        match child(nodes, state, byte) {
            Some(next) => return next,
            None if state == 0 => return 0,
            None => state = nodes[state].fail,
        }
    }
}

fn insert(nodes: &mut Vec<Node>, index: usize, string: &str) {
    let mut state = 0;
    for byte in string.bytes() {
        state = match nodes[state].next.binary_search_by_key(&byte, |(label, _)| *label) {
            Ok(at) => nodes[state].next[at].1,
            Err(at) => {
                let new = nodes.len();
                nodes[state].next.insert(at, (byte, new));
                let depth = nodes[state].depth + 1;
                nodes.push(Node { depth, ..Node::default() });
                new
            }
        };
    }
    // The first of equal strings keeps the place.
    nodes[state].found.get_or_insert((index, string.len()));
}

/// Sets the failure links, level by level.
fn link(nodes: &mut [Node]) {
    let mut queue = std::collections::VecDeque::from([0]);
    while let Some(state) = queue.pop_front() {
        for (byte, next) in nodes[state].next.clone() {
            queue.push_back(next);
            if state != 0 {
                let fail = step(nodes, nodes[state].fail, byte);
                nodes[next].fail = fail;
                // A node's own string is longer than any that ends in it as a suffix.
                nodes[next].found = nodes[next].found.or(nodes[fail].found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Looks at a state's children, by this thread.
        pub(super) static STEPS: Cell<u64> = const { Cell::new(0) };
    }

    #[test]
    fn each_byte_takes_two_steps_on_average() {
        // Texts that nearly match for long, and then fall back a little at a time.
        let mut matcher =
            StopStrings::new([format!("{}b", "a".repeat(5_000)), "ab".repeat(2_000)]).expect("valid");
        for (text, count) in
            [("a".repeat(100_000), 1), ("ab".repeat(1_999) + "a", 50), ("aab".repeat(20_000), 1)]
        {
            let text = text.repeat(count);
            let before = STEPS.get();
            let shown: usize = text
                .as_bytes()
                .chunks(3)
                .map(|chunk| matcher.push(std::str::from_utf8(chunk).expect("ASCII")).text.len())
                .sum();
            assert_eq!(shown + matcher.finish().len(), text.len());
            // A step back makes the state shallower by a byte at least, and each byte makes it deeper by one at most.
            let steps = STEPS.get() - before;
            assert!(steps <= 2 * text.len() as u64, "{steps} for {} bytes", text.len());
        }
    }
}
