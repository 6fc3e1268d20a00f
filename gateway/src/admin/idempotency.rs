//! A POST with an `Idempotency-Key` is done once, however often it is sent: a client whose
//! connection broke cannot know whether it was done, and asks again.
//!
//! Keys are the caller's own: nobody is answered what another one was. What was refused has changed
//! nothing and is judged anew.

use govern::store::idempotency::Claim;
use sha2::{Digest, Sha256};

use super::answer::{Answer, Content, JSON};
use super::asked::Asked;
use super::refusal::Refusal;

const HEADER: &str = "idempotency-key";
const LETTERS_MAX: usize = 255;

/// In the place of an answer that holds a secret.
const SECRET: i64 = -1;

/// Runs a POST.
pub(super) async fn run(asked: Asked) -> Result<Answer, Refusal> {
    let Some(header) = asked.headers.get(HEADER) else {
        let route = asked.route.clone();
        return route.run(asked).await;
    };
    let plain = |text: &&str| {
        (1..=LETTERS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    let Some(key) = header.to_str().ok().filter(plain) else {
        let why = format!("'Idempotency-Key' has 1 to {LETTERS_MAX} visible ASCII characters.");
        return Err(Refusal::invalid(HEADER, why));
    };
    let name = format!("{}:{key}", whose(&asked));
    let organisation = asked.principal.organisation.id.to_string();
    let (governor, route, request) = (asked.governor.clone(), asked.route.clone(), digest(&asked));
    let store = governor.store();
    match store.claim(&organisation, &name, &request, governor.now()).await? {
        Claim::Other => return Err(Refusal::other_request()),
        Claim::Begun => {
            let message = "A request with this Idempotency-Key was begun and has no answer yet. \
                           Look whether it was done, and try again with the same key.";
            return Err(Refusal::conflict("idempotency_key_in_use", message));
        }
        Claim::Done { status: SECRET, .. } => {
            let message = "This was made already, and its secret is shown only once. Make another \
                           one with another Idempotency-Key, and revoke this one.";
            return Err(Refusal::conflict("already_made", message));
        }
        Claim::Done { status, answer } => {
            let status = u16::try_from(status).map_err(Refusal::internal)?;
            return Ok(Answer { status, ..Answer::text(JSON, answer) });
        }
        Claim::Fresh => {}
    }
    // The client may leave meanwhile; the answer is kept all the same.
    let done = tokio::spawn(async move {
        let answer = route.run(asked).await;
        let keep = match &answer {
            Ok(answer) if answer.secret => Some((SECRET, String::new())),
            Ok(Answer { status, content: Content::Whole(text), .. }) => {
                Some((i64::from(*status), text.clone()))
            }
            _ => None,
        };
        let store = governor.store();
        let kept = match keep {
            Some((status, text)) => store.answered(&organisation, &name, status, &text).await,
            None => store.given_up(&organisation, &name).await,
        };
        if let Err(error) = kept {
            // What was done is done: it is answered, and a repetition is told that it was begun.
            tracing::warn!(%error, "an answer to a request that is done once was not kept");
        }
        answer
    });
    done.await.map_err(Refusal::internal)?
}

fn whose(asked: &Asked) -> &str {
    let key = asked.principal.key.as_ref().map(|key| key.id.as_str());
    let user = asked.principal.user.as_ref().map(|user| user.id.as_str());
    key.or(user).unwrap_or_default()
}

fn digest(asked: &Asked) -> String {
    let mut digest = Sha256::new();
    for part in [asked.route.method().name(), asked.route.path(), asked.id.as_str()] {
        digest.update(part);
        digest.update([0]);
    }
    digest.update(&asked.body);
    hex::encode(digest.finalize())
}
