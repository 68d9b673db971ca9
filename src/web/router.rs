//! Every route, and what it takes to use it. What is not in this table is not there.

use std::sync::LazyLock;

use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};
use http::Method;

use super::auth::Access::{self, Operate, Public, Read};
use super::{
    Shared, artifacts, assets, auth, bulk, events, export, headers, login, metrics, openapi, request_id, runs_api,
    summary_api,
};
use crate::task::MAX_PAYLOAD_BYTES;

/// Bytes of a body, where nothing else is said.
const MAX_BODY: usize = 64 * 1024;
/// Bytes of a task: its payload, and what is around it.
const MAX_TASK: usize = MAX_PAYLOAD_BYTES + MAX_BODY;

/// One route.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    access: Access,
    handler: MethodRouter<Shared>,
}

fn reads<H: Handler<T, Shared>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route { method: Method::GET, path, access, handler: get(handler) }
}

fn posts<H: Handler<T, Shared>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route { method: Method::POST, path, access, handler: post(handler) }
}

/// The table.
pub fn table() -> Vec<Route> {
    vec![
        reads("/", Read, runs_api::list),
        reads("/runs", Read, runs_api::list),
        posts("/runs", Operate, runs_api::enqueue.layer(DefaultBodyLimit::max(MAX_TASK))),
        reads("/runs/failed", Read, runs_api::failed),
        reads("/runs/retry", Read, bulk::preview_retry),
        posts("/runs/retry", Operate, bulk::retry_many),
        reads("/runs/export", Read, export::runs),
        reads("/runs/{id}", Read, runs_api::detail),
        reads("/runs/{id}/export", Read, export::run_directory),
        posts("/runs/{id}/retry", Operate, runs_api::retry),
        posts("/runs/{id}/cancel", Operate, runs_api::cancel),
        reads("/runs/{id}/artifacts/{name}", Read, artifacts::get),
        reads("/runs/{id}/artifacts/attempts/{n}/{name}", Read, artifacts::get_of_attempt),
        reads("/dashboard", Read, summary_api::dashboard),
        reads("/failures", Read, summary_api::failures),
        reads("/workers", Read, summary_api::workers),
        reads("/audit", Read, summary_api::audit),
        reads("/metrics/summary", Read, summary_api::summary),
        reads("/metrics", Read, metrics::serve),
        reads("/events", Read, events::listen),
        reads("/openapi.json", Read, openapi::serve),
        reads("/readyz", Read, summary_api::readyz),
        reads("/healthz", Public, summary_api::healthz),
        reads("/login", Public, login::page),
        posts("/login", Public, login::log_in),
        posts("/logout", Read, login::log_out),
        reads(assets::STYLE, Public, assets::style),
        reads(assets::SCRIPT, Public, assets::script),
        reads(assets::ICON, Public, assets::icon),
        reads("/favicon.ico", Public, assets::icon),
    ]
}

/// What the table says of a method on a path pattern; None if it does not have it.
pub fn access(method: &Method, path: &str) -> Option<Access> {
    static ALL: LazyLock<Vec<(Method, &'static str, Access)>> =
        LazyLock::new(|| table().into_iter().map(|route| (route.method, route.path, route.access)).collect());
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    ALL.iter().find(|(known, at, _)| known == method && *at == path).map(|(.., access)| *access)
}

/// The router with its layers; the last one is the outermost.
pub fn router(app: Shared) -> Router {
    let routes = table().into_iter().fold(Router::new(), |router, route| router.route(route.path, route.handler));
    routes
        .fallback(|| async { http::StatusCode::NOT_FOUND })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(app.clone(), auth::layer))
        .layer(middleware::from_fn(headers::layer))
        .layer(middleware::from_fn_with_state(app.clone(), request_id::layer))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_something_needs_the_role_operate() {
        for route in table() {
            let own_session = ["/login", "/logout"].contains(&route.path);
            if route.method != Method::GET && !own_session {
                assert_eq!(route.access, Operate, "{} {}", route.method, route.path);
            }
        }
    }

    #[test]
    fn the_public_paths_are_exactly_these() {
        let mut public: Vec<_> = table().into_iter().filter(|r| r.access == Public).map(|r| r.path).collect();
        public.dedup();
        assert_eq!(public, ["/healthz", "/login", assets::STYLE, assets::SCRIPT, assets::ICON, "/favicon.ico"]);
    }
}
