//! Conversations that are longer than a model reads, and whose callers would rather have them cut
//! than refused: `truncation: "auto"` of Responses. The oldest turns go first, then the oldest
//! calls of the last one. What the application says stays, and what was said last.

use std::ops::Range;

use wire::{Message, Role};

use super::error::{Failure, is_too_long};
use super::prompt::Rendered;

/// A cut leaves out so much more than it must, as a share of the cuts that would leave out more:
/// the requests that follow begin alike, and what was read of them before is found again.
const STEPS: usize = 4;

/// Renders as much of a conversation as has no more than `most` tokens; of one that cannot be cut
/// to that, the shortest rest, if that has no more than `end`; all of it where it fits, and where
/// nothing does.
pub(super) fn fitting(
    messages: &[Message],
    (most, end): (usize, usize),
    render: impl Fn(&[Message]) -> Result<Rendered, Failure>,
) -> Result<Rendered, Failure> {
    let whole = render(messages);
    if fits(&whole, most) || whole.as_ref().is_err_and(|failure| !is_too_long(failure)) {
        return whole;
    }
    let cuts = cuts(messages);
    let Some(shortest) = cuts.last() else { return whole };
    if let Some(found) = longest(messages, &cuts, most, &render)? {
        return Ok(found);
    }
    let rendered = render(&kept(messages, shortest));
    if fits(&rendered, end) { rendered } else { whole }
}

fn fits(rendered: &Result<Rendered, Failure>, most: usize) -> bool {
    rendered.as_ref().is_ok_and(|rendered| rendered.tokens.len() <= most)
}

/// About the longest rest that fits, found by halves.
fn longest(
    messages: &[Message],
    cuts: &[Cut],
    most: usize,
    render: &impl Fn(&[Message]) -> Result<Rendered, Failure>,
) -> Result<Option<Rendered>, Failure> {
    let (mut low, mut high, mut found) = (0, cuts.len(), None);
    while low < high {
        let middle = usize::midpoint(low, high);
        let rendered = render(&kept(messages, &cuts[middle]));
        if fits(&rendered, most) {
            (high, found) = (middle, Some(rendered?));
            continue;
        }
        match rendered {
            Err(failure) if !is_too_long(&failure) => return Err(failure),
            _ => low = middle + 1,
        }
    }
    let left = cuts.len() - low;
    let step = (left / STEPS).checked_ilog2().map_or(1, |power| 1 << power);
    let further = low.next_multiple_of(step);
    if found.is_none() || further == low || further >= cuts.len() {
        return Ok(found);
    }
    render(&kept(messages, &cuts[further])).map(Some)
}

/// What stays beside the application's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    /// All from here on.
    from: usize,
    /// And these before it: what the calls behind them are about.
    task: Range<usize>,
}

/// Where a conversation can be cut, the longest rest first: where somebody begins to ask, and
/// behind what is asked last, in front of what the model says, so that each result has its call.
fn cuts(messages: &[Message]) -> Vec<Cut> {
    let said: Vec<usize> = (0..messages.len()).filter(|at| !is_own(&messages[*at])).collect();
    let asks = |at: usize| messages[said[at]].role == Role::User;
    let begins = |at: &usize| asks(*at) && (*at == 0 || !asks(*at - 1));
    let turns: Vec<usize> = (0..said.len()).filter(begins).collect();
    // The last one: from where to where it is asked.
    let last = turns.last().copied().unwrap_or_default();
    let end = (last..said.len()).find(|at| !asks(*at)).unwrap_or(said.len());
    let task = if last < end { said[last]..said[end - 1] + 1 } else { 0..0 };
    let turns = turns.into_iter().filter(|at| *at > 0).map(|at| Cut { from: said[at], task: 0..0 });
    // In front of the first of them nothing would go.
    let answers = (end + 1..said.len())
        .filter(|at| messages[said[*at]].role == Role::Assistant)
        .map(|at| Cut { from: said[at], task: task.clone() });
    turns.chain(answers).collect()
}

fn kept(messages: &[Message], cut: &Cut) -> Vec<Message> {
    let stays =
        |at: usize, message: &Message| at >= cut.from || cut.task.contains(&at) || is_own(message);
    let each = messages.iter().enumerate();
    each.filter(|(at, message)| stays(*at, message)).map(|(_, message)| message.clone()).collect()
}

/// The application says it.
fn is_own(message: &Message) -> bool {
    matches!(message.role, Role::System | Role::Developer)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use wire::Content;

    use super::super::error::too_long;
    use super::*;

    /// Messages by their roles' letters, each with its place as its text.
    fn chat(roles: &str) -> Vec<Message> {
        let role = |letter| match letter {
            's' => Role::System,
            'd' => Role::Developer,
            'u' => Role::User,
            'a' => Role::Assistant,
            _ => Role::Tool,
        };
        let each = roles.chars().enumerate();
        each.map(|(at, letter)| Message::text(role(letter), at.to_string())).collect()
    }

    /// Which messages stay where each has ten tokens and so many fit, and how many were rendered.
    /// More than `refused` are refused for it.
    fn stays(roles: &str, bounds: (usize, usize), refused: usize) -> (Vec<usize>, u32) {
        let messages = chat(roles);
        let asked = Cell::new(0);
        let rendered = fitting(&messages, bounds, |messages| {
            asked.set(asked.get() + 1);
            let text = |message: &Message| match &message.content {
                Content::Text(text) => text.clone(),
                _ => unreachable!(),
            };
            let text: Vec<String> = messages.iter().map(text).collect();
            let tokens = vec![0; 10 * messages.len()];
            if tokens.len() > refused {
                return Err(too_long(tokens.len(), refused));
            }
            Ok(Rendered { text: text.join(" "), tokens })
        });
        let text = rendered.map(|rendered| rendered.text).unwrap_or_default();
        (text.split_whitespace().map(|at| at.parse().expect("a number")).collect(), asked.get())
    }

    fn check(roles: &str, most: usize, expect: &[usize]) {
        for refused in [most, usize::MAX] {
            let (found, asked) = stays(roles, (most, most), refused);
            let all: Vec<usize> = (0..roles.len()).collect();
            let whole = found == all;
            let fits = 10 * found.len() <= most;
            assert!(fits || whole && refused == usize::MAX || found.is_empty(), "{roles} {most}");
            let none = if refused == usize::MAX { &all[..] } else { &[] };
            assert_eq!(found, if expect.is_empty() { none } else { expect }, "{roles} {most}");
            assert!(asked <= 2 * (3 + roles.len().max(1).ilog2()), "{asked} times");
        }
    }

    #[test]
    fn what_stays() {
        check("suauau", 60, &[0, 1, 2, 3, 4, 5]);
        check("suauau", 59, &[0, 3, 4, 5]);
        check("suauau", 20, &[0, 5]);
        check("suauau", 19, &[]);
        check("uauau", 49, &[2, 3, 4]);
        // What the application says in the middle stays, too.
        check("suaduau", 40, &[0, 3, 6]);
        // Calls of the last turn, with their results, behind what it is about.
        check("suauatatta", 80, &[0, 3, 4, 5, 6, 7, 8, 9]);
        check("suauatatta", 70, &[0, 3, 6, 7, 8, 9]);
        check("suauatatta", 59, &[0, 3, 9]);
        check("suatat", 50, &[0, 1, 4, 5]);
        check("suatat", 39, &[]);
        // Who says several things asks once.
        check("suuauua", 50, &[0, 4, 5, 6]);
        check("suuatat", 50, &[0, 1, 2, 5, 6]);
        // Nobody asks: the application itself has said what is to be done.
        check("datatat", 40, &[0, 5, 6]);
        check("au", 10, &[1]);
        check("a", 5, &[]);
        check("u", 5, &[]);
        check("", 5, &[]);
    }

    #[test]
    fn room_is_wished_for_and_not_insisted_on() {
        // Two fit with room behind them, four at all.
        assert_eq!(stays("suau", (20, 40), 40).0, [0, 3]);
        assert_eq!(stays("suu", (20, 40), 40).0, [0, 1, 2], "it cannot be cut, and fits");
        assert_eq!(stays("suauu", (20, 40), 40).0, [0, 3, 4]);
        assert_eq!(stays("suauauu", (20, 40), 40).0, [0, 5, 6], "with as much room as can be had");
        assert_eq!(stays("suauuuu", (20, 40), 40).0, [0; 0], "it does not fit at all");
    }

    #[test]
    fn what_cannot_be_rendered_is_not_cut() {
        let asked = Cell::new(0);
        let render = |messages: &[Message]| {
            asked.set(asked.get() + 1);
            if messages.len() < 4 {
                return Ok(Rendered { text: String::new(), tokens: vec![0] });
            }
            Err(Failure::from(wire::ApiError::new(
                wire::ErrorKind::Invalid,
                "invalid_value",
                "Roles must alternate.",
            )))
        };
        let found = fitting(&chat("uuau"), (20, 30), render);
        assert!(found.is_err_and(|failure| !is_too_long(&failure)));
        assert_eq!(asked.get(), 1);
    }

    /// A conversation that grows keeps its beginning for some turns.
    #[test]
    fn cuts_move_in_steps() {
        let firsts: Vec<usize> = (100..200)
            .map(|turns| {
                let found = stays(&format!("s{}u", "ua".repeat(turns)), (1000, 1200), usize::MAX).0;
                assert!((70..=100).contains(&found.len()), "{}", found.len());
                found[1]
            })
            .collect();
        let moves = firsts.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!((5..=20).contains(&moves), "{moves} times in a hundred turns");
    }
}
