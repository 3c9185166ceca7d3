//! Rented cards as a user writes them: `"RTX 4090: 0.60 USD/h, 82 CU/s"`.

use std::str::FromStr;

use cryptomind_core::market::rental::RentedCard;
use cryptomind_protocol::task::MAX_NAME_CHARS;

/// What a card looks like.
pub(crate) const EXAMPLE: &str = "RTX 4090: 0.60 USD/h, 82 CU/s";
/// Millionths of a dollar, and of a CU, in a whole.
const MILLION: f64 = 1e6;
/// The most that an hour costs, US dollars, and the fastest that a card is, CU a second.
const MOST: f64 = 1e6;

/// A card of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card(pub RentedCard);

impl FromStr for Card {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(2 * MAX_NAME_CHARS).collect();
        let wrong = || format!("`{shown}` is not NAME: PRICE USD/h, SPEED CU/s");
        let (name, terms) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (price, speed) = terms.split_once(',').ok_or_else(wrong)?;
        let price = price.trim().strip_suffix("USD/h").ok_or_else(wrong)?;
        let speed = speed.trim().strip_suffix("CU/s").ok_or_else(wrong)?;
        let name = name.trim();
        if name.is_empty()
            || name.chars().count() > MAX_NAME_CHARS
            || name.chars().any(char::is_control)
        {
            return Err(format!(
                "a card's name has 1 to {MAX_NAME_CHARS} characters"
            ));
        }
        Ok(Self(RentedCard {
            name: name.to_owned(),
            micro_usd_per_hour: millionths(price).ok_or_else(wrong)?,
            mflops: millionths(speed).ok_or_else(wrong)?,
        }))
    }
}

/// A number above 0 in millionths.
fn millionths(text: &str) -> Option<u64> {
    let number: f64 = text.trim().parse().ok()?;
    let fits = number.is_finite() && number > 0.0 && number <= MOST;
    let millionths = fits.then_some((number * MILLION).round() as u64)?;
    (millionths > 0).then_some(millionths)
}

impl std::fmt::Display for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let card = &self.0;
        let (price, speed) = (card.micro_usd_per_hour as f64, card.mflops as f64);
        write!(
            f,
            "{}: {} USD/h, {} CU/s",
            card.name,
            price / MILLION,
            speed / MILLION
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_read_and_written() {
        let card: Card = EXAMPLE.parse().unwrap();
        assert_eq!(card.0.name, "RTX 4090");
        assert_eq!(
            (card.0.micro_usd_per_hour, card.0.mflops),
            (600_000, 82_000_000)
        );
        assert_eq!(card.to_string().parse(), Ok(card));
        let colons: Card = "a:b: 1 USD/h, 0.5 CU/s".parse().unwrap();
        assert_eq!(colons.0.name, "a:b");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "card",
            "card: 1 USD/h",
            "card: 0 USD/h, 1 CU/s",
            "card: 1 EUR/h, 1 CU/s",
            "card: nan USD/h, 1 CU/s",
            "card: 1 USD/h, -1 CU/s",
            "card: 1e300 USD/h, 1 CU/s",
            ": 1 USD/h, 1 CU/s",
        ] {
            assert!(text.parse::<Card>().is_err(), "{text}");
        }
    }
}
