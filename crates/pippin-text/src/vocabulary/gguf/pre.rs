//! How the texts of GGUF files are cut into words: what `tokenizer.ggml.pre` means.

use super::super::tiktoken::{HAN, ONE_DIGIT, THREE_DIGITS};

/// What belongs to a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pre {
    /// Regular expressions, applied one after the other; each cuts what those before it have left whole.
    pub(super) patterns: &'static [&'static str],
    /// Words that are tokens as a whole are not made by merging.
    pub(super) whole_words: bool,
    /// Whether a text begins with a beginning-of-sequence token where the file does not say.
    pub(super) add_bos: bool,
    /// Whether tokens are bytes in the alphabet that has a character for each; otherwise they are text, with `▁` for spaces.
    pub(super) is_byte_level: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const CASES: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const CASES_AND_DIGITS: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const CJK: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";
const SYMBOLS: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const LINES: &str = r"[^\n]+|[\n]+";
const LATIN: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const IDEOGRAPHS: &str = "[一-龥ࠀ-一가-\u{d7ff}]+";
/// Groups of three digits, counted from the end of the number.
const THOUSANDS: &str = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))";

impl Pre {
    const fn new(patterns: &'static [&'static str]) -> Self {
        Self { patterns, whole_words: false, add_bos: false, is_byte_level: true }
    }

    const fn whole_words(patterns: &'static [&'static str]) -> Self {
        Self { whole_words: true, ..Self::new(patterns) }
    }

    /// What a name means; `None` where nobody has said. The names and their meaning are llama.cpp's; where it writes an expression
    /// otherwise than the models' own tokenizers, because its library needs that, the expression is the models'.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0"
            | "lfm2" | "jina-v5-nano" => Self { add_bos: true, ..Self::whole_words(&[THREE_DIGITS]) },
            "dbrx" | "smaug-bpe" | "chatglm-bpe" => Self::new(&[THREE_DIGITS]),
            "glm4" | "glm5" => Self::whole_words(&[THREE_DIGITS]),
            "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" | "hunyuan"
            | "solar-open" | "grok-2" => Self::new(&[ONE_DIGIT]),
            "qwen35" => Self::new(&[super::super::merges::WITH_MARKS]),
            "laguna" => Self::new(&[LINES, ONE_DIGIT]),
            "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "gigachat" | "jina-v2-es" | "jina-v2-de"
            | "a.x-4.0" | "mellum" | "modern-bert" | "jina-v1-en" | "jina-v2-code" | "roberta-bpe"
            | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling" | "exaone4" => Self::new(&[GPT2]),
            "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b"
            | "mellum2" => Self::new(&[r"\p{N}", GPT2]),
            "falcon" => Self::new(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
            "default" => Self::new(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
            "deepseek-llm" => Self::new(&[
                "[\r\n]",
                LATIN,
                "\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+",
                r"\s+$",
                IDEOGRAPHS,
                r"\p{N}+",
            ]),
            "deepseek-coder" => Self::new(&["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", IDEOGRAPHS, r"\p{N}"]),
            "deepseek-v3" | "hunyuan-dense" | "joyai-llm" | "hy_v4" => {
                Self::new(&[r"\p{N}{1,3}", CJK, SYMBOLS])
            }
            "spark2_5" => Self::new(&[
                r"\p{N}{1,3}",
                CJK,
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"##,
                r"\p{N}",
            ]),
            "youtu" => Self::whole_words(&[
                "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u{3040}-ゟ゠-ヿ]+",
                CASES_AND_DIGITS,
            ]),
            "afmoe" => Self::new(&[
                THOUSANDS,
                "[一-鿿㐀-䶿豈-\u{faff}\u{3040}-ゟ゠-ヿ･-ﾟ⼀-⿟เ-\u{e7f}\u{e80}-\u{eff}ក-\u{17ff}က-႟ꩠ-ꩿꧠ-\u{a9ff}가-\u{d7af}ᄀ-ᇿ]+",
                SYMBOLS,
            ]),
            "poro-chat" | "bloom" | "gpt3-finnish" => Self::new(&[WORDS]),
            "viking" => Self::new(&[WORDS, r"\p{N}"]),
            "tekken" => Self { add_bos: true, ..Self::whole_words(&[TEKKEN]) },
            "chameleon" => Self {
                add_bos: true,
                ..Self::new(&[
                    "<sentinel:[0-9]+>",
                    "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                    "([\\t\\n]|    |  )",
                    r"\p{N}",
                    r"[\p{P}!-/:-@\[-`{-~]",
                    GPT2,
                ])
            },
            "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" => Self::new(&[CASES]),
            "granite-embed-multi-97m" => Self::whole_words(&[CASES]),
            "tiny_aya" | "cohere2moe" => Self::new(&[r"\d{1,3}(?=(?:\d{3})*\b)", CASES]),
            "kimi-k2" => Self::new(&[HAN]),
            // Cuts at places, which is the same as cutting off what lies between them.
            "superbpe" => Self::new(&[r"\p{N}+", r"\d{1,3}(?=(?:\d{3})*(?!\d))"]),
            "bailingmoe" | "bailingmoe2" | "llada-moe" => Self::new(&[
                r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
            ]),
            "seed-coder" => Self::new(&[
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
            ]),
            "ufakzeka" => Self::new(&[
                r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ]),
            "exaone-moe" => Self::new(&[
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
            ]),
            "minicpm5" => Self::whole_words(&[
                r"\p{N}{1,3}",
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ]),
            "jais-2" => Self::new(&[
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
            ]),
            "gemma4" | "granite-embed-multi-311m" => {
                Self { add_bos: true, is_byte_level: false, ..Self::new(&[LINES]) }
            }
            "sarvam-moe" => Self { is_byte_level: false, ..Self::new(&[LINES]) },
            _ => return None,
        })
    }
}

/// How BLOOM and the models of Finland cut words: at punctuation, whose characters are each a word.
const WORDS: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
