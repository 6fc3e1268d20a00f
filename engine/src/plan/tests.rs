//! The plan on specs of real sizes, without files.

use super::*;
use crate::families;

fn spec(json: &str) -> ModelSpec {
    let config = crate::config::Fields::parse(std::path::Path::new("config.json"), json.as_bytes());
    families::from_config(&config.unwrap()).unwrap().spec
}

/// Llama 3.1 8B: 131,072 bytes of bf16 KV a token... times 16 in a page.
fn llama_8b() -> ModelSpec {
    spec(
        r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rope_theta": 500000.0}"#,
    )
}

const OPTIONS: PlanOptions = PlanOptions {
    dtype: Dtype::Auto,
    threads: 8,
    context: None,
    cache_bytes: None,
    cache_element: None,
    rows_max: 64,
    step_tokens_max: 512,
};
const BF16: (Precision, CacheElement) = (Precision::Bfloat16, CacheElement::Bf16);
const GIB: u64 = 1 << 30;

fn planned(options: &PlanOptions, available: u64) -> Result<Plan, PlanError> {
    for_spec(&llama_8b(), 16 * GIB, BF16, options, available.into())
}

#[test]
fn the_default_pool_is_a_share_of_memory() {
    let plan = planned(&OPTIONS, 256 * GIB).unwrap();
    assert_eq!(plan.cache.page_bytes(), 2 << 20);
    assert_eq!(plan.cache.pages_per_slot, 8192);
    assert_eq!(plan.cache_bytes, 48 * GIB, "three times the weights");
    let plan = planned(&OPTIONS, 128 * GIB).unwrap();
    assert_eq!(plan.cache_bytes, 32 * GIB, "a quarter of the memory");
    let plan = planned(&OPTIONS, 40 * GIB).unwrap();
    assert_eq!(plan.cache_bytes, 16 * GIB, "one context, though it is more than a quarter");
    let short = PlanOptions { context: Some(2000), ..OPTIONS };
    let plan = planned(&short, 256 * GIB).unwrap();
    assert_eq!(plan.cache.pages_per_slot, 125);
    assert_eq!(plan.cache.pages, 16 * 125, "sixteen contexts");
    assert!(plan.total_bytes() < 256 * GIB);
}

#[test]
fn errors_say_what_would_fit() {
    let text = |options: &PlanOptions, available| planned(options, available).unwrap_err();
    let error = text(&OPTIONS, 24 * GIB);
    let PlanError::Context { context_max, left, .. } = error else { panic!("{error}") };
    assert!(left < 8 * GIB && left > 7 * GIB);
    let fits = PlanOptions { context: Some(context_max), ..OPTIONS };
    planned(&fits, 24 * GIB).unwrap();
    let longer = PlanOptions { context: Some(context_max + 1), ..OPTIONS };
    assert!(planned(&longer, 24 * GIB).is_err());
    assert!(error.to_string().contains(&context_max.to_string()), "{error}");
    assert!(matches!(text(&OPTIONS, 8 * GIB), PlanError::Weights { .. }));
    let asked = PlanOptions { cache_bytes: Some(100 * GIB), ..OPTIONS };
    assert!(matches!(text(&asked, 64 * GIB), PlanError::Cache { .. }));
    let asked = PlanOptions { cache_bytes: Some(GIB), ..OPTIONS };
    assert!(matches!(text(&asked, 64 * GIB), PlanError::Context { context_max: 8192, .. }));
    for (options, field) in [
        (PlanOptions { context: Some(0), ..OPTIONS }, "context"),
        (PlanOptions { context: Some(1), ..OPTIONS }, "context: wanted 2 tokens at least"),
        (PlanOptions { context: Some(131_073), ..OPTIONS }, "context"),
        (PlanOptions { rows_max: 0, ..OPTIONS }, "rows_max"),
        (PlanOptions { threads: 0, ..OPTIONS }, "threads"),
        (PlanOptions { step_tokens_max: 63, ..OPTIONS }, "step_tokens_max"),
    ] {
        let error = text(&options, 64 * GIB);
        assert!(error.to_string().starts_with(field), "{error}");
    }
}

#[test]
fn the_table_and_the_object() {
    let options = PlanOptions { context: Some(4096), cache_bytes: Some(GIB + 5), ..OPTIONS };
    let plan = planned(&options, 64 * GIB).unwrap();
    let table = plan.to_string();
    let mut lines = table.lines();
    assert_eq!(
        lines.next().unwrap(),
        "weights       16.0 GiB  computed in bfloat16 (quantized ones in 8-bit integers)"
    );
    assert_eq!(
        lines.next().unwrap(),
        "KV cache      1.00 GiB  512 pages of 16 tokens in bf16: 8192 tokens, 2.0 full contexts"
    );
    let object = serde_json::to_value(&plan).unwrap();
    assert_eq!(object["cache_bytes"], GIB);
    assert_eq!(object["cache_pages"], 512);
    assert_eq!(object["precision"], "bfloat16");
}
