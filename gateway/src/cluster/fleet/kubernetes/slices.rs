//! EndpointSlices (discovery.k8s.io/v1): the endpoints of one service as its API server lists them,
//! and as each event of a watch changes them. Whatever else stands there is not read.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/>

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Named;
use super::service::{KubernetesService, ServicePort};
use crate::digest;

/// Slices of a service and their endpoints, all together: four times what a gateway follows.
const PARTS_MAX: usize = 4096;
/// Longest name of a slice (RFC 1123), and longest version.
const NAME_BYTES_MAX: usize = 253;
/// What is shown of a server's words.
const SAID_CHARS_MAX: usize = 300;

/// What the slices of a service say.
#[derive(Debug)]
pub(super) struct Slices {
    /// What was last heard of: a watch goes on from there.
    pub(super) version: String,
    by_name: BTreeMap<String, Part>,
}

/// One slice.
#[derive(Debug, Default)]
struct Part {
    endpoints: Vec<Found>,
    /// It has endpoints, and none of its ports is the one that is wanted.
    portless: bool,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    /// Its pod; without one its address.
    pod: u64,
    address: IpAddr,
    port: u16,
    ready: bool,
}

/// Why slices are followed no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// The server has forgotten what came after this version: all is to be listed anew.
    #[error("what was listed is too old by now")]
    Gone,
    #[error("{0}")]
    Failed(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

#[derive(Deserialize)]
struct List {
    metadata: Meta,
    items: Option<Vec<Slice>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Slice {
    metadata: Meta,
    endpoints: Option<Vec<Written>>,
    ports: Option<Vec<Port>>,
}

/// All that is read of a bookmark.
#[derive(Deserialize)]
struct Bookmark {
    metadata: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    addresses: Vec<String>,
    conditions: Option<Conditions>,
    target_ref: Option<Target>,
}

#[derive(Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct Target {
    uid: Option<String>,
}

#[derive(Deserialize)]
struct Port {
    name: Option<String>,
    port: Option<u16>,
}

/// What a server says in place of what was asked for.
#[derive(Default, Deserialize)]
pub(super) struct Status {
    code: Option<u16>,
    message: Option<String>,
}

impl Status {
    /// Its words, fit for a line of a log.
    pub(super) fn said(&self) -> String {
        let message = self.message.as_deref().unwrap_or("it does not say why");
        message.chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect()
    }
}

impl Slices {
    /// Reads a list.
    ///
    /// # Errors
    /// It is none, or longer than anything that could be followed.
    pub(super) fn read(list: &[u8], port: &ServicePort) -> Result<Self, String> {
        let List { metadata, items } = serde_json::from_slice(list)
            .map_err(|error| format!("it lists what makes no sense: {error}"))?;
        let mut slices = Self { version: String::new(), by_name: BTreeMap::new() };
        slices.reach(metadata.resource_version)?;
        for slice in items.unwrap_or_default() {
            slices.put(slice, port)?;
        }
        Ok(slices)
    }

    /// Takes in a line of a watch. `true`: something may be another.
    ///
    /// # Errors
    /// [`Trouble::Gone`], or the line is none of a watch.
    pub(super) fn apply(&mut self, line: &[u8], port: &ServicePort) -> Result<bool, Trouble> {
        let senseless = |error: serde_json::Error| format!("it tells what makes no sense: {error}");
        let Event { kind, object } = serde_json::from_slice(line).map_err(senseless)?;
        let object = object.get();
        match kind.as_str() {
            "ADDED" | "MODIFIED" => {
                let slice: Slice = serde_json::from_str(object).map_err(senseless)?;
                self.reach(slice.metadata.resource_version.clone())?;
                self.put(slice, port)?;
                Ok(true)
            }
            "DELETED" => {
                let Bookmark { metadata } = serde_json::from_str(object).map_err(senseless)?;
                self.reach(metadata.resource_version)?;
                Ok(self.by_name.remove(&metadata.name).is_some())
            }
            "BOOKMARK" => {
                let Bookmark { metadata } = serde_json::from_str(object).map_err(senseless)?;
                self.reach(metadata.resource_version)?;
                Ok(false)
            }
            "ERROR" => {
                let status: Status = serde_json::from_str(object).map_err(senseless)?;
                Err(match status.code {
                    Some(410) => Trouble::Gone,
                    _ => Trouble::Failed(format!("it ends the watch: {}", status.said())),
                })
            }
            // Kinds to come tell of nothing that is known here.
            _ => Ok(false),
        }
    }

    /// All endpoints, each pod once, in an order that stays.
    pub(super) fn endpoints(&self, service: &KubernetesService) -> Vec<Named> {
        let mut pods: BTreeMap<u64, Found> = BTreeMap::new();
        for found in self.by_name.values().flat_map(|part| &part.endpoints) {
            match pods.entry(found.pod) {
                Entry::Vacant(entry) => {
                    entry.insert(*found);
                }
                // A pod with addresses of both families stands in slices of both; two nodes out of
                // it would be told of the same work twice. It may also be on its way from one slice
                // to another and stand in both.
                Entry::Occupied(mut entry) => {
                    let known = entry.get_mut();
                    let first = (known.address, known.port).min((found.address, found.port));
                    (known.address, known.port) = first;
                    known.ready |= found.ready;
                }
            }
        }
        let named = |found: Found| Named {
            endpoint: service.endpoint(found.address, found.port),
            ready: found.ready,
        };
        pods.into_values().map(named).collect()
    }

    /// There are endpoints, and none of them has the port that is wanted.
    pub(super) fn is_portless(&self) -> bool {
        self.by_name.values().all(|part| part.endpoints.is_empty())
            && self.by_name.values().any(|part| part.portless)
    }

    fn reach(&mut self, version: String) -> Result<(), String> {
        if version.is_empty() || version.len() > NAME_BYTES_MAX {
            return Err("it tells no version that a watch could go on from".to_owned());
        }
        self.version = version;
        Ok(())
    }

    fn put(&mut self, slice: Slice, wanted: &ServicePort) -> Result<(), String> {
        let Slice { metadata, endpoints, ports } = slice;
        if metadata.name.is_empty() || metadata.name.len() > NAME_BYTES_MAX {
            return Err("it tells of a slice without a name".to_owned());
        }
        let mut part = Part::default();
        let endpoints = endpoints.unwrap_or_default();
        match port_of(wanted, &ports.unwrap_or_default()) {
            Some(port) => {
                part.endpoints = endpoints.iter().filter_map(|one| one.found(port)).collect();
            }
            None => part.portless = !endpoints.is_empty(),
        }
        self.by_name.insert(metadata.name, part);
        let parts: usize = self.by_name.values().map(|part| 1 + part.endpoints.len()).sum();
        if parts > PARTS_MAX {
            return Err(format!("the service has more than {PARTS_MAX} slices and endpoints"));
        }
        Ok(())
    }
}

impl Written {
    /// `None`: it is no address, but a name.
    fn found(&self, port: u16) -> Option<Found> {
        // Further ones are as good as the first (see `addresses` there), and the same pod.
        let address: IpAddr = self.addresses.first()?.parse().ok()?;
        let uid = self.target_ref.as_ref().and_then(|target| target.uid.as_deref());
        let pod = match uid {
            Some(uid) => digest::number(&[b"pod", uid.as_bytes()]),
            None => digest::number(&[b"address", address.to_string().as_bytes()]),
        };
        // Not said: it is ready.
        let ready = self.conditions.as_ref().and_then(|said| said.ready).unwrap_or(true);
        Some(Found { pod, address, port, ready })
    }
}

/// A number is taken as it is, as with a name in the DNS.
fn port_of(wanted: &ServicePort, ports: &[Port]) -> Option<u16> {
    match wanted {
        ServicePort::Number(port) => Some(*port),
        ServicePort::Name(name) => {
            let port = ports.iter().find(|port| port.name.as_deref() == Some(name));
            port?.port.filter(|port| *port > 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::lines::Lines;

    fn service(port: &str) -> KubernetesService {
        format!("http://nodes.models:{port}").parse().expect("a service")
    }

    /// A slice as a controller writes it, with much that is not read.
    fn slice(name: &str, version: u32, endpoints: &Value) -> Value {
        json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"name": name, "resourceVersion": version.to_string(),
                "labels": {"kubernetes.io/service-name": "nodes"}, "managedFields": [{"a": 1}]},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "metrics", "port": 9000, "protocol": "TCP"},
                {"name": "cluster", "port": 8100, "protocol": "TCP", "appProtocol": null}]})
    }

    fn pod(address: &str, uid: &str, conditions: &Value) -> Value {
        json!({"addresses": [address], "conditions": conditions, "nodeName": "n", "zone": "z",
            "targetRef": {"kind": "Pod", "name": format!("pod-{uid}"), "uid": uid}})
    }

    fn ready() -> Value {
        json!({"ready": true, "serving": true, "terminating": false})
    }

    fn listed(slices: &[Value]) -> Vec<u8> {
        json!({"kind": "EndpointSliceList", "metadata": {"resourceVersion": "70"},
            "items": slices})
        .to_string()
        .into_bytes()
    }

    fn event(kind: &str, object: &Value) -> Vec<u8> {
        json!({"type": kind, "object": object}).to_string().into_bytes()
    }

    /// What is named, sorted; a `!` stands before what is not ready.
    fn told(slices: &Slices, service: &KubernetesService) -> String {
        let named = slices.endpoints(service).into_iter().map(|named| {
            format!("{}{}", if named.ready { "" } else { "!" }, named.endpoint.authority())
        });
        let mut named: Vec<String> = named.collect();
        named.sort();
        named.join(" ")
    }

    #[track_caller]
    fn check(port: &str, slices: &[Value], expect: &str) {
        let service = service(port);
        let slices = Slices::read(&listed(slices), &service.port).expect("a list");
        assert_eq!((told(&slices, &service).as_str(), slices.version.as_str()), (expect, "70"));
    }

    #[test]
    fn lists() {
        let one = pod("10.0.0.1", "a", &ready());
        let two = pod("10.0.0.2", "b", &ready());
        check("8100", &[], "");
        check("8100", &[slice("s", 1, &json!([one]))], "10.0.0.1:8100");
        check("7000", &[slice("s", 1, &json!([one]))], "10.0.0.1:7000");
        check("cluster", &[slice("s", 1, &json!([one]))], "10.0.0.1:8100");
        check("metrics", &[slice("s", 1, &json!([one]))], "10.0.0.1:9000");
        check("other", &[slice("s", 1, &json!([one]))], "");
        // Several slices, one of which is empty, and a pod that moves from one to another.
        let several = [
            slice("s", 1, &json!([one])),
            slice("t", 2, &json!([two, pod("10.0.0.1", "a", &json!({"ready": false}))])),
            slice("u", 3, &Value::Null),
        ];
        check("cluster", &several, "10.0.0.1:8100 10.0.0.2:8100");
        // Two families.
        let six = pod("fd00::1", "a", &ready());
        check("80", &[slice("s", 1, &json!([six]))], "[fd00::1]:80");
        let both = [slice("six", 1, &json!([six])), slice("four", 1, &json!([one]))];
        check("80", &both, "10.0.0.1:80");
        // Written by hand: no pods, no conditions; names are for others.
        let bare = json!([{"addresses": ["10.0.0.9", "10.0.0.8"]}, {"addresses": ["fd00::9"]},
            {"addresses": ["nodes.lan"]}, {"addresses": []}]);
        check("80", &[slice("s", 1, &bare)], "10.0.0.9:80 [fd00::9]:80");
        let no_items = json!({"metadata": {"resourceVersion": "1"}, "items": null}).to_string();
        assert!(Slices::read(no_items.as_bytes(), &ServicePort::Number(1)).is_ok());
    }

    #[test]
    fn conditions() {
        for (said, expect) in [
            (json!(null), "10.0.0.1:80"),
            (json!({}), "10.0.0.1:80"),
            (json!({"ready": null}), "10.0.0.1:80"),
            (json!({"ready": true, "new": 1}), "10.0.0.1:80"),
            (json!({"ready": false}), "!10.0.0.1:80"),
            (json!({"ready": false, "serving": true, "terminating": true}), "!10.0.0.1:80"),
        ] {
            check("80", &[slice("s", 1, &json!([pod("10.0.0.1", "a", &said)]))], expect);
        }
    }

    #[test]
    fn a_port_that_nobody_has_is_seen() {
        let filled = slice("s", 1, &json!([pod("10.0.0.1", "a", &ready())]));
        let empty = slice("t", 1, &json!([]));
        for (port, slices, expect) in [
            ("other", vec![filled.clone(), empty.clone()], true),
            ("other", vec![empty], false),
            ("cluster", vec![filled], false),
        ] {
            let slices = Slices::read(&listed(&slices), &service(port).port).expect("a list");
            assert_eq!(slices.is_portless(), expect, "{port}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let many: Vec<Value> = (0..=PARTS_MAX)
            .map(|n| json!({"metadata": {"name": n.to_string()}, "endpoints": []}))
            .collect();
        let nameless = json!([{"metadata": {}, "endpoints": []}]);
        for (list, why) in [
            (json!("no"), "makes no sense"),
            (json!({"metadata": {}, "items": []}), "no version"),
            (json!({"metadata": {"resourceVersion": "1"}, "items": [1]}), "makes no sense"),
            (json!({"metadata": {"resourceVersion": "1"}, "items": nameless}), "without a name"),
            (json!({"metadata": {"resourceVersion": "1"}, "items": many}), "more than"),
        ] {
            let read = Slices::read(list.to_string().as_bytes(), &ServicePort::Number(1));
            assert!(read.expect_err(why).contains(why), "{why}");
        }
    }

    /// The life of a service, however the network cuts what tells of it.
    #[tokio::test]
    async fn events_come_whole_however_they_are_cut() {
        let draining = json!({"ready": false, "serving": true, "terminating": true});
        let one = |said: &Value| json!([pod("10.0.0.1", "a", said)]);
        let steps = [
            (
                "ADDED",
                slice("t", 71, &json!([pod("10.0.0.2", "b", &ready())])),
                "10.0.0.1 10.0.0.2",
            ),
            ("BOOKMARK", json!({"metadata": {"resourceVersion": "75"}}), "10.0.0.1 10.0.0.2"),
            ("MODIFIED", slice("s", 76, &one(&draining)), "!10.0.0.1 10.0.0.2"),
            ("NEWS", json!({"metadata": 1}), "!10.0.0.1 10.0.0.2"),
            ("MODIFIED", slice("s", 77, &json!([])), "10.0.0.2"),
            ("DELETED", slice("t", 78, &json!([])), ""),
            ("DELETED", slice("t", 79, &json!([])), ""),
        ];
        let mut stream = Vec::new();
        for (kind, object, _) in &steps {
            stream.extend(event(kind, object));
            stream.push(b'\n');
        }
        let service = service("cluster");
        for cut in 0..=stream.len() {
            let parts = [stream[..cut].to_vec(), stream[cut..].to_vec()];
            let parts = parts.map(Ok::<_, std::io::Error>);
            let mut lines = Lines::new(Body::from_stream(stream::iter(parts)), 4096);
            let first = listed(&[slice("s", 1, &one(&ready()))]);
            let mut slices = Slices::read(&first, &service.port).expect("a list");
            for (kind, _, expect) in &steps {
                let line = lines.next().await.expect("a line").expect("a line");
                slices.apply(&line, &service.port).expect(kind);
                assert_eq!(told(&slices, &service).replace(":8100", ""), *expect, "{kind} {cut}");
            }
            assert_eq!((slices.version.as_str(), lines.next().await), ("79", Ok(None)));
        }
    }

    #[test]
    fn errors_and_nonsense_end_a_watch() {
        let status = |code: u16| json!({"kind": "Status", "code": code, "message": "so\nit is"});
        let failed = |why: &str| Trouble::Failed(format!("it ends the watch: {why}"));
        let list = listed(&[]);
        let port = ServicePort::Number(1);
        let apply = |line: &[u8]| Slices::read(&list, &port).expect("a list").apply(line, &port);
        assert_eq!(apply(&event("ERROR", &status(410))), Err(Trouble::Gone));
        assert_eq!(apply(&event("ERROR", &status(500))), Err(failed("soit is")));
        assert_eq!(apply(&event("ERROR", &json!({}))), Err(failed("it does not say why")));
        let mut cut = event("ADDED", &slice("s", 1, &json!([])));
        cut.pop();
        let versionless = event("BOOKMARK", &json!({"metadata": {}}));
        for line in [Vec::new(), b"{}".to_vec(), cut, event("ADDED", &json!(1)), versionless] {
            assert!(matches!(apply(&line), Err(Trouble::Failed(_))), "{line:?}");
        }
    }
}
