//! Goldens: what was written once and looked at, held against what is written now. What stands
//! in several cases stands once, with the names of all of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Cases by what they came to, in the order of their first one.
#[derive(Default)]
pub(crate) struct Golden {
    order: Vec<String>,
    cases: BTreeMap<String, Vec<String>>,
}

impl Golden {
    pub(crate) fn add(&mut self, case: String, text: String) {
        let cases = self.cases.entry(text.clone()).or_default();
        if cases.is_empty() {
            self.order.push(text);
        }
        cases.push(case);
    }

    /// Each text behind a line with its cases. `long` are texts that stand in many of them: they
    /// are written once, and stand there as `<1>`, `<2>`, ...
    pub(crate) fn check(&self, name: &str, long: &[&str]) {
        let marks: Vec<String> = (1..=long.len()).map(|at| format!("<{at}>")).collect();
        let pairs = || marks.iter().zip(long);
        let mut page: String = pairs().map(|(mark, long)| format!("{mark} is {long}\n")).collect();
        for text in &self.order {
            assert!(pairs().all(|(mark, _)| !text.contains(mark)), "a mark is a text of its own");
            let short = |text: String, (mark, long): (&String, &&str)| text.replace(*long, mark);
            let short = pairs().fold(text.trim_end().to_owned(), short);
            page += &format!("# {}\n{short}\n", self.cases[text].join("; "));
        }
        check(&format!("tests/pairs/goldens/{name}"), &page);
    }
}

/// Compares a file of this crate with what it should be. `BLESS=1` writes it.
#[track_caller]
pub(crate) fn check(path: &str, wanted: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, wanted).expect("it can be written");
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    let line = found.lines().zip(wanted.lines()).position(|(found, wanted)| found != wanted);
    let line = line.map_or(0, |line| line + 1);
    assert!(
        found == wanted,
        "{path} differs in line {line}: BLESS=1 cargo test -p wire --test pairs, and look at it"
    );
}
