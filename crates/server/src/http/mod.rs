//! HTTP on the port that RisingWave has its dashboard on: `/healthz`, `/metrics`, `/`.
//!
//! Figures of sources, views and sinks are asked of the engine for each answer; the others come
//! from the `metrics` crate, whoever records them.
//!
//! | metric | labels | meaning |
//! | --- | --- | --- |
//! | `ruslo_pg_connections` | | open client connections |
//! | `ruslo_pg_connections_total` | | connections ever accepted |
//! | `ruslo_pg_statements_total` | `protocol` | statements executed, `simple` or `extended` |
//! | `ruslo_pg_statement_seconds` | | histogram of execution time, sending rows not included |
//! | `ruslo_pg_errors_total` | `sqlstate` | errors reported to clients |
//! | `ruslo_build_info` | `version` | always 1 |
//! | `process_resident_memory_bytes` | | memory the process holds |
//! | `process_cpu_seconds_total` | | processor time the process has used |
//! | `process_open_fds` | | open files and sockets |
//! | `ruslo_close_seconds` | | histogram of the life of a time, from close to visible |
//! | `ruslo_source_*`, `ruslo_object_*` (tables, views), `ruslo_sink_*` | object's name | see the engine's `figures` |

mod metrics;

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use ruslo_engine::Engine;
use serde_json::json;
use tokio::net::TcpListener;

use crate::shutdown::{Shutdown, ended};

pub use metrics::{Metrics, install as install_metrics};

/// How long open requests have to end when the server goes down.
const GOODBYE: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Shared {
    engine: Engine,
    metrics: Metrics,
}

/// Serves until `shutdown` turns true.
pub async fn serve(listener: TcpListener, engine: Engine, metrics: Metrics, shutdown: Shutdown) {
    let router = Router::new()
        .route("/", get(index))
        .route("/healthz", get(health))
        .route("/metrics", get(render))
        .with_state(Shared { engine, metrics });
    let (mut first, mut second) = (shutdown.clone(), shutdown);
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(async move { ended(&mut first).await });
    let deadline = async move {
        ended(&mut second).await;
        tokio::time::sleep(GOODBYE).await;
    };
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::error!(%error, "the HTTP server failed");
        },
        () = deadline => {}
    }
}

async fn health(State(shared): State<Shared>) -> Response {
    match shared.engine.health() {
        Ok(()) => match shared.engine.stalled() {
            None => "ok\n".into_response(),
            // Queries are answered, so nobody is to end the server for it.
            Some(reason) => {
                format!("ok, but nothing can be written now: {reason}\n").into_response()
            }
        },
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn render(State(shared): State<Shared>) -> Response {
    let mut text = shared.metrics.render();
    metrics::write_families(&shared.engine.figures().await, &mut text);
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

async fn index(headers: HeaderMap) -> Response {
    let accept = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if accept.contains("text/html") {
        return Html(INDEX).into_response();
    }
    Json(json!({
        "name": "ruslo",
        "version": env!("CARGO_PKG_VERSION"),
        "endpoints": ["/healthz", "/metrics"],
    }))
    .into_response()
}

const INDEX: &str = concat!(
    "<!doctype html><meta charset=utf-8><title>Ruslo</title>",
    "<h1>Ruslo ",
    env!("CARGO_PKG_VERSION"),
    "</h1><ul><li><a href=/healthz>health</a><li><a href=/metrics>metrics</a></ul>\n"
);
