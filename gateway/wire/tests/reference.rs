//! docs/api.md lists every field as the parser treats it. After a change of the tables:
//! `BLESS=1 cargo test -p wire --test reference`.

use std::fmt::Write as _;
use std::path::Path;

use wire::openai::policy::{
    CHAT, COMMON, COMPLETION, EMBEDDINGS, POOLING, REASONING, RERANK, Rule, SCORE, STRUCTURED,
};

fn table(title: &str, rules: &[(&str, Rule)]) -> String {
    let mut out = format!("\n### {title}\n\n| field | what becomes of it |\n|---|---|\n");
    for (name, rule) in rules {
        let what = match rule {
            Rule::Honoured => "honoured".to_owned(),
            Rule::AdvisoryText | Rule::Advisory => "accepted; cannot change the answer".to_owned(),
            Rule::Only(values, why) => format!("only `{}`: {why}", values.join("` or `")),
            Rule::Refused(why) => format!("refused: {why}"),
        };
        let _ = writeln!(out, "| `{name}` | {what} |");
    }
    out
}

#[test]
fn the_reference_page_lists_every_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let page = std::fs::read_to_string(&path).expect("docs/api.md");
    let (open, close) = ("<!-- fields -->\n", "<!-- /fields -->");
    let start = page.find(open).expect("the opening mark") + open.len();
    let end = page.find(close).expect("the closing mark");
    let fields = [
        table("Chat and completions", COMMON),
        table("Inside `structured_outputs`", STRUCTURED),
        table("Chat", CHAT),
        table("Inside `reasoning`", REASONING),
        table("Completions", COMPLETION),
        table("Embeddings, rerank and score", POOLING),
        table("Embeddings", EMBEDDINGS),
        table("Rerank", RERANK),
        table("Score", SCORE),
    ]
    .concat();
    if std::env::var("BLESS").is_ok() {
        let page = format!("{}{fields}\n{}", &page[..start], &page[end..]);
        std::fs::write(&path, page).expect("docs/api.md can be written");
        return;
    }
    assert_eq!(page[start..end].trim(), fields.trim(), "run with BLESS=1");
}
