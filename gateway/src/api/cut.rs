//! Conversations that are longer than a model reads, and whose callers would rather have them cut
//! than refused: `truncation: "auto"` of Responses. The oldest turns go first, then the oldest calls
//! of the last one. What the application says stays, and what was said last.

use wire::{Message, Role};

use super::error::Failure;
use super::prompt::Rendered;

/// Renders as much of a conversation as has no more than so many tokens; all of it where that is
/// nothing.
pub(super) fn fitting(
    messages: &[Message],
    most: usize,
    render: impl Fn(&[Message]) -> Result<Rendered, Failure>,
) -> Result<Rendered, Failure> {
    let fits = |rendered: &Result<Rendered, Failure>| {
        rendered.as_ref().is_ok_and(|rendered| rendered.tokens.len() <= most)
    };
    let whole = render(messages);
    if fits(&whole) {
        return whole;
    }
    let cuts = cuts(messages);
    let (mut low, mut high, mut found) = (0, cuts.len(), None);
    while low < high {
        let middle = usize::midpoint(low, high);
        let rendered = render(&kept(messages, cuts[middle]));
        if fits(&rendered) {
            (high, found) = (middle, Some(rendered));
        } else {
            low = middle + 1;
        }
    }
    found.unwrap_or(whole)
}

/// What stays beside the application's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    /// All from here on.
    from: usize,
    /// And this one before it: what the calls behind it are about.
    task: Option<usize>,
}

/// Where a conversation can be cut, the longest rest first: in front of what somebody asks, and in
/// the last turn in front of what the model calls, so that no result is without its call.
fn cuts(messages: &[Message]) -> Vec<Cut> {
    let begins = |role: Role| {
        let each = messages.iter().enumerate();
        each.filter(move |(_, message)| message.role == role).map(|(at, _)| at)
    };
    let first = messages.iter().position(|message| !is_own(message)).unwrap_or_default();
    let turns = begins(Role::User).filter(|at| *at > first).map(|from| Cut { from, task: None });
    let task = begins(Role::User).next_back();
    let calls = begins(Role::Assistant).filter(|at| task.is_some_and(|task| *at > task + 1));
    turns.chain(calls.map(|from| Cut { from, task })).collect()
}

fn kept(messages: &[Message], cut: Cut) -> Vec<Message> {
    let stays =
        |at: usize, message: &Message| at >= cut.from || Some(at) == cut.task || is_own(message);
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

    /// Which messages stay where each has ten tokens and so many fit; `None`: all of them.
    fn check(roles: &str, most: usize, expect: Option<&[usize]>) {
        let messages = chat(roles);
        let asked = Cell::new(0);
        let rendered = fitting(&messages, most, |messages| {
            asked.set(asked.get() + 1);
            let text = |message: &Message| match &message.content {
                Content::Text(text) => text.clone(),
                _ => unreachable!(),
            };
            let text: Vec<String> = messages.iter().map(text).collect();
            Ok(Rendered { text: text.join(" "), tokens: vec![0; 10 * messages.len()] })
        });
        let all: Vec<usize> = (0..messages.len()).collect();
        let expect: Vec<String> = expect.unwrap_or(&all).iter().map(usize::to_string).collect();
        assert_eq!(rendered.expect("text").text, expect.join(" "), "{roles} {most}");
        assert!(asked.get() <= 2 + messages.len().max(1).ilog2(), "{} times", asked.get());
    }

    #[test]
    fn what_stays() {
        check("suauau", 60, None);
        check("suauau", 59, Some(&[0, 3, 4, 5]));
        check("suauau", 20, Some(&[0, 5]));
        check("suauau", 19, None);
        check("uauau", 49, Some(&[2, 3, 4]));
        // What the application says in the middle stays, too.
        check("suaduau", 40, Some(&[0, 3, 6]));
        // Calls of the last turn, with their results, behind what it is about.
        check("suauatatta", 80, Some(&[0, 3, 4, 5, 6, 7, 8, 9]));
        check("suauatatta", 70, Some(&[0, 3, 6, 7, 8, 9]));
        check("suauatatta", 59, Some(&[0, 3, 9]));
        check("suatat", 50, Some(&[0, 1, 4, 5]));
        check("suatat", 39, None);
        check("u", 5, None);
        check("", 5, None);
    }
}
