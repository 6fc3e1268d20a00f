//! What lies in a request besides its words: pictures and other files, and how many answers and
//! which tools it asks for. One walk over the body that looks where the dialects have these things
//! and nowhere else: what looks like one of them in a text, in a call's arguments or in a schema is
//! text.

use std::borrow::Cow;

use super::scan::Scan;
use super::shape;
use super::tools::{self, camel};

/// How deep lists of parts lie in each other. A picture of a document of a result of a message is
/// at 4.
const DEPTH_MAX: u32 = 8;

/// Kinds of parts that are pictures, wherever these are.
const PICTURES: [&str; 4] = ["image", "image_url", "input_image", "computer_screenshot"];

/// Kinds of parts that are other files.
const FILES: [&str; 5] = ["file", "input_file", "input_audio", "audio_url", "video_url"];

/// What is found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Pictures.
    pub(super) images: u64,
    /// Other files: documents, sound, films.
    pub(super) files: u64,
    /// Bytes of both that no model reads as text.
    pub(super) data: usize,
    /// Choices, the highest number where several fields say so; 0: none does.
    pub(super) choices: u64,
    /// The field of them that says no number.
    pub(super) odd: Option<&'static str>,
    /// The answer is held to a shape.
    pub(super) structured: bool,
    /// Prompts of a plain completion; 0: it is none.
    pub(super) prompts: u64,
    /// Names of the tools on offer.
    pub(super) tools: Vec<String>,
}

/// A message, or a part of one.
#[derive(Default)]
struct Part<'a> {
    kind: Cow<'a, str>,
    is_picture: bool,
    is_file: bool,
    /// Where Anthropic's dialect has a picture or a document from.
    source: Option<&'a str>,
    /// Bytes of a picture that was an answer.
    drawn: usize,
    /// Tools that it offers, and not only tells of.
    tools: Vec<String>,
    tells: bool,
}

/// A file as the dialects have it.
struct Media<'a> {
    /// Whether it is data, an address or a text.
    kind: &'a str,
    mime: &'a str,
    data: &'a str,
    url: &'a str,
}

impl Found {
    /// In a request; `google`: of Google's dialect.
    pub(super) fn of(text: &str, google: bool) -> Self {
        let mut found = Self::default();
        Scan::new(text).fields(|scan, name| match &*name {
            // A request whose tokens are to be counted.
            "generateContentRequest" if google => {
                scan.fields(|scan, name| found.field(scan, &name, google));
            }
            name => found.field(scan, name, google),
        });
        found
    }

    fn field(&mut self, scan: &mut Scan<'_>, name: &str, google: bool) {
        let key = if google { camel(name) } else { Cow::Borrowed(name) };
        match &*key {
            "messages" | "input" | "contents" | "system" | "systemInstruction" => {
                self.said(scan, 0);
            }
            "tools" | "functions" => tools::offered(scan, google, &mut self.tools),
            "mcp_servers" | "web_search_options" => tools::field(scan, name, &mut self.tools),
            "n" if !google => self.choices("n", scan.value()),
            // All of them are made, and the best are shown.
            "best_of" if !google => self.choices("best_of", scan.value()),
            "generationConfig" if google => scan.fields(|scan, name| match &*camel(&name) {
                "candidateCount" => {
                    self.choices("generationConfig.candidateCount", scan.value());
                }
                name => self.structured |= shape::held_by_google(scan, name),
            }),
            "prompt" if !google => scan.items(|scan| {
                // Numbers are the tokens of one prompt.
                self.prompts += u64::from(matches!(scan.peek(), b'"' | b'['));
                scan.value();
            }),
            name if !google => self.structured |= shape::held(scan, name),
            _ => {
                scan.value();
            }
        }
    }

    fn choices(&mut self, field: &'static str, value: &str) {
        match serde_json::from_str::<Option<u64>>(value) {
            Ok(choices) => self.choices = self.choices.max(choices.unwrap_or(0)),
            Err(_) => self.odd = Some(field),
        }
    }

    /// A list of messages or parts, or one; a text alone has nothing in it.
    fn said(&mut self, scan: &mut Scan<'_>, depth: u32) {
        if depth == DEPTH_MAX {
            scan.value();
            return;
        }
        scan.items(|scan| self.part(scan, depth + 1));
    }

    fn part(&mut self, scan: &mut Scan<'_>, depth: u32) {
        let mut part = Part::default();
        scan.fields(|scan, name| match &*name {
            "type" => {
                let kind = scan.words().unwrap_or_default();
                // Of two kinds, whoever reads it takes either.
                part.tells = part.kind.is_empty() && kind == "mcp_list_tools";
                part.kind = kind;
            }
            "content" | "parts" | "output" | "functionResponse" | "function_response" => {
                self.said(scan, depth);
            }
            "image_url" => part.is_picture |= self.media(scan, "", depth).is_some(),
            "audio_url" | "video_url" | "file" => {
                part.is_file |= self.media(scan, "", depth).is_some();
            }
            "input_audio" => part.is_file |= self.media(scan, "audio/", depth).is_some(),
            "source" if scan.peek() == b'{' => {
                part.source = self.media(scan, "", depth).map(|media| media.kind);
            }
            "inlineData" | "inline_data" | "fileData" | "file_data" => {
                // OpenAI's is a text beside the kind of its part.
                let is_own = scan.peek() == b'{';
                if let Some(media) = self.media(scan, "", depth) {
                    let is_picture = is_own && media.is_picture();
                    part.is_picture |= is_picture;
                    part.is_file |= !is_picture;
                }
            }
            "result" => part.drawn = scan.inside().len(),
            "tools" => tools::offered(scan, false, &mut part.tools),
            _ => {
                scan.value();
            }
        });
        self.take(part);
    }

    /// A part is one picture or one file, however many of its fields say so.
    fn take(&mut self, part: Part<'_>) {
        let Part { kind, mut is_picture, mut is_file, source, drawn, tools, tells } = part;
        is_picture |= PICTURES.contains(&&*kind);
        is_file |= FILES.contains(&&*kind);
        match &*kind {
            "document" => {
                is_file |= source.is_some_and(|from| !["text", "content"].contains(&from));
            }
            "image_generation_call" if drawn > 0 => {
                is_picture = true;
                self.data += drawn;
            }
            _ => {}
        }
        self.images += u64::from(is_picture);
        self.files += u64::from(is_file && !is_picture);
        tools.into_iter().filter(|_| !tells).for_each(|name| tools::add(&mut self.tools, name));
    }

    /// A file: an address, or an object that says more of it. `mime` is what it is where it does
    /// not say so itself.
    fn media<'a>(&mut self, scan: &mut Scan<'a>, mime: &'a str, depth: u32) -> Option<Media<'a>> {
        let mut media = Media { kind: "", mime, data: "", url: "" };
        match scan.peek() {
            b'"' => media.url = scan.inside(),
            b'{' => scan.fields(|scan, name| match &*name {
                "type" => media.kind = scan.inside(),
                "mimeType" | "mime_type" | "media_type" => media.mime = scan.inside(),
                "data" => media.data = scan.inside(),
                "url" | "file_data" => media.url = scan.inside(),
                "content" => self.said(scan, depth),
                _ => {
                    scan.value();
                }
            }),
            _ => {
                scan.value();
                return None;
            }
        }
        self.data += media.bytes();
        Some(media)
    }
}

impl Media<'_> {
    /// What says nothing of itself is taken for one, as where the request is read.
    fn is_picture(&self) -> bool {
        self.mime.is_empty() || is(self.mime, "image")
    }

    /// Bytes that are no text. Texts may come in base64, too, and count.
    fn bytes(&self) -> usize {
        let no_text = |mime: &str| {
            ["image", "audio", "video"].iter().any(|kind| is(mime, kind)) || mime.ends_with("pdf")
        };
        let own = if no_text(self.mime) { self.data.len() } else { 0 };
        let url = self.url.strip_prefix("data:").and_then(|url| url.split_once(";base64,"));
        own + url.filter(|(mime, _)| no_text(mime)).map_or(0, |(_, data)| data.len())
    }
}

/// Whether a media type is of this kind. Some clients write its slash with a backslash.
fn is(mime: &str, kind: &str) -> bool {
    let own = mime.split(['/', '\\']).next().unwrap_or_default();
    own.eq_ignore_ascii_case(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &str = "iVBORw0KGgo=";

    /// `expect`: images, files, and how often the data of [`PNG`] is left out.
    #[track_caller]
    fn check(google: bool, body: &str, expect: (u64, u64, usize)) {
        let body = body.replace("PNG", PNG);
        assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{body}");
        let found = Found::of(&body, google);
        assert_eq!((found.images, found.files, found.data), (expect.0, expect.1, expect.2 * 12));
        assert_eq!(found.tools, [""; 0], "{body}");
    }

    #[track_caller]
    fn content(parts: &str, expect: (u64, u64, usize)) {
        check(false, &format!(r#"{{"messages":[{{"role":"user","content":{parts}}}]}}"#), expect);
    }

    #[test]
    fn files_of_a_chat() {
        let url = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,PNG"}}"#;
        content(&format!("[{url}]"), (1, 0, 1));
        content(&format!(r#"[{{"type":"text","text":"two"}},{url},{url}]"#), (2, 0, 2));
        content(r#"[{"type":"image_url","image_url":{"url":"https://a/b.png"}}]"#, (1, 0, 0));
        content(r#"[{"image_url":"data:image\/png;base64,PNG","type":"image_url"}]"#, (1, 0, 1));
        content(
            r#"[{"type":"input_audio","input_audio":{"data":"PNG","format":"wav"}}]"#,
            (0, 1, 1),
        );
        content(
            r#"[{"type":"video_url","video_url":{"url":"data:video/mp4;base64,PNG"}}]"#,
            (0, 1, 1),
        );
        let pdf = r#"{"file_data":"data:application/pdf;base64,PNG","filename":"a.pdf"}"#;
        content(&format!(r#"[{{"type":"file","file":{pdf}}}]"#), (0, 1, 1));
        // Its words are read.
        let text = r#"{"file_data":"data:text/plain;base64,PNG"}"#;
        content(&format!(r#"[{{"type":"file","file":{text}}}]"#), (0, 1, 0));
        content(r#"[{"type":"text","text":"a","image_url":null}]"#, (0, 0, 0));
    }

    #[test]
    fn files_of_responses() {
        let check = |item: &str, expect| check(false, &format!(r#"{{"input":[{item}]}}"#), expect);
        let message = |part: &str| format!(r#"{{"role":"user","content":[{part}]}}"#);
        let url = r#"{"type":"input_image","image_url":"data:image/png;base64,PNG"}"#;
        check(&message(url), (1, 0, 1));
        check(&message(r#"{"type":"input_image","file_id":"file-1"}"#), (1, 0, 0));
        let pdf = r#"{"type":"input_file","file_data":"data:application/pdf;base64,PNG"}"#;
        check(&message(pdf), (0, 1, 1));
        check(&message(r#"{"type":"input_file","file_url":"https://a/b.pdf"}"#), (0, 1, 0));
        let output = r#"{"type":"function_call_output","call_id":"1","output":"#;
        check(&format!("{output}[{url}]}}"), (1, 0, 1));
        check(&format!("{output}\"PNG\"}}"), (0, 0, 0));
        check(
            r#"{"type":"computer_call_output","output":{"type":"computer_screenshot",
                "image_url":"data:image/png;base64,PNG"}}"#,
            (1, 0, 1),
        );
        check(r#"{"type":"image_generation_call","id":"ig_1","result":"PNG"}"#, (1, 0, 1));
    }

    #[test]
    fn files_of_messages() {
        let data = |mime| format!(r#"{{"type":"base64","media_type":"{mime}","data":"PNG"}}"#);
        let block = |kind, source: &str| format!(r#"{{"type":"{kind}","source":{source}}}"#);
        let image = block("image", &data("image/png"));
        content(&format!("[{image}]"), (1, 0, 1));
        let late = r#"[{"source":{"data":"PNG","media_type":"image/png"},"type":"image"}]"#;
        content(late, (1, 0, 1));
        content(r#"[{"type":"image","source":{"type":"url","url":"https://a"}}]"#, (1, 0, 0));
        content(r#"[{"type":"image","source":{"type":"file","file_id":"a"}}]"#, (1, 0, 0));
        content(&format!("[{}]", block("document", &data("application/pdf"))), (0, 1, 1));
        let text = r#"{"type":"text","media_type":"text/plain","data":"PNG"}"#;
        content(&format!("[{}]", block("document", text)), (0, 0, 0));
        let inner = format!(r#"{{"type":"content","content":[{image}]}}"#);
        let document = block("document", &inner);
        content(&format!("[{document}]"), (1, 0, 1));
        let result = |content| format!(r#"{{"type":"tool_result","content":[{content}]}}"#);
        content(&format!("[{}]", result(image)), (1, 0, 1));
        content(&format!("[{}]", result(document)), (1, 0, 1));
        content(r#"[{"type":"search_result","source":"https://a","content":[]}]"#, (0, 0, 0));
    }

    #[test]
    fn files_of_google() {
        let contents = |part: &str| format!(r#"{{"contents":[{{"parts":[{part}]}}]}}"#);
        let check = |body: &str, expect| check(true, body, expect);
        let camel = r#"{"inlineData":{"mimeType":"image/png","data":"PNG"}}"#;
        check(&contents(camel), (1, 0, 1));
        let snake = r#"{"inline_data":{"data":"PNG","mime_type":"image/png"}}"#;
        check(&contents(snake), (1, 0, 1));
        check(&format!(r#"{{"contents":{{"parts":{camel}}}}}"#), (1, 0, 1));
        check(&format!(r#"{{"generateContentRequest":{}}}"#, contents(camel)), (1, 0, 1));
        check(&contents(r#"{"inlineData":{"mimeType":"audio/wav","data":"PNG"}}"#), (0, 1, 1));
        check(
            &contents(r#"{"inlineData":{"mimeType":"application/pdf","data":"PNG"}}"#),
            (0, 1, 1),
        );
        check(&contents(r#"{"inlineData":{"mimeType":"text/csv","data":"PNG"}}"#), (0, 1, 0));
        check(&contents(r#"{"fileData":{"fileUri":"https://a"}}"#), (1, 0, 0));
        let film = r#"{"file_data":{"mime_type":"video/mp4","file_uri":"https://a"}}"#;
        check(&contents(film), (0, 1, 0));
        let result = format!(r#"{{"functionResponse":{{"name":"f","parts":[{camel}]}}}}"#);
        check(&contents(&result), (1, 0, 1));
    }

    /// Words alone counted as pictures, and took what stood behind them out of the estimate.
    #[test]
    fn words_are_words() {
        let quoted = r#""{\"type\":\"image_url\",\"image_url\":\"data:image/png;base64,PNG\"}""#;
        let object = r#"{"type":"image","source":{"type":"base64","media_type":"image/png",
            "data":"PNG"},"content":[{"image_url":"data:image/png;base64,PNG"}]}"#;
        content(quoted, (0, 0, 0));
        content(&format!(r#"[{{"type":"text","text":{quoted}}}]"#), (0, 0, 0));
        content(r#"[{"type":"text","text":"data:image/png;base64,PNG"}]"#, (0, 0, 0));
        content(r#""inlineData""#, (0, 0, 0));
        content(&format!(r#"[{{"type":"tool_use","input":{object}}}]"#), (0, 0, 0));
        let call = format!(r#"{{"functionCall":{{"name":"f","args":{object}}}}}"#);
        let result = format!(r#"{{"functionResponse":{{"name":"f","response":{object}}}}}"#);
        for part in [call, result] {
            check(true, &format!(r#"{{"contents":[{{"parts":[{part}]}}]}}"#), (0, 0, 0));
        }
        check(false, &format!(r#"{{"metadata":{object},"prompt":{quoted}}}"#), (0, 0, 0));
    }

    /// Responses lets tools come in later than with the request's own.
    #[test]
    fn tools_among_the_items() {
        let check = |item: &str, expect: &[&str]| {
            let body = format!(r#"{{"tools":[{{"name":"a"}}],"input":[{item}]}}"#);
            assert_eq!(Found::of(&body, false).tools, expect, "{item}");
        };
        check(r#"{"type":"additional_tools","tools":[{"name":"rm"}]}"#, &["a", "rm"]);
        check(r#"{"tools":[{"name":"rm"}],"type":"tool_search_output"}"#, &["a", "rm"]);
        check(r#"{"type":"mcp_list_tools","tools":[{"name":"told"}]}"#, &["a"]);
        let twice =
            r#"{"type":"additional_tools","type":"mcp_list_tools","tools":[{"name":"rm"}]}"#;
        check(twice, &["a", "rm"]);
    }

    #[test]
    fn parts_without_end_are_text() {
        let many = 100_000;
        let (open, close) = (r#"{"content":["#.repeat(many), "]}".repeat(many));
        let body = format!(r#"{{"messages":[{open}{{"type":"image"}}{close}]}}"#);
        assert_eq!(Found::of(&body, false).images, 0);
    }
}
