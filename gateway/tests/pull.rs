//! Fetching from a hub, against a small one in this process that breaks off, ignores ranges and
//! lies about hashes on demand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::StreamExt as _;
use gateway::pull::{Hub, PullError};
use sha2::{Digest as _, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository with one commit.
#[derive(Default)]
struct Fake {
    files: HashMap<&'static str, Vec<u8>>,
    /// Bodies end after this many bytes, this many times.
    breaks: Mutex<(usize, u32)>,
    no_ranges: bool,
    wrong_hash: bool,
    wants_token: bool,
    /// File and first byte of every download.
    log: Mutex<Vec<(String, usize)>>,
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

async fn list(State(fake): State<Arc<Fake>>, headers: HeaderMap) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if fake.wants_token && token != Some("Bearer hf_secret") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let mut siblings: Vec<_> = fake
        .files
        .iter()
        .map(|(name, bytes)| {
            let mut entry = serde_json::json!({
                "rfilename": name, "size": bytes.len(), "blobId": format!("git-{}", bytes.len()),
            });
            if name.ends_with(".safetensors") || name.ends_with(".gguf") {
                let hash = if fake.wrong_hash { sha256(b"other") } else { sha256(bytes) };
                entry["lfs"] = serde_json::json!({"sha256": hash, "size": bytes.len()});
            }
            entry
        })
        .collect();
    siblings.push(serde_json::json!({"rfilename": "../../escape.json", "size": 1, "blobId": "x"}));
    axum::Json(serde_json::json!({"sha": COMMIT, "siblings": siblings})).into_response()
}

async fn file(
    State(fake): State<Arc<Fake>>,
    UrlPath((_, _, commit, name)): UrlPath<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    assert_eq!(commit, COMMIT, "files are asked for by commit, which cannot move");
    let bytes = fake.files[name.as_str()].clone();
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let start =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let start = if fake.no_ranges { 0 } else { start.unwrap_or(0) };
    fake.log.lock().unwrap().push((name, start));
    let mut breaks = fake.breaks.lock().unwrap();
    let broken = breaks.1 > 0 && bytes.len() - start > breaks.0;
    breaks.1 -= u32::from(broken);
    let end = if broken { start + breaks.0 } else { bytes.len() };
    let data = futures_util::stream::iter([Ok(bytes[start..end].to_vec())]);
    let trouble = futures_util::stream::iter(broken.then_some(())).then(|()| async {
        // The server throws away what it has not yet written when a body fails.
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        Err(std::io::Error::other("the line broke"))
    });
    let mut response = Response::new(Body::from_stream(data.chain(trouble)));
    if start > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        response.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
    }
    response
}

struct Case {
    fake: Arc<Fake>,
    cache: PathBuf,
    endpoint: String,
}

impl Case {
    async fn new(name: &str, fake: Fake) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cache = std::env::temp_dir().join(format!("hearth-pull-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&cache);
        let fake = Arc::new(fake);
        let router = Router::new()
            .route("/api/models/{org}/{name}/revision/{revision}", get(list))
            .route("/{org}/{name}/resolve/{commit}/{*file}", get(file))
            .with_state(Arc::clone(&fake));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { fake, cache, endpoint }
    }

    fn hub(&self, more: &[(&str, &str)]) -> Hub {
        let mut env: HashMap<String, String> =
            more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        env.insert("HF_HUB_CACHE".to_owned(), self.cache.display().to_string());
        env.insert("HF_ENDPOINT".to_owned(), self.endpoint.clone());
        Hub::from_env(|name| env.get(name).cloned())
    }

    fn downloads(&self) -> Vec<(String, usize)> {
        let mut log = std::mem::take(&mut *self.fake.log.lock().unwrap());
        log.sort();
        log
    }

    fn blob(&self, name: &str) -> PathBuf {
        self.cache.join("models--org--m/blobs").join(name)
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.cache);
    }
}

fn weights() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn model() -> Fake {
    let files = [
        ("config.json", b"{\"a\": 1}".to_vec()),
        ("model.safetensors", weights()),
        ("tokenizer.json", b"{}".to_vec()),
        ("README.md", b"read me".to_vec()),
        ("pytorch_model.bin", b"pickle".to_vec()),
        ("onnx/model.json", b"nested".to_vec()),
    ];
    Fake { files: files.into(), ..Fake::default() }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_model_lands_in_the_shared_layout_once() {
    let case = Case::new("layout", model()).await;
    let snapshot = case.hub(&[]).pull("org/m", "main", &[]).await.unwrap();
    assert_eq!(snapshot, case.cache.join("models--org--m/snapshots").join(COMMIT));
    assert_eq!(names(&snapshot), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(std::fs::read(snapshot.join("model.safetensors")).unwrap(), weights());
    let link = std::fs::read_link(snapshot.join("config.json")).unwrap();
    assert_eq!(link, Path::new("../../blobs/git-8"));
    let reference = case.cache.join("models--org--m/refs/main");
    assert_eq!(std::fs::read_to_string(reference).unwrap(), COMMIT);
    assert_eq!(case.downloads().len(), 3);

    case.hub(&[]).pull("org/m", "main", &[]).await.unwrap();
    assert_eq!(case.downloads(), [], "what is there is not fetched again");
    let offline = case.hub(&[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(offline.pull("org/m", "main", &[]).await.unwrap(), snapshot);
    let absent = offline.pull("org/other", "main", &[]).await;
    assert!(matches!(absent, Err(PullError::Offline(_))));
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let fake = Fake { breaks: Mutex::new((150_000, 2)), ..model() };
    let case = Case::new("resume", fake).await;
    let snapshot = case.hub(&[]).pull("org/m", "main", &[]).await.unwrap();
    assert_eq!(std::fs::read(snapshot.join("model.safetensors")).unwrap(), weights());
    let starts: Vec<_> =
        case.downloads().into_iter().filter(|(name, _)| name == "model.safetensors").collect();
    assert_eq!(starts.len(), 3, "{starts:?}");
    assert!(starts[1].1 > 0 && starts[2].1 > starts[1].1, "{starts:?}");
}

#[tokio::test]
async fn what_an_earlier_run_left_is_used_and_checked() {
    for no_ranges in [false, true] {
        let case = Case::new("left", Fake { no_ranges, ..model() }).await;
        let blob = case.blob(&sha256(&weights()));
        std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
        let left = PathBuf::from(format!("{}.incomplete", blob.display()));
        std::fs::write(&left, &weights()[..1000]).unwrap();
        case.hub(&[]).pull("org/m", "main", &[]).await.unwrap();
        let expected = if no_ranges { 0 } else { 1000 };
        assert!(case.downloads().contains(&("model.safetensors".to_owned(), expected)));
        assert_eq!(std::fs::read(&blob).unwrap(), weights());
        assert!(!left.exists());
    }
}

#[tokio::test]
async fn damage_is_found_and_removed() {
    let case = Case::new("damage", Fake { wrong_hash: true, ..model() }).await;
    let error = case.hub(&[]).pull("org/m", "main", &[]).await.unwrap_err();
    assert!(matches!(error, PullError::Damaged { what: "SHA-256", .. }), "{error}");
    let blobs = names(&case.cache.join("models--org--m/blobs"));
    assert!(!blobs.iter().any(|name| name.contains(&sha256(b"other"))), "{blobs:?}");
    assert_eq!(case.hub(&[]).cached("org/m", "main"), None);
}

#[tokio::test]
async fn a_closed_model_needs_the_token() {
    let case = Case::new("token", Fake { wants_token: true, ..model() }).await;
    let error = case.hub(&[]).pull("org/m", "main", &[]).await.unwrap_err();
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
    case.hub(&[("HF_TOKEN", "hf_secret")]).pull("org/m", "main", &[]).await.unwrap();
}

#[tokio::test]
async fn one_of_several_gguf_files_must_be_chosen() {
    let files = [("m-Q4_K_M.gguf", vec![4; 64]), ("m-Q8_0.gguf", vec![8; 128])];
    let case = Case::new("gguf", Fake { files: files.into(), ..Fake::default() }).await;
    let error = case.hub(&[]).pull("org/m", "main", &[]).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("--include") && text.contains("m-Q8_0.gguf  128 B"), "{text}");
    let include = ["*Q4_K_M*".to_owned()];
    let snapshot = case.hub(&[]).pull("org/m", "main", &include).await.unwrap();
    assert_eq!(names(&snapshot), ["m-Q4_K_M.gguf"]);
    assert_eq!(case.hub(&[]).cached("org/m", "main"), Some(snapshot));
}
