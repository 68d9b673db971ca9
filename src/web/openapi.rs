//! `GET /openapi.json`: the API as a document, made from the handlers themselves.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};

use super::{artifacts, bulk, events, export, login, metrics, runs_api, summary_api};

#[derive(OpenApi)]
#[openapi(
    info(title = "Pagehand", description = "Tasks for a browser, and the record of what became of them."),
    paths(
        runs_api::list,
        runs_api::failed,
        runs_api::detail,
        export::runs,
        export::run_directory,
        runs_api::enqueue,
        runs_api::retry,
        bulk::preview_retry,
        bulk::retry_many,
        runs_api::cancel,
        artifacts::get,
        artifacts::get_of_attempt,
        summary_api::summary,
        summary_api::dashboard,
        summary_api::failures,
        summary_api::workers,
        summary_api::audit,
        summary_api::healthz,
        summary_api::readyz,
        metrics::serve,
        events::listen,
        login::page,
        login::log_in,
        login::log_out,
        serve,
    ),
    // A server without tokens, on loopback, asks for none.
    security((), ("bearer" = [])),
)]
struct Api;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let mut api = Api::openapi();
    api.info.version = env!("CARGO_PKG_VERSION").to_owned();
    api.info.license = None;
    if let Some(list) = api.paths.paths.get("/runs") {
        let mut front = list.clone();
        front.post = None;
        api.paths.paths.insert("/".to_owned(), front);
    }
    for (address, path) in &mut api.paths.paths {
        for (method, operation) in [("get", &mut path.get), ("post", &mut path.post)] {
            if let Some(operation) = operation {
                operation.operation_id = Some(operation_id(method, address));
                add_refusals(operation);
            }
        }
    }
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    api.components.get_or_insert_default().add_security_scheme("bearer", bearer);
    api.to_json().unwrap_or_default()
});

/// `get_runs_id_artifacts_name`: what clients that are made from the document call it.
fn operation_id(method: &str, address: &str) -> String {
    let words = address.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

/// What any route may answer before its handler has seen the request.
fn add_refusals(operation: &mut Operation) {
    let refusals = [
        ("400", "a parameter or body that can't be read"),
        ("401", "nobody known: send a bearer token"),
        ("403", "a token that may only read, or a change from another site"),
        ("413", "a larger body than this takes"),
        ("415", "a body that is not JSON"),
        ("421", "a host header that is not this server's"),
        ("503", "the database does not answer, or this took too long"),
    ];
    for (status, description) in refusals {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(description).content("application/problem+json", problem);
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.build().into());
    }
}

/// `GET /openapi.json`
#[utoipa::path(get, path = "/openapi.json", tag = "watching", responses(
    (status = 200, description = "this document", body = serde_json::Value),
))]
pub async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_route_but_the_pages_assets() {
        let document: serde_json::Value = serde_json::from_str(&DOCUMENT).unwrap();
        for route in super::super::router::table() {
            if route.path.starts_with("/assets/") || route.path == "/favicon.ico" {
                continue;
            }
            let method = route.method.as_str().to_lowercase();
            assert!(document["paths"][route.path][&method].is_object(), "{method} {}", route.path);
        }
    }

    #[test]
    fn each_operation_has_a_name_of_its_own_and_each_reference_leads_somewhere() {
        let document: serde_json::Value = serde_json::from_str(&DOCUMENT).unwrap();
        let operations =
            document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
        let mut names: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
        let references = DOCUMENT.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
