//! What a request says about thoughts, and the shape that its answer is held to.

use super::aside::Aside;
use super::policy;
use crate::claude::BUDGET_MIN;
use crate::fields::{Fault, Fields, Parsed};
use crate::request::{Effort, Form, Reasoning, Structured};

/// The efforts that it knows.
const EFFORTS: [Effort; 5] =
    [Effort::Low, Effort::Medium, Effort::High, Effort::XHigh, Effort::Max];

/// What `thinking` and `output_config.effort` say. A caller that does not ask for thoughts gets no
/// blocks of them, sealed ones neither; that it says nothing is, to a provider, nothing said.
pub(super) fn reasoning(
    fields: Fields<'_>,
    max_tokens: Option<u32>,
    aside: &mut Aside,
) -> Parsed<Reasoning> {
    let effort = match fields.object("output_config")? {
        None => None,
        Some(config) => output_config(config, aside).map_err(|f| f.under("output_config"))?,
    };
    let hidden = Reasoning { effort, include: false, seals: false, ..Reasoning::default() };
    let (Some(thinking), Some(value)) = (fields.object("thinking")?, fields.get("thinking")) else {
        let silence = (!aside.keeps()).then_some(Effort::None);
        return Ok(Reasoning { effort: effort.or(silence), ..hidden });
    };
    match config(thinking, effort, max_tokens, aside).map_err(|fault| fault.under("thinking")) {
        Err(fault) if fault.is_unsupported() => {
            aside.whole(|| "thinking".into(), value, fault).map(|()| hidden)
        }
        read => read,
    }
}

fn output_config(config: Fields<'_>, aside: &mut Aside) -> Parsed<Option<Effort>> {
    aside.fields(|| "output_config".into(), config, policy::OUTPUT_CONFIG)?;
    let Some(name) = config.string("effort")? else { return Ok(None) };
    let known = EFFORTS.into_iter().find(|effort| effort.name() == name);
    known.map(Some).ok_or_else(|| {
        let all = EFFORTS.map(Effort::name).join("', '");
        Fault::value("effort", format!("expected one of '{all}'"))
    })
}

fn config(
    thinking: Fields<'_>,
    effort: Option<Effort>,
    max_tokens: Option<u32>,
    aside: &mut Aside,
) -> Parsed<Reasoning> {
    aside.fields(|| "thinking".into(), thinking, policy::THINKING_CONFIG)?;
    let kind = thinking.required_string("type")?;
    if kind != "enabled" && thinking.get("budget_tokens").is_some() {
        return Err(Fault::value("budget_tokens", "it belongs to 'type': \"enabled\""));
    }
    match kind {
        // Without thoughts there is nothing that an effort could change.
        "disabled" => {
            let effort = Some(Effort::None);
            Ok(Reasoning { effort, include: false, seals: false, ..Reasoning::default() })
        }
        "adaptive" => Ok(Reasoning { effort, include: shown(thinking)?, ..Reasoning::default() }),
        "enabled" => {
            let most = max_tokens.map_or(u32::MAX, |max| max.saturating_sub(1));
            if most < BUDGET_MIN {
                let why = format!("it is at least {BUDGET_MIN} and less than 'max_tokens'");
                return Err(Fault::value("budget_tokens", why));
            }
            let budget = thinking.natural("budget_tokens", BUDGET_MIN..=most)?;
            let budget = budget.ok_or_else(|| Fault::missing("budget_tokens"))?;
            let (budget, include) = (Some(budget), shown(thinking)?);
            Ok(Reasoning { effort, budget, include, ..Reasoning::default() })
        }
        "between_tools" => {
            let why = "what is said between calls is text here; use 'disabled'";
            Err(Fault::unsupported("type", why))
        }
        _ => Err(Fault::value("type", "expected 'enabled', 'adaptive' or 'disabled'")),
    }
}

/// Thoughts come in the model's own words, which are their own summary. Those that are omitted are
/// blocks without words where a provider has sealed them.
fn shown(thinking: Fields<'_>) -> Parsed<bool> {
    match thinking.string("display")? {
        None | Some("summarized") => Ok(true),
        Some("omitted") => Ok(false),
        Some(_) => Err(Fault::value("display", "expected 'summarized' or 'omitted'")),
    }
}

/// The shape in `output_config.format`, or in `output_format`, as it was called in the beta.
pub(super) fn structured(fields: Fields<'_>) -> Parsed<Option<Structured>> {
    let config = fields.object("output_config")?;
    let new = config.map_or(Ok(None), |config| config.object("format"));
    let new = new.map_err(|fault| fault.under("output_config"))?;
    match (new, fields.object("output_format")?) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            let why = "it cannot be combined with 'output_config.format'";
            Err(Fault::value("output_format", why))
        }
        (Some(format), None) => {
            let format = shape(format, "output_config.format.schema");
            format.map_err(|fault| fault.under("format").under("output_config")).map(Some)
        }
        (None, Some(format)) => {
            let format = shape(format, "output_format.schema");
            format.map_err(|fault| fault.under("output_format")).map(Some)
        }
    }
}

fn shape(format: Fields<'_>, field: &str) -> Parsed<Structured> {
    format.only(&["type", "schema"])?;
    if format.required_string("type")? != "json_schema" {
        return Err(Fault::value("type", "expected 'json_schema'"));
    }
    format.object("schema")?;
    let schema = format.get("schema").ok_or_else(|| Fault::missing("schema"))?;
    Ok(Structured {
        form: Form::JsonSchema(schema.clone()),
        field: field.to_owned(),
        name: None,
        description: None,
        strict: None,
    })
}
