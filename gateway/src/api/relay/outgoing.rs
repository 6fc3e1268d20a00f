//! What a provider is sent: the caller's own bytes where both speak one dialect, else the request
//! written anew. What cannot be said there is refused by name, or dropped and named.

use std::sync::Arc;

use axum::http::HeaderValue;
use wire::glance::Most;
use wire::openai::Flavor;
use wire::responses::Whom;
use wire::{
    ApiError, Back, Dialect, ErrorKind, Lost, Message, StreamOptions, converse, gemini, messages,
    openai, responses,
};

use super::super::App;
use super::super::bill::Bill;
use super::super::envelope::Caller;
use super::super::error::Failure;
use super::super::forward::{Inbound, ROOM};
use super::super::kept::{self, Own};
use super::super::prepare;
use super::super::surface::{Page, Parsed};
use super::super::turn;
use super::{of_request, unfit};
use crate::config::routing::LostFields;
use crate::upstream::{Provider, Trouble};

/// New tokens that Anthropic's dialect must be told, where the caller says nothing; those of
/// thoughts come on top of it.
const MESSAGES_MAX_TOKENS: u32 = 8192;

/// What is sent, and how the answer is to be read.
pub(super) struct Outgoing {
    pub(super) dialect: Dialect,
    pub(super) body: Vec<u8>,
    /// How the answer is written; `None`: as it comes.
    pub(super) page: Option<Page>,
    pub(super) stream: bool,
    pub(super) dropped: Option<HeaderValue>,
    pub(super) options: StreamOptions,
    /// What is kept of an answer that is passed on.
    pub(super) own: Option<Own>,
}

/// The request as this provider gets it.
pub(super) async fn outgoing(
    app: &Arc<App>,
    caller: &Caller,
    inbound: &Inbound,
    (provider, model): (&Arc<Provider>, &str),
    bill: Option<&Bill>,
) -> Result<Outgoing, Trouble> {
    let own = inbound.surface.dialect();
    // What policy and context allow, where that is less than what the caller asks for.
    let most = bill.map(Bill::max_output);
    // What cannot be read in one way alone is read here first.
    let alone = || caller.says.as_ref().is_some_and(|says| says.stands_alone());
    if provider.speaks(own, model) && (own != Dialect::Responses || alone()) {
        return Ok(as_it_is(inbound, (provider, model), most));
    }
    let past = usize::try_from(caller.past_estimate()).unwrap_or(usize::MAX);
    let bytes = inbound.body.len().saturating_add(past.saturating_mul(TOKEN_BYTES));
    if bytes <= app.limits.inline_bytes_max {
        return written(app, caller, inbound, (provider, model), most);
    }
    let (caller, inbound) = (caller.clone(), inbound.clone());
    let (provider, model) = (Arc::clone(provider), model.to_owned());
    let work = move |app: &App| Ok(written(app, &caller, &inbound, (&provider, &model), most));
    Box::pin(prepare::run(app, bytes, work)).await.map_err(unfit)?
}

/// Bytes of a token, about.
const TOKEN_BYTES: usize = 4;

/// The request written anew.
fn written(
    app: &App,
    caller: &Caller,
    inbound: &Inbound,
    (provider, model): (&Provider, &str),
    most: Option<u32>,
) -> Result<Outgoing, Trouble> {
    let own = inbound.surface.dialect();
    if provider.speaks(own, model) {
        return kept_here((app, caller), inbound, (provider, model), most);
    }
    if !provider.kind.chats() {
        let message = format!("The provider '{}' does not serve chats.", provider.name);
        let error = ApiError::new(ErrorKind::Invalid, "wrong_endpoint", message);
        return Err(unfit(error.with_param("model").into()));
    }
    let limits = &app.limits.request;
    let parsed = inbound.surface.parse(&inbound.body, limits, true, &caller.request_id);
    // What has no words here may mean something to one that speaks the caller's own dialect; and
    // prompts, other bounds hold for those than for the chat that is made of them here.
    let fault = if own == Dialect::Completions { unfit } else { turn::of_local };
    let parsed = parsed.map_err(|error| fault(error.into()))?;
    let Parsed { mut chat, mut page, responses: own } = parsed;
    if let Some(mut request) = own {
        kept::open(app, caller, &mut request, &mut page).map_err(of_request)?;
        chat = request.chat;
    }
    chat.model = model.to_owned();
    let most = most.filter(|most| *most < ROOM);
    chat.decoding.max_tokens = match (chat.decoding.max_tokens, most) {
        (Some(asked), Some(most)) => Some(asked.min(most)),
        (asked, most) => asked.or(most),
    };
    let options = chat.decoding.stream.unwrap_or_default();
    let stream = chat.decoding.stream.is_some();
    let dialect = provider.main();
    if dialect != Dialect::Gemini {
        without_seals(&mut chat.messages);
    }
    page.back = Back::of(&mut chat, dialect);
    let mut lost = Lost::default();
    let value = match dialect {
        Dialect::Messages => messages::render(&chat, MESSAGES_MAX_TOKENS, &mut lost),
        Dialect::Gemini => gemini::render(&chat, &mut lost),
        Dialect::Converse => converse::render(&chat, &mut lost),
        Dialect::Responses => responses::render(&chat, provider.kind.thinks(model), &mut lost),
        _ => openai::render(&chat, provider.kind.flavor, &mut lost),
    };
    let dropped = dropped(provider, &lost).map_err(unfit)?;
    let body = value.to_string().into_bytes();
    Ok(Outgoing { dialect, body, page: Some(page), stream, dropped, options, own: None })
}

/// The names of what a provider's dialect has no words for; or the request is refused for them.
pub(super) fn dropped(provider: &Provider, lost: &Lost) -> Result<Option<HeaderValue>, Failure> {
    let names: Vec<&str> = lost.names().collect();
    // Thoughts of earlier turns mean something to nobody but who had them.
    let only_thoughts = names.iter().all(|name| name.ends_with("reasoning_content"));
    if let (Some(first), LostFields::Refuse, false) =
        (names.first(), provider.lost_fields, only_thoughts)
    {
        let message = format!(
            "Unsupported parameter: '{}': {} has no words for it.",
            names.join("', '"),
            provider.kind.title
        );
        let error = ApiError::new(ErrorKind::Invalid, "unsupported_parameter", message);
        return Err(error.with_param(*first).into());
    }
    // What this turn alone goes without is told, and no reason to refuse.
    Ok(dropped_header(names.into_iter().chain(lost.of_this_turn())))
}

/// Names in one header: each once, and as many as clients and proxies take.
pub(in super::super) fn dropped_header<'a>(
    names: impl Iterator<Item = &'a str>,
) -> Option<HeaderValue> {
    let mut all: Vec<&str> = Vec::new();
    for name in names.filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic())) {
        if all.len() >= DROPPED_MAX {
            break;
        }
        if !all.contains(&name) && name.len() <= DROPPED_BYTES_MAX {
            all.push(name);
        }
    }
    HeaderValue::from_str(&all.join(", ")).ok().filter(|_| !all.is_empty())
}

/// Names in that header, and bytes of one.
const DROPPED_MAX: usize = 32;
const DROPPED_BYTES_MAX: usize = 96;

/// The same request, for the provider's own name of the model.
fn as_it_is(
    inbound: &Inbound,
    (provider, model): (&Provider, &str),
    most: Option<u32>,
) -> Outgoing {
    let glance = &inbound.glance;
    let own = inbound.surface.dialect();
    let field = match own {
        Dialect::Responses => "max_output_tokens",
        Dialect::Chat if provider.kind.flavor == Flavor::OpenAi => "max_completion_tokens",
        _ => "max_tokens",
    };
    let cap = cap(inbound, most).map(|tokens| Most { field, tokens });
    let counts = matches!(own, Dialect::Chat | Dialect::Completions);
    Outgoing {
        dialect: own,
        body: glance.rewrite(&inbound.body, model, counts, cap),
        page: None,
        stream: glance.stream,
        dropped: None,
        options: StreamOptions::default(),
        own: None,
    }
}

/// The bound on new tokens, where it is less than what the caller asks for.
fn cap(inbound: &Inbound, most: Option<u32>) -> Option<u32> {
    let asked = inbound.glance.max_tokens;
    let cap = most.filter(|most| asked.is_none_or(|asked| asked > *most));
    cap.filter(|most| asked.is_some() || *most < ROOM)
}

/// The same request, of which is kept here what the provider would keep.
fn kept_here(
    (app, caller): (&App, &Caller),
    inbound: &Inbound,
    (provider, model): (&Provider, &str),
    most: Option<u32>,
) -> Result<Outgoing, Trouble> {
    let seals = provider.kind.seals(model);
    let whom = Whom { provider: &provider.name, model, seals, most: cap(inbound, most) };
    let asked = (&inbound.body[..], &app.limits.request);
    let (body, own) = kept::pass(app, caller, asked, whom).map_err(of_request)?;
    Ok(Outgoing {
        dialect: Dialect::Responses,
        body,
        page: None,
        stream: inbound.glance.stream,
        dropped: None,
        options: StreamOptions::default(),
        own: Some(own),
    })
}

/// Ids of calls may carry what Google wants back; others bound their length.
fn without_seals(turns: &mut [Message]) {
    let ids = turns.iter_mut().flat_map(|turn| {
        let calls = turn.tool_calls.iter_mut().map(|call| &mut call.id);
        calls.chain(turn.tool_call_id.as_mut())
    });
    for id in ids {
        id.truncate(gemini::bare_id(id).len());
    }
}
