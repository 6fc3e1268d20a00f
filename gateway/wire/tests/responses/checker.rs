//! A stream as an official client reads it: items are added, parts are added to them, texts grow,
//! and each is done once. Written apart from the writer, and strict where clients differ.

use serde_json::Value;

/// An item while its events come.
struct Item {
    id: String,
    kind: String,
    /// Texts of its parts, and whether each is done; a call has one.
    parts: Vec<(String, bool)>,
    done: Option<Value>,
}

/// What a stream came to.
pub(crate) struct Outcome {
    /// The response of its last event, if it has ended.
    pub(crate) last: Option<Value>,
    /// Names of its events, in order.
    pub(crate) names: Vec<String>,
}

/// Reads a stream that may end anywhere behind an event, and panics where a client would fail.
#[track_caller]
pub(crate) fn read(stream: &[u8]) -> Outcome {
    let text = std::str::from_utf8(stream).expect("UTF-8");
    assert!(text.is_empty() || text.ends_with("\n\n"), "an event is cut: {text}");
    let mut items: Vec<Item> = Vec::new();
    let mut outcome = Outcome { last: None, names: Vec::new() };
    for event in text.split_terminator("\n\n").filter(|event| !event.starts_with(':')) {
        let (name, data) = event.split_once('\n').expect("a name and data");
        let name = name.strip_prefix("event: ").expect("a name");
        let data: Value =
            serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(data["type"], name);
        assert_eq!(data["sequence_number"], outcome.names.len(), "{name}");
        assert!(outcome.last.is_none(), "{name} after the end");
        let created = outcome.names.first().is_some_and(|name| name == "response.created");
        assert!(created || name == "response.created", "{name} comes first");
        match name {
            "response.created" => assert!(outcome.names.is_empty()),
            "response.in_progress" => assert_eq!(outcome.names.len(), 1),
            "response.completed" | "response.incomplete" | "response.failed" => {
                end(name, &data["response"], &items);
                outcome.last = Some(data["response"].clone());
            }
            _ => take(name, &data, &mut items),
        }
        outcome.names.push(name.to_owned());
    }
    outcome
}

fn index(data: &Value, name: &str) -> usize {
    usize::try_from(data[name].as_u64().expect(name)).expect("small")
}

#[track_caller]
fn take(name: &str, data: &Value, items: &mut Vec<Item>) {
    let at = index(data, "output_index");
    if name == "response.output_item.added" {
        assert_eq!(at, items.len(), "items are added in their order");
        let item = &data["item"];
        let id = item["id"].as_str().expect("an id").to_owned();
        assert!(items.iter().all(|other| other.id != id), "an id of its own");
        assert_eq!(item["status"], "in_progress");
        let kind = item["type"].as_str().expect("a kind").to_owned();
        let is_call = kind.ends_with("_call");
        let parts = if is_call { vec![(String::new(), false)] } else { Vec::new() };
        items.push(Item { id, kind, parts, done: None });
        return;
    }
    let item = items.get_mut(at).expect("an item that was added");
    assert!(item.done.is_none(), "{name} of an item that is done");
    if name == "response.output_item.done" {
        assert_eq!(data["item"]["id"], item.id.as_str());
        assert_eq!(data["item"]["type"], item.kind.as_str());
        assert!(item.parts.iter().all(|(_, done)| *done), "all parts are done");
        item.done = Some(data["item"].clone());
        return;
    }
    assert_eq!(data["item_id"], item.id.as_str());
    let is_call = item.kind.ends_with("_call");
    // A summary has parts of its own.
    let at = if name.contains("summary") { "summary_index" } else { "content_index" };
    let part = if is_call { 0 } else { index(data, at) };
    if matches!(name, "response.content_part.added" | "response.reasoning_summary_part.added") {
        assert!(!is_call);
        assert_eq!(part, item.parts.len(), "parts are added in their order");
        assert!(item.parts.iter().all(|(_, done)| *done), "one part at a time");
        item.parts.push((String::new(), false));
        return;
    }
    let (text, done) = item.parts.get_mut(part).expect("a part that was added");
    if matches!(name, "response.content_part.done" | "response.reasoning_summary_part.done") {
        assert!(*done, "its text is done before it");
        let said = &data["part"];
        let whole = said.get("text").or(said.get("refusal")).expect("a text");
        assert_eq!(whole, text.as_str());
        return;
    }
    assert!(!*done, "{name} of a part that is done");
    let (_, event) = name.rsplit_once('.').expect("a dot");
    match event {
        "delta" => text.push_str(data["delta"].as_str().expect("a text")),
        "done" => {
            let names = ["text", "refusal", "arguments", "input"];
            let whole = names.iter().find_map(|name| data.get(name)).expect("a text");
            assert_eq!(whole, text.as_str(), "the whole is what was streamed");
            *done = true;
        }
        _ => panic!("{name} is not an event of this dialect"),
    }
}

#[track_caller]
fn end(name: &str, response: &Value, items: &[Item]) {
    let output = response["output"].as_array().expect("an output");
    assert_eq!(output.len(), items.len());
    for (item, last) in items.iter().zip(output) {
        assert_eq!(last["id"], item.id.as_str());
        match &item.done {
            Some(done) => assert_eq!(done, last, "the end repeats what was done"),
            None => {
                assert_eq!(name, "response.failed", "an item is not done");
                assert_eq!(last["status"], "incomplete");
            }
        }
    }
    let status = name.strip_prefix("response.").expect("a status");
    assert_eq!(response["status"], status);
    assert_eq!(response["error"].is_null(), status != "failed");
    assert_eq!(response["incomplete_details"].is_null(), status != "incomplete");
    assert_eq!(response["usage"].is_null(), status == "failed");
}
