//! Records as logs of OpenTelemetry: OTLP over HTTP, as JSON
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).

use govern::Millis;
use govern::audit::Record;
use reqwest::Url;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Failed;
use super::http::Address;
use crate::outbound::Proxies;

/// Severity 9, INFO.
const SEVERITY: i64 = 9;

const NANOS_PER_MS: i128 = 1_000_000;

/// A collector.
pub(super) struct Otlp {
    address: Address,
}

/// What a collector says where it did not take everything.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    partial_success: Partial,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Partial {
    /// A number, or as JSON of protocol buffers has it, a text.
    rejected_log_records: Value,
}

impl Otlp {
    /// `base` is the collector's address; logs go to `/v1/logs` below it.
    pub(super) fn new(base: &Url, proxies: &Proxies) -> Result<Self, String> {
        let mut url = base.clone();
        let mut path = url.path_segments_mut().map_err(|()| "this is not a URL of HTTP")?;
        path.pop_if_empty().extend(["v1", "logs"]);
        drop(path);
        Ok(Self { address: Address::new(url, proxies)? })
    }

    /// Sends records; returns how many of them the collector refused for good: the protocol says
    /// that these must not be sent again.
    pub(super) async fn send(&self, records: &[Record], now: Millis) -> Result<u64, Failed> {
        let body = request(records, now).to_string().into_bytes();
        let answer = self.address.post("application/json", HeaderMap::new(), body).await?;
        let answer: Answer = serde_json::from_slice(&answer).unwrap_or_default();
        let rejected = answer.partial_success.rejected_log_records;
        Ok(rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0))
    }
}

fn request(records: &[Record], now: Millis) -> Value {
    let gateway = records.first().map_or("", |record| &record.chain);
    let resource = json!({ "attributes": [
        text("service.name", "hearth"),
        text("service.instance.id", gateway),
    ]});
    let scope = json!({ "name": "hearth.audit", "version": env!("CARGO_PKG_VERSION") });
    let logs: Vec<Value> = records.iter().map(|record| log(record, now)).collect();
    json!({ "resourceLogs": [{
        "resource": resource,
        "scopeLogs": [{ "scope": scope, "logRecords": logs }],
    }]})
}

fn log(record: &Record, now: Millis) -> Value {
    let Record { chain, number, at, kind, organisation, body, previous, hash } = record;
    // Times have no sign there; one before 1970 is said in the attributes alone.
    let nanos = |at: Millis| (i128::from(at.max(0)) * NANOS_PER_MS).to_string();
    json!({
        "timeUnixNano": nanos(*at),
        "observedTimeUnixNano": nanos(now),
        "severityNumber": SEVERITY,
        "severityText": "INFO",
        "eventName": format!("hearth.audit.{kind}"),
        "body": { "stringValue": body },
        "attributes": [
            text("hearth.audit.chain", chain),
            json!({ "key": "hearth.audit.number", "value": { "intValue": number.to_string() } }),
            json!({ "key": "hearth.audit.at", "value": { "intValue": at.to_string() } }),
            text("hearth.audit.kind", kind),
            text("hearth.audit.organisation", organisation),
            text("hearth.audit.previous", previous),
            text("hearth.audit.hash", hash),
        ],
    })
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}
