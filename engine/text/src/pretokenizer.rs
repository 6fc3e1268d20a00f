//! How a text is cut before byte-pair merging, by the names that GGUF files use.
//!
//! A GGUF file does not carry the rule, only its name (`tokenizer.ggml.pre`). The rules below are
//! those of the published tokenizer.json of the model families, written as the `normalizer` and
//! `pre_tokenizer` of such a file, so that both formats run through the same code.

use serde_json::{Value, json};

/// What a name stands for.
pub(crate) struct PreTokenizer {
    pub(crate) normalizer: Value,
    pub(crate) pre_tokenizer: Value,
    /// A piece that is a token as a whole is taken without merging.
    pub(crate) ignore_merges: bool,
    /// Whether a text starts with BOS if the file does not say.
    pub(crate) add_bos: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Rule {
    Gpt2,
    DigitsGpt2,
    Llama3,
    Qwen2,
    Qwen35,
    Tekken,
    Gpt4o,
    DeepseekLlm,
    DeepseekCoder,
    DeepseekV3,
}

/// Name, rule, NFC before cutting, whole tokens first, BOS by default.
const NAMES: [(&str, Rule, bool, bool, bool); 33] = [
    ("default", Rule::Gpt2, false, false, false),
    ("gpt-2", Rule::Gpt2, false, false, false),
    ("gpt2", Rule::Gpt2, false, false, false),
    ("phi-2", Rule::Gpt2, false, false, false),
    ("mpt", Rule::Gpt2, true, false, false),
    ("olmo", Rule::Gpt2, true, false, false),
    ("smollm", Rule::DigitsGpt2, false, false, false),
    ("starcoder", Rule::DigitsGpt2, false, false, false),
    ("refact", Rule::DigitsGpt2, false, false, false),
    ("codeshell", Rule::DigitsGpt2, false, false, false),
    ("command-r", Rule::DigitsGpt2, true, false, false),
    ("llama-bpe", Rule::Llama3, false, true, true),
    ("llama3", Rule::Llama3, false, true, true),
    ("llama-v3", Rule::Llama3, false, true, true),
    ("falcon3", Rule::Llama3, false, true, true),
    ("lfm2", Rule::Llama3, false, true, true),
    ("dbrx", Rule::Llama3, false, false, false),
    ("smaug-bpe", Rule::Llama3, false, false, false),
    ("glm4", Rule::Llama3, false, false, false),
    ("chatglm-bpe", Rule::Llama3, false, false, false),
    ("qwen2", Rule::Qwen2, true, false, false),
    ("deepseek-r1-qwen", Rule::Qwen2, false, false, false),
    ("megrez", Rule::Qwen2, false, false, false),
    ("stablelm2", Rule::Qwen2, false, false, false),
    ("qwen35", Rule::Qwen35, true, false, false),
    ("tekken", Rule::Tekken, false, true, true),
    ("gpt-4o", Rule::Gpt4o, false, true, false),
    ("llama4", Rule::Gpt4o, false, true, true),
    ("deepseek-llm", Rule::DeepseekLlm, false, false, false),
    ("deepseek-coder", Rule::DeepseekCoder, false, false, false),
    ("deepseek-v3", Rule::DeepseekV3, false, false, false),
    ("deepseek3", Rule::DeepseekV3, false, false, false),
    ("hunyuan-dense", Rule::DeepseekV3, false, false, false),
];

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|",
    r"\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|",
    r"\s+",
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|",
    r"'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}",
    r"\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Letters with case, as the model's authors listed them; three letters that look like others
/// (U+1FBE, U+2126, U+212A) are written as numbers so that no editor can normalise them.
const DEEPSEEK_LLM_WORD: &str = concat!(
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕ",
    r"Ἐ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ\x{1F5F}-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-",
    r"ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓",
    r"𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
);

const DEEPSEEK_LLM_MARKS: &str = r"\s?[!-/:-~！-／：-～‘-‟\x{3000}-。]+";

const DEEPSEEK_CJK: &str = "[一-龥ࠀ-一가-\u{d7ff}]+";

const DEEPSEEK_V3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}\~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r##"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
);

/// The rule of that name, if it is built in.
pub(crate) fn by_name(name: &str) -> Option<PreTokenizer> {
    let &(_, rule, nfc, ignore_merges, add_bos) =
        NAMES.iter().find(|&&(known, ..)| known == name)?;
    let normalizer = if nfc { json!({"type": "NFC"}) } else { Value::Null };
    Some(PreTokenizer { normalizer, pre_tokenizer: sequence(rule), ignore_merges, add_bos })
}

/// All names, for an error message.
pub(crate) fn names() -> String {
    NAMES.map(|(name, ..)| name).join(", ")
}

fn sequence(rule: Rule) -> Value {
    let steps = match rule {
        Rule::Gpt2 => return bytes(true),
        Rule::DigitsGpt2 => vec![digits(), bytes(true)],
        Rule::Llama3 => vec![split(LLAMA3), bytes(false)],
        Rule::Qwen2 => vec![split(QWEN2), bytes(false)],
        Rule::Qwen35 => vec![split(QWEN35), bytes(false)],
        Rule::Tekken => vec![split(TEKKEN), bytes(false)],
        Rule::Gpt4o => vec![split(GPT4O), bytes(false)],
        Rule::DeepseekLlm => vec![
            split(r"[\r\n]"),
            split(DEEPSEEK_LLM_WORD),
            split(DEEPSEEK_LLM_MARKS),
            split(r"\s+$"),
            split(DEEPSEEK_CJK),
            digits(),
            bytes(false),
        ],
        Rule::DeepseekCoder => vec![
            split(r"[\r\n]"),
            split(r"\s?\p{L}+"),
            split(r"\s?\p{P}+"),
            split(DEEPSEEK_CJK),
            digits(),
            bytes(false),
        ],
        Rule::DeepseekV3 => {
            vec![split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK_V3), bytes(false)]
        }
    };
    json!({"type": "Sequence", "pretokenizers": steps})
}

fn split(regex: &str) -> Value {
    json!({
        "type": "Split",
        "pattern": {"Regex": regex},
        "behavior": "Isolated",
        "invert": false,
    })
}

fn digits() -> Value {
    json!({"type": "Digits", "individual_digits": true})
}

/// Bytes as visible characters; with `gpt2`, cut by GPT-2's own rule first.
fn bytes(gpt2: bool) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": gpt2,
    })
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    /// The pieces of a text, for each rule: guards the patterns against a slip of the pen.
    fn check(name: &str, text: &str, expect: &[&str]) {
        let rule = by_name(name).expect(name);
        let tokenizer: tokenizers::PreTokenizerWrapper =
            serde_json::from_value(rule.pre_tokenizer).expect(name);
        let mut pieces = PreTokenizedString::from(text);
        tokenizer.pre_tokenize(&mut pieces).expect(name);
        let cuts = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let pieces: Vec<&str> = cuts.iter().map(|(_, (from, to), _)| &text[*from..*to]).collect();
        assert_eq!(pieces, expect, "{name}");
    }

    #[test]
    fn every_name_compiles() {
        for (name, ..) in NAMES {
            check(name, "a", &["a"]);
        }
    }

    #[test]
    fn numbers_case_and_marks() {
        let text = "It's 12345 DON'T FooBar!!\n x";
        let gpt2 = ["It", "'s", " 12345", " DON", "'", "T", " FooBar", "!!", "\n", " x"];
        check("gpt-2", text, &gpt2);
        let llama = ["It", "'s", " ", "123", "45", " DON", "'T", " FooBar", "!!\n", " x"];
        check("llama-bpe", text, &llama);
        let qwen =
            ["It", "'s", " ", "1", "2", "3", "4", "5", " DON", "'T", " FooBar", "!!\n", " x"];
        check("qwen2", text, &qwen);
        let gpt4o = ["It's", " ", "123", "45", " DON'T", " Foo", "Bar", "!!\n", " x"];
        check("gpt-4o", text, &gpt4o);
        let star = [
            "It", "'s", " ", "1", "2", "3", "4", "5", " DON", "'", "T", " FooBar", "!!", "\n", " x",
        ];
        check("starcoder", text, &star);
    }

    #[test]
    fn deepseek_rules() {
        // Published so: the range ":-~" of the rule for marks holds the Latin letters too.
        let words = ["Ab", " ", "1", "2", " ", "我们", "!", "\n", "ñé", " "];
        check("deepseek-llm", "Ab 12 我们!\nñé ", &words);
        check("deepseek-v3", "ab 1234!x 我们", &["ab", " ", "123", "4", "!x", " ", "我们"]);
    }
}
