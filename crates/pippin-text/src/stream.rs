//! Ids to text, one id at a time.

use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// Decoded tokens kept in front of the undecided ones, so that decoders see that they are not at the beginning.
const CONTEXT: usize = 4;
/// Undecided tokens after which text is released even though a later token could still change it.
const MAX_PENDING: usize = 64;

/// Streaming detokenizer: takes ids one by one and gives back the text that has become final.
///
/// Tokens are not characters. A token of a byte-level vocabulary can end in the middle of a character, a decoder may
/// join bytes, drop a leading space or put one between tokens, so that decoding ids one by one and gluing the pieces
/// together gives another text than decoding all of them. This decoder keeps a short window of ids, as Hugging Face
/// text-generation-inference does (`prefix_offset` and `read_offset` there): the text of *context + undecided* tokens
/// minus the text of the *context* is what the undecided tokens contribute. The window is bounded, so each
/// [`push`](Self::push) takes constant time. Three rules make the pieces add up to exactly the text of
/// [`Tokenizer::decode`]:
///
/// - A replacement character (U+FFFD) at the end may be the start of a character whose other bytes are still to come: it
///   is held back until the next token decides.
/// - `<0xNN>` byte tokens are held back until their run ends, because the `ByteFallback` decoder replaces *all* bytes of a
///   run when one of them is wrong.
/// - Neither waits for more than 64 tokens. Then what is complete is released. Only invalid text can differ from the
///   one-shot text after that: a run of more than 64 byte tokens that turns out to be broken, or more than 64 tokens that
///   never complete a character.
///
/// ```no_run
/// # use pippin_text::{StreamDecoder, Tokenizer};
/// # let tokenizer = Tokenizer::from_dir("model")?;
/// let ids = tokenizer.encode("a family: 👨‍👩‍👧", false)?;
/// let mut decoder = StreamDecoder::new(&tokenizer, true);
/// let mut text = String::new();
/// for id in &ids {
///     text.extend(decoder.push(*id)?);
/// }
/// text += &decoder.finish()?;
/// assert_eq!(text, tokenizer.decode(&ids, true)?);
/// # Ok::<(), pippin_text::TextError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// The context, then the undecided tokens.
    window: Vec<u32>,
    /// How many tokens of the window are context.
    context: usize,
    /// The decoded context.
    context_text: String,
    /// Bytes of the undecided tokens' text that were already given out.
    emitted: usize,
}

impl StreamDecoder {
    /// Starts a new text. With `skip_special`, special tokens give no text.
    pub fn new(tokenizer: &Tokenizer, skip_special: bool) -> Self {
        Self {
            tokenizer: tokenizer.clone(),
            skip_special,
            window: Vec::new(),
            context: 0,
            context_text: String::new(),
            emitted: 0,
        }
    }

    /// Takes the next id and returns the text that is now final, if there is any.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        if self.gives_nothing(id) {
            return Ok(None);
        }
        self.window.push(id);
        let overdue = self.window.len() - self.context > MAX_PENDING;
        if self.is_byte(id) {
            return if overdue { self.release_bytes() } else { Ok(None) };
        }
        let text = self.pending_text(self.window.len())?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) && !overdue {
            let complete = text.len() - char::REPLACEMENT_CHARACTER.len_utf8();
            return Ok(self.emit(&text[..complete]));
        }
        if text.is_empty() {
            // Nothing visible yet, a trimmed space for instance: keep it, it may change what follows.
            if overdue {
                self.commit(self.window.len())?;
            }
            return Ok(None);
        }
        let piece = self.emit(&text);
        self.commit(self.window.len())?;
        Ok(piece)
    }

    /// Ends the text: returns what was held back. The decoder is then ready for a new text.
    pub fn finish(&mut self) -> Result<String> {
        let text = self.pending_text(self.window.len())?;
        let piece = self.emit(&text).unwrap_or_default();
        *self = Self::new(&self.tokenizer, self.skip_special);
        Ok(piece)
    }

    /// Ids that [`Tokenizer::decode`] drops before the decoder sees them: they must not even end a run of bytes.
    fn gives_nothing(&self, id: u32) -> bool {
        (self.skip_special && self.tokenizer.decoding().skipped.contains(&id))
            || self.tokenizer.id_to_token(id).is_none()
    }

    fn is_byte(&self, id: u32) -> bool {
        self.tokenizer.decoding().byte_tokens.contains_key(&id)
    }

    /// The text of the undecided tokens before position `end` of the window.
    fn pending_text(&self, end: usize) -> Result<String> {
        let text = self.tokenizer.decode(&self.window[..end], self.skip_special)?;
        // A decoder that rewrites what was already final would make this fail; then the text is only cut by length.
        let cut = if text.starts_with(&self.context_text) {
            self.context_text.len()
        } else {
            (0..=self.context_text.len()).rev().find(|cut| text.is_char_boundary(*cut)).unwrap_or(0)
        };
        Ok(text[cut..].to_owned())
    }

    /// Gives out what of `text` (the final text of the undecided tokens) was not given out before.
    fn emit(&mut self, text: &str) -> Option<String> {
        let new = text.get(self.emitted..).filter(|new| !new.is_empty())?;
        self.emitted = text.len();
        Some(new.to_owned())
    }

    /// Makes the tokens before position `end` context and forgets all but the last few of them.
    fn commit(&mut self, end: usize) -> Result<()> {
        let undecided = self.window.split_off(end);
        // Byte tokens are no context: their run may go on, and would be judged together with what follows.
        let mut context = std::mem::take(&mut self.window);
        context.retain(|id| !self.is_byte(*id));
        context.drain(..context.len().saturating_sub(CONTEXT));
        let mut context_text = self.tokenizer.decode(&context, self.skip_special)?;
        if context_text.is_empty() || context_text.contains(char::REPLACEMENT_CHARACTER) {
            // Nothing visible, or half a character: a context that would merge with what follows.
            context.clear();
            context.extend(self.tokenizer.decoding().neutral);
            context_text = self.tokenizer.decode(&context, self.skip_special)?;
        }
        self.context = context.len();
        self.context_text = context_text;
        self.emitted = 0;
        self.window = context;
        self.window.extend(undecided);
        Ok(())
    }

    /// A run of byte tokens has become too long to wait for its end: gives out its complete characters.
    fn release_bytes(&mut self) -> Result<Option<String>> {
        let bytes = &self.tokenizer.decoding().byte_tokens;
        let run =
            self.window.len() - self.window.iter().rev().take_while(|id| bytes.contains_key(*id)).count();
        let values: Vec<u8> = self.window[run..].iter().filter_map(|id| bytes.get(id).copied()).collect();
        let complete = match std::str::from_utf8(&values) {
            Ok(_) => values.len(),
            // Bytes that may still be completed stay; wrong ones go, and come out as the decoder shows them.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => values.len(),
        };
        let end = run + complete;
        let text = self.pending_text(end)?;
        let piece = self.emit(&text);
        self.commit(end)?;
        Ok(piece)
    }
}
