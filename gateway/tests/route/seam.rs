//! Where a stream that breaks and one that goes on with it meet.

use serde_json::json;

use crate::caller::{Inbound, request, routes, send};
use crate::continued::{config, cut};
use crate::fake::{Fake, Setup};
use crate::speech::{Tongue, end, events};
use crate::upstream::Upstream;

/// A stop string that begins in what the provider has said, and ends in what a model here goes on
/// with, ends the answer there; what was shown of it cannot be taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_may_lie_across_it() {
    let ill = Upstream::start(|_| cut(&events(Tongue::Chat, "first")[..3], end())).await;
    for (stop, text) in [
        ("fromHello w", "Hello from"),
        ("Hello fromH", "Hello from"),
        ("fromHellO", "Hello fromHello wörld, one two three."),
        ("oH", "Hello fromHello wörld, one two three."),
        ("Hello w", "Hello from"),
    ] {
        // One of its own each time: streams that break are an illness.
        let config = config("compatible", &ill, "\"org/fake\"");
        let routes = routes(&config, &["org/fake"]).expect("a configuration");
        let fake = Fake::start(Setup { routes, ..Setup::default() });
        let (path, mut body) = Inbound::Chat.request("p", true, "hi");
        body["stop"] = json!([stop]);
        let got = send(&fake.router, request("", &path, &body)).await;
        let all = got.text();
        let chunks = all.lines().filter_map(|line| line.strip_prefix("data: {"));
        let chunks = chunks.map(|chunk| serde_json::from_str(&format!("{{{chunk}")).expect("JSON"));
        let chunks: Vec<serde_json::Value> = chunks.collect();
        let said = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str());
        assert_eq!(said.collect::<String>(), text, "{stop}: {all}");
        let finish = chunks.iter().filter_map(|c| c["choices"][0]["finish_reason"].as_str());
        assert_eq!(finish.collect::<Vec<_>>(), ["stop"], "{stop}: {all}");
    }
}
