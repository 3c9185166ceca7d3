//! What a command needs: how to print, whose key, which coordinator. The connection is made at first use.

use std::path::PathBuf;
use std::sync::Arc;

use cryptomind_config::{Client as Settings, Format as ConfiguredFormat, Layers, Loaded, key, load};
use cryptomind_protocol::{ErrorBody, NodeAddress, SecretKey};
use cryptomind_sdk::Client;
use tokio::sync::OnceCell;

use crate::cli::{Format, Global};
use crate::output::{Output, Wish};
use crate::platform;

/// One for the process, or one for each line of the REPL; they share the connection.
#[derive(Clone)]
pub struct Context {
    /// How to print.
    pub output: Output,
    /// The client's settings, the command line's on top.
    pub settings: Settings,
    client: Arc<OnceCell<Client>>,
}

/// The layers of a client's settings, weakest last.
pub fn layers(global: &Global) -> Result<Layers, ErrorBody> {
    let mut layers = Layers::of_process(global.config.clone());
    if let Ok(dir) = platform::config_dir() {
        layers.custom_file = Some(dir.join("client.toml"));
    }
    if let Ok(dir) = platform::data_dir() {
        let at = |name: &str| dir.join(name).display().to_string();
        layers.platform = vec![
            ("key_file".into(), at("account.key")),
            ("history_file".into(), at("history")),
        ];
    }
    if let Some(coordinator) = &global.coordinator {
        layers = layers.with_override("coordinator", coordinator);
    }
    if let Some(key) = &global.key {
        layers = layers.with_override("key_file", std::path::absolute(key).map_or_else(
            |_| key.display().to_string(),
            |path| path.display().to_string(),
        ));
    }
    Ok(layers)
}

/// A client's settings with their origins.
pub fn settings(global: &Global) -> Result<Loaded<Settings>, ErrorBody> {
    Ok(load(&layers(global)?)?)
}

fn wish(global: &Global, configured: ConfiguredFormat) -> Wish {
    Wish {
        json: match global.format {
            Some(format) => format == Format::Json,
            None => configured == ConfiguredFormat::Json,
        },
        quiet: global.quiet,
    }
}

impl Context {
    /// By command line, environment and `client.toml`.
    pub fn new(global: &Global) -> Result<Self, ErrorBody> {
        let settings = settings(global)?.value;
        Ok(Self {
            output: Output::new(wish(global, settings.format)),
            settings,
            client: Arc::default(),
        })
    }

    /// For commands that have no use for `client.toml`: what is wrong in it does not stop them.
    pub fn without_settings(global: &Global) -> Self {
        Self {
            output: Output::new(wish(global, ConfiguredFormat::Auto)),
            settings: Settings::default(),
            client: Arc::default(),
        }
    }

    /// The same connection, printing as a line of the REPL asks.
    pub fn for_line(&self, global: &Global) -> Self {
        Self {
            output: Output::new(wish(global, self.settings.format)),
            ..self.clone()
        }
    }

    /// The account's secret key.
    pub fn key(&self) -> Result<SecretKey, ErrorBody> {
        Ok(key::read(&self.settings.key_file)?)
    }

    /// Where the account's secret key is, or would be.
    pub fn key_file(&self) -> PathBuf {
        self.settings.key_file.clone()
    }

    /// The coordinator to ask.
    pub fn coordinator(&self) -> Result<NodeAddress, ErrorBody> {
        self.settings.coordinator.clone().ok_or_else(|| {
            ErrorBody::user("no_coordinator", "no coordinator is named").with_help(
                "give --coordinator cm://…, set CRYPTOMIND_COORDINATOR, or write coordinator in \
                 client.toml; `cryptomind dev` starts a network on this machine",
            )
        })
    }

    /// The client, connected at first use.
    pub async fn client(&self) -> Result<&Client, ErrorBody> {
        self.client
            .get_or_try_init(|| async { Client::connect(self.coordinator()?, self.key()?).await })
            .await
    }

    /// Says goodbye, where there is a connection.
    pub async fn close(&self) {
        if let Some(client) = self.client.get() {
            client.close().await;
        }
    }
}
