//! What a client could change so that its waiting task is placed: the change that costs it least.

use std::fmt;

use cryptomind_protocol::Amount;
use cryptomind_protocol::rating::Bar;

use super::select::MatchReport;
use super::verdict::{Gate, Stars, Verdict};

/// A change, the least of those that would help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Nothing: enough miners can.
    Nothing {
        /// How many.
        able: usize,
    },
    /// Take who is there: nobody is rated so well.
    LowerRating {
        /// The best rating of those who are kept off by theirs, in thousandths of a star.
        best_milli: u32,
    },
    /// Wait: so many failed too often of late, and rest, or are being checked.
    Rests {
        /// How many.
        resting: usize,
    },
    /// Wait, or ask for less work: so many have shown too little for so much.
    Unproven {
        /// How many.
        unproven: usize,
    },
    /// Ask for a smaller group.
    FewerMiners {
        /// So many could begin now.
        able: usize,
    },
    /// Pay more: somebody works for no less, or the work costs more there.
    PayMore {
        /// What the work would have to be paid with at least, or one CU of it.
        at_least: Amount,
        /// Whether that is for one CU.
        per_cu: bool,
    },
    /// A smaller model: nobody has the memory.
    LessMemory {
        /// The most that anybody has, bytes.
        most_bytes: u64,
    },
    /// Wait: so many are there and do something else.
    Wait {
        /// How many.
        busy: usize,
    },
    /// Nobody is there.
    NobodyOnline,
}

impl MatchReport {
    /// What would place the task, by what became of its candidates. What is free of charge comes first.
    pub fn advice(&self) -> Advice {
        let able = self.able();
        if !self.chosen.is_empty() {
            return Advice::Nothing { able };
        }
        if able > 0 {
            return Advice::FewerMiners { able };
        }
        self.others_end()
            .or_else(|| self.worse_rated())
            .or_else(|| self.dearer())
            .or_else(|| self.smaller())
            .or_else(|| self.others_prove())
            .or_else(|| self.others_rest())
            .unwrap_or(Advice::NobodyOnline)
    }

    /// Candidates that passed the gates.
    pub fn able(&self) -> usize {
        let barred = self.gates().count();
        self.verdicts.len() - barred
    }

    fn gates(&self) -> impl Iterator<Item = &Gate> {
        self.verdicts
            .iter()
            .filter_map(|(_, verdict)| match verdict {
                Verdict::Barred(gate) => Some(gate),
                _ => None,
            })
    }

    fn others_end(&self) -> Option<Advice> {
        let busy = self.gates().filter(|g| matches!(g, Gate::Busy)).count();
        (busy > 0).then_some(Advice::Wait { busy })
    }

    fn others_rest(&self) -> Option<Advice> {
        let is_back = |bar: &Bar| !matches!(bar, Bar::Excluded { .. });
        let rests = |gate: &&Gate| matches!(gate, Gate::Barred(bar) if is_back(bar));
        let resting = self.gates().filter(rests).count();
        (resting > 0).then_some(Advice::Rests { resting })
    }

    fn others_prove(&self) -> Option<Advice> {
        let is_exposed = |gate: &&Gate| matches!(gate, Gate::Exposed(_));
        let unproven = self.gates().filter(is_exposed).count();
        (unproven > 0).then_some(Advice::Unproven { unproven })
    }

    fn worse_rated(&self) -> Option<Advice> {
        let ratings = self.gates().filter_map(|gate| match gate {
            Gate::Rating { rating_milli, .. } => Some(*rating_milli),
            _ => None,
        });
        let best = ratings.max();
        best.map(|best_milli| Advice::LowerRating { best_milli })
    }

    fn dearer(&self) -> Option<Advice> {
        let reserves = self.gates().filter_map(|gate| match gate {
            Gate::Reserve { reserve, .. } => Some((*reserve, true)),
            Gate::Cap { cost, .. } => Some((*cost, false)),
            _ => None,
        });
        let least = reserves.min();
        least.map(|(at_least, per_cu)| Advice::PayMore { at_least, per_cu })
    }

    fn smaller(&self) -> Option<Advice> {
        let memories = self.gates().filter_map(|gate| match gate {
            Gate::Memory { has_bytes, .. } => Some(*has_bytes),
            _ => None,
        });
        let most = memories.max();
        most.map(|most_bytes| Advice::LessMemory { most_bytes })
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing { able } => {
                write!(f, "nothing is to be changed: {able} miners can do it now")
            }
            Self::FewerMiners { able } => {
                write!(
                    f,
                    "with group.miners = {able} it would start now, or it waits for more"
                )
            }
            Self::PayMore {
                at_least,
                per_cu: true,
            } => write!(
                f,
                "nobody who is free works for so little: one asks for {at_least} a CU"
            ),
            Self::PayMore { at_least, .. } => write!(
                f,
                "post it again with a cap that leaves {at_least} for the work"
            ),
            Self::LessMemory { most_bytes } => write!(
                f,
                "nobody who is free has the memory: the most is {most_bytes} bytes; use a smaller model"
            ),
            Self::LowerRating { best_milli } => write!(
                f,
                "nobody who is free is rated so well: with group.min_rating = {} one could",
                Stars(*best_milli)
            ),
            Self::Rests { resting } => write!(
                f,
                "it waits for miners that failed often of late, or are being checked: {resting} get no work for minutes or hours, and are asked again by themselves"
            ),
            Self::Unproven { unproven } => write!(
                f,
                "{unproven} miners are new, and so much work is not given to them yet: it waits until they have shown more, or post less work at a time"
            ),
            Self::Wait { busy } => write!(
                f,
                "it waits for others to end their tasks: {busy} miners are busy"
            ),
            Self::NobodyOnline => {
                f.write_str("no miner is online that has not failed it: it waits for one to join")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::{NodeId, Timestamp};

    const NODE: NodeId = NodeId::new([1; 32]);

    fn report(verdicts: Vec<Verdict>) -> MatchReport {
        MatchReport {
            chosen: Vec::new(),
            expectation: None,
            price: Amount::ZERO,
            verdicts: verdicts.into_iter().map(|v| (NODE, v)).collect(),
        }
    }

    fn barred(gates: impl IntoIterator<Item = Gate>) -> Advice {
        report(gates.into_iter().map(Verdict::Barred).collect()).advice()
    }

    const fn units(units: u64) -> Amount {
        Amount::from_base_units(units)
    }

    #[test]
    fn the_cheapest_change_is_named() {
        let (unit_price, cap) = (units(5), units(50));
        let reserve = |n| Gate::Reserve {
            reserve: units(n),
            unit_price,
        };
        let cost = |n| Gate::Cap {
            cost: units(n),
            cap,
        };
        let memory = |has_bytes| Gate::Memory {
            needed_bytes: 100,
            has_bytes,
        };
        let able = Verdict::Waits { able: 1, needed: 3 };
        let waits = report(vec![able, Verdict::Barred(Gate::Busy)]).advice();
        assert_eq!(waits, Advice::FewerMiners { able: 1 });
        assert_eq!(barred([Gate::Busy, reserve(9)]), Advice::Wait { busy: 1 });
        let dearer = |at_least, per_cu| Advice::PayMore {
            at_least: units(at_least),
            per_cu,
        };
        assert_eq!(barred([reserve(9), reserve(7), memory(9)]), dearer(7, true));
        assert_eq!(barred([cost(70), cost(60)]), dearer(60, false));
        let most_bytes = 40;
        assert_eq!(
            barred([memory(40), memory(9)]),
            Advice::LessMemory { most_bytes }
        );
        let rating = |rating_milli| Gate::Rating {
            rating_milli,
            floor_milli: 3_500,
        };
        let lower = barred([rating(900), rating(2_445), reserve(9)]);
        assert_eq!(lower, Advice::LowerRating { best_milli: 2_445 });
        // What is named lets it in.
        assert!(lower.to_string().contains("min_rating = 2.44 "), "{lower}");
        let rests = Gate::Barred(Bar::Rests {
            failed: 4,
            of: 4,
            until: Timestamp::from_ms(1),
        });
        assert_eq!(barred([rests, reserve(9)]), dearer(9, true));
        assert_eq!(barred([rests, Gate::Offline]), Advice::Rests { resting: 1 });
        let doubted = Gate::Barred(Bar::Doubted {});
        assert_eq!(barred([doubted]), Advice::Rests { resting: 1 });
        let excluded = Gate::Barred(Bar::Excluded {
            wrong: 3,
            until: Timestamp::from_ms(1),
        });
        assert_eq!(barred([excluded]), Advice::NobodyOnline);
        let new = Gate::Exposed(crate::exposure::Refusal::OneAtATime);
        assert_eq!(
            barred([rests, new, excluded]),
            Advice::Unproven { unproven: 1 }
        );
        assert_eq!(barred([Gate::Offline]), Advice::NobodyOnline);
        assert_eq!(barred([]), Advice::NobodyOnline);
    }
}
