//! `docs/dialects.md`: what becomes of each feature on its way between two dialects, as the
//! goldens show it.

use crate::answers::arrives;
use crate::asked::{Feature, features};
use crate::errors;
use crate::golden;
use crate::requests::{self, Fate, fate};
use crate::several;
use crate::side::{From, In, To};
use crate::told;

const HEAD: &str = "# Dialects: what is carried

Made by `BLESS=1 cargo test -p wire --test pairs`; do not edit.

A caller speaks one of five dialects, a provider one of five, and any caller can be answered by any
provider of chats. Where both speak the same dialect a request is passed on as it was written, with
the model's name changed, and so is the answer: nothing is lost. These tables are about all other
pairs; the pair of a dialect with itself is among them because the translation is tested on it too.

## Requests

What a provider's dialect has no words for is named. With `lost_fields = \"refuse\"`, which is the
default, the request is refused by these names; with `lost_fields = \"drop\"` it goes without them,
and the header `x-hearth-dropped` of the answer names them.

- yes: it arrives, in the provider's own words.
- without: these fields are lost. Names are those of OpenAI's chat where it has some, else of the
  caller's own request.
- left out: the provider gets none of it, and no name is told. So it is with thoughts of earlier
  turns, which a provider takes back only if it made and sealed them itself.
- refused: the request does not get so far.
- A name of a tool that the provider refuses, for its length or its letters, is replaced by one that
  is always the same; the answer has the caller's own.
- A dash: the caller's dialect cannot say it.

The prompt of a plain completion is what a user says in a chat, and the answer is the text behind
it: a model that chats answers where one that does not would go on writing. Thoughts are not shown,
for a text has no place for them. Where the caller sets no limit of new tokens it is 16, as with
OpenAI; a model that thinks may use that up before a word is there. `reasoning_effort` and
`thinking_token_budget`, which are no fields of plain completions, are taken where a chat is made.

A Claude is told to think, and how much, in the words that it knows by its name: before 3.7 in
none, before 4.6 with a budget, into which an effort is turned, from 4.6 on with an effort, into
which from 4.7 on a budget is turned. From 4.7 on none takes a temperature, `top_p` or `top_k` but
the usual. Where the caller sets no limit of tokens, those of the thoughts come on top of the
usual limit.

- Not to think is what Opus from 5.5 on, Fable and Mythos cannot be told: they think as little as
  they can, without `reasoning_effort`. Sonnet from 5.5 on may still think between calls.
- No call can be forced with Opus and Sonnet from 5.5 on, Fable and Mythos from 5.1 on: without
  `tool_choice`. Those before 4.8 do not think where a call is forced.
- From 4.6 on none goes on with the beginning of an answer: without `continue_final_message`.
- Before 4.6 one is refused that is given a budget among calls which came without thoughts, as all
  do of a caller of chat, which has no words for what seals them. Such a turn goes without
  thoughts. A request is not refused for that, for an agent would end with its second turn; from
  4.6 on the budget becomes an effort, for which there is no such rule.

The three kinds of chat are OpenAI's own; the part of it that all who call themselves compatible
know; and that with what vLLM and SGLang add. Some cells depend on the model: those here are of
models that think, by name gpt-5.1, claude-opus-4-6 (of Anthropic, and on Bedrock) and
gemini-3-flash.
";

const ANSWERS: &str = "
## Answers

What a caller reads of a provider's answer, whole and as a stream. Columns are what the provider
speaks; a dash: it has no such answer. \"without\" says what its caller cannot read. Seals are what
a provider signs its thoughts with and wants back: they arrive if what the caller sends back brings
them back.

Thoughts are shown to callers that ask for them: in Messages with `thinking`, in Google's dialect
with `includeThoughts`. In Chat and Responses they always are, but for `include_reasoning`: false.
Seals come without the words to a caller of Messages that asks with `display`: `omitted`, and to
every caller of Google's dialect, on an empty text; not from a Claude before 4.7 on Bedrock, which
seals its words and takes no seal back without them. These tables are of callers that ask.
";

fn request(features: &[Feature], side: In, to: To, name: &str) -> String {
    let Some(case) = requests::case(features, side, to, name) else { return "-".into() };
    match (fate(side, to, &case), name) {
        (Fate::Refused, _) => "refused".into(),
        (Fate::Lost(names), _) => format!("without `{}`", names.join("`, `")),
        (Fate::Carried, _) | (Fate::Same, "text" | "a list of one prompt") => "yes".into(),
        (Fate::Same, "the prompt in front of the answer") => "yes, by Hearth".into(),
        (Fate::Same, "tool choice: auto") => "yes, unsaid".into(),
        (Fate::Same, "stream") => "yes, in the path".into(),
        (Fate::Same, _) => "left out".into(),
    }
}

fn answer(to: In, from: From, feature: &str) -> String {
    verdict(arrives(from, to, feature))
}

/// What does not arrive, whole and streamed.
fn verdict(missing: Option<[Vec<&str>; 2]>) -> String {
    let without = |names: &[&str]| match names {
        [] => "yes".to_owned(),
        names => format!("without {}", names.join(", ")),
    };
    match missing {
        None => "-".into(),
        Some([whole, stream]) if whole == stream => without(&whole),
        Some([whole, stream]) => {
            format!("whole: {}; stream: {}", without(&whole), without(&stream))
        }
    }
}

fn table(page: &mut String, corner: &str, columns: &[&str], rows: &[(&str, Vec<String>)]) {
    *page += &format!("| {corner} | {} |\n", columns.join(" | "));
    *page += &format!("|---{}|\n", "|---".repeat(columns.len()));
    for (name, cells) in rows.iter().filter(|(_, cells)| cells.iter().any(|cell| cell != "-")) {
        *page += &format!("| {name} | {} |\n", cells.join(" | "));
    }
}

#[test]
fn the_page_says_what_the_goldens_show() {
    let mut page = HEAD.to_owned();
    let features = features();
    let names: Vec<&str> = requests::names(&features);
    for side in In::ALL {
        page += &format!("\n### A caller of {} asks\n\n", side.name());
        let row = |name: &&'static str| {
            (
                *name,
                To::ALL.iter().map(|to| request(&features, side, *to, name)).collect::<Vec<_>>(),
            )
        };
        let rows: Vec<_> = names.iter().map(row).collect();
        table(&mut page, "", &To::ALL.map(To::name), &rows);
    }
    page += ANSWERS;
    for to in In::ALL {
        page += &format!("\n### A caller of {} reads\n\n", to.name());
        let row = |name: &'static str| {
            (name, From::ALL.iter().map(|from| answer(to, *from, name)).collect::<Vec<_>>())
        };
        let mut rows: Vec<_> = told::FEATURES.into_iter().map(row).collect();
        let several = From::ALL.map(|from| verdict(several::arrives(from, to)));
        rows.push(("two choices", several.into()));
        for name in errors::FEATURES {
            let cell = |from: From| {
                let missing = errors::arrives(from, to, name);
                verdict(Some([missing.clone(), missing]))
            };
            rows.push((name, From::ALL.map(cell).into()));
        }
        table(&mut page, "", &From::ALL.map(From::name), &rows);
    }
    golden::check("../../docs/dialects.md", &page);
}
