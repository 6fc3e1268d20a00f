//! The `decoder` of tokenizer.json, taken apart into steps that work on one token at a time.

use serde_json::Value;

/// Steps in the order in which the file gives them.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// What happens to each token.
    token: Vec<TokenStep>,
    /// Characters that the text loses at its beginning: which, and at most how many.
    pub(crate) strip_start: Option<(char, usize)>,
    /// Literal replacements in the joined text, one after the other.
    pub(crate) replacements: Vec<(String, String)>,
}

#[derive(Debug)]
enum TokenStep {
    /// Each character stands for one byte (GPT-2's table).
    ByteLevel,
    /// `<0xE2>` stands for that byte.
    ByteFallback,
    /// A mark stands for a space; the first token of a text loses its marks.
    Metaspace {
        mark: char,
        first_loses: bool,
    },
    /// A token without the prefix starts a new word.
    WordPiece {
        prefix: String,
        cleanup: bool,
    },
    /// Tokens are words, joined by a space.
    Words,
    Replace {
        from: String,
        to: String,
    },
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
}

/// Transformers' `clean_up_tokenization`: applied in this order to the joined text.
const CLEAN_UP: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

impl Steps {
    pub(crate) fn parse(decoder: &Value, clean_up: bool) -> Result<Steps, String> {
        let mut steps = Steps::default();
        match decoder {
            Value::Null => steps.token.push(TokenStep::Words),
            decoder => {
                let mut flat = Vec::new();
                flatten(decoder, &mut flat);
                let mut joined = false;
                for step in flat {
                    steps.add(step, &mut joined)?;
                }
            }
        }
        if clean_up {
            let owned = CLEAN_UP.iter().map(|&(from, to)| (from.to_owned(), to.to_owned()));
            steps.replacements.extend(owned);
        }
        Ok(steps)
    }

    fn add(&mut self, step: &Value, joined: &mut bool) -> Result<(), String> {
        let kind = step["type"].as_str().unwrap_or("without a type");
        match (kind, *joined) {
            ("Fuse", _) => *joined = true,
            ("ByteLevel", false) => {
                self.token.push(TokenStep::ByteLevel);
                *joined = true;
            }
            // The text is whole already; what is left are no byte tokens.
            ("ByteLevel" | "ByteFallback", true) => {}
            ("ByteFallback", false) => self.token.push(TokenStep::ByteFallback),
            ("Metaspace", false) => self.token.push(metaspace(step)?),
            ("WordPiece", false) => self.token.push(TokenStep::WordPiece {
                prefix: string(step, "prefix")?,
                cleanup: step["cleanup"].as_bool().unwrap_or(true),
            }),
            ("Replace", whole) => {
                let from = string(&step["pattern"], "String")
                    .map_err(|_| "decoder Replace with a regular expression is not supported")?;
                let to = string(step, "content")?;
                if from.is_empty() {
                    return Err("decoder Replace has an empty pattern".into());
                }
                if whole {
                    self.replacements.push((from, to));
                } else {
                    self.token.push(TokenStep::Replace { from, to });
                }
            }
            ("Strip", whole) => {
                let content = character(step, "content")?;
                let count = |key: &str| step[key].as_u64().unwrap_or(0).min(1 << 20) as usize;
                let (start, stop) = (count("start"), count("stop"));
                if !whole {
                    self.token.push(TokenStep::Strip { content, start, stop });
                } else if stop > 0 || self.strip_start.is_some() || !self.replacements.is_empty() {
                    return Err("decoder Strip of a whole text is supported at its start, \
                                once and before replacements"
                        .into());
                } else {
                    self.strip_start = Some((content, start));
                }
            }
            (kind, _) => return Err(format!("decoder {kind} is not supported")),
        }
        Ok(())
    }

    /// Whether a token can decode differently when it is the first of a text.
    pub(crate) fn first_differs(&self) -> bool {
        self.token.iter().any(|step| {
            matches!(
                step,
                TokenStep::Metaspace { first_loses: true, .. }
                    | TokenStep::WordPiece { .. }
                    | TokenStep::Words
            )
        })
    }

    /// Appends the bytes that `token` stands for.
    pub(crate) fn piece(&self, token: &str, first: bool, into: &mut Vec<u8>) {
        let mut text = token.to_owned();
        for step in &self.token {
            match step {
                TokenStep::ByteLevel => return byte_level(&text, into),
                TokenStep::ByteFallback => {
                    if let Some(byte) = byte_token(&text) {
                        return into.push(byte);
                    }
                }
                TokenStep::Metaspace { mark, first_loses } => {
                    let space = if first && *first_loses { "" } else { " " };
                    text = text.replace(*mark, space);
                }
                TokenStep::WordPiece { prefix, cleanup } => {
                    if !first {
                        text = match text.strip_prefix(prefix.as_str()) {
                            Some(rest) => rest.to_owned(),
                            None => format!(" {text}"),
                        };
                    }
                    if *cleanup {
                        text = word_piece_clean_up(text);
                    }
                }
                TokenStep::Words => {
                    if !first {
                        text.insert(0, ' ');
                    }
                }
                TokenStep::Replace { from, to } => text = text.replace(from.as_str(), to),
                TokenStep::Strip { content, start, stop } => {
                    text = strip(&text, *content, *start, *stop).to_owned();
                }
            }
        }
        into.extend_from_slice(text.as_bytes());
    }
}

fn flatten<'a>(decoder: &'a Value, into: &mut Vec<&'a Value>) {
    match decoder["decoders"].as_array() {
        Some(parts) if decoder["type"] == "Sequence" => {
            parts.iter().for_each(|part| flatten(part, into));
        }
        _ => into.push(decoder),
    }
}

fn metaspace(step: &Value) -> Result<TokenStep, String> {
    let first_loses = match step["prepend_scheme"].as_str() {
        Some(scheme) => scheme != "never",
        None => step["add_prefix_space"].as_bool().unwrap_or(true),
    };
    Ok(TokenStep::Metaspace { mark: character(step, "replacement")?, first_loses })
}

fn string(json: &Value, key: &str) -> Result<String, String> {
    json[key].as_str().map(str::to_owned).ok_or_else(|| format!("decoder needs a string {key}"))
}

fn character(json: &Value, key: &str) -> Result<char, String> {
    let text = string(json, key)?;
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(format!("decoder needs one character as {key}")),
    }
}

/// `<0xE2>` and nothing else.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// A token with a character outside GPT-2's table is an added token and stands for itself.
fn byte_level(token: &str, into: &mut Vec<u8>) {
    let start = into.len();
    for c in token.chars() {
        let Some(byte) = byte_of(c) else {
            into.truncate(start);
            return into.extend_from_slice(token.as_bytes());
        };
        into.push(byte);
    }
}

/// GPT-2's table: printable Latin-1 stands for itself; the other 68 bytes, in order, were moved
/// behind U+0100 so that every byte is a visible character.
fn byte_of(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

fn word_piece_clean_up(mut text: String) -> String {
    for (index, (from, to)) in CLEAN_UP.iter().enumerate() {
        // The WordPiece decoder has one rule more than transformers, after " 'm".
        if index == 7 {
            text = text.replace(" do not", " don't");
        }
        text = text.replace(from, to);
    }
    text
}

fn strip(text: &str, content: char, start: usize, stop: usize) -> &str {
    let mut text = text;
    for _ in 0..start {
        match text.strip_prefix(content) {
            Some(rest) => text = rest,
            None => break,
        }
    }
    for _ in 0..stop {
        match text.strip_suffix(content) {
            Some(rest) => text = rest,
            None => break,
        }
    }
    text
}
