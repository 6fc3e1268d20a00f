//! Patterns of names: `*` stands for any letters, none too, `?` for one. Case matters. No regular
//! expressions: whoever writes a policy should see at once what it allows.

/// Longest pattern, bytes. Matching takes at most this many steps for each letter of a text.
pub const BYTES_MAX: usize = 256;

/// Whether the whole of `text` is as the pattern says.
///
/// Only the last `*` is ever widened: what an earlier one could take, the last one can take too.
/// So the work is bounded by the two lengths multiplied, whatever the pattern.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut wanted, mut rest) = (pattern.chars(), text.chars());
    // After the last star: what the pattern wants then, and the text that the star has not taken.
    let mut star = None;
    loop {
        match wanted.next() {
            Some('*') => {
                star = Some((wanted.clone(), rest.clone()));
                continue;
            }
            Some(letter) => {
                let mut next = rest.clone();
                if next.next().is_some_and(|found| letter == '?' || letter == found) {
                    rest = next;
                    continue;
                }
            }
            None if rest.as_str().is_empty() => return true,
            None => {}
        }
        // The star takes one letter more, if there is one.
        let Some((after, left)) = &mut star else { return false };
        if left.next().is_none() {
            return false;
        }
        wanted = after.clone();
        rest = left.clone();
    }
}

/// Refuses what could never match or is too long to be meant.
///
/// # Errors
/// What is wrong with it.
pub fn check(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("an empty pattern matches nothing; `*` matches all".to_owned());
    }
    if pattern.len() > BYTES_MAX {
        return Err(format!("the pattern has {} bytes: at most {BYTES_MAX}", pattern.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let check = |pattern: &str, yes: &[&str], no: &[&str]| {
            for text in yes {
                assert!(matches(pattern, text), "`{pattern}` should match `{text}`");
            }
            for text in no {
                assert!(!matches(pattern, text), "`{pattern}` should not match `{text}`");
            }
        };
        check("qwen3", &["qwen3"], &["", "qwen", "qwen33", "Qwen3"]);
        check("qwen*", &["qwen", "qwen3-8b"], &["a-qwen", "qwe"]);
        check("*-8b", &["-8b", "qwen3-8b", "-8b-8b"], &["8b", "qwen3-8b-it"]);
        check("a*b*c", &["abc", "aXbXbXc", "abcbc"], &["acb", "ab", "abcd"]);
        check("?", &["a", "é", "字"], &["", "ab"]);
        check("a?c*", &["abc", "a?cd"], &["ac"]);
        check("*", &["", "anything"], &[]);
        check("**?*", &["a", "ab"], &[""]);
        check("", &[""], &["a"]);
    }

    #[test]
    fn a_hundred_stars_end_soon() {
        let text = "a".repeat(20_000);
        let begun = std::time::Instant::now();
        assert!(!matches(&format!("{}b", "a*".repeat(100)), &text));
        assert!(matches(&"*a".repeat(100), &text));
        assert!(!matches(&format!("*{}b", "a".repeat(200)), &text));
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }

    #[test]
    fn empty_and_endless_patterns_are_refused() {
        assert!(check("").is_err());
        assert!(check(&"x".repeat(BYTES_MAX)).is_ok());
        assert!(check(&"x".repeat(BYTES_MAX + 1)).unwrap_err().contains("257"));
    }
}
