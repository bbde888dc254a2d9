//! What `/metrics` answers: what was counted, and what others keep as plain numbers, read now.

use tollgate_models::{Gauges, Model, Served, Slot};
use tollgate_plugins::CONTRACT_VERSION;
use tollgate_telemetry::Scrape;

use crate::admin::server::{Admin, Listening};

/// All of it, in Prometheus' text format. It reads files: not for an async task.
pub(crate) fn text(admin: &Admin) -> String {
    let mut scrape = admin.metrics.scrape();
    scrape.count("tollgate_build_info", &[env!("CARGO_PKG_VERSION"), CONTRACT_VERSION], 1);
    for listener in &admin.listeners {
        add_listener(&mut scrape, listener);
    }
    let current = admin.pipeline.current();
    for model in current.models.iter() {
        match model {
            Served::Local(slot) => add_slot(&mut scrape, slot),
            Served::Remote(_) => scrape.count("tollgate_model_alive", &[model.id()], u64::from(model.is_healthy())),
        }
    }
    for plugin in &current.plugins {
        let labels = [plugin.id(), plugin.manifest().version.as_str(), plugin.digest()];
        scrape.count("tollgate_plugin_info", &labels, 1);
    }
    drop(current);
    add_process(&mut scrape, admin);
    scrape.text()
}

fn add_listener(scrape: &mut Scrape, listener: &Listening) {
    let (id, gauges) = (listener.id.as_str(), &listener.gauges);
    scrape.count("tollgate_connections", &[id], many(gauges.connections()));
    scrape.count("tollgate_connections_accepted_total", &[id], gauges.accepted());
    scrape.count("tollgate_connections_refused_total", &[id], gauges.refused());
    scrape.count("tollgate_requests_in_flight", &[id], many(gauges.requests()));
    for (code, count) in gauges.rejected() {
        scrape.count("tollgate_edge_rejections_total", &[id, code], count);
    }
    let Some(certificate) = &listener.certificate else { return };
    for (reason, count) in gauges.failed_handshakes() {
        scrape.count("tollgate_tls_handshakes_failed_total", &[id, reason], count);
    }
    if let Some(expires_s) = certificate.expires_s().and_then(|seconds| u64::try_from(seconds).ok()) {
        scrape.count("tollgate_certificate_expiry_timestamp_seconds", &[id], expires_s);
    }
}

fn add_slot(scrape: &mut Scrape, slot: &Slot) {
    let (status, model) = (slot.status(), slot.loaded());
    let is_ready = model.as_ref().is_some_and(|model| model.is_alive());
    scrape.count("tollgate_model_loaded", &[slot.id()], u64::from(is_ready));
    scrape.count("tollgate_model_leases", &[slot.id()], u64::from(status.leases));
    scrape.count("tollgate_model_predicted_bytes", &[slot.id()], status.predicted_bytes);
    // What an adapter's base does is counted under the base.
    if let Some(model) = model.filter(|_| slot.base().is_none()) {
        add_model(scrape, &model);
    }
}

fn add_model(scrape: &mut Scrape, model: &Model) {
    let id = model.id();
    for (name, count) in [
        ("tollgate_model_alive", u64::from(model.is_alive())),
        ("tollgate_model_memory_bytes", model.memory_bytes()),
        ("tollgate_model_grown_bytes", model.grown()),
    ] {
        scrape.count(name, &[id], count);
    }
    scrape.value("tollgate_model_load_duration_seconds", &[id], model.load_time().as_secs_f64());
    scrape.count("tollgate_model_info", &[id, model.digest()], 1);
    if let Some(engine) = model.engine() {
        add_gauges(scrape, id, engine.gauges());
        for (name, count) in [
            ("tollgate_model_requests_waiting", many(engine.gauges().waiting())),
            ("tollgate_model_requests_parked", many(engine.gauges().parked())),
            ("tollgate_model_sequences", u64::from(engine.capabilities().max_sequences)),
            ("tollgate_model_preemptions_total", engine.gauges().preemptions()),
            ("tollgate_model_cache_cells_used", engine.gauges().cells()),
            ("tollgate_model_cache_cells", u64::from(engine.capabilities().context_tokens)),
            ("tollgate_model_decoded_tokens_total", engine.gauges().decoded_tokens()),
            ("tollgate_model_cached_tokens_total", engine.gauges().cached_tokens()),
            ("tollgate_model_restored_tokens_total", engine.gauges().restored_tokens()),
        ] {
            scrape.count(name, &[id], count);
        }
    }
    if let Some(engine) = model.embedding() {
        let gauges = engine.gauges();
        add_gauges(scrape, id, gauges);
        // Who is computed holds its place until it is done.
        let waiting = gauges.waiting().saturating_sub(gauges.running());
        scrape.count("tollgate_model_requests_waiting", &[id], many(waiting));
    }
}

/// What models of every task do: steps and their rows, and the tokens that went in.
fn add_gauges(scrape: &mut Scrape, id: &str, gauges: &Gauges) {
    scrape.count("tollgate_model_requests_running", &[id], many(gauges.running()));
    scrape.count("tollgate_model_steps_total", &[id], gauges.steps());
    scrape.count("tollgate_model_prefilled_tokens_total", &[id], gauges.prefilled_tokens());
    scrape.histogram("tollgate_model_step_rows", &[id], &gauges.rows_per_step(), gauges.sampled() as f64);
}

/// What there is one of: plugin slots, and the config with its generations.
fn add_process(scrape: &mut Scrape, admin: &Admin) {
    let slots = admin.pipeline.plugin_host().slots();
    let (reload, pool) = (admin.reload.get(), admin.models.status());
    for (name, count) in [
        ("tollgate_models_budget_bytes", pool.budget),
        ("tollgate_models_held_bytes", pool.held),
        ("tollgate_models_requests_waiting", many(pool.waiting)),
        ("tollgate_models_loads_total", pool.loads),
        ("tollgate_models_unloads_total", pool.unloads),
        ("tollgate_plugin_slots", u64::from(slots.total())),
        ("tollgate_plugin_slots_free", many(slots.free())),
        ("tollgate_generation", admin.pipeline.generation()),
        ("tollgate_generations_live", many(reload.live_generations)),
        ("tollgate_quarantined", many(reload.quarantined.len())),
        ("tollgate_ready", u64::from(admin.pipeline.is_ready())),
    ] {
        scrape.count(name, &[], count);
    }
    scrape.value("tollgate_reload_duration_seconds", &[], reload.last_build.as_secs_f64());
    scrape.count("tollgate_reloads_total", &["ok"], reload.reloads);
    scrape.count("tollgate_reloads_total", &["failed"], reload.failed_reloads);
}

fn many(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
