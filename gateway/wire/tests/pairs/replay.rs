//! The second turn of a chat: an answer, as its caller read it, sent back with the next question.

use serde_json::{Value, json};
use wire::{Choice, Finish, Seal, Thought, Usage};

use crate::asked::{Case, plain, with};
use crate::side::{From, In, To};
use crate::told::told;

/// Features of replayed turns.
pub(crate) const FEATURES: [&str; 3] =
    ["thoughts, in words alone", "thoughts, its own", "thoughts, another provider's"];

/// A request whose second message is this answer, in the caller's dialect. Results of its calls
/// are there.
pub(crate) fn request(side: In, answer: &[u8]) -> Value {
    let answer: Value = serde_json::from_slice(answer).expect("JSON");
    let mut fields = json!({});
    match side {
        In::Chat => {
            let turn = &answer["choices"][0]["message"];
            let mut all = vec![json!({"role": "user", "content": "Hi"}), turn.clone()];
            let calls = turn["tool_calls"].as_array().into_iter().flatten();
            all.extend(
                calls.map(
                    |call| json!({"role": "tool", "tool_call_id": call["id"], "content": "R"}),
                ),
            );
            all.push(json!({"role": "user", "content": "Go on"}));
            fields["messages"] = all.into();
        }
        In::Responses => {
            let items = answer["output"].as_array().expect("items");
            let mut all = vec![json!({"role": "user", "content": "Hi"})];
            all.extend(items.iter().cloned());
            let calls = items.iter().filter(|item| item["type"] == "function_call");
            all.extend(calls.map(|call| {
                json!({"type": "function_call_output", "call_id": call["call_id"], "output": "R"})
            }));
            all.push(json!({"role": "user", "content": "Go on"}));
            fields["input"] = all.into();
        }
        In::Messages => {
            let blocks = answer["content"].as_array().expect("blocks");
            let calls = blocks.iter().filter(|block| block["type"] == "tool_use");
            let mut next: Vec<Value> = calls
                .map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": "R"}))
                .collect();
            next.push(json!({"type": "text", "text": "Go on"}));
            fields["messages"] = json!([{"role": "user", "content": "Hi"},
                {"role": "assistant", "content": blocks}, {"role": "user", "content": next}]);
        }
        In::Gemini => {
            let turn = &answer["candidates"][0]["content"];
            let calls = turn["parts"].as_array().into_iter().flatten();
            let calls = calls.filter_map(|part| part.get("functionCall"));
            let mut next: Vec<Value> = calls
                .map(|call| {
                    let response = json!({"output": "R"});
                    let result =
                        json!({"id": call["id"], "name": call["name"], "response": response});
                    json!({"functionResponse": result})
                })
                .collect();
            next.push(json!({"text": "Go on"}));
            fields["contents"] = json!([{"role": "user", "parts": [{"text": "Hi"}]}, turn,
                {"role": "user", "parts": next}]);
        }
        In::Completions => unreachable!("a prompt has no turns"),
    }
    with(plain(side), &fields)
}

/// What a caller sends back of this answer of a provider.
pub(crate) fn of(side: In, choice: &Choice) -> Value {
    request(side, &side.write(std::slice::from_ref(choice), &Usage::default()))
}

fn thinks(from: From) -> Choice {
    let told = told(from, "thoughts and text").expect("all think");
    from.read(&told.whole).expect("it can be read").choices.remove(0)
}

/// One of the features above, to this provider.
pub(crate) fn case(side: In, to: To, feature: &str) -> Option<Case> {
    if side == In::Completions {
        return None;
    }
    let other = match to.from() {
        From::Messages | From::Converse => From::Responses,
        _ => From::Messages,
    };
    let choice = match feature {
        "thoughts, its own" => thinks(to.from()),
        "thoughts, another provider's" => thinks(other),
        _ => {
            let choice = Choice::text(0, "Hello.", Finish::Stop);
            Choice { thoughts: vec![Thought::of("Let me see.")], ..choice }
        }
    };
    // What a dialect cannot show, its caller cannot send back.
    let sealed = choice.thoughts.iter().any(|thought| thought.seal.is_some());
    if (feature == "thoughts, in words alone") == sealed || (sealed && side == In::Chat) {
        return None;
    }
    let silent = Choice { thoughts: Vec::new(), ..choice.clone() };
    Some(Case { without: of(side, &silent), with: of(side, &choice) })
}

/// Seals of the thoughts that a caller sends back.
pub(crate) fn seals(side: In, choice: &Choice) -> Vec<Seal> {
    let chat = side.parse(&of(side, choice), false).expect("it is sound");
    let thoughts = chat.messages.into_iter().flat_map(|message| message.thoughts);
    thoughts.filter_map(|thought| thought.seal).collect()
}
