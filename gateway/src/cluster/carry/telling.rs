//! What a node says of a request that it was sent: a head, and then line by line.

use std::future::pending;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use hyper::StatusCode;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::{Came, WORDS, broken, refusal};
use crate::cluster::lines::Lines;
use crate::cluster::member::Sending;
use crate::cluster::protocol::{self, TOLD_BYTES_MAX, Told};
use crate::cluster::service::{Chosen, head};

/// See the module. Dropped, it ends the request at the node.
pub(super) struct Telling {
    says: Says,
    /// A line that was looked at.
    seen: Option<Bytes>,
    /// What is told to the node.
    pub(super) words: mpsc::Sender<Bytes>,
    /// It counts there meanwhile.
    _sending: Sending,
}

enum Says {
    Nothing(BoxFuture<'static, Result<Lines<Incoming>, Came>>),
    Lines(Lines<Incoming>),
}

impl Telling {
    /// Of a request with this body.
    pub(super) fn new(sending: Sending, body: Vec<u8>) -> Self {
        let (words, down) = mpsc::channel(WORDS);
        let mut way = sending.way.clone();
        let answers = async move {
            let answer = way.post(protocol::GENERATE, body, Some(down));
            let response = head(answer).await.map_err(Came::Failed)?;
            if response.status() != StatusCode::OK {
                return Err(refusal(response).await.map_or(Came::Full, Came::Failed));
            }
            Ok(Lines::new(response.into_body(), TOLD_BYTES_MAX))
        };
        Self { says: Says::Nothing(answers.boxed()), seen: None, words, _sending: sending }
    }

    /// Its next line; or it says none any more. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<Bytes, Came> {
        if let Some(line) = self.seen.take() {
            return Ok(line);
        }
        loop {
            match &mut self.says {
                Says::Nothing(answers) => self.says = Says::Lines(answers.await?),
                Says::Lines(lines) => {
                    let line = lines.next().await.map_err(|why| broken(why.to_string()))?;
                    return line.ok_or_else(|| broken("it ended without a last word".to_owned()));
                }
            }
        }
    }
}

/// A node that is asked beside another, and what it says.
pub(super) type Company = (Chosen, Telling);

/// Ready when company has something to say, which it says next, or when it says nothing.
pub(super) async fn speaks(company: &mut Option<Company>) -> Result<(), Came> {
    let Some((_, told)) = company else { return pending().await };
    let line = told.next().await?;
    // That nothing comes of it is no reason to turn to it.
    match serde_json::from_slice(&line) {
        Ok(Told::Refused(..)) => Err(Came::Full),
        _ => {
            told.seen = Some(line);
            Ok(())
        }
    }
}
