//! Requests for vectors and scores: what parsers accept, what they refuse by which path, and what
//! answers look like.

use serde_json::{Value, json};
use wire::Head;
use wire::openai::rerank::{Ranked, rerank_answer, score_answer};
use wire::openai::{embeddings, parse_embeddings, parse_rerank, parse_score, render_rerank};
use wire::relay::whole;
use wire::{
    ApiError, Broken, Dialect, Encoding, ErrorKind, Instruction, Limits, Lost, Prompt,
    RerankRequest, Truncate, cohere,
};

fn merged(mut base: Value, extra: &Value) -> Vec<u8> {
    for (name, value) in extra.as_object().expect("an object") {
        base[name] = value.clone();
    }
    base.to_string().into_bytes()
}

fn embed(extra: &Value) -> Result<wire::EmbeddingRequest, ApiError> {
    let base = json!({"model": "m", "input": "hi"});
    parse_embeddings(&merged(base, extra), &Limits::default())
}

fn rerank(extra: &Value) -> Result<RerankRequest, ApiError> {
    let base = json!({"model": "m", "query": "q", "documents": ["a", "b"]});
    parse_rerank(&merged(base, extra), &Limits::default())
}

fn cohere(extra: &Value) -> Result<RerankRequest, ApiError> {
    let base = json!({"model": "m", "query": "q", "documents": ["a", "b"]});
    cohere::parse(&merged(base, extra), &Limits::default())
}

fn score(extra: &Value) -> Result<wire::ScoreRequest, ApiError> {
    let base = json!({"model": "m", "text_1": "a", "text_2": "b"});
    parse_score(&merged(base, extra), &Limits::default())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(got: Result<T, ApiError>, param: &str, code: &str) {
    let error = got.expect_err(param);
    assert_eq!(
        (error.param.as_deref(), error.code.as_deref()),
        (Some(param), Some(code)),
        "{error}"
    );
}

#[test]
fn embeddings_take_texts_and_tokens() {
    let text = |text: &str| Prompt::Text(text.to_owned());
    let check = |input: Value, expect: &[Prompt]| {
        let got = embed(&json!({"input": input})).expect("accepted");
        assert_eq!(got.inputs, expect, "{input}");
    };
    check(json!("a"), &[text("a")]);
    check(json!(["a", "b"]), &[text("a"), text("b")]);
    check(json!([1, 2]), &[Prompt::Tokens(vec![1, 2])]);
    check(json!([[1, 2], [3]]), &[Prompt::Tokens(vec![1, 2]), Prompt::Tokens(vec![3])]);
}

#[test]
fn embeddings_take_options() {
    let got = embed(&json!({
        "encoding_format": "base64", "dimensions": 3, "truncate_prompt_tokens": -1,
        "input_type": "query", "user": "u", "priority": 0,
    }))
    .expect("accepted");
    assert_eq!(got.encoding, Encoding::Base64);
    assert_eq!(got.dimensions, Some(3));
    assert_eq!(got.truncate, Truncate::ToModel);
    assert_eq!(got.instruction, Instruction::Query);
    let got = embed(&json!({"prompt_name": "web", "truncate_prompt_tokens": 9})).expect("accepted");
    assert_eq!(got.instruction, Instruction::Named("web".to_owned()));
    assert_eq!(got.truncate, Truncate::To(9));
    let plain = embed(&json!({})).expect("accepted");
    assert_eq!((plain.truncate, plain.instruction), (Truncate::Never, Instruction::Default));
}

#[test]
fn embeddings_are_refused_by_path() {
    let many: Vec<&str> = vec!["x"; 2049];
    for (extra, param, code) in [
        (json!({"input": null}), "input", "missing_required_parameter"),
        (json!({"model": null}), "model", "missing_required_parameter"),
        (json!({"input": []}), "input", "empty_array"),
        (json!({"input": ""}), "input", "invalid_value"),
        (json!({"input": ["a", ""]}), "input[1]", "invalid_value"),
        (json!({"input": [[1], []]}), "input[1]", "empty_array"),
        (json!({"input": [1, "a"]}), "input[1]", "invalid_type"),
        (json!({"input": [-1]}), "input[0]", "integer_below_min_value"),
        (json!({"input": {}}), "input", "invalid_type"),
        (json!({"input": many}), "input", "array_above_max_length"),
        (json!({"encoding_format": "hex"}), "encoding_format", "invalid_value"),
        (json!({"dimensions": 0}), "dimensions", "integer_below_min_value"),
        (json!({"truncate_prompt_tokens": 0}), "truncate_prompt_tokens", "integer_below_min_value"),
        (
            json!({"truncate_prompt_tokens": -2}),
            "truncate_prompt_tokens",
            "integer_below_min_value",
        ),
        (json!({"input_type": "image"}), "input_type", "invalid_value"),
        (json!({"input_type": "query", "prompt_name": "q"}), "input_type", "invalid_value"),
        (json!({"normalize": true}), "normalize", "unsupported_parameter"),
        (json!({"user": 3}), "user", "invalid_type"),
        (json!({"inputs": "x"}), "inputs", "unknown_parameter"),
        (json!({"temperature": 1}), "temperature", "unknown_parameter"),
    ] {
        refused(embed(&extra), param, code);
    }
}

#[test]
fn rankings_take_documents() {
    let got = rerank(&json!({"documents": ["a", {"text": "b"}], "top_n": 1})).expect("accepted");
    assert_eq!(got.documents, ["a", "b"]);
    assert_eq!((got.top_n, got.return_documents), (Some(1), true));
    assert_eq!((got.document_tokens, got.truncate), (None, Truncate::Never));
    let got = rerank(&json!({"max_tokens_per_doc": 9})).expect("accepted");
    assert_eq!(got.document_tokens, Some(9));
    for (extra, param, code) in [
        (json!({"query": null}), "query", "missing_required_parameter"),
        (json!({"documents": null}), "documents", "missing_required_parameter"),
        (json!({"documents": []}), "documents", "empty_array"),
        (json!({"documents": ["a", 1]}), "documents[1]", "invalid_type"),
        (json!({"documents": [{}]}), "documents[0].text", "missing_required_parameter"),
        (
            json!({"documents": [{"text": "a", "title": "b"}]}),
            "documents[0].title",
            "unknown_parameter",
        ),
        (json!({"top_n": 0}), "top_n", "integer_below_min_value"),
        (json!({"max_tokens_per_doc": 0}), "max_tokens_per_doc", "integer_below_min_value"),
        (json!({"return_documents": "yes"}), "return_documents", "invalid_type"),
        (json!({"rank_fields": ["a"]}), "rank_fields", "unsupported_parameter"),
        (json!({"input": "a"}), "input", "unknown_parameter"),
    ] {
        refused(rerank(&extra), param, code);
    }
}

#[test]
fn scores_take_pairs() {
    let check = |left: Value, right: Value, expect: &[(&str, &str)]| {
        let got = score(&json!({"text_1": left, "text_2": right})).expect("accepted");
        let pairs: Vec<_> = got.pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(pairs, expect);
    };
    check(json!("a"), json!("b"), &[("a", "b")]);
    check(json!("a"), json!(["b", "c"]), &[("a", "b"), ("a", "c")]);
    check(json!(["a"]), json!(["b", "c"]), &[("a", "b"), ("a", "c")]);
    check(json!(["a", "b"]), json!(["c", "d"]), &[("a", "c"), ("b", "d")]);
    for (extra, param, code) in [
        (json!({"text_1": ["a", "b"], "text_2": "c"}), "text_1", "invalid_value"),
        (json!({"text_1": []}), "text_1", "empty_array"),
        (json!({"text_2": null}), "text_2", "missing_required_parameter"),
        (json!({"text_2": ["a", 2]}), "text_2[1]", "invalid_type"),
        (json!({"text_2": 2}), "text_2", "invalid_type"),
    ] {
        refused(score(&extra), param, code);
    }
}

#[test]
fn answers() {
    let vectors = [vec![1.0, -0.5], vec![0.25, 2.0]];
    let read = |encoding| -> Value {
        let bytes = embeddings::answer("m", &vectors, encoding, 7);
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let expect = json!({
        "object": "list", "model": "m", "usage": {"prompt_tokens": 7, "total_tokens": 7},
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0, -0.5]},
            {"object": "embedding", "index": 1, "embedding": [0.25, 2.0]},
        ],
    });
    assert_eq!(read(Encoding::Float), expect);
    // 1.0 is 00 00 80 3f, -0.5 is 00 00 00 bf.
    assert_eq!(read(Encoding::Base64)["data"][0]["embedding"], "AACAPwAAAL8=");

    let ranking = [
        Ranked { index: 1, score: 0.75, document: Some("b") },
        Ranked { index: 0, score: 0.5, document: None },
    ];
    let got: Value = serde_json::from_slice(&rerank_answer("id", "m", &ranking, 9)).expect("JSON");
    let expect = json!({
        "id": "id", "model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9},
        "results": [
            {"index": 1, "relevance_score": 0.75, "document": {"text": "b"}},
            {"index": 0, "relevance_score": 0.5},
        ],
    });
    assert_eq!(got, expect);

    let head = Head { id: "id".to_owned(), created: 5, model: "m".to_owned(), service_tier: None };
    let got: Value = serde_json::from_slice(&score_answer(&head, &[0.5], 3)).expect("JSON");
    let expect = json!({
        "id": "id", "object": "list", "created": 5, "model": "m",
        "data": [{"index": 0, "object": "score", "score": 0.5}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    });
    assert_eq!(got, expect);
}

#[test]
fn cohere_s_requests() {
    let got = cohere(&json!({"top_n": 1, "priority": 0, "return_documents": false}));
    let got = got.expect("accepted");
    assert_eq!((got.documents.len(), got.top_n, got.return_documents), (2, Some(1), false));
    // What is too long is cut without a word, as everywhere in this dialect.
    assert_eq!((got.document_tokens, got.truncate), (None, Truncate::ToModel));
    let got = cohere(&json!({"max_tokens_per_doc": 7})).expect("accepted");
    assert_eq!(got.document_tokens, Some(7));
    for (extra, param, code) in [
        (json!({"query": null}), "query", "missing_required_parameter"),
        (json!({"documents": []}), "documents", "empty_array"),
        (json!({"documents": [1]}), "documents[0]", "invalid_type"),
        (json!({"top_n": 0}), "top_n", "integer_below_min_value"),
        (json!({"max_tokens_per_doc": "x"}), "max_tokens_per_doc", "invalid_type"),
        (json!({"priority": 3}), "priority", "unsupported_parameter"),
        (json!({"relevant_spans": {}}), "relevant_spans", "unsupported_parameter"),
        (json!({"return_documents": true}), "return_documents", "unsupported_parameter"),
        (json!({"rank_fields": ["a"]}), "rank_fields", "unsupported_parameter"),
        (json!({"truncate_prompt_tokens": 5}), "truncate_prompt_tokens", "unknown_parameter"),
    ] {
        refused(cohere(&extra), param, code);
    }
}

#[test]
fn cohere_s_answers_and_errors() {
    let ranking = [
        Ranked { index: 1, score: 0.75, document: Some("b") },
        Ranked { index: 0, score: 0.5, document: None },
    ];
    let got: Value = serde_json::from_slice(&cohere::answer("id", &ranking, 101, 9)).expect("JSON");
    let expect = json!({
        "id": "id",
        "results": [
            {"index": 1, "relevance_score": 0.75},
            {"index": 0, "relevance_score": 0.5},
        ],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 2},
            "tokens": {"input_tokens": 9, "output_tokens": 0}},
    });
    assert_eq!(got, expect);
    let error = ApiError::new(ErrorKind::Invalid, "c", "no \"such\" thing");
    let got: Value = serde_json::from_slice(&cohere::error(&error, "r-1")).expect("JSON");
    assert_eq!(got, json!({"id": "r-1", "message": "no \"such\" thing"}));
    for (status, body, message, kind) in [
        (401, r#"{"id":"x","message":"invalid api token"}"#, "invalid api token", 401),
        (429, r#"{"message":"slow down"}"#, "slow down", 429),
        (500, "<html>", "status 500", 500),
    ] {
        let error = cohere::read_error(status, body.as_bytes());
        let expect = match kind {
            401 => ErrorKind::Unauthorized,
            429 => ErrorKind::Overloaded,
            _ => ErrorKind::Internal,
        };
        assert_eq!((&*error.message, error.kind), (message, expect));
    }
}

#[test]
fn a_provider_s_ranking_is_read() {
    let jina = r#"{"model":"m","usage":{"total_tokens":38},"results":[{"index":1,
        "document":{"text":"b"},"relevance_score":0.5},{"index":0,"relevance_score":0.25}]}"#;
    let own = r#"{"id":"x","results":[{"index":0,"relevance_score":0.5}],"meta":{"api_version":
        {"version":"2","is_experimental":true},"billed_units":{"search_units":1}}}"#;
    let read = |body: &str, documents| cohere::read_answer(body.as_bytes(), documents);
    assert_eq!(read(jina, 2), Ok(vec![(1, 0.5), (0, 0.25)]));
    assert_eq!(read(own, 2), Ok(vec![(0, 0.5)]));
    for (body, documents, says) in [
        (jina, 1, "document 1 of 1"),
        (
            r#"{"results":[{"index":0,"relevance_score":1},{"index":0,"relevance_score":0}]}"#,
            9,
            "0 of 9",
        ),
        (r#"{"results":[{"index":-1,"relevance_score":1}]}"#, 9, "JSON"),
        (r#"{"results":[{"index":0,"relevance_score":"1"}]}"#, 9, "JSON"),
        ("{}", 9, "JSON"),
    ] {
        let Err(Broken(why)) = read(body, documents) else { panic!("{body}") };
        assert!(why.contains(says), "{why}");
    }
    let said = |dialect, body: &str| whole(dialect, body.as_bytes()).expect("an answer").usage;
    let used = |dialect, body: &str| said(dialect, body).map(|usage| usage.prompt_tokens);
    assert_eq!(used(Dialect::Rerank, jina), Some(38));
    assert_eq!(used(Dialect::Cohere, own), None);
    let tokens = r#"{"meta":{"billed_units":{"search_units":1},"tokens":{"input_tokens":12}}}"#;
    assert_eq!(used(Dialect::Cohere, tokens), Some(12));
    let openai = r#"{"usage":{"prompt_tokens":7,"total_tokens":9}}"#;
    assert_eq!(used(Dialect::Embeddings, openai), Some(7));
}

/// Each of the two writes what the other means, and names what it has no word for.
#[test]
fn rankings_are_translated() {
    let check = |request: &RerankRequest, extended: bool, expect: Value, names: &[&str]| {
        let mut lost = Lost::default();
        let mut got = render_rerank(request, extended, &mut lost);
        for name in ["model", "query", "documents"] {
            got.as_object_mut().expect("an object").remove(name).expect(name);
        }
        assert_eq!((got, lost.names().collect::<Vec<_>>()), (expect, names.to_vec()));
    };
    let plain = cohere(&json!({})).expect("accepted");
    check(&plain, false, json!({"return_documents": false}), &[]);
    let all = json!({"return_documents": false, "truncate_prompt_tokens": -1});
    check(&plain, true, all, &[]);
    let asked = cohere(&json!({"top_n": 1, "max_tokens_per_doc": 5})).expect("accepted");
    check(&asked, false, json!({"return_documents": false, "top_n": 1}), &["max_tokens_per_doc"]);
    let all = json!({"return_documents": false, "top_n": 1, "truncate_prompt_tokens": -1,
        "max_tokens_per_doc": 5});
    check(&asked, true, all, &[]);

    let asked = rerank(&json!({"top_n": 1, "max_tokens_per_doc": 5, "truncate_prompt_tokens": 8}));
    let asked = asked.expect("accepted");
    let mut lost = Lost::default();
    let got = cohere::render(&asked, &mut lost);
    let expect = json!({"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1,
        "max_tokens_per_doc": 5});
    assert_eq!(got, expect);
    assert_eq!(lost.names().collect::<Vec<_>>(), ["truncate_prompt_tokens"]);
    check(
        &asked,
        false,
        json!({"return_documents": false, "top_n": 1}),
        &["max_tokens_per_doc", "truncate_prompt_tokens"],
    );
}
