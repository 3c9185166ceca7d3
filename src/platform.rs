//! Where things lie by the platform's custom: configuration, keys, data.

use std::path::PathBuf;

use cryptomind_protocol::ErrorBody;
use directories::ProjectDirs;

fn dirs() -> Result<ProjectDirs, ErrorBody> {
    ProjectDirs::from("", "", "cryptomind").ok_or_else(|| {
        ErrorBody::user("no_home", "this user has no home folder")
            .with_help("set HOME, or name every file: --config, --key, --dir")
    })
}

/// The folder of configuration files and the account's key.
pub fn config_dir() -> Result<PathBuf, ErrorBody> {
    Ok(dirs()?.config_dir().to_owned())
}

/// The folder of nodes' data, development networks and the REPL's history.
pub fn data_dir() -> Result<PathBuf, ErrorBody> {
    Ok(dirs()?.data_local_dir().to_owned())
}
