//! What callers ask, by feature, in each of their dialects: written by hand, as their own clients
//! write it. A feature stands over a request that is the same without it.

use serde_json::{Value, json};

use crate::side::In;

/// One feature in the dialects of chats, in the order of [`In::CHATS`], and in plain completions.
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    /// Fields of the request without it.
    base: [Value; 4],
    /// Fields that it adds or replaces; null: the dialect cannot say it.
    said: [Value; 4],
    /// The same of plain completions.
    prompted: Value,
}

/// A feature in one dialect.
pub(crate) struct Case {
    pub(crate) without: Value,
    pub(crate) with: Value,
}

impl Feature {
    fn new(name: &'static str, said: [Value; 4]) -> Self {
        let base = [json!({}), json!({}), json!({}), json!({})];
        Self { name, base, said, prompted: Value::Null }
    }

    /// Plain completions say it so.
    fn prompted(self, prompted: Value) -> Self {
        Self { prompted, ..self }
    }

    /// Plain completions say it as chat does.
    fn alike(self) -> Self {
        Self { prompted: self.said[0].clone(), ..self }
    }

    /// Over these fields.
    fn over(self, base: [Value; 4]) -> Self {
        Self { base, ..self }
    }

    /// `None`: the dialect cannot say it.
    pub(crate) fn of(&self, side: In) -> Option<Case> {
        if side == In::Completions {
            let (without, said) = (plain(side), &self.prompted);
            let with = (!said.is_null()).then(|| with(without.clone(), said))?;
            return Some(Case { without, with });
        }
        let at = In::CHATS.iter().position(|other| *other == side).expect("one of them");
        if self.said[at].is_null() {
            return None;
        }
        let without = with(plain(side), &self.base[at]);
        Some(Case { with: with(without.clone(), &self.said[at]), without })
    }
}

/// A greeting.
pub(crate) fn plain(side: In) -> Value {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    match side {
        In::Chat => json!({"model": "m", "messages": messages}),
        In::Responses => json!({"model": "m", "input": "Hi"}),
        In::Messages => json!({"model": "m", "max_tokens": 2000, "messages": messages}),
        In::Gemini => json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}),
        In::Completions => json!({"model": "m", "prompt": "Hi"}),
    }
}

pub(crate) fn with(mut body: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

/// All of them, in the order of the page.
pub(crate) fn features() -> Vec<Feature> {
    [
        words(),
        prompts(),
        images(),
        tools(),
        choices(),
        results(),
        shapes(),
        sampling(),
        thinking(),
        rest(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn words() -> Vec<Feature> {
    let two = |role: &str| json!([{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
    let middle = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Go on"}]);
    let chat = |messages: &Value| json!({"messages": messages});
    let items = |messages: &Value| json!({"input": messages});
    let started =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes, "}]);
    let part = |text: &str| json!({"type": "text", "text": text});
    vec![
        Feature::new("text", [json!({}), json!({}), json!({}), json!({})]).alike(),
        Feature::new(
            "two texts in a turn",
            [
                json!({"messages": [{"role": "user", "content": [part("Hi"), part("there")]}]}),
                json!({"input": [{"role": "user", "content": [
                    {"type": "input_text", "text": "Hi"}, {"type": "input_text", "text": "there"}]}]}),
                json!({"messages": [{"role": "user", "content": [part("Hi"), part("there")]}]}),
                json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}, {"text": "there"}]}]}),
            ],
        ),
        Feature::new(
            "system prompt",
            [
                chat(&two("system")),
                json!({"instructions": "Be brief."}),
                json!({"system": "Be brief."}),
                json!({"systemInstruction": {"parts": [{"text": "Be brief."}]}}),
            ],
        ),
        Feature::new(
            "developer message",
            [chat(&two("developer")), items(&two("developer")), Value::Null, Value::Null],
        ),
        Feature::new(
            "system message in the middle",
            [chat(&middle), items(&middle), chat(&middle), Value::Null],
        ),
        Feature::new(
            "beginning of the answer",
            [
                with(chat(&started), &json!({"continue_final_message": true})),
                Value::Null,
                chat(&started),
                Value::Null,
            ],
        ),
    ]
}

/// What plain completions alone can say.
fn prompts() -> Vec<Feature> {
    let nobody = || [(); 4].map(|()| Value::Null);
    [
        ("a list of one prompt", json!({"prompt": ["Hi"]})),
        ("several prompts", json!({"prompt": ["Hi", "Bye"]})),
        ("a prompt of tokens", json!({"prompt": [1, 2, 3]})),
        ("the prompt in front of the answer", json!({"echo": true})),
        ("that, with log-probabilities", json!({"echo": true, "logprobs": 0})),
        ("scores of the prompt", json!({"prompt_logprobs": 1})),
        ("no answer", json!({"echo": true, "max_tokens": 0})),
        ("text behind the answer", json!({"suffix": "!"})),
        ("the best of more", json!({"best_of": 2})),
        ("a prompt without special tokens", json!({"add_special_tokens": false})),
        ("token ids beside the text", json!({"return_token_ids": true})),
    ]
    .map(|(name, said)| Feature::new(name, nobody()).prompted(said))
    .into()
}

fn images() -> Vec<Feature> {
    let inline = "data:image/png;base64,QUJD";
    let remote = "https://example.com/a.png";
    let chat = |url: &str, detail: &str| {
        let image = json!({"url": url, "detail": detail});
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": image}]}]})
    };
    let item = |url: &str, detail: &str| {
        let image = json!({"type": "input_image", "image_url": url, "detail": detail});
        json!({"input": [{"role": "user", "content": [image]}]})
    };
    let block = |source: Value| json!({"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]});
    let parts = |part: Value| json!({"contents": [{"role": "user", "parts": [part]}]});
    let data = json!({"inlineData": {"mimeType": "image/png", "data": "QUJD"}});
    let file = json!({"fileData": {"mimeType": "image/png", "fileUri": remote}});
    let png = json!({"type": "base64", "media_type": "image/png", "data": "QUJD"});
    let mut low = data.clone();
    low["mediaResolution"] = json!({"level": "MEDIA_RESOLUTION_LOW"});
    vec![
        Feature::new(
            "image, sent along",
            [chat(inline, "auto"), item(inline, "auto"), block(png), parts(data)],
        ),
        Feature::new(
            "image, by address",
            [
                chat(remote, "auto"),
                item(remote, "auto"),
                block(json!({"type": "url", "url": remote})),
                parts(file),
            ],
        ),
        Feature::new(
            "image, in low detail",
            [chat(inline, "low"), item(inline, "low"), Value::Null, parts(low)],
        ),
    ]
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]})
}

/// Functions on offer.
pub(crate) fn offered(names: &[&str], strict: bool) -> [Value; 4] {
    let each =
        |tool: &dyn Fn(&str) -> Value| names.iter().map(|name| tool(name)).collect::<Value>();
    let mark = |mut tool: Value| {
        if strict {
            tool["strict"] = true.into();
        }
        tool
    };
    let chat = each(&|name| {
        let function = json!({"name": name, "description": "Looks.", "parameters": schema()});
        json!({"type": "function", "function": mark(function)})
    });
    let item = each(&|name| {
        json!({"type": "function", "name": name, "description": "Looks.", "parameters": schema(),
            "strict": strict})
    });
    let block = each(&|name| {
        mark(json!({"name": name, "description": "Looks.", "input_schema": schema()}))
    });
    let declared = each(
        &|name| json!({"name": name, "description": "Looks.", "parametersJsonSchema": schema()}),
    );
    [
        json!({"tools": chat}),
        json!({"tools": item}),
        json!({"tools": block}),
        if strict { Value::Null } else { json!({"tools": [{"functionDeclarations": declared}]}) },
    ]
}

fn tools() -> Vec<Feature> {
    vec![
        Feature::new("tools", offered(&["look"], false)),
        Feature::new("tools, strict", offered(&["look"], true)),
        Feature::new("tools, their names with points", offered(&["files.look"], false)),
        Feature::new(
            "one call at a time",
            [
                json!({"parallel_tool_calls": false}),
                json!({"parallel_tool_calls": false}),
                json!({"tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}),
                Value::Null,
            ],
        )
        .over(offered(&["look"], false)),
    ]
}

fn choices() -> Vec<Feature> {
    let choice = |value: Value| json!({"tool_choice": value});
    let mode = |calling: Value| json!({"toolConfig": {"functionCallingConfig": calling}});
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let words = [("auto", "auto", "AUTO"), ("none", "none", "NONE"), ("required", "any", "ANY")];
    let names = ["tool choice: auto", "tool choice: none", "tool choice: required"];
    let plain = names.into_iter().zip(words).map(|(name, (openai, anthropic, google))| {
        Feature::new(
            name,
            [
                choice(openai.into()),
                choice(openai.into()),
                choice(json!({"type": anthropic})),
                mode(json!({"mode": google})),
            ],
        )
    });
    let named = Feature::new(
        "tool choice: named",
        [
            choice(function("look")),
            choice(json!({"type": "function", "name": "look"})),
            choice(json!({"type": "tool", "name": "look"})),
            mode(json!({"mode": "ANY", "allowedFunctionNames": ["look"]})),
        ],
    );
    let some = Feature::new(
        "tool choice: one of some",
        [
            choice(json!({"type": "allowed_tools", "allowed_tools": {"mode": "required",
                "tools": [function("look"), function("find")]}})),
            choice(json!({"type": "allowed_tools", "mode": "required", "tools": [
                {"type": "function", "name": "look"}, {"type": "function", "name": "find"}]})),
            Value::Null,
            mode(json!({"mode": "ANY", "allowedFunctionNames": ["look", "find"]})),
        ],
    );
    let three = offered(&["look", "find", "wait"], false);
    plain.chain([named, some]).map(|feature| feature.over(three.clone())).collect()
}

/// A turn with calls of `look` and what came of them, behind a greeting.
fn called(results: &[[Value; 4]]) -> [Value; 4] {
    let id = |at: usize| format!("call_{at}");
    let number = || 0..results.len();
    let arguments = |at: usize| json!({"at": id(at)});
    let text = |at: usize| arguments(at).to_string();
    let chat_calls: Value = number()
        .map(|at| json!({"id": id(at), "type": "function", "function": {"name": "look", "arguments": text(at)}}))
        .collect();
    let user = json!({"role": "user", "content": "Hi"});
    let mut chat =
        vec![user.clone(), json!({"role": "assistant", "content": null, "tool_calls": chat_calls})];
    let mut items = vec![user.clone()];
    items.extend(number().map(|at| {
        json!({"type": "function_call", "call_id": id(at), "name": "look", "arguments": text(at)})
    }));
    let uses: Value = number()
        .map(|at| json!({"type": "tool_use", "id": id(at), "name": "look", "input": arguments(at)}))
        .collect();
    let (mut blocks, mut parts) = (Vec::new(), Vec::new());
    for (at, [chat_said, item, block, part]) in results.iter().enumerate() {
        chat.push(json!({"role": "tool", "tool_call_id": id(at), "content": chat_said}));
        items.push(json!({"type": "function_call_output", "call_id": id(at), "output": item}));
        let base = json!({"type": "tool_result", "tool_use_id": id(at)});
        blocks.push(with(base, block));
        let base = json!({"id": id(at), "name": "look"});
        parts.push(json!({"functionResponse": with(base, part)}));
    }
    let calls: Value = number()
        .map(|at| json!({"functionCall": {"id": id(at), "name": "look", "args": arguments(at)}}))
        .collect();
    [
        json!({"messages": chat}),
        json!({"input": items}),
        json!({"messages": [user, {"role": "assistant", "content": uses},
            {"role": "user", "content": blocks}]}),
        json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": calls}, {"role": "user", "parts": parts}]}),
    ]
}

fn results() -> Vec<Feature> {
    let text = |text: &str| {
        [json!(text), json!(text), json!({"content": text}), json!({"response": {"output": text}})]
    };
    let image = [
        json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]),
        json!([{"type": "input_image", "image_url": "data:image/png;base64,QUJD"}]),
        json!({"content": [{"type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}]}),
        json!({"response": {}, "parts": [{"inlineData": {"mimeType": "image/png", "data": "QUJD"}}]}),
    ];
    let [_, _, failed, _] =
        called(&[[json!(""), json!(""), json!({"content": "No.", "is_error": true}), json!({})]]);
    let features = [
        Feature::new("parallel calls and their results", called(&[text("A"), text("B")])),
        Feature::new("a result with an image", called(&[image])),
        Feature::new("a result that is an error", [Value::Null, Value::Null, failed, Value::Null]),
    ];
    features.into_iter().map(|feature| feature.over(offered(&["look"], false))).collect()
}

fn shapes() -> Vec<Feature> {
    let named = json!({"type": "json_schema", "name": "place", "schema": schema(), "strict": true});
    let inner = json!({"name": "place", "schema": schema(), "strict": true});
    let mime = "application/json";
    vec![
        Feature::new(
            "JSON, any object",
            [
                json!({"response_format": {"type": "json_object"}}),
                json!({"text": {"format": {"type": "json_object"}}}),
                Value::Null,
                json!({"generationConfig": {"responseMimeType": mime}}),
            ],
        )
        .alike(),
        Feature::new(
            "JSON of a schema",
            [
                json!({"response_format": {"type": "json_schema", "json_schema": inner}}),
                json!({"text": {"format": named}}),
                json!({"output_config": {"format": {"type": "json_schema", "schema": schema()}}}),
                json!({"generationConfig": {"responseMimeType": mime, "responseJsonSchema": schema()}}),
            ],
        )
        .alike(),
        Feature::new(
            "one of some texts",
            [
                json!({"guided_choice": ["yes", "no"]}),
                Value::Null,
                Value::Null,
                json!({"generationConfig": {"responseMimeType": "text/x.enum",
                    "responseSchema": {"type": "STRING", "enum": ["yes", "no"]}}}),
            ],
        )
        .alike(),
        Feature::new(
            "text of a pattern",
            [json!({"guided_regex": "[a-z]+"}), Value::Null, Value::Null, Value::Null],
        )
        .alike(),
    ]
}

/// A field of the same value in all dialects, by its names; an empty name: it has none.
fn field(name: &'static str, names: [&str; 4], value: &Value) -> Feature {
    let [chat, responses, messages, gemini] = names;
    let one = |name: &str| if name.is_empty() { Value::Null } else { json!({name: value}) };
    let config =
        if gemini.is_empty() { Value::Null } else { json!({"generationConfig": {gemini: value}}) };
    Feature::new(name, [one(chat), one(responses), one(messages), config]).alike()
}

fn sampling() -> Vec<Feature> {
    vec![
        field(
            "temperature",
            ["temperature", "temperature", "temperature", "temperature"],
            &json!(0.5),
        ),
        field(
            "temperature above 1",
            ["temperature", "temperature", "", "temperature"],
            &json!(1.5),
        ),
        field("top_p", ["top_p", "top_p", "top_p", "topP"], &json!(0.5)),
        field("top_k", ["top_k", "", "top_k", "topK"], &json!(40)),
        field("min_p", ["min_p", "", "", ""], &json!(0.25)),
        field("presence penalty", ["presence_penalty", "", "", "presencePenalty"], &json!(0.5)),
        field("seed", ["seed", "", "", "seed"], &json!(7)),
        field("stops", ["stop", "", "stop_sequences", "stopSequences"], &json!(["END"])),
        field("bias of tokens", ["logit_bias", "", "", ""], &json!({"7": -100.0})),
        field(
            "most new tokens",
            ["max_completion_tokens", "max_output_tokens", "max_tokens", "maxOutputTokens"],
            &json!(1500),
        )
        .prompted(json!({"max_tokens": 1500})),
        field("several answers", ["n", "", "", "candidateCount"], &json!(2)),
        Feature::new(
            "log-probabilities",
            [
                json!({"logprobs": true, "top_logprobs": 2}),
                json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2}),
                Value::Null,
                json!({"generationConfig": {"responseLogprobs": true, "logprobs": 2}}),
            ],
        )
        .prompted(json!({"logprobs": 2})),
        // Google has it in the path.
        Feature::new("stream", [(); 4].map(|()| json!({"stream": true}))).alike(),
    ]
}

fn thinking() -> Vec<Feature> {
    let config = |value: Value| json!({"generationConfig": {"thinkingConfig": value}});
    vec![
        Feature::new(
            "thinking, much",
            [
                json!({"reasoning_effort": "high"}),
                json!({"reasoning": {"effort": "high"}}),
                json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
                config(json!({"thinkingLevel": "HIGH", "includeThoughts": true})),
            ],
        )
        .alike(),
        Feature::new(
            "thinking, bounded",
            [
                json!({"thinking_token_budget": 1024}),
                Value::Null,
                json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}),
                config(json!({"thinkingBudget": 1024, "includeThoughts": true})),
            ],
        )
        .alike(),
        Feature::new(
            "no thinking",
            [
                json!({"reasoning_effort": "none"}),
                json!({"reasoning": {"effort": "none"}}),
                json!({"thinking": {"type": "disabled"}}),
                config(json!({"thinkingBudget": 0})),
            ],
        )
        .alike(),
    ]
}

fn rest() -> Vec<Feature> {
    vec![
        Feature::new(
            "user",
            [
                json!({"user": "u1"}),
                json!({"user": "u1"}),
                json!({"metadata": {"user_id": "u1"}}),
                Value::Null,
            ],
        )
        .alike(),
        Feature::new(
            "a short answer",
            [
                json!({"verbosity": "low"}),
                json!({"text": {"verbosity": "low"}}),
                Value::Null,
                Value::Null,
            ],
        ),
        Feature::new(
            "what is too long is cut",
            [Value::Null, json!({"truncation": "auto"}), Value::Null, Value::Null],
        ),
        Feature::new(
            "notes",
            [
                json!({"metadata": {"team": "a"}}),
                json!({"metadata": {"team": "a"}}),
                Value::Null,
                json!({"labels": {"team": "a"}}),
            ],
        )
        .alike(),
        Feature::new(
            "a field that nobody knows",
            [
                json!({"made_up": 1}),
                json!({"made_up": 1}),
                json!({"made_up": 1}),
                json!({"madeUp": 1}),
            ],
        )
        .alike(),
    ]
}
