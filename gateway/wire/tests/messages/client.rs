//! A client of its own, which puts a stream together as Anthropic's packages do and complains
//! where they would: an independent check of what is written.

use serde_json::{Value, json};

/// A stream as its client sees it.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// The message so far.
    pub(crate) message: Option<Value>,
    /// The block under way.
    open: Option<usize>,
    /// Text of the arguments under way.
    arguments: String,
    /// The error that ended the stream.
    pub(crate) error: Option<Value>,
    /// `message_stop` has come.
    pub(crate) whole: bool,
    delta: bool,
    pub(crate) pings: usize,
}

impl Client {
    /// Reads whole events, each as `event:` and `data:` in two lines.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let mut client = Self::default();
        let text = std::str::from_utf8(bytes).expect("UTF-8");
        for event in text.split_terminator("\n\n") {
            if event.starts_with(": ") {
                assert!(!event.contains('\n') && !client.whole, "a comment of one line");
                continue;
            }
            let (name, data) = event.split_once('\n').expect("two lines");
            let name = name.strip_prefix("event: ").expect("a name");
            let data = data.strip_prefix("data: ").expect("data");
            let value: Value = serde_json::from_str(data).expect("JSON");
            assert_eq!(value["type"], name, "the event is called as its data");
            assert_eq!(value.to_string(), data, "the bytes are serde_json's");
            client.event(name, &value);
        }
        client
    }

    fn event(&mut self, name: &str, value: &Value) {
        assert!(!self.whole && self.error.is_none(), "{name} behind the end");
        match name {
            "ping" => self.pings += 1,
            "error" => self.error = Some(value.clone()),
            "message_start" => {
                assert!(self.message.is_none(), "a second message_start");
                assert_eq!(value["message"]["content"], json!([]));
                self.message = Some(value["message"].clone());
            }
            _ => {
                assert!(self.message.is_some(), "{name} before message_start");
                self.inside(name, value);
            }
        }
    }

    fn inside(&mut self, name: &str, value: &Value) {
        let message = self.message.as_mut().expect("begun");
        let blocks = message["content"].as_array_mut().expect("blocks");
        let index = || usize::try_from(value["index"].as_u64().expect("an index")).expect("small");
        match name {
            "content_block_start" => {
                assert_eq!((self.open, self.delta), (None, false), "a block within another");
                assert_eq!(index(), blocks.len(), "indexes are dense");
                self.open = Some(blocks.len());
                self.arguments.clear();
                let block = &value["content_block"];
                if block["type"] == "tool_use" {
                    assert_eq!(block["input"], json!({}));
                }
                blocks.push(block.clone());
            }
            "content_block_delta" => {
                assert_eq!(self.open, Some(index()), "more of the block under way");
                more(blocks.last_mut().expect("open"), &value["delta"], &mut self.arguments);
            }
            "content_block_stop" => {
                assert_eq!(self.open.take(), Some(index()));
                let block = blocks.last_mut().expect("open");
                match block["type"].as_str().expect("a type") {
                    "thinking" => assert_ne!(block["signature"], "", "thoughts are signed"),
                    "tool_use" if !self.arguments.is_empty() => {
                        block["input"] = self.arguments.as_str().into();
                    }
                    _ => {}
                }
            }
            "message_delta" => {
                assert_eq!((self.open, self.delta), (None, false));
                self.delta = true;
                for (name, item) in value["delta"].as_object().expect("an object") {
                    message[name] = item.clone();
                }
                message["usage"] = value["usage"].clone();
            }
            "message_stop" => {
                assert_eq!((self.open, self.delta), (None, true));
                assert!(message["stop_reason"].is_string());
                self.whole = true;
            }
            other => panic!("{other}"),
        }
    }
}

/// More of a block.
fn more(block: &mut Value, delta: &Value, arguments: &mut String) {
    let of = |field: &str| delta[field].as_str().expect("a text").to_owned();
    let (kind, field) = match delta["type"].as_str().expect("a type") {
        "text_delta" => ("text", "text"),
        "thinking_delta" => ("thinking", "thinking"),
        "signature_delta" => ("thinking", "signature"),
        "input_json_delta" => ("tool_use", "partial_json"),
        other => panic!("{other}"),
    };
    assert_eq!(block["type"], kind);
    assert_ne!(of(field), "", "an empty delta");
    if kind == "thinking" {
        assert_eq!(block["signature"], "", "sealed thoughts do not go on");
    }
    match field {
        "partial_json" => *arguments += &of(field),
        _ => block[field] = (block[field].as_str().expect("a text").to_owned() + &of(field)).into(),
    }
}
