//! `market price`: what a CU costs and cost, as a table, a curve or JSON lines.

use anyhow::Result;
use cryptomind_protocol::Amount;
use cryptomind_protocol::money::BASE_UNITS_PER_CTM;
use cryptomind_protocol::price::{PriceClass, PricePoint, PriceRing, Utilisation};

use crate::chart;
use crate::cli::PriceArgs;
use crate::command::miner::speed;
use crate::context::Context;
use crate::moment;
use crate::output::Output;

/// The curve's size, in characters.
const WIDTH: usize = 64;
const HEIGHT: usize = 8;

/// Shows present prices, or one class's past.
pub async fn run(context: &Context, args: PriceArgs) -> Result<()> {
    let client = context.client().await?;
    match args.history {
        Some(every) => {
            let class = args.class.unwrap_or(PriceClass::ALL[0]);
            let points = client.price_history(class, every.into()).await?;
            show_history(context.output, class, every.into(), &points)
        }
        None => {
            let mut points = client.prices().await?;
            points.retain(|point| args.class.is_none_or(|class| class == point.class));
            show(context.output, &points)
        }
    }
}

fn show(output: Output, points: &[PricePoint]) -> Result<()> {
    let header = ["class", "a CU costs", "asked for", "offered", "used"];
    let row = |point: &PricePoint| {
        vec![
            point.class.to_string(),
            point.unit_price.to_string(),
            speed(point.demand_mflops),
            speed(point.supply_mflops),
            used(point.utilisation),
        ]
    };
    output.rows(points, &header, row, "the coordinator knows no class")?;
    Ok(())
}

/// `45 to 50 %`: whoever is left out.
fn used(utilisation: Utilisation) -> String {
    if utilisation == Utilisation::UNKNOWN {
        return "not known".to_owned();
    }
    let percent = |ppm: u32| f64::from(ppm) / 10_000.0;
    let (least, most) = (utilisation.at_least_ppm, utilisation.at_most_ppm);
    format!("{:.0} to {:.0} %", percent(least), percent(most))
}

fn show_history(
    output: Output,
    class: PriceClass,
    every: PriceRing,
    points: &[PricePoint],
) -> Result<()> {
    if output.is_json() {
        points
            .iter()
            .try_for_each(|point| output.json_line(point))?;
        return Ok(());
    }
    let [first, .., last] = points else {
        output.note("there is no history yet: prices are noted once a minute")?;
        return Ok(());
    };
    for line in curve(points, every) {
        output.say(line)?;
    }
    let prices = points.iter().map(|point| point.unit_price);
    let (least, most) = prices.fold((first.unit_price, first.unit_price), |(least, most), p| {
        (least.min(p), most.max(p))
    });
    output.say(format!(
        "{class}, {} to {} UTC: {} to {}, least {least}, most {most}",
        moment::text(first.at),
        moment::text(last.at),
        first.unit_price,
        last.unit_price,
    ))?;
    Ok(())
}

/// The curve, in CTM over time.
fn curve(points: &[PricePoint], every: PriceRing) -> Vec<String> {
    let since = points.first().map(|point| point.at).unwrap_or_default();
    let step = |point: &PricePoint| point.at.ms_since(since) / every.step_ms();
    let dots: Vec<chart::Point> = points
        .iter()
        .map(|point| chart::Point {
            step: step(point),
            value: in_ctm(point.unit_price),
        })
        .collect();
    let total = points.last().map_or(0, step);
    chart::draw(&dots, total, WIDTH, HEIGHT)
}

/// For the eye only.
fn in_ctm(amount: Amount) -> f32 {
    (amount.base_units() as f64 / BASE_UNITS_PER_CTM as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::Timestamp;

    #[test]
    fn a_rising_price_is_drawn_rising() {
        let point = |minute: u64| PricePoint {
            at: Timestamp::from_ms(1_800_000_000_000 + minute * 60_000),
            class: PriceClass::ALL[0],
            unit_price: Amount::from_base_units((10 + minute) * BASE_UNITS_PER_CTM),
            demand_mflops: 0,
            supply_mflops: 0,
            utilisation: Utilisation::UNKNOWN,
        };
        let points: Vec<_> = (0..60).map(point).collect();
        let lines = curve(&points, PriceRing::Minutes);
        assert_eq!(lines.len(), HEIGHT);
        assert!(lines[0].contains("69.000") && lines[HEIGHT - 1].contains("10.000"));
        let blank = |c: char| c == '\u{2800}';
        let dots = |line: &str| line.chars().skip(9).collect::<Vec<_>>();
        assert!(
            blank(dots(&lines[0])[0]) && !blank(dots(&lines[0])[WIDTH - 1]),
            "{lines:?}"
        );
        assert!(!blank(dots(&lines[HEIGHT - 1])[0]), "{lines:?}");
    }

    #[test]
    fn what_is_used_is_said_as_a_range() {
        let utilisation = Utilisation {
            at_least_ppm: 452_000,
            at_most_ppm: 498_000,
        };
        assert_eq!(used(utilisation), "45 to 50 %");
        assert_eq!(used(Utilisation::UNKNOWN), "not known");
    }
}
