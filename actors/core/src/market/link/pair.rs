//! What is known of pairs, and from whom: for people, who want to see on what a choice rests.

use std::collections::BTreeSet;

use cryptomind_protocol::Timestamp;

use super::{Links, Party, Side, pair};

/// A pair of which anything was said or proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The lesser party.
    pub a: Party,
    /// The greater one.
    pub b: Party,
    /// How many of the two ends say something that is not expired.
    pub ends: u8,
    /// When the end that is silent for longer last spoke, of those that say something.
    pub heard: Option<Timestamp>,
    /// Whether they proved to be in one local network.
    pub lan: bool,
}

impl Links {
    /// The pairs of which anything is known, in order; only those of one party, where it is named; at most `limit`.
    pub fn pairs(&self, of: Option<Party>, limit: usize, now: Timestamp) -> Vec<Pair> {
        let sides = self.sides.iter();
        let said = sides.flat_map(|(from, peers)| peers.keys().map(|to| pair(*from, *to)));
        let proved = self.proofs().map(|(a, b, _)| (a, b));
        let wanted = |(a, b): &(Party, Party)| of.is_none_or(|of| of == *a || of == *b);
        let mut seen = BTreeSet::new();
        let known = said.chain(proved).filter(wanted);
        let known = known.filter(|pair| seen.insert(*pair));
        let known = known.map(|(a, b)| self.pair(a, b, now));
        let known = known.filter(|pair| pair.ends > 0 || pair.lan);
        let mut pairs: Vec<Pair> = known.take(limit).collect();
        pairs.sort_unstable_by_key(|pair| (pair.a, pair.b));
        pairs
    }

    /// The parties that this one measured to be nearest, by its own word, the nearest first.
    pub fn nearest(&self, of: Party, count: usize, now: Timestamp) -> Vec<Party> {
        let sides = self
            .sides
            .get(&of)
            .into_iter()
            .flat_map(|peers| peers.iter());
        let known = sides.filter_map(|(peer, side)| Some((side.rtt_us(now)?, *peer)));
        let mut known: Vec<_> = known.collect();
        known.sort_unstable();
        known
            .into_iter()
            .take(count)
            .map(|(_, peer)| peer)
            .collect()
    }

    fn pair(&self, a: Party, b: Party, now: Timestamp) -> Pair {
        let ends = [self.side(a, b, now), self.side(b, a, now)];
        let heard = ends.iter().flatten().map(|side| side.rtt.at).min();
        Pair {
            a,
            b,
            ends: ends.iter().flatten().count() as u8,
            heard,
            lan: self.is_lan(a, b, now),
        }
    }

    fn side(&self, from: Party, to: Party, now: Timestamp) -> Option<&Side> {
        let side = self.sides.get(&from)?.get(&to)?;
        (!side.is_expired(now)).then_some(side)
    }

    fn is_lan(&self, a: Party, b: Party, now: Timestamp) -> bool {
        let proved = self.lan.get(&a).and_then(|peers| peers.get(&b));
        proved.is_some_and(|at| super::is_proved(*at, now))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LAN_EXPIRY_MS, Measure, RTT_EXPIRY_MS};
    use super::*;
    use cryptomind_protocol::NodeId;

    fn party(n: u8) -> Party {
        Party::Node(NodeId::new([n; 32]))
    }

    fn report(links: &mut Links, (from, to): (u8, u8), rtt_us: u64, at: u64) {
        let measure = Measure {
            rtt_us,
            bytes_per_s: None,
        };
        links.report(party(from), party(to), measure, Timestamp::from_ms(at));
    }

    #[test]
    fn pairs_say_how_many_ends_spoke_and_since_when() {
        let mut links = Links::default();
        report(&mut links, (2, 1), 10, 5);
        report(&mut links, (1, 2), 10, 9);
        report(&mut links, (3, 1), 10, 9);
        links.prove_lan(party(3), party(2), Timestamp::from_ms(9));
        let now = Timestamp::from_ms(10);
        let shown = |pair: Pair| (pair.a, pair.b, pair.ends, pair.lan);
        let all: Vec<_> = links.pairs(None, 9, now).into_iter().map(shown).collect();
        let expected = [
            (party(1), party(2), 2, false),
            (party(1), party(3), 1, false),
            (party(2), party(3), 0, true),
        ];
        assert_eq!(all, expected);
        let first = links.pairs(Some(party(2)), 1, now)[0];
        assert_eq!(first.heard, Some(Timestamp::from_ms(5)));
        assert_eq!(links.pairs(Some(party(3)), 9, now).len(), 2);
        let later = Timestamp::from_ms(10 + RTT_EXPIRY_MS.max(LAN_EXPIRY_MS));
        assert_eq!(links.pairs(None, 9, later), []);
    }

    #[test]
    fn the_nearest_come_first_until_they_expire() {
        let mut links = Links::default();
        for (to, rtt_us) in [(2, 30), (3, 10), (4, 20)] {
            report(&mut links, (1, to), rtt_us, 1);
        }
        let nearest = |now| links.nearest(party(1), 2, Timestamp::from_ms(now));
        assert_eq!(nearest(2), [party(3), party(4)]);
        assert_eq!(nearest(2 + RTT_EXPIRY_MS), []);
    }
}
