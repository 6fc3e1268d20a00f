//! Signatures of requests to Amazon's services, and to whatever speaks S3: Signature Version 4,
//! with the signature in a header
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).
//! A function of the request, the key and the time: nothing is sent here, and no clock is read.

use govern::Millis;
use jiff::{Timestamp, tz::TimeZone};
use ring::digest::{SHA256, digest};
use ring::hmac;

/// Whose request it is.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The key's name: not a secret.
    pub access_key: &'a str,
    /// The key.
    pub secret_key: &'a str,
    /// What temporary keys come with.
    pub session_token: Option<&'a str>,
}

/// What is asked, and where. The signature holds for this region and service only.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `us-east-1`
    pub region: &'a str,
    /// `s3`, `bedrock`
    pub service: &'a str,
    /// `PUT`
    pub method: &'a str,
    /// The path as it is sent: percent-encoded, and begun with `/`.
    pub path: &'a str,
    /// Names and values of the query, not encoded.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers that are signed, `host` among them. The date's is added here.
    pub headers: &'a [(&'a str, &'a str)],
    /// SHA-256 of the body, hexadecimal: [`hash`].
    pub body: &'a str,
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

/// The headers that have to be added to a request, by name and value. The value of `authorization`
/// is good for this request alone, the one of `x-amz-security-token` is a secret.
#[must_use]
pub fn sign(
    credentials: &Credentials<'_>,
    request: &Request<'_>,
    now: Millis,
) -> Vec<(&'static str, String)> {
    let time = Timestamp::from_millisecond(now).unwrap_or_default().to_zoned(TimeZone::UTC);
    let (day, time) =
        (time.strftime("%Y%m%d").to_string(), time.strftime("%Y%m%dT%H%M%SZ").to_string());
    let mut added = vec![("x-amz-date", time.clone())];
    added.extend(credentials.session_token.map(|t| ("x-amz-security-token", t.to_owned())));
    let mut headers: Vec<(String, String)> = request
        .headers
        .iter()
        .copied()
        .chain(added.iter().map(|(name, value)| (*name, value.as_str())))
        .map(|(name, value)| (name.to_ascii_lowercase(), plain(value)))
        .collect();
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        request.method,
        path(request),
        query(request.query),
        request.body
    );
    let scope = format!("{day}/{}/{}/aws4_request", request.region, request.service);
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(canonical.as_bytes()));
    let mut key = format!("AWS4{}", credentials.secret_key).into_bytes();
    for part in [&day, request.region, request.service, "aws4_request"] {
        key = mac(&key, part).as_ref().to_vec();
    }
    let signature = hex::encode(mac(&key, &text));
    let access_key = credentials.access_key;
    added.push((
        "authorization",
        format!(
            "AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, \
             Signature={signature}"
        ),
    ));
    added
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// A header's value without spaces around it, and with one where there are several.
fn plain(value: &str) -> String {
    value.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// S3 signs a path as it is sent, all others encode it once more.
fn path(request: &Request<'_>) -> String {
    match request.service {
        "s3" => request.path.to_owned(),
        _ => encode(request.path, true),
    }
}

fn query(pairs: &[(&str, &str)]) -> String {
    let encoded = |(name, value): &(&str, &str)| (encode(name, false), encode(value, false));
    let mut pairs: Vec<(String, String)> = pairs.iter().map(encoded).collect();
    pairs.sort();
    let pairs: Vec<String> =
        pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// Percent-encodes all but what RFC 3986 calls unreserved; a path keeps its slashes.
#[must_use]
pub fn encode(text: &str, slashes: bool) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let kept = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if kept || slashes && byte == b'/' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn millis(text: &str) -> Millis {
        text.parse::<Timestamp>().expect(text).as_millisecond()
    }

    #[track_caller]
    fn check(credentials: &Credentials<'_>, request: &Request<'_>, at: &str, expect: &str) {
        let added = sign(credentials, request, millis(at));
        let (name, value) = added.last().expect("a signature");
        assert_eq!(*name, "authorization");
        let (head, signature) = value.rsplit_once("Signature=").expect("a signature");
        assert_eq!(signature, expect, "{request:?}: {head}");
    }

    /// The signing test suite that Amazon publishes (awslabs/aws-c-auth).
    #[test]
    fn the_published_suite() {
        const HOST: (&str, &str) = ("Host", "example.amazonaws.com");
        let credentials = Credentials {
            access_key: "AKIDEXAMPLE",
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            session_token: None,
        };
        let at = "2015-08-30T12:36:00Z";
        let base = Request {
            region: "us-east-1",
            service: "service",
            method: "GET",
            path: "/",
            query: &[],
            headers: &[HOST],
            body: NOTHING,
        };
        let get = |path, query, expect| {
            check(&credentials, &Request { path, query, ..base }, at, expect);
        };
        get("/", &[], "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
        get("/ሴ", &[], "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
        get(
            "/example space/",
            &[],
            "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        );
        get(
            "/",
            &[("Param2", "value2"), ("Param1", "value1")],
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        );
        get(
            "/",
            &[("ሴ", "bar")],
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        );
        let kept = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        get(
            "/",
            &[(kept, kept)],
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        );
        let headers = &[HOST, ("My-Header2", " \"a   b   c\""), ("My-Header1", " value1")];
        let expect = "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736";
        check(&credentials, &Request { headers, ..base }, at, expect);
        let body = hash(b"Param1=value1");
        let headers = &[
            ("Content-Type", "application/x-www-form-urlencoded"),
            HOST,
            ("Content-Length", "13"),
            ("x-amz-content-sha256", body.as_str()),
        ];
        let expect = "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b";
        let request = Request { method: "POST", headers, body: &body, ..base };
        check(&credentials, &request, at, expect);
        let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
        let credentials = Credentials { session_token: Some(token), ..credentials };
        let expect = "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8";
        check(&credentials, &base, at, expect);
        let added = sign(&credentials, &base, millis(at));
        assert_eq!(added[0], ("x-amz-date", "20150830T123600Z".to_owned()));
        assert_eq!(added[1], ("x-amz-security-token", token.to_owned()));
    }

    /// The examples of
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.
    #[test]
    fn the_examples_of_s3() {
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE",
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            session_token: None,
        };
        let at = "2013-05-24T00:00:00Z";
        const HOST: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");
        let base = Request {
            region: "us-east-1",
            service: "s3",
            method: "GET",
            path: "/",
            query: &[],
            headers: &[HOST, ("x-amz-content-sha256", NOTHING)],
            body: NOTHING,
        };
        let headers = &[HOST, ("x-amz-content-sha256", NOTHING), ("range", "bytes=0-9")];
        let get = Request { path: "/test.txt", headers, ..base };
        let expect = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        check(&credentials, &get, at, expect);
        let query = &[("lifecycle", "")];
        let expect = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543";
        check(&credentials, &Request { query, ..base }, at, expect);
        let query = &[("max-keys", "2"), ("prefix", "J")];
        let expect = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        check(&credentials, &Request { query, ..base }, at, expect);
        let body = hash(b"Welcome to Amazon S3.");
        let headers = &[
            HOST,
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-content-sha256", body.as_str()),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let path = encode("/test$file.text", true);
        let put = Request { method: "PUT", path: &path, headers, body: &body, ..base };
        let expect = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd";
        check(&credentials, &put, at, expect);
    }
}
