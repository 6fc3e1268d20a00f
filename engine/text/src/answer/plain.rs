//! An answer of text: thoughts between two markers at its start, then content with calls in it.

use super::json::{Place, Scan};
use super::object::{Object, Step};
use super::output::Output;
use super::pattern::{Fit, fit};
use super::python::Python;
use super::shape::{Body, Choice, Shape, Then};
use super::stream::{Held, Unit};
use super::tagged::Tagged;
use super::{Marks, Rules};
use crate::grammar::watch::{Markers, Watch};

/// Longest stream that a pattern is matched with: a name, and what formats write around it.
const HEAD_BYTES_MAX: usize = 1024;

/// Where an answer stands.
#[derive(Debug, Clone)]
pub(super) struct Plain {
    phase: Phase,
    /// What is not decided; in content, what may begin a call.
    held: Held,
    /// White space in front of that, which belongs to content unless a call follows.
    space: String,
    /// White space that comes now is dropped.
    drops: bool,
    /// There was content, or a call.
    begun: bool,
}

#[derive(Debug, Clone)]
enum Phase {
    /// Thoughts may be opened.
    Start,
    Thinking {
        close: Watch,
        newlines: usize,
        begun: bool,
    },
    Content(Watch),
    /// An opening was met.
    First,
    Object(Object),
    Json(Scan),
    Tagged(Tagged),
    Python(Python),
    /// Arguments are complete, the call is not.
    After,
    /// A call is complete.
    Next,
}

impl Plain {
    pub(super) fn new(rules: &Rules) -> Self {
        let phase = match &rules.thoughts {
            Some(marks) if rules.open => thinking(marks),
            Some(marks) if !marks.opening.is_empty() => Phase::Start,
            _ => content(rules),
        };
        Self { phase, held: Held::default(), space: String::new(), drops: false, begun: false }
    }

    pub(super) fn is_thinking(&self) -> bool {
        matches!(self.phase, Phase::Thinking { .. })
    }

    /// Takes a unit. Where it does not fit it is tried again in content, which takes anything.
    pub(super) fn unit(&mut self, unit: Unit, rules: &Rules, out: &mut Output<'_>) {
        while !self.took(unit, rules, out) {}
    }

    fn took(&mut self, unit: Unit, rules: &Rules, out: &mut Output<'_>) -> bool {
        match (&mut self.phase, &rules.shape, &rules.thoughts) {
            (Phase::Start, _, Some(marks)) => self.start(unit, marks, rules, out),
            (Phase::Thinking { .. }, _, Some(marks)) => self.think(unit, marks, rules, out),
            (Phase::Content(_), Some(shape), _) => self.content(unit, shape, rules, out),
            (Phase::First, Some(shape), _) => {
                self.held.push(unit);
                self.choose(unit, &shape.first, rules, out)
            }
            (Phase::Next, Some(shape), _) => {
                self.held.push(unit);
                self.choose(unit, &shape.next, rules, out)
            }
            (Phase::After, Some(shape), _) => self.after(unit, shape, rules, out),
            (
                Phase::Object(_) | Phase::Json(_) | Phase::Tagged(_) | Phase::Python(_),
                Some(shape),
                _,
            ) => self.call(unit, shape, rules, out),
            // Without calls and thoughts to look for, all is content.
            _ => {
                self.give(unit, rules, out);
                true
            }
        }
    }

    /// Before any thoughts.
    fn start(&mut self, unit: Unit, marks: &Marks, rules: &Rules, out: &mut Output<'_>) -> bool {
        if let (Unit::Text(character), true) = (unit, unit.is_white())
            && self.held.bytes().is_empty()
        {
            self.space.push(character);
            return true;
        }
        self.held.push(unit);
        if self.held.bytes() == marks.opening {
            self.held.clear();
            self.space.clear();
            self.phase = thinking(marks);
        } else if !marks.opening.starts_with(self.held.bytes()) {
            self.phase = content(rules);
            for unit in self.held.take().units() {
                self.unit(unit, rules, out);
            }
        }
        true
    }

    fn think(&mut self, unit: Unit, marks: &Marks, rules: &Rules, out: &mut Output<'_>) -> bool {
        let Phase::Thinking { close, .. } = &mut self.phase else { return false };
        let watched = self.held.watch(unit, close, &marks.closing);
        let front = self.held.take_front(watched.certain);
        self.thoughts(&front, out);
        if watched.met.is_some() {
            self.held.clear();
            self.phase = content(rules);
            self.drops = true;
        }
        true
    }

    /// Thoughts without the newlines at their start and end.
    fn thoughts(&mut self, front: &Held, out: &mut Output<'_>) {
        let Phase::Thinking { newlines, begun, .. } = &mut self.phase else { return };
        for unit in front.units() {
            if unit == Unit::Text('\n') {
                *newlines += usize::from(*begun);
                continue;
            }
            out.shown(unit, |out, text| {
                out.reasoning(&"\n".repeat(std::mem::take(newlines)));
                out.reasoning(text);
                *begun = true;
            });
        }
    }

    /// Content, until an opening.
    fn content(&mut self, unit: Unit, shape: &Shape, rules: &Rules, out: &mut Output<'_>) -> bool {
        let Phase::Content(watch) = &mut self.phase else { return false };
        if shape.at_start && self.begun {
            self.give(unit, rules, out);
            return true;
        }
        let watched = self.held.watch(unit, watch, &shape.opening);
        for unit in self.held.take_front(watched.certain).units() {
            self.give(unit, rules, out);
        }
        if shape.at_start && self.begun {
            self.give_held(rules, out);
        } else if watched.met.is_some() {
            self.phase = Phase::First;
            return self.choose(unit, &shape.first, rules, out);
        }
        true
    }

    /// Shows a unit as content.
    fn give(&mut self, unit: Unit, rules: &Rules, out: &mut Output<'_>) {
        let late = self.begun && rules.shape.as_ref().is_some_and(|shape| shape.at_start);
        if let (Unit::Text(character), true) = (unit, unit.is_white()) {
            if self.drops {
                return;
            }
            // No call can follow where none is looked for.
            if rules.shape.is_some() && !late {
                self.space.push(character);
                return;
            }
        }
        out.shown(unit, |out, text| {
            out.content(&std::mem::take(&mut self.space));
            out.content(text);
            self.drops = false;
            self.begun = true;
        });
    }

    fn give_held(&mut self, rules: &Rules, out: &mut Output<'_>) {
        for unit in self.held.take().units() {
            self.give(unit, rules, out);
        }
    }

    /// What is held, and ends with the unit, is one of these, or may become it, or is content.
    fn choose(
        &mut self,
        unit: Unit,
        choices: &[Choice],
        rules: &Rules,
        out: &mut Output<'_>,
    ) -> bool {
        let Some(shape) = &rules.shape else { return false };
        let first = matches!(self.phase, Phase::First);
        let mut partly = false;
        let mut met = None;
        if self.held.bytes().len() <= HEAD_BYTES_MAX {
            for choice in choices {
                match fit(&choice.pattern, self.held.bytes()) {
                    Fit::Whole(name) => {
                        let name = String::from_utf8_lossy(name).into_owned();
                        if !(first && shape.named) || out.offers(&name) {
                            met = met.or(Some((choice.then, name)));
                        }
                    }
                    Fit::Partly => partly = true,
                    Fit::No => {}
                }
            }
        }
        match met {
            Some((then, name)) => self.then(then, name, shape, rules, out),
            None if partly => true,
            None => self.fail(unit, rules, out),
        }
    }

    fn then(
        &mut self,
        then: Then,
        name: String,
        shape: &Shape,
        rules: &Rules,
        out: &mut Output<'_>,
    ) -> bool {
        match then {
            // Nothing is certain yet: what is held stays.
            Then::Object => {
                self.phase = Phase::Object(Object::new());
                return true;
            }
            Then::Close => {
                self.held.clear();
                self.phase = content(rules);
                return true;
            }
            Then::Empty => {
                out.empty_call(&name);
                self.called(shape);
                return true;
            }
            Then::Behind | Then::With => out.call(&name),
        }
        self.called(shape);
        self.phase = match &shape.body {
            Body::Tagged(tags) => Phase::Tagged(Tagged::new(name, tags)),
            Body::Python => Phase::Python(Python::new()),
            Body::Json | Body::Object(_) => Phase::Json(Scan::value()),
        };
        then == Then::Behind
    }

    /// A call was begun.
    fn called(&mut self, shape: &Shape) {
        self.held.clear();
        self.space.clear();
        (self.drops, self.begun) = (true, true);
        self.phase = behind(shape);
    }

    /// A call's object or arguments.
    fn call(&mut self, unit: Unit, shape: &Shape, rules: &Rules, out: &mut Output<'_>) -> bool {
        let calls = out.calls();
        let held = &mut self.held;
        let step = match (&mut self.phase, &shape.body) {
            (Phase::Object(object), Body::Object(keys)) => object.step(unit, keys, held, out),
            (Phase::Tagged(tagged), Body::Tagged(tags)) => {
                tagged.step(unit, tags, &shape.after, held, out)
            }
            (Phase::Python(python), _) => python.step(unit, held, out),
            (Phase::Json(scan), _) => json(unit, scan, held, out),
            _ => Step::No,
        };
        if out.calls() != calls {
            self.space.clear();
            (self.drops, self.begun) = (true, true);
        }
        match step {
            Step::More => true,
            Step::Done | Step::Before => {
                self.held.clear();
                let read = matches!(self.phase, Phase::Tagged(_)) || shape.after.is_empty();
                self.phase = if read { behind(shape) } else { Phase::After };
                step == Step::Done
            }
            Step::No => self.fail(unit, rules, out),
        }
    }

    /// Behind arguments.
    fn after(&mut self, unit: Unit, shape: &Shape, rules: &Rules, out: &mut Output<'_>) -> bool {
        self.held.push(unit);
        match fit(&shape.after, self.held.bytes()) {
            Fit::Whole(_) => {
                self.held.clear();
                self.phase = behind(shape);
                true
            }
            Fit::Partly if self.held.bytes().len() <= HEAD_BYTES_MAX => true,
            _ => self.fail(unit, rules, out),
        }
    }

    /// The unit does not fit: what is held before it is content, and it is to be tried again.
    fn fail(&mut self, unit: Unit, rules: &Rules, out: &mut Output<'_>) -> bool {
        self.held.pop(unit);
        out.end_call();
        self.phase = content(rules);
        self.give_held(rules, out);
        false
    }

    /// The answer is over.
    pub(super) fn end(&mut self, rules: &Rules, out: &mut Output<'_>) {
        let held = self.held.bytes();
        match (&mut self.phase, &rules.shape) {
            (Phase::Thinking { .. }, _) => {
                let front = self.held.take();
                self.thoughts(&front, out);
            }
            (Phase::Next, Some(shape)) => {
                let closes = shape.next.iter().filter(|choice| choice.then == Then::Close);
                let mut ways = closes.map(|choice| &choice.pattern).chain([&shape.between]);
                if ways.any(|pattern| fit(pattern, held) != Fit::No) {
                    self.held.clear();
                }
            }
            (Phase::After, _) => self.held.clear(),
            (Phase::Object(object), _) if object.is_begun() => self.held.clear(),
            (Phase::Tagged(tagged), _) => tagged.cut(&mut self.held, out),
            (Phase::Python(python), _) => python.cut(&mut self.held, out),
            _ => {}
        }
        out.end_call();
        self.phase = content(rules);
        self.give_held(rules, out);
        out.content(&std::mem::take(&mut self.space));
    }
}

fn thinking(marks: &Marks) -> Phase {
    Phase::Thinking { close: marks.closing.watch(), newlines: 0, begun: false }
}

fn content(rules: &Rules) -> Phase {
    let none = || Markers::new([], false).watch();
    Phase::Content(rules.shape.as_ref().map_or_else(none, |shape| shape.opening.watch()))
}

/// Behind a call.
fn behind(shape: &Shape) -> Phase {
    if shape.next.is_empty() { Phase::Content(shape.opening.watch()) } else { Phase::Next }
}

/// A character of arguments that are JSON.
fn json(unit: Unit, scan: &mut Scan, held: &mut Held, out: &mut Output<'_>) -> Step {
    held.push(unit);
    let Some(character) = unit.character() else { return Step::No };
    let place = scan.push(character);
    if place == Place::Behind {
        return Step::No;
    }
    out.arguments(character.encode_utf8(&mut [0; 4]));
    held.clear();
    if place == Place::Last {
        out.end_call();
        return Step::Done;
    }
    Step::More
}
