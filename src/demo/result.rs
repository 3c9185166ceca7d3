//! 5. bob has the model: fetched, verified, measured by himself, published under his name.

use anyhow::Result;
use cryptomind_gpu::inference;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::item::{CARD_FILE, DatasetInfo, ItemKind, ItemView, MODEL_FILE};

use super::{ACCURACY_NEEDED, Demo, Model, Trained, digits};
use crate::command::files;
use crate::exit;

impl Demo<'_> {
    pub(super) async fn fetch_model(&mut self, trained: &Trained) -> Result<Model> {
        self.heading(5, "bob has the model")?;
        let item = trained
            .task
            .item
            .ok_or_else(|| ErrorBody::internal("the trained model was not published"))?;
        let item = self.bob.item_by_id(item).await?;
        let dir = self.network.dir().join("model");
        let placement = self.bob.locate_item(item.item).await?;
        let files = &item.manifest.files;
        files::download(self.output, &self.bob, &placement, files, &dir).await?;
        let weights = dir.join(MODEL_FILE);
        let accuracy = self.measure(&item, &weights).await?;
        self.line(format!("published as {}, {}", item.path(), item.item))?;
        self.line(format!(
            "test accuracy {accuracy:.4}, measured here with the fetched weights (needed: {ACCURACY_NEEDED})"
        ))?;
        if accuracy < ACCURACY_NEEDED {
            let message = format!("test accuracy {accuracy:.4}, needed {ACCURACY_NEEDED}");
            return Err(ErrorBody::internal(message).into());
        }
        Ok(Model {
            item,
            card: dir.join(CARD_FILE),
            weights,
            accuracy,
        })
    }

    /// The share of test images that the fetched weights classify rightly, here and without the network.
    async fn measure(&self, item: &ItemView, weights: &std::path::Path) -> Result<f64> {
        let ItemKind::Model(info) = &item.manifest.kind else {
            return Err(ErrorBody::internal("the trained item is no model").into());
        };
        let spec = info.spec.clone();
        let bytes = std::fs::read(weights).map_err(|e| exit::file(weights, &e))?;
        let dir = self.network.dir().to_owned();
        let measured = tokio::task::spawn_blocking(move || -> Result<f64> {
            let test = digits::test_set(&dir, &info_of_digits(&dir)?)?;
            Ok(inference::Model::load(&spec, &bytes)?.accuracy(&test)?)
        });
        measured.await?
    }
}

/// What the files in the demo's folder hold.
pub(super) fn info_of_digits(dir: &std::path::Path) -> Result<DatasetInfo, ErrorBody> {
    let found = cryptomind_gpu::dataset::inspect_idx(&digits::folder(dir));
    found.map(|(info, _)| info).map_err(ErrorBody::internal)
}
