//! Cuts a stream of text at stop strings. mistralrs looks for them one token late and has sent
//! their text by then, so what may be the start of one is held back here until it is clear.

/// The text of one answer on its way out.
pub(crate) struct Cutter {
    stops: Vec<String>,
    held: String,
}

impl Cutter {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// What can go out after this piece, and whether a stop string ends it.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.held += piece;
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.held.truncate(at);
            return (self.rest(), true);
        }
        let kept = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, when no more text comes.
    pub(crate) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes at the end of `text` that begin `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let starts = stop.char_indices().map(|(at, _)| at);
    starts.filter(|at| text.ends_with(&stop[..*at])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stops: &[&str], pieces: &[&str], expect: &[&str], stopped: bool) {
        let mut cutter = Cutter::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let mut out = Vec::new();
        let mut hit = false;
        for piece in pieces {
            let (text, end) = cutter.push(piece);
            out.push(text);
            hit |= end;
        }
        assert_eq!((out, hit), (expect.iter().map(|s| (*s).to_owned()).collect(), stopped));
    }

    #[test]
    fn texts_end_before_the_first_stop() {
        check(&[], &["a", "b"], &["a", "b"], false);
        check(&["END"], &["x E", "N", "D y"], &["x ", "", ""], true);
        check(&["END"], &["x EN", "d"], &["x ", "ENd"], false);
        check(&["b", "ab"], &["xab"], &["x"], true);
        check(&["aab"], &["aa", "ab"], &["", "a"], true);
        check(&["é!"], &["caf", "é", "?"], &["caf", "", "é?"], false);
    }
}
