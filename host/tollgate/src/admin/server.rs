//! The running gateway's end.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use axum::Router;
use axum::extract::{Path as Segments, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tollgate_models::{Gauges as Loaded, Model, Pool, Remote, Served, Slot};
use tollgate_pipeline::Pipeline;
use tollgate_reload::{StatusHandle, Trigger};
use tollgate_server::{CertificateStore, Drain, Gauges};
use tollgate_store::KeyStore;
use tollgate_telemetry::{Metrics, Scrape};

use crate::observe;

/// What the admin channel tells of.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) pipeline: Pipeline,
    pub(crate) reload: StatusHandle,
    pub(crate) trigger: Trigger,
    pub(crate) keys: Arc<KeyStore>,
    pub(crate) listeners: Vec<Listening>,
    pub(crate) metrics: Metrics,
    pub(crate) models: Pool,
    pub(crate) started: Instant,
}

/// A listener that is open.
#[derive(Clone)]
pub(crate) struct Listening {
    pub(crate) id: String,
    pub(crate) urls: Vec<String>,
    pub(crate) gauges: Arc<Gauges>,
    /// None on a plain listener.
    pub(crate) certificate: Option<Arc<CertificateStore>>,
}

/// Opens the socket and serves it until the drain.
pub(crate) fn start(path: &Path, admin: Admin, drain: &Drain) -> anyhow::Result<()> {
    // A socket left by a killed process refuses connections; one that answers belongs to a running gateway.
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("{} answers: a gateway with this data directory is running", path.display());
    }
    let _ = std::fs::remove_file(path);
    let socket = UnixListener::bind(path).with_context(|| path.display().to_string())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let signal = drain.signal();
    let app = router(admin);
    let path = path.to_owned();
    drain.tracker().spawn(async move {
        let served = axum::serve(socket, app).with_graceful_shutdown(async move { signal.draining().await }).await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin channel ended");
        }
        let _ = std::fs::remove_file(path);
    });
    Ok(())
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/plugins", get(plugins))
        .route("/models", get(models))
        .route("/models/{name}/{verb}", post(model))
        .route("/routes", get(routes))
        .route("/keys", get(keys))
        .route("/metrics", get(metrics))
        .route("/reload", post(reload))
        .with_state(admin)
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    let reload = admin.reload.get();
    let slots = admin.pipeline.plugin_host().slots();
    let listeners = admin.listeners.iter().map(|listener| {
        json!({
            "id": listener.id,
            "urls": listener.urls,
            "connections": listener.gauges.connections(),
            "requests": listener.gauges.requests(),
            "accepted": listener.gauges.accepted(),
            "refused": listener.gauges.refused(),
        })
    });
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": if admin.pipeline.is_healthy() { "ok" } else { "degraded" },
        "ready": admin.pipeline.is_ready(),
        "uptime_s": admin.started.elapsed().as_secs(),
        "generation": admin.pipeline.generation(),
        "live_generations": reload.live_generations,
        "reloads": reload.reloads,
        "building_ms": reload.building_since.map(|since| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)),
        "last_build_ms": u64::try_from(reload.last_build.as_millis()).unwrap_or(u64::MAX),
        "quarantined": reload.quarantined.iter().chain(&reload.wrong_keys).collect::<Vec<_>>(),
        "needs_restart": reload.needs_restart,
        "warnings": reload.warnings,
        "plugin_slots": { "free": slots.free(), "total": slots.total() },
        "listeners": listeners.collect::<Vec<_>>(),
    }))
}

async fn plugins(State(admin): State<Admin>) -> Json<Value> {
    let current = admin.pipeline.current();
    let plugins = current.plugins.iter().map(|plugin| {
        let manifest = plugin.manifest();
        json!({
            "id": plugin.id(),
            "name": manifest.name,
            "version": manifest.version,
            "hooks": manifest.hooks,
            "capabilities": manifest.capabilities,
            "snapshot": plugin.is_snapshot(),
            "cases": plugin.cases(),
            "digest": plugin.digest(),
        })
    });
    Json(plugins.collect())
}

async fn models(State(admin): State<Admin>) -> Json<Value> {
    let current = admin.pipeline.current();
    Json(current.models.iter().map(told).collect())
}

/// A model, with what it does where it is loaded.
fn told(model: &Served) -> Value {
    let (mut told, loaded) = match model {
        Served::Local(slot) => (told_of_slot(slot), told_of_loaded(slot)),
        // It is nowhere here, and has the same columns.
        Served::Remote(remote) => (told_of_remote(remote), told_of_engine(None)),
    };
    if let (Value::Object(told), Value::Object(loaded)) = (&mut told, loaded) {
        told.extend(loaded);
    }
    told
}

fn told_of_remote(remote: &Remote) -> Value {
    json!({
        "id": remote.id(),
        "aliases": remote.aliases(),
        "base": null,
        "digest": remote.digest(),
        "state": remote.state().as_str(),
        "leases": remote.leases(),
        "pinned": false,
        "predicted_bytes": 0,
        "error": null,
    })
}

fn told_of_slot(slot: &Slot) -> Value {
    let status = slot.status();
    json!({
        "id": slot.id(),
        "task": slot.task(),
        "aliases": slot.aliases(),
        "base": slot.base(),
        "digest": slot.digest(),
        "state": status.state,
        "leases": status.leases,
        "pinned": status.is_pinned,
        "predicted_bytes": status.predicted_bytes,
        "error": status.error.as_deref(),
    })
}

fn told_of_loaded(slot: &Slot) -> Value {
    // What an adapter's base does is told of the base.
    told_of_engine(slot.loaded().filter(|_| slot.base().is_none()).as_deref())
}

fn told_of_engine(model: Option<&Model>) -> Value {
    let engine = model.and_then(Model::engine);
    let gauges = engine.map(tollgate_models::Engine::gauges);
    let gauges = gauges.or_else(|| model.and_then(Model::embedding).map(tollgate_models::EmbeddingEngine::gauges));
    json!({
        "load_ms": model.map(|model| u64::try_from(model.load_time().as_millis()).unwrap_or(u64::MAX)),
        "memory_bytes": model.map(Model::memory_bytes),
        "sequences": engine.map(|engine| engine.capabilities().max_sequences),
        "context_tokens": engine.map(|engine| engine.capabilities().context_tokens),
        "waiting": gauges.map(Loaded::waiting),
        "running": gauges.map(Loaded::running),
        "parked": gauges.map(Loaded::parked),
        "steps": gauges.map(Loaded::steps),
        "decoded_tokens": gauges.map(Loaded::decoded_tokens),
        "prefilled_tokens": gauges.map(Loaded::prefilled_tokens),
        "cached_tokens": gauges.map(Loaded::cached_tokens),
    })
}

/// Loads, unloads, pins or unpins a model.
async fn model(State(admin): State<Admin>, Segments((name, verb)): Segments<(String, String)>) -> Response {
    let refuse = |status: StatusCode, why: String| (status, Json(json!({ "error": why }))).into_response();
    let Some(model) = admin.pipeline.current().models.find(&name).cloned() else {
        return refuse(StatusCode::NOT_FOUND, format!("there is no model `{name}`: `tollgate models` lists them"));
    };
    let Served::Local(slot) = &model else {
        return refuse(StatusCode::CONFLICT, format!("`{name}` runs with a provider: there is nothing to load or unload here"));
    };
    match verb.as_str() {
        "warm" => {
            slot.retry();
            if let Err(error) = slot.lease(Instant::now() + slot.deadline()).await {
                return refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
            }
        }
        "unload" => {
            if let Err(leases) = slot.unload() {
                return refuse(StatusCode::CONFLICT, format!("{leases} requests use `{name}`: try again when they have ended"));
            }
        }
        "pin" => slot.pin(true),
        "unpin" => slot.pin(false),
        _ => return refuse(StatusCode::NOT_FOUND, format!("a model cannot be asked to `{verb}`")),
    }
    Json(told(&model)).into_response()
}

async fn routes(State(admin): State<Admin>) -> Json<Value> {
    let current = admin.pipeline.current();
    let routes = current.routes.all().iter().map(|route| {
        json!({
            "id": route.id,
            "model": route.model,
            "plugins": route.plugins.iter().map(|plugin| plugin.id()).collect::<Vec<_>>(),
            "template": route.template,
            "max_tokens": route.max_tokens,
        })
    });
    let paths =
        tollgate_api::routes().iter().map(|route| json!({ "method": route.method, "path": route.path, "public": route.public }));
    Json(json!({ "routes": routes.collect::<Vec<_>>(), "paths": paths.collect::<Vec<_>>() }))
}

async fn keys(State(admin): State<Admin>) -> Json<Value> {
    let keys = admin.keys.list().into_iter().map(|holder| {
        json!({
            "id": holder.id,
            "tenant": holder.principal.tenant,
            "roles": holder.principal.roles,
            "scopes": holder.principal.scopes,
            "models": holder.principal.models,
            "expires": holder.expires_ms.and_then(rfc3339),
            "disabled": holder.disabled,
        })
    });
    Json(keys.collect())
}

/// A moment, in milliseconds since 1970, as people write it; `None` beyond the year 9999.
fn rfc3339(ms: u64) -> Option<String> {
    let moment = time::OffsetDateTime::from_unix_timestamp(i64::try_from(ms / 1_000).ok()?).ok()?;
    moment.format(&time::format_description::well_known::Rfc3339).ok()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    // It reads files.
    let text = tokio::task::spawn_blocking(move || observe::text(&admin)).await;
    match text {
        Ok(text) => ([(http::header::CONTENT_TYPE, Scrape::MEDIA_TYPE)], text).into_response(),
        Err(_) => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn reload(State(admin): State<Admin>) -> Json<Value> {
    admin.trigger.reload().await;
    status(State(admin)).await
}
