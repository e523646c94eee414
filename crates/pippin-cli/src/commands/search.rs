//! `pippin search`: models of the hub.

use pippin::EngineError;
use pippin::hub::{Fit, FoundModel, Hardware};

use crate::error::Result;
use crate::machine;
use crate::output;
use crate::settings::SearchSettings;

/// Searches, and prints a page of what is found.
pub(super) fn run(settings: &SearchSettings) -> Result<()> {
    let hub = machine::hub(&settings.config)?;
    let hardware = Hardware::detect();
    let judge = machine::judge(
        &hardware,
        settings.config.device.memory().as_ref(),
        &settings.config,
        settings.context,
    );
    let found = pippin::hub::search(&hub, &settings.search, &judge).map_err(EngineError::from)?;
    if settings.json {
        output::data(&format!("{}\n", output::json_pretty(&found)))?;
    } else if !found.models.is_empty() {
        let header = ["MODEL", "SIZE", "PARAMS", "BITS", "FAMILY", "RUNS", "FITS", "DOWNLOADS", "LIKES"];
        let right = [false, true, true, true, false, false, false, true, true];
        output::data(&machine::table(header, right, found.models.iter().map(row).collect()))?;
    }
    if found.models.is_empty() && !settings.json {
        output::note("no such models");
        if let Some(author) = &settings.search.author {
            output::hint(&format!(
                "only models of {author} were searched; --all-authors searches all that are for MLX"
            ));
        }
    }
    if found.is_cut {
        output::note(&format!("{} models were looked at; the hub has more", found.examined));
    }
    if found.has_more && !settings.json {
        output::note(&format!("more: --page {}", found.page + 1));
    }
    Ok(())
}

fn row(model: &FoundModel) -> [String; 9] {
    let unknown = || "?".to_owned();
    let gated = if model.gated { " (gated)" } else { "" };
    [
        format!("{}{gated}", model.id),
        model.bytes.map_or_else(unknown, output::bytes),
        model.parameters.map_or_else(unknown, machine::parameters),
        model.bits.map_or_else(unknown, |bits| bits.to_string()),
        model.family.clone().unwrap_or_else(unknown),
        model.supported.map_or_else(unknown, |runs| if runs { "yes" } else { "no" }.to_owned()),
        model.fits.map_or("?", Fit::as_str).to_owned(),
        model.downloads.to_string(),
        model.likes.to_string(),
    ]
}
