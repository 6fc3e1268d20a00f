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
    /// Whether two texts are kept apart as encoders do, if the file does not say.
    pub(crate) add_sep: bool,
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
    Falcon,
    Bloom,
    BloomDigits,
    Chameleon,
    Kimi,
    Superbpe,
    BailingMoe,
    SeedCoder,
    ExaoneMoe,
    Jais2,
}

/// What else a name says: NFC before cutting, whole tokens first, BOS by default, two texts kept
/// apart as encoders do.
const NFC: u8 = 1;
const WHOLE: u8 = 2;
const BOS: u8 = 4;
const SEP: u8 = 8;

/// All names that are known, by rule.
const NAMES: [(Rule, u8, &[&str]); 28] = [
    (
        Rule::Gpt2,
        0,
        &[
            "default",
            "gpt-2",
            "gpt2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "jais",
            "trillion",
            "granite-docling",
        ],
    ),
    (Rule::Gpt2, SEP, &["roberta-bpe", "jina-v1-en", "jina-v2-code"]),
    (Rule::Gpt2, NFC, &["mpt", "olmo"]),
    (
        Rule::DigitsGpt2,
        0,
        &["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
    ),
    (Rule::DigitsGpt2, NFC, &["command-r"]),
    (
        Rule::Llama3,
        WHOLE | BOS,
        &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "lfm2",
            "pixtral",
            "midm-2.0",
            "jina-v5-nano",
        ],
    ),
    (Rule::Llama3, 0, &["dbrx", "smaug-bpe", "chatglm-bpe"]),
    (Rule::Llama3, WHOLE, &["glm4", "glm5"]),
    (Rule::Jais2, 0, &["jais-2"]),
    (Rule::Qwen2, NFC, &["qwen2", "kormo", "f2llmv2"]),
    (
        Rule::Qwen2,
        0,
        &["deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "grok-2", "solar-open"],
    ),
    (Rule::Qwen35, NFC, &["qwen35"]),
    (Rule::Tekken, WHOLE | BOS, &["tekken"]),
    (Rule::Gpt4o, WHOLE, &["gpt-4o"]),
    (Rule::Gpt4o, WHOLE | BOS, &["llama4"]),
    (Rule::Gpt4o, 0, &["kanana2", "talkie", "minimax-m2"]),
    (Rule::DeepseekLlm, 0, &["deepseek-llm"]),
    (Rule::DeepseekCoder, 0, &["deepseek-coder"]),
    (Rule::DeepseekV3, 0, &["deepseek-v3", "deepseek3", "hunyuan-dense", "joyai-llm", "hy_v4"]),
    (Rule::Falcon, 0, &["falcon"]),
    (Rule::Bloom, 0, &["poro-chat", "bloom", "gpt3-finnish"]),
    (Rule::BloomDigits, 0, &["viking"]),
    (Rule::Chameleon, BOS, &["chameleon"]),
    (Rule::Kimi, 0, &["kimi-k2"]),
    (Rule::Superbpe, 0, &["superbpe"]),
    (Rule::BailingMoe, 0, &["bailingmoe", "bailingmoe2", "llada-moe"]),
    (Rule::SeedCoder, 0, &["seed-coder"]),
    (Rule::ExaoneMoe, 0, &["exaone-moe"]),
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

/// Letters in their cases, without Han, which has words of its own; contractions stay attached.
const KIMI: &str = concat!(
    r"\p{Han}+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const BAILING_MOE: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|",
    r"\s*[\r\n]|\s+(?!\S)|\s+",
);

const SEED_CODER: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}|",
    r" ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const EXAONE_MOE: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
);

/// As Llama 3, but white space goes in powers of two.
const JAIS2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|",
    r"\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
);

/// Words end at white space and at the marks of several scripts.
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

/// The rule of that name, if it is built in.
pub(crate) fn by_name(name: &str) -> Option<PreTokenizer> {
    let &(rule, more, _) = NAMES.iter().find(|(_, _, names)| names.contains(&name))?;
    let normalizer = if more & NFC != 0 { json!({"type": "NFC"}) } else { Value::Null };
    Some(PreTokenizer {
        normalizer,
        pre_tokenizer: sequence(rule),
        ignore_merges: more & WHOLE != 0,
        add_bos: more & BOS != 0,
        add_sep: more & SEP != 0,
    })
}

/// All names.
pub(crate) fn all_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().flat_map(|(_, _, names)| names.iter().copied())
}

/// All names, for an error message.
pub(crate) fn names() -> String {
    all_names().collect::<Vec<_>>().join(", ")
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
        Rule::Falcon => {
            vec![split(r"[\p{P}$+<=>^~|`]+"), bytes_cut(), split("[0-9][0-9][0-9]"), bytes(false)]
        }
        Rule::Bloom => vec![split(BLOOM), bytes(false)],
        Rule::BloomDigits => vec![split(BLOOM), split(r"\p{N}"), bytes(false)],
        Rule::Chameleon => vec![
            split("<sentinel:[0-9]+>"),
            split("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
            split("([\\t\\n]|    |  )"),
            split(r"\p{N}"),
            split(r"[\p{P}!-/:-@\[-`{-~]"),
            bytes(true),
        ],
        Rule::Kimi => vec![split(KIMI), bytes(false)],
        Rule::Superbpe => {
            vec![split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))"), bytes(false)]
        }
        Rule::BailingMoe => vec![split(BAILING_MOE), bytes(false)],
        Rule::SeedCoder => vec![split(SEED_CODER), bytes(false)],
        Rule::ExaoneMoe => vec![split(EXAONE_MOE), bytes(false)],
        Rule::Jais2 => vec![split(JAIS2), bytes(false)],
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

/// GPT-2's rule, in a place where the text must still be text.
fn bytes_cut() -> Value {
    split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
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
        for name in names().split(", ") {
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

    #[test]
    fn rules_of_one_family() {
        check("falcon", "x 12345+y's", &["x", " ", "123", "45", "+", "y", "'", "s"]);
        check("poro-chat", "a b, 12c!", &["a", " b", ",", " 12c", "!"]);
        check("viking", "a b, 12c!", &["a", " b", ",", " ", "1", "2", "c", "!"]);
        check("chameleon", "a  b\n12!", &["a", "  ", "b", "\n", "1", "2", "!"]);
        check("kimi-k2", "Don't说话ABc 1234", &["Don't", "说话", "ABc", " ", "123", "4"]);
        check("superbpe", "a b 1234567", &["a b ", "1", "234", "567"]);
        check("seed-coder", "ab 12!\n x", &["ab", " ", "1", "2", "!", "\n", " x"]);
        check("bailingmoe", "It's\n\nx", &["It", "'s", "\n\n", "x"]);
        check("jais-2", "a     b", &["a", "    ", " b"]);
        check("exaone-moe", "ab cd1", &["ab cd", "1"]);
    }
}
