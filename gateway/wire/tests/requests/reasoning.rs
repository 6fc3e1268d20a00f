//! The fields that steer thoughts.

use serde_json::{Value, json};
use wire::{Effort, Reasoning};

use super::{chat, check, completion};

#[test]
fn reasoning_is_refused_by_path() {
    let (kind, value, unsupported) = ("invalid_type", "invalid_value", "unsupported_parameter");
    let table = [
        (json!({"reasoning_effort": "much"}), "reasoning_effort", value),
        (json!({"reasoning_effort": 1}), "reasoning_effort", kind),
        (json!({"thinking_token_budget": -1}), "thinking_token_budget", "integer_below_min_value"),
        (json!({"thinking_token_budget": 1.0}), "thinking_token_budget", kind),
        (
            json!({"thinking_token_budget": 1_u64 << 32}),
            "thinking_token_budget",
            "integer_above_max_value",
        ),
        (json!({"include_reasoning": "no"}), "include_reasoning", kind),
        (json!({"reasoning": "low"}), "reasoning", kind),
        (json!({"reasoning": {"effort": "much"}}), "reasoning.effort", value),
        (json!({"reasoning": {"max_tokens": "1"}}), "reasoning.max_tokens", kind),
        (json!({"reasoning": {"exclude": true}}), "reasoning.exclude", unsupported),
        (json!({"reasoning": {"enabled": true}}), "reasoning.enabled", unsupported),
        (json!({"reasoning": {"summary": "auto"}}), "reasoning.summary", unsupported),
        (
            json!({"reasoning": {"generate_summary": "auto"}}),
            "reasoning.generate_summary",
            unsupported,
        ),
        (json!({"reasoning": {"efort": "low"}}), "reasoning.efort", "unknown_parameter"),
        (
            json!({"reasoning_effort": "low", "reasoning": {"effort": "high"}}),
            "reasoning.effort",
            value,
        ),
        (
            json!({"thinking_token_budget": 1, "reasoning": {"max_tokens": 2}}),
            "reasoning.max_tokens",
            value,
        ),
    ];
    for (extra, param, code) in table {
        check(chat(&extra), param, code);
    }
    for field in ["reasoning_effort", "reasoning", "thinking_token_budget", "include_reasoning"] {
        check(completion(&json!({field: null})), field, "unknown_parameter");
    }
}

#[test]
fn reasoning_is_understood() {
    let check = |extra: Value, effort: Option<Effort>, budget: Option<u32>, include: bool| {
        let got = chat(&extra).expect("accepted").reasoning;
        assert_eq!(got, Reasoning { effort, budget, include, ..Reasoning::default() }, "{extra}");
    };
    check(json!({}), None, None, true);
    check(json!({"reasoning": {}}), None, None, true);
    for effort in Effort::ALL {
        check(json!({"reasoning_effort": effort.name()}), Some(effort), None, true);
        check(json!({"reasoning": {"effort": effort.name()}}), Some(effort), None, true);
    }
    check(json!({"thinking_token_budget": 0}), None, Some(0), true);
    check(json!({"reasoning": {"max_tokens": 7, "exclude": false}}), None, Some(7), true);
    check(
        json!({"reasoning_effort": "low", "thinking_token_budget": 9, "include_reasoning": false,
            "reasoning": {"effort": "low", "max_tokens": 9}}),
        Some(Effort::Low),
        Some(9),
        false,
    );
    check(json!({"reasoning_effort": "xhigh"}), Some(Effort::XHigh), None, true);
}
