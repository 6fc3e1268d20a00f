//! Events as Amazon frames them.

/// A frame. A name that is longer than its header can say is cut.
pub(crate) fn frame(name: &str, payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (key, value) in
        [(":event-type", name), (":content-type", "application/json"), (":message-type", "event")]
    {
        let value = &value[..value.floor_char_boundary(usize::from(u16::MAX))];
        head.push(u8::try_from(key.len()).expect("short"));
        head.extend_from_slice(key.as_bytes());
        head.push(7);
        head.extend_from_slice(&u16::try_from(value.len()).expect("cut").to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let length = |length: usize| u32::try_from(length).expect("short").to_be_bytes();
    let mut out = length(16 + head.len() + payload.len()).to_vec();
    out.extend(length(head.len()));
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(head);
    out.extend_from_slice(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}
