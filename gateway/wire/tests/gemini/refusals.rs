//! Requests that are refused, each with the path of the field at fault.

use serde_json::{Value, json};

use super::parse;

#[track_caller]
fn check(body: &Value, param: &str) {
    let error = parse(body).err().unwrap_or_else(|| panic!("accepted: {body}"));
    assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
}

/// A question with more fields.
fn with(more: &Value) -> Value {
    let mut body = json!({"contents": [{"parts": [{"text": "q"}]}]});
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    body
}

#[test]
fn fields_of_the_request() {
    check(&json!({}), "contents");
    check(&json!({"contents": []}), "contents");
    check(&json!({"contents": [{"role": "model", "parts": []}]}), "contents");
    check(&with(&json!({"model": "models/other"})), "model");
    check(&with(&json!({"cachedContent": "c"})), "cachedContent");
    check(&with(&json!({"store": true})), "store");
    check(&with(&json!({"serviceTier": "flex"})), "serviceTier");
    check(&with(&json!({"labels": {"a": 1}})), "labels.a");
    check(&with(&json!({"safetySettings": {}})), "safetySettings");
    check(&with(&json!({"content": []})), "content");
    check(&with(&json!({"toolConfig": {}, "tool_config": {}})), "toolConfig");
    check(
        &with(&json!({"systemInstruction": {"parts": [{"inlineData": {}}]}})),
        "systemInstruction.parts[0].inlineData.mimeType",
    );
}

#[test]
fn parts() {
    let one = |part: &Value, role: &str| json!({"contents": [{"role": role, "parts": [part]}]});
    let user = |part: &Value, param: &str| {
        check(&one(part, "user"), &format!("contents[0].parts[0].{param}"));
    };
    let model = |part: &Value, param: &str| {
        check(&one(part, "model"), &format!("contents[0].parts[0].{param}"));
    };
    check(&json!({"contents": [{"role": "assistant", "parts": []}]}), "contents[0].role");
    check(&json!({"contents": [{"role": "user", "parts": []}]}), "contents[0].parts");
    user(&json!({}), "text");
    user(&json!({"text": 1}), "text");
    user(&json!({"text": "a", "inlineData": {}}), "inlineData");
    user(&json!({"executableCode": {}}), "executableCode");
    user(&json!({"codeExecutionResult": {}}), "codeExecutionResult");
    user(&json!({"videoMetadata": {}, "text": ""}), "videoMetadata");
    user(&json!({"inlineData": {"mimeType": "audio/wav", "data": ""}}), "inlineData.mimeType");
    user(&json!({"inlineData": {"mimeType": "image/a,b", "data": ""}}), "inlineData.mimeType");
    user(&json!({"inlineData": {"data": ""}}), "inlineData.mimeType");
    user(&json!({"inlineData": {"mimeType": "image/png", "data": "a b"}}), "inlineData.data");
    user(&json!({"fileData": {"fileUri": "gs://b/c"}}), "fileData.fileUri");
    user(&json!({"thought": true, "text": "t"}), "thought");
    user(&json!({"functionCall": {"name": "f"}}), "functionCall");
    user(&json!({"text": "a", "mediaResolution": {"level": "BIG"}}), "mediaResolution.level");
    model(&json!({"functionResponse": {"name": "f"}}), "functionResponse");
    model(&json!({"inlineData": {"mimeType": "image/png", "data": ""}}), "inlineData");
    model(&json!({"functionCall": {"args": {}}}), "functionCall.name");
    model(&json!({"functionCall": {"name": "f", "args": []}}), "functionCall.args");
    model(&json!({"functionCall": {"name": "f", "partialArgs": []}}), "functionCall.partialArgs");
    model(&json!({"functionCall": {"name": "f"}, "thought": true}), "thought");
    model(&json!({"text": "a", "thoughtSignature": "no!"}), "thoughtSignature");
}

#[test]
fn calls_and_their_results() {
    let call = json!({"role": "model", "parts": [{"functionCall": {"id": "x", "name": "f"}}]});
    let result =
        |id: &str, name: &str| json!({"parts": [{"functionResponse": {"id": id, "name": name}}]});
    let check = |contents: &Value, param: &str| check(&json!({"contents": contents}), param);
    check(&json!([call]), "contents[0].parts[0].functionCall");
    check(&json!([call, {"parts": [{"text": "a"}]}]), "contents[0].parts[0].functionCall");
    check(&json!([call, result("y", "f")]), "contents[1].parts[0].functionResponse.id");
    check(&json!([call, result("", "g")]), "contents[1].parts[0].functionResponse.name");
    check(
        &json!([call, result("x", "f"), result("x", "f")]),
        "contents[2].parts[0].functionResponse.id",
    );
    check(&json!([call, call, result("x", "f")]), "contents[1].parts[0].functionCall.id");
    check(
        &json!([call, {"role": "function", "parts": [{"text": "a"}]}]),
        "contents[1].parts[0].functionResponse",
    );
    let streamed = json!({"parts": [{"functionResponse": {"name": "f", "willContinue": true}}]});
    check(&json!([call, streamed]), "contents[1].parts[0].functionResponse.willContinue");
}

#[test]
fn tools_and_modes() {
    let tools = |tool: &Value, param: &str| check(&with(&json!({"tools": [tool]})), param);
    tools(&json!({"googleSearch": {}}), "tools[0].googleSearch");
    tools(&json!({"codeExecution": {}}), "tools[0].codeExecution");
    let declared = |declaration: &Value, param: &str| {
        tools(
            &json!({"functionDeclarations": [declaration]}),
            &format!("tools[0].functionDeclarations[0].{param}"),
        );
    };
    declared(&json!({}), "name");
    declared(&json!({"name": "a b"}), "name");
    declared(&json!({"name": "f", "behavior": "NON_BLOCKING"}), "behavior");
    declared(&json!({"name": "f", "parametersJsonSchema": []}), "parametersJsonSchema");
    declared(&json!({"name": "f", "parameters": {"type": "X"}}), "parameters.type");
    declared(
        &json!({"name": "f", "parameters": {}, "parametersJsonSchema": {}}),
        "parametersJsonSchema",
    );
    tools(&json!({"functionDeclarations": [{"name": "f"}, {"name": "f"}]}), "tools");
    let mode = |calling: &Value, param: &str| {
        check(
            &with(&json!({"tools": [{"functionDeclarations": [{"name": "f"}]}],
                "toolConfig": {"functionCallingConfig": calling}})),
            &format!("toolConfig.functionCallingConfig.{param}"),
        );
    };
    mode(&json!({"mode": "SOME"}), "mode");
    mode(&json!({"allowedFunctionNames": ["f"]}), "allowedFunctionNames");
    mode(&json!({"mode": "NONE", "allowedFunctionNames": ["f"]}), "allowedFunctionNames");
    mode(&json!({"mode": "ANY", "allowedFunctionNames": ["g"]}), "allowedFunctionNames[0]");
    mode(&json!({"streamFunctionCallArguments": true}), "streamFunctionCallArguments");
    let any = json!({"functionCallingConfig": {"mode": "ANY"}});
    check(&with(&json!({"toolConfig": any})), "toolConfig.functionCallingConfig.mode");
    check(&with(&json!({"toolConfig": {"retrievalConfig": {}}})), "toolConfig.retrievalConfig");
}

#[test]
fn generation_config() {
    let config = |more: &Value, param: &str| {
        check(&with(&json!({"generationConfig": more})), &format!("generationConfig.{param}"));
    };
    config(&json!({"temperature": 2.5}), "temperature");
    config(&json!({"topP": -1}), "topP");
    config(&json!({"topK": 40.5}), "topK");
    config(&json!({"topK": 0}), "topK");
    config(&json!({"maxOutputTokens": 0}), "maxOutputTokens");
    config(&json!({"candidateCount": 0}), "candidateCount");
    config(&json!({"stopSequences": ["a", ""]}), "stopSequences[1]");
    config(&json!({"logprobs": 3}), "logprobs");
    config(&json!({"responseLogprobs": true, "logprobs": 21}), "logprobs");
    config(&json!({"responseModalities": ["IMAGE"]}), "responseModalities");
    config(&json!({"speechConfig": {}}), "speechConfig");
    config(&json!({"mediaResolution": "X"}), "mediaResolution");
    config(&json!({"responseJsonSchema": {}}), "responseMimeType");
    config(&json!({"responseMimeType": "text/html"}), "responseMimeType");
    config(&json!({"responseMimeType": "text/x.enum"}), "responseJsonSchema");
    config(
        &json!({"responseMimeType": "text/x.enum", "responseSchema": {"enum": [1]}}),
        "responseSchema",
    );
    config(&json!({"responseSchema": {}, "responseJsonSchema": {}}), "responseJsonSchema");
    config(&json!({"thinkingConfig": {"thinkingLevel": "SOME"}}), "thinkingConfig.thinkingLevel");
    config(&json!({"thinkingConfig": {"thinkingBudget": -2}}), "thinkingConfig.thinkingBudget");
    config(
        &json!({"thinkingConfig": {"thinkingBudget": 1, "thinkingLevel": "LOW"}}),
        "thinkingConfig.thinkingLevel",
    );
    config(&json!({"maxTokens": 1}), "maxTokens");
}
