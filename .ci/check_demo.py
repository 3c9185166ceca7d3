"""Checks what `cryptomind demo --format json` printed: its last line is one object, and its figures hold."""

import json
import sys

SUPPLY = 100_000_000 * 10**9
HOLD_REASONS = {"work", "item_fee", "storage", "network_fee", "refund"}


def whole(value, what):
    """A number of base units is an integer: a float would have lost some."""
    assert isinstance(value, int) and not isinstance(value, bool), f"{what}: {value!r} is no integer"
    return value


def check(result):
    accuracy = result["test_accuracy"]
    assert 0.97 <= accuracy <= 1.0, f"test_accuracy is {accuracy}, at least 0.97 is wanted"
    supply = whole(result["supply_base_units"], "supply_base_units")
    assert supply == SUPPLY, f"supply_base_units is {supply}, not {SUPPLY}"

    payments = result["payments"]
    for payment in payments:
        assert payment["payer"] and payment["payee"], f"nobody in {payment}"
        assert whole(payment["base_units"], "base_units") > 0, f"nothing in {payment}"
    reasons = {payment["reason"] for payment in payments}
    assert "work" in reasons, f"no work was paid: {sorted(reasons)}"
    paid = sum(p["base_units"] for p in payments if p["reason"] in HOLD_REASONS)
    held = whole(result["held_base_units"], "held_base_units")
    assert paid == held, f"payments out of holds sum to {paid}, held were {held}"

    for key in ("network_up_s", "first_loss_s", "wall_s"):
        assert result[key] > 0, f"{key} is {result[key]}"
    for key in ("model_path", "test_set_path", "ratings"):
        assert result[key], f"{key} is empty"
    return f"accuracy {accuracy:.4f}, {len(payments)} payments, wall {result['wall_s']:.1f} s"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        lines = [line for line in file if line.strip()]
    assert lines, "the demo printed nothing"
    result = json.loads(lines[-1])
    assert isinstance(result, dict), f"the last line is no object: {lines[-1][:200]}"
    print(check(result))


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"the demo's result is wrong: {type(error).__name__}: {error}")
