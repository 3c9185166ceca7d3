"""Checks what `cryptomind demo --format json` printed: its last line is one object, and its figures hold."""

import json
import sys

SUPPLY = 100_000_000 * 10**9
HOLD_REASONS = {"work", "item_fee", "storage", "network_fee", "reward_fund", "refund"}


def whole(value, what):
    """A number of base units is an integer: a float would have lost some."""
    assert isinstance(value, int) and not isinstance(value, bool), f"{what}: {value!r} is no integer"
    return value


def check_task(task, payments):
    """One payer, each payment of something for a known reason, work among them."""
    assert len({p["payer"] for p in payments}) == 1, f"{task} has several payers"
    for payment in payments:
        assert payment["payee"], f"nobody in {payment}"
        assert whole(payment["base_units"], "base_units") > 0, f"nothing in {payment}"
        assert payment["reason"] in HOLD_REASONS, f"no hold pays for this: {payment}"
    assert "work" in {p["reason"] for p in payments}, f"{task} paid no work"


def check(result):
    accuracy = result["test_accuracy"]
    assert 0.97 <= accuracy <= 1.0, f"test_accuracy is {accuracy}, at least 0.97 is wanted"
    supply = whole(result["supply_base_units"], "supply_base_units")
    assert supply == SUPPLY, f"supply_base_units is {supply}, not {SUPPLY}"

    balances = sum(whole(b["base_units"], "a balance") for b in result["balances"])
    assert balances == SUPPLY, f"the balances sum to {balances}, not {SUPPLY}"
    tasks = {}
    for payment in result["payments"]:
        tasks.setdefault(payment["task"], []).append(payment)
    # The training task and the inference task; the demo itself holds each sum against its hold.
    assert len(tasks) >= 2, f"{len(tasks)} tasks were paid, two or more are wanted"
    for task, payments in tasks.items():
        check_task(task, payments)

    for key in ("network_up_s", "first_loss_s", "wall_s"):
        assert result[key] > 0, f"{key} is {result[key]}"
    for key in ("model_path", "test_set_path", "ratings"):
        assert result[key], f"{key} is empty"
    return f"accuracy {accuracy:.4f}, {len(result['payments'])} payments, wall {result['wall_s']:.1f} s"


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
