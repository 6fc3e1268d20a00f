//! Models as Anthropic lists them.

use serde_json::{Value, json};

/// One model. `created`: seconds since 1970, 0 where nobody knows. `context`: tokens of prompt and
/// answer together, where known.
#[must_use]
pub fn model_answer(id: &str, created: u64, context: Option<usize>) -> Value {
    json!({
        "type": "model",
        "id": id,
        "display_name": id,
        "created_at": timestamp(created),
        "lifecycle": "active",
        "max_input_tokens": context,
        "max_tokens": context,
    })
}

/// A page of models. `has_more`: it is not the last one.
#[must_use]
pub fn models_answer(models: &[Value], has_more: bool) -> Value {
    let id = |model: Option<&Value>| model.and_then(|model| model.get("id")).cloned();
    json!({
        "data": models,
        "has_more": has_more,
        "first_id": id(models.first()),
        "last_id": id(models.last()),
    })
}

/// Seconds since 1970 as RFC 3339, in years of four digits.
fn timestamp(seconds: u64) -> String {
    const YEAR_10000: u64 = 253_402_300_800;
    let seconds = seconds.min(YEAR_10000 - 1);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that the leap day is a year's last; days since the first of March
    // of the year 0, in spans of 400 years, which all have the same length.
    let days = days + 719_468;
    let (span, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on: five of them have 153 days.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (span * 400 + year + month / 10, (month + 2) % 12 + 1);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn calendar() {
        let check = |seconds: u64, expect: &str| assert_eq!(timestamp(seconds), expect);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(1_709_164_800, "2024-02-29T00:00:00Z");
        check(1_767_225_599, "2025-12-31T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        check(u64::MAX, "9999-12-31T23:59:59Z");
    }
}
