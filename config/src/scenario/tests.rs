use super::*;

const THREE_LANS: &str = include_str!("../../scenarios/three-lans.toml");
const CHURN: &str = include_str!("../../scenarios/churn.toml");
const PRICE_STEP: &str = include_str!("../../scenarios/price-step.toml");

fn parse(text: &str) -> Result<Scenario, ConfigError> {
    of_document(&Document::parse("s.toml".into(), text.to_owned())?)
}

#[test]
fn the_scenarios_of_the_repository_are_right() {
    let three = parse(THREE_LANS).unwrap();
    assert_eq!((three.name.as_str(), three.count()), ("three-lans", 24));
    assert_eq!(three.network.inside.bytes_per_s, 125_000_000);
    assert_eq!(three.network.between.rtt_us, 30_000);
    assert_eq!(
        (three.job.parameters, three.job.steps, three.job.miners),
        (10_000_000, 200, 4)
    );
    assert_eq!(three.miners.speed_sigma, 0.5);
    assert_eq!((three.miners.stay_ms, three.demand.gap_ms), (None, None));
    let churn = parse(CHURN).unwrap();
    assert_eq!(churn.miners.stay_ms, Some(3_600_000));
    let step = parse(PRICE_STEP).unwrap();
    let surge = step.demand.surge.unwrap();
    assert_eq!((surge.from_ms, surge.until_ms), (7_200_000, 14_400_000));
    assert_eq!(surge.factor, 3.0);
}

/// Each wrong text is refused with a reason that names what is wrong.
#[test]
fn what_cannot_be_played_is_refused_at_its_line() {
    let wrong = [
        ("lans = 3 ", "lans = 0 ", "out of range"),
        ("lans = 3 ", "lans = three ", "s.toml"),
        ("per_lan = 8", "per_lan = 1", "there are 3"),
        ("lans = 3 ", "lans = 9000 ", "at most 10000"),
        ("speed_sigma = 0.5", "speed_sigma = nan", "out of range"),
        ("speed_sigma = 0.5", "speed_sigma = -1", "out of range"),
        ("flatterers = 0 ", "flatterers = 2 ", "out of range"),
        ("stores = 1 ", "stors = 1 ", "stors"),
        (
            "steps = 200\nbatch = 256",
            "steps = 1000000\nbatch = 1000000",
            "samples",
        ),
        ("miners = 4", "miners = 17", "out of range"),
        (
            "parameters = 10_000_000",
            "",
            "`task.parameters` is missing",
        ),
        (
            "first_s = 60",
            "first_s = 60\nsurge_from_minutes = 9",
            "both ends",
        ),
        ("first_s = 60", "first_s = 60\ngap_s = 0", "out of range"),
    ];
    for (right, changed, reason) in wrong {
        assert!(THREE_LANS.contains(right), "{right}");
        let text = THREE_LANS.replacen(right, changed, 1);
        let said = parse(&text).unwrap_err().to_string();
        assert!(said.contains(reason), "{changed}: {said}");
    }
    let busy = CHURN.replace("minutes = 240", "minutes = 10080");
    let busy = busy.replace("gap_s = 30", "gap_s = 1");
    assert!(
        parse(&busy)
            .unwrap_err()
            .to_string()
            .contains("604800 tasks")
    );
}
