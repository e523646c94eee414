//! A reader of SentencePiece's model files: the few fields that say how a text is cut.

use super::super::MOST_TOKENS;

/// What a model file says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Proto {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) algorithm: i64,
    pub(crate) byte_fallback: bool,
    pub(crate) treats_whitespace_as_suffix: bool,
    pub(crate) unk_id: i64,
    pub(crate) bos_id: i64,
    pub(crate) eos_id: i64,
    pub(crate) unk_piece: String,
    pub(crate) bos_piece: String,
    pub(crate) eos_piece: String,
    /// The table of characters, and what stands for them; empty where nothing is replaced.
    pub(crate) charsmap: Vec<u8>,
    pub(crate) add_dummy_prefix: bool,
    pub(crate) remove_extra_whitespaces: bool,
    pub(crate) escape_whitespaces: bool,
}

/// An entry of the vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: Box<str>,
    pub(crate) score: f32,
    pub(crate) kind: i64,
}

impl Proto {
    pub(crate) const UNIGRAM: i64 = 1;
    pub(crate) const BPE: i64 = 2;
}

impl Piece {
    pub(crate) const NORMAL: i64 = 1;
    pub(crate) const CONTROL: i64 = 3;
    pub(crate) const USER_DEFINED: i64 = 4;
}

impl Default for Proto {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            algorithm: Self::UNIGRAM,
            byte_fallback: false,
            treats_whitespace_as_suffix: false,
            unk_id: 0,
            bos_id: 1,
            eos_id: 2,
            unk_piece: "<unk>".to_owned(),
            bos_piece: "<s>".to_owned(),
            eos_piece: "</s>".to_owned(),
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }
}

/// Reads a file.
pub(crate) fn read(file: &[u8]) -> Result<Proto, String> {
    let mut proto = Proto::default();
    for field in Fields(file) {
        match field? {
            (1, Field::Bytes(bytes)) => {
                let place = proto.pieces.len();
                if place == MOST_TOKENS {
                    return Err(format!("more than {MOST_TOKENS} pieces"));
                }
                proto.pieces.push(piece(bytes).map_err(|problem| format!("piece {place}: {problem}"))?);
            }
            (2, Field::Bytes(bytes)) => {
                trainer(bytes, &mut proto).map_err(|problem| format!("trainer: {problem}"))?
            }
            (3, Field::Bytes(bytes)) => {
                normalizer(bytes, &mut proto).map_err(|problem| format!("normalizer: {problem}"))?;
            }
            _ => {}
        }
    }
    if proto.pieces.is_empty() {
        return Err("no pieces: not a SentencePiece model".to_owned());
    }
    Ok(proto)
}

fn piece(bytes: &[u8]) -> Result<Piece, String> {
    let mut piece = Piece { text: Box::default(), score: 0.0, kind: Piece::NORMAL };
    for field in Fields(bytes) {
        match field? {
            (1, Field::Bytes(bytes)) => piece.text = text(bytes)?.into(),
            (2, Field::Fixed(bits)) => piece.score = f32::from_bits(bits),
            (3, Field::Number(kind)) => piece.kind = kind,
            _ => {}
        }
    }
    if piece.text.is_empty() {
        return Err("it has no text".to_owned());
    }
    if !piece.score.is_finite() {
        return Err(format!("its score is {}", piece.score));
    }
    Ok(piece)
}

fn trainer(bytes: &[u8], proto: &mut Proto) -> Result<(), String> {
    for field in Fields(bytes) {
        match field? {
            (3, Field::Number(algorithm)) => proto.algorithm = algorithm,
            (24, Field::Number(flag)) => proto.treats_whitespace_as_suffix = flag != 0,
            (35, Field::Number(flag)) => proto.byte_fallback = flag != 0,
            (40, Field::Number(id)) => proto.unk_id = id,
            (41, Field::Number(id)) => proto.bos_id = id,
            (42, Field::Number(id)) => proto.eos_id = id,
            (45, Field::Bytes(bytes)) => proto.unk_piece = text(bytes)?,
            (46, Field::Bytes(bytes)) => proto.bos_piece = text(bytes)?,
            (47, Field::Bytes(bytes)) => proto.eos_piece = text(bytes)?,
            _ => {}
        }
    }
    Ok(())
}

fn normalizer(bytes: &[u8], proto: &mut Proto) -> Result<(), String> {
    for field in Fields(bytes) {
        match field? {
            (2, Field::Bytes(bytes)) => proto.charsmap = bytes.to_vec(),
            (3, Field::Number(flag)) => proto.add_dummy_prefix = flag != 0,
            (4, Field::Number(flag)) => proto.remove_extra_whitespaces = flag != 0,
            (5, Field::Number(flag)) => proto.escape_whitespaces = flag != 0,
            _ => {}
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a text is not UTF-8".to_owned())
}

/// The fields of a message, in their order, each with its number.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Number(i64),
    Fixed(u32),
    Bytes(&'a [u8]),
    /// Eight bytes, which no field here has.
    Other,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u64, Field<'a>), String> {
        let tag = self.number()?;
        let field = match tag & 7 {
            0 => Field::Number(self.number()? as i64),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let length = self.number()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed(u32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default())),
            kind => {
                return Err(format!(
                    "a field of the kind {kind}: not a SentencePiece model, or a damaged one"
                ));
            }
        };
        if tag >> 3 == 0 {
            return Err("a field without a number: not a SentencePiece model, or a damaged one".to_owned());
        }
        Ok((tag >> 3, field))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let parts = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) =
            parts.ok_or("it ends within a field: not a SentencePiece model, or a damaged one")?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for place in 0..10 {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number of more than ten bytes: not a SentencePiece model, or a damaged one".to_owned())
    }
}
