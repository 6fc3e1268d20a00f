//! How often a request is asked of nodes that give nothing: what breaks one of them might break
//! them all, so a request that nodes break off at is stopped long before it has met each of a large
//! fleet. That a node could not be reached is no fault of the request.

use scheduler::types::Refusal;

use super::trial::Trial;

/// A node whose own engine fails at a request, or that says that it is at fault: so often it is
/// asked of another.
const ENGINE_TRIES: usize = 2;
/// Nodes that broke off after they had taken the request, in a row.
const BROKEN_TRIES: usize = 6;
/// The same, whether it got on between them or not. Nobody is so unlucky.
const BROKEN_TRIES_IN_ALL: usize = 100;
/// Tries beside those that a request has at each node, where nodes do not take it.
const FURTHER_TRIES: usize = 2;

/// Why a node gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// It was not reached, or did not take the request.
    NotTaken(String),
    /// It, or the model there, has gone since it was chosen.
    Gone(String),
    /// It had the request, and broke off or made no sense.
    Broken(String),
    /// Its engine failed at it, as it says itself.
    Engine(String),
    /// It says that the request is at fault.
    Unfit(String),
}

impl Failed {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::NotTaken(why)
            | Self::Gone(why)
            | Self::Broken(why)
            | Self::Engine(why)
            | Self::Unfit(why) => why,
        }
    }

    /// Says how well the node does, unless the request is at fault, or nobody.
    pub(super) fn tell(&self, trial: &mut Trial) {
        if !matches!(self, Self::Unfit(_) | Self::Gone(_)) {
            trial.failed();
        }
    }
}

/// The tries of one request.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// In a row.
    not_taken: usize,
    broken: usize,
    broken_in_all: usize,
    engine: usize,
}

impl Tries {
    /// It got on: one that does between two failures is unlucky, not harmful.
    pub(super) fn got_on(&mut self) {
        (self.not_taken, self.broken) = (0, 0);
    }

    /// One more of them, of so many nodes.
    ///
    /// # Errors
    /// It was enough.
    pub(super) fn failed(&mut self, failed: Failed, nodes: usize) -> Result<(), Refusal> {
        let (count, most) = match &failed {
            Failed::NotTaken(_) | Failed::Gone(_) => {
                (&mut self.not_taken, nodes.saturating_add(FURTHER_TRIES + 1))
            }
            Failed::Broken(_) => (&mut self.broken, BROKEN_TRIES),
            Failed::Engine(_) | Failed::Unfit(_) => (&mut self.engine, ENGINE_TRIES),
        };
        *count += 1;
        let enough = *count >= most;
        self.broken_in_all += usize::from(matches!(failed, Failed::Broken(_)));
        let often = self.broken_in_all >= BROKEN_TRIES_IN_ALL;
        if !enough && !often {
            return Ok(());
        }
        let times = if enough { BROKEN_TRIES } else { BROKEN_TRIES_IN_ALL };
        let row = if enough { " in a row" } else { "" };
        Err(Refusal::Engine(match failed {
            Failed::Broken(why) => format!(
                "{times} times{row} a node broke off at this request, so no other is asked; the \
                 last time: {why}"
            ),
            Failed::NotTaken(why)
            | Failed::Gone(why)
            | Failed::Engine(why)
            | Failed::Unfit(why) => why,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Failures by their letters (and `.` where it got on), of a fleet of so many nodes; how many
    /// of them it takes.
    fn check(letters: &str, nodes: usize, expect: Option<usize>) {
        let mut tries = Tries::default();
        let ended = letters.chars().position(|letter| {
            let why = String::new();
            let failed = match letter {
                'n' => Failed::NotTaken(why),
                'b' => Failed::Broken(why),
                'e' => Failed::Engine(why),
                'u' => Failed::Unfit(why),
                _ => {
                    tries.got_on();
                    return false;
                }
            };
            tries.failed(failed, nodes).is_err()
        });
        assert_eq!(ended, expect, "{letters} of {nodes}");
    }

    #[test]
    fn how_many_it_takes() {
        for nodes in [1, 3, 1000] {
            check("bbbbbbbb", nodes, Some(5));
            check("bbbbb.bbbbb.bbbbbb", nodes, Some(17));
            check("enbnbbe", nodes, Some(6));
            check(&"b.".repeat(200), nodes, Some(198));
        }
        check("nnnnnnnn", 1, Some(3));
        check("nnnnnnnn", 3, Some(5));
        check("nnnnn.nnnnn", 3, None);
        check("nbnbnbnbnbnb", 1000, Some(11));
        // An engine that fails says so: getting on does not make it well.
        check("e.e", 1000, Some(2));
        check("u.e", 1000, Some(2));
    }
}
