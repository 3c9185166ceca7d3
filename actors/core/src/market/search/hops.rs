//! The candidates' links, as milliseconds a hop.
//!
//! A member's row is filled with the estimate and overwritten with what is known, so that looking at a thousand candidates
//! for a place beside it costs a thousand loads.

use super::super::candidate::Candidate;
use super::super::expectation::Demand;
use super::super::link::{Link, LinkTable, Party};

/// Hops between candidates, who are numbers.
pub(super) struct Hops<'a> {
    demand: Demand,
    links: &'a LinkTable,
    /// Each candidate's number in the table of links.
    numbers: Vec<Option<u32>>,
    /// Which candidate has a number.
    positions: Vec<Option<usize>>,
    /// A hop over a link of which nothing is known.
    estimate_ms: f64,
    /// From one candidate to each; empty until it is filled.
    rows: Vec<Vec<f64>>,
}

impl<'a> Hops<'a> {
    pub(super) fn new(demand: Demand, able: &[Candidate], links: &'a LinkTable) -> Self {
        let number = |c: &Candidate| links.number(Party::Node(c.node));
        let numbers: Vec<_> = able.iter().map(number).collect();
        let mut positions = vec![None; links.len()];
        for (at, number) in numbers.iter().enumerate() {
            if let Some(number) = number {
                positions[*number as usize] = Some(at);
            }
        }
        Self {
            estimate_ms: demand.hop_ms(links.estimate()),
            demand,
            links,
            numbers,
            positions,
            rows: vec![Vec::new(); able.len()],
        }
    }

    /// Makes a candidate's row, unless it is there.
    pub(super) fn fill(&mut self, from: usize) {
        if !self.rows[from].is_empty() {
            return;
        }
        let mut row = vec![self.estimate_ms; self.rows.len()];
        for (at, link) in self.known(from) {
            row[at] = self.demand.hop_ms(Some(link));
        }
        self.rows[from] = row;
    }

    /// A hop from a candidate whose row is there.
    pub(super) fn get(&self, from: usize, to: usize) -> f64 {
        self.rows[from][to]
    }

    /// A candidate's two nearest hops.
    pub(super) fn nearest_ms(&self, from: usize) -> [f64; 2] {
        let mut nearest = [self.estimate_ms; 2];
        for (_, link) in self.known(from) {
            let hop = self.demand.hop_ms(Some(link));
            if hop < nearest[0] {
                nearest = [hop, nearest[0]];
            } else if hop < nearest[1] {
                nearest[1] = hop;
            }
        }
        nearest
    }

    /// What is known of a candidate's links to other candidates.
    fn known(&self, from: usize) -> impl Iterator<Item = (usize, Link)> + '_ {
        let number = self.numbers[from];
        let row = number.map_or(&[][..], |number| self.links.row(number));
        row.iter()
            .filter_map(|(peer, link)| Some((self.positions[*peer as usize]?, *link)))
    }
}
