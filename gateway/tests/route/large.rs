//! What agents send: two megabytes in one request.

use crate::caller::{Inbound, gateway, provider, request, send};
use crate::upstream::Upstream;

/// Whatever it comes in and goes on in, all of it arrives, whole and streamed.
#[tokio::test(flavor = "multi_thread")]
async fn two_megabytes_arrive() {
    let words = format!("{}the end", "So much \"to\" read. ".repeat(120_000));
    assert!(words.len() > 2 << 20);
    for kind in ["compatible", "anthropic", "gemini", "openai", "bedrock"] {
        let far = Upstream::well("far").await;
        let more = match kind {
            "openai" => "lost_fields = \"drop\"\ndialect = \"responses\"\n",
            _ => "lost_fields = \"drop\"\n",
        };
        let router = gateway(&provider("far", kind, &far.url, more));
        for (count, inbound) in (1..).zip(Inbound::ALL) {
            let (path, body) = inbound.request("far/m", count % 2 == 0, &words);
            let got = send(&router, request("", &path, &body)).await;
            assert_eq!(got.status, 200, "{kind} {inbound:?}: {}", got.text());
            let seen = far.seen().pop().expect("a request");
            let text = String::from_utf8_lossy(&seen.body);
            assert!(
                text.matches("So much \\\"to\\\" read.").count() == 120_000,
                "{kind} {inbound:?}"
            );
            assert!(text.contains("the end\""), "{kind} {inbound:?}");
        }
    }
}
