//! Exit codes: what a script can tell from how a command ended. Stable; printed by `--help`.

use cryptomind_config::ConfigError;
use cryptomind_protocol::task::TaskState;
use cryptomind_protocol::{ErrorBody, ErrorClass};

/// Done.
pub const DONE: u8 = 0;
/// A fault of this software, or what was checked does not hold.
pub const INTERNAL: u8 = 1;
/// A wrong command line, file or request.
pub const USAGE: u8 = 2;
/// What was asked for does not exist.
pub const NOT_FOUND: u8 = 3;
/// Not proven or not allowed.
pub const AUTH: u8 = 4;
/// Money is missing, or a cap is too low.
pub const FUNDS: u8 = 5;
/// Nobody can do it now.
pub const CAPACITY: u8 = 6;
/// The task itself failed.
pub const TASK_FAILED: u8 = 7;
/// The network failed the task; what was not earned is back.
pub const NETWORK_FAILED: u8 = 8;
/// The task was cancelled, or the user said no.
pub const CANCELLED: u8 = 9;
/// The coordinator, or another node, cannot be reached.
pub const UNREACHABLE: u8 = 10;
/// A wait ended before what was waited for came.
pub const TIMEOUT: u8 = 124;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// The error of a user who pressed Ctrl-C.
pub fn interrupted(message: impl std::fmt::Display) -> ErrorBody {
    ErrorBody::user("interrupted", message)
}

/// The error of a file that cannot be read or written.
pub fn file(path: &std::path::Path, error: &std::io::Error) -> ErrorBody {
    ErrorBody::user("file", format!("{}: {error}", path.display()))
        .with_help("check that the path exists, may be used by you and that the disk has room")
}

/// The error of a task that ended otherwise than it should; none where it finished.
pub fn of_task(state: TaskState, reason: &str) -> Result<(), ErrorBody> {
    let (class, code) = match state {
        TaskState::Finished => return Ok(()),
        TaskState::Failed => (ErrorClass::Task, "task_failed"),
        TaskState::Cancelled => (ErrorClass::User, "task_cancelled"),
        TaskState::Expired => (ErrorClass::Network, "task_expired"),
        _ => (ErrorClass::Network, "task_abandoned"),
    };
    Err(ErrorBody::new(
        class,
        code,
        format!("the task is {state}: {reason}"),
    ))
}

/// The code of an error as it crossed the wire.
pub fn code_of(error: &ErrorBody) -> u8 {
    match error.code.as_str() {
        "wait_timeout" => TIMEOUT,
        "interrupted" => INTERRUPTED,
        "task_cancelled" | "not_confirmed" => CANCELLED,
        "task_expired" | "task_abandoned" => NETWORK_FAILED,
        "ledger_fault" | "ledger_diverges" | "promise_off" | "bar_missed" => INTERNAL,
        "receipt_too_large" | "receipt_damaged" | "receipt_unproven" => INTERNAL,
        _ if error.is_not_found() => NOT_FOUND,
        _ => match error.class {
            ErrorClass::User => USAGE,
            ErrorClass::Auth => AUTH,
            ErrorClass::Funds => FUNDS,
            ErrorClass::Capacity => CAPACITY,
            ErrorClass::Task => TASK_FAILED,
            ErrorClass::Network => UNREACHABLE,
            ErrorClass::Internal => INTERNAL,
        },
    }
}

/// An error as it is shown: its own body where it has one, otherwise one that tells the whole chain.
pub fn body_of(error: &anyhow::Error) -> ErrorBody {
    for cause in error.chain() {
        if let Some(body) = cause.downcast_ref::<ErrorBody>() {
            return body.clone();
        }
        if let Some(config) = cause.downcast_ref::<ConfigError>() {
            return config.clone().into();
        }
    }
    let is_usage = error.downcast_ref::<std::io::Error>().is_some();
    let class = if is_usage {
        ErrorClass::User
    } else {
        ErrorClass::Internal
    };
    ErrorBody::new(
        class,
        if is_usage { "file" } else { "internal" },
        format!("{error:#}"),
    )
}

/// Whether nobody reads our output any more, as in `cryptomind … | head`.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_and_special_code_has_its_exit_code() {
        let of = |class, code| code_of(&ErrorBody::new(class, code, ""));
        assert_eq!(of(ErrorClass::User, "bad_task"), 2);
        assert_eq!(of(ErrorClass::User, "item_not_found"), 3);
        assert_eq!(of(ErrorClass::Auth, "wrong_node"), 4);
        assert_eq!(of(ErrorClass::Funds, "insufficient_funds"), 5);
        assert_eq!(of(ErrorClass::Capacity, "too_few_miners"), 6);
        assert_eq!(of(ErrorClass::Network, "unreachable"), 10);
        assert_eq!(of(ErrorClass::Internal, "internal"), 1);
        assert_eq!(of(ErrorClass::Network, "wait_timeout"), 124);
        assert_eq!(of(ErrorClass::User, "ledger_diverges"), 1);
        assert_eq!(code_of(&interrupted("")), 130);
    }

    #[test]
    fn a_tasks_end_decides_the_exit_code() {
        let code = |state| of_task(state, "").map_or_else(|e| code_of(&e), |()| DONE);
        assert_eq!(code(TaskState::Finished), 0);
        assert_eq!(code(TaskState::Failed), 7);
        assert_eq!(code(TaskState::Abandoned), 8);
        assert_eq!(code(TaskState::Expired), 8);
        assert_eq!(code(TaskState::Cancelled), 9);
    }

    #[test]
    fn context_does_not_hide_the_cause() {
        let error = anyhow::Error::from(ErrorBody::auth("wrong_node", "no")).context("connecting");
        assert_eq!(code_of(&body_of(&error)), AUTH);
        let plain = anyhow::anyhow!("odd").context("doing");
        assert_eq!(body_of(&plain).message, "doing: odd");
        assert_eq!(code_of(&body_of(&plain)), INTERNAL);
    }
}
