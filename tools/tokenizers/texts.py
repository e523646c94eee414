"""Texts that tell tokenizers apart."""

import random

FIXED = [
    "",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\n\n\n",
    "\t",
    "\t\t",
    " \n",
    " \n \n",
    "\r\n",
    "a",
    " a",
    "  a",
    "a ",
    "a  ",
    " a b  c   d    e     f ",
    "Hello",
    " Hello",
    "Hello World",
    " Hello World!",
    "Hello, y'all! How are you 😁 ?我想在apple工作1314151天～",
    "Hello world! Café déjà vu — 123 😊",
    "What is 3333+777?",
    "I'm, you're, he'll, we've, they'd, it's, don't. I'M, YOU'RE, HE'LL, WE'VE",
    "3",
    "33",
    "333",
    "3333",
    "33333 333333 3333333 3.14159 1,000,000.5 ١٢٣ ４５６ ½ ²",
    "The quick brown fox jumps over the lazy dog.",
    "the quick  brown   fox\tjumps\n\nover\n the lazy  dog",
    "def f(x):\n    return x ** 2  # a comment\n\n\nclass A:\n\tpass\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * c[i]; } // ===== -----",
    "https://example.com/a/b?c=d&e=f#g",
    "émigré naïve façade Ünïcödé ÅÄÖ ß ẞ ı İ ſ",
    "e\u0301migre\u0301 A\u030a \u1e9b\u0323 q\u0307\u0323",
    "日本語のテキスト。漢字とカタカナ、ひらがな！",
    "中文文本，包括标点符号。以及ＡＢＣ１２３全角字符",
    "한국어 텍스트 안녕하세요 ㄱㄴㄷ",
    "العربية نص مع تشكيل مَرْحَبًا ﷺ ﷽",
    "עברית שלום",
    "हिन्दी नमस्ते क्षत्रिय",
    "ไทย สวัสดีครับ",
    "Русский текст, привет мир. Ещё ЁЖ",
    "Ελληνικά γειά σου Κόσμε ς Σ",
    "🦀",
    "👨\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 🇩🇪 👍🏽 ❤️ ☺",
    "🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅",
    "a\u00a0b\u2003c\u3000d\u200be\ufefff\u2028g\u0085h",
    "\x00\x01\x02 \x7f control",
    "\ufffd \ufffe replacement",
    "𝒳 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𓀀 𐍈",
    "ﬁ ﬂ ﬃ ① ㈱ Ⅷ ™ … ㎏ ｶﾞ",
    "▁", "▁▁", "▁a", " ▁", "a▁b ▁c",
    "<0x41>", "<0xE2>", "<0x0A>",
    "<s>", "</s>", "<unk>", "<pad>", "a<s>b</s>c", " <s> a </s> b", "<s><s>x", "<unk> a<unk>",
    "<|endoftext|>", "a <|im_start|>user\nb<|im_end|>\n", "[INST] hi [/INST]", "<start_of_turn>user\nhi<end_of_turn>",
    "<extra_id_0> a <extra_id_99>", "[CLS] a [SEP]", "<mask>", "a <mask> b",
    "``quoted'' and \"quoted\" 'single' “curly” ‘single’",
    "!!!!!!", "------------", "================", "........", "((((()))))", "a.b.c.d", "---\n---",
    "                                                        lots of spaces",
    "\n\n\n\n\n\n\n\n\n\nlines",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "lalalalalalalalalalalalalalalala",
    "CamelCaseWordsAndSNAKE_CASE_words mixedUP123abc456",
    "x" * 300,
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "   leading", "trailing   ", "\tleading tab", "trailing tab\t", "trailing line\n", "\nleading line",
    "a\n b\n  c\n   d\n", "a \n b \n c", "1\n2\n3", "a\r\nb\rc\n",
    "'s 't 're 'S 'T 'RE ''s s' 'ſ",
    "ends with apostrophe' 'twas",
    "100% $5 €5 5€ #1 @me a&b a|b ~a `a` ^a",
    "{\"json\": [1, 2.5, null, true], \"k\": \"v\"}",
    "<html><body class=\"a\">text</body></html>",
    "$x^2 + y^2 = z^2$ \\frac{a}{b} \\\\ \\n",
]

ALPHABETS = [
    "abc ", "ab \n", "a 1\t", "é e\u0301", "日本 a", " \n\t\r", "▁ a", "A a'", "😀👍🏽\u200d ", "0123 .,", "-=*#", "مرحبا ",
    "the and of to in is ", "аб вг", "…—“”", "\u3000　ａＡ",
]


def texts(count=300):
    """The fixed texts, and random ones up to `count`, always the same."""
    rng = random.Random(20)
    out = list(FIXED)
    while len(out) < count:
        alphabet = "".join(rng.sample(ALPHABETS, rng.choice([1, 1, 2, 3])))
        out.append("".join(rng.choice(alphabet) for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30]))))
    return out[:count]
