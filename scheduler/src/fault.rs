//! Steps that fail as a whole. What is lost is what was in flight: every sequence goes on from
//! the positions that collected steps computed.
//!
//! A failed step does not say which row broke it. Its rows become suspects: they run apart, half
//! as many at a time after each failure, so that a row which fails every time is alone after a few
//! steps and only its request is refused.

use crate::core::{Core, Flight};
use crate::types::{Event, Fault, Refusal};

impl Core {
    /// Goes on after a fault. Nothing is in flight any more; `failed` was, oldest first, and the
    /// first of them failed by itself.
    pub(crate) fn recover(&mut self, failed: Vec<Flight>, fault: Fault, out: &mut Vec<Event>) {
        self.counters.step_faults += 1;
        for flight in &failed {
            for row in &flight.rows {
                let seq = &mut self.sequences[row.sequence];
                (seq.flights, seq.pending, seq.drafting) = (0, 0, false);
                seq.computed = seq.settled;
                // Whether the engine took note of starts and grants of a failed step is its own
                // business: it is told everything about these slots again.
                seq.restart = true;
                seq.granted = 0;
            }
        }
        match fault {
            Fault::Step(why) => self.retry(&failed, &why, out),
            Fault::Lost(why) => self.start_over(&failed, &why, out),
            Fault::Dead(why) => self.die(why, out),
        }
        self.spare.extend(failed);
    }

    /// The step had no effect: its rows are tried again, apart from others.
    fn retry(&mut self, failed: &[Flight], why: &str, out: &mut Vec<Event>) {
        let first = &failed[0].rows;
        self.suspects_max = (first.len() / 2).max(1);
        for row in first {
            let seq = &mut self.sequences[row.sequence];
            if !seq.suspect {
                seq.suspect = true;
                self.suspects += 1;
            }
            if first.len() == 1 {
                seq.faults += 1;
            }
        }
        self.land_lost(failed, why, out);
    }

    /// The device's memory is gone: all that ran starts again from its tokens.
    fn start_over(&mut self, failed: &[Flight], why: &str, out: &mut Vec<Event>) {
        self.pages.forget();
        for row in &failed[0].rows {
            self.sequences[row.sequence].faults += 1;
        }
        self.land_lost(failed, why, out);
        while let Some(&number) = self.running.last() {
            self.requeue(number);
        }
        // The slots are empty already.
        self.slots_ended.clear();
    }

    /// Ends, requeues or refuses the sequences whose rows never came back.
    fn land_lost(&mut self, failed: &[Flight], why: &str, out: &mut Vec<Event>) {
        for row in failed.iter().flat_map(|flight| &flight.rows) {
            // Gone or moved on already: it had a row in both steps, or its request was refused.
            let Some(seq) = self.sequences.get(row.sequence) else { continue };
            if seq.ended {
                self.release(row.sequence, out);
            } else if seq.leaving {
                self.requeue(row.sequence);
            } else if seq.faults > self.config.faults_max {
                self.refuse(seq.request, Refusal::Engine(why.to_owned()), out);
            }
        }
    }

    /// The engine is gone: everything ends, and nothing is accepted any more.
    fn die(&mut self, why: String, out: &mut Vec<Event>) {
        let alive: Vec<u32> = self.requests.numbers().collect();
        for request in alive {
            self.refuse(request, Refusal::Engine(why.clone()), out);
            // Choices that had ended and waited for a row in flight.
            if self.requests.get(request).is_some() {
                self.for_choices(request, |core, number| core.release(number, out));
            }
        }
        self.pages.forget();
        self.slots_ended.clear();
        self.dead = Some(why);
    }
}
