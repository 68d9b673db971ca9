//! The few fields of Chrome's events that matter here.
//!
//! Not chromiumoxide's types: their enumerations are closed, so that a newer Chrome's new value would lose the event.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OfFrame {
    pub(super) frame_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FrameAttached {
    pub(super) frame_id: String,
    pub(super) parent_frame_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FrameDetached {
    pub(super) frame_id: String,
    pub(super) reason: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct FrameNavigated {
    pub(super) frame: NavigatedFrame,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NavigatedFrame {
    pub(super) id: String,
    pub(super) parent_id: Option<String>,
    pub(super) loader_id: String,
    pub(super) name: Option<String>,
    pub(super) url: String,
    pub(super) url_fragment: Option<String>,
    pub(super) unreachable_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FrameTreeAnswer {
    pub(super) frame_tree: FrameTree,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FrameTree {
    pub(super) frame: NavigatedFrame,
    #[serde(default)]
    pub(super) child_frames: Vec<FrameTree>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NavigatedWithin {
    pub(super) frame_id: String,
    pub(super) url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LifecycleEvent<'a> {
    pub(super) loader_id: &'a str,
    pub(super) name: &'a str,
}

#[derive(Deserialize)]
pub(super) struct DialogOpening {
    pub(super) r#type: String,
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestWillBeSent {
    pub(super) request_id: String,
    pub(super) redirect_response: Option<NetworkResponse>,
    pub(super) request: Option<SentRequest>,
    pub(super) r#type: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct SentRequest {
    pub(super) method: String,
    pub(super) url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResponseReceived {
    pub(super) request_id: String,
    #[serde(default)]
    pub(super) r#type: String,
    pub(super) response: NetworkResponse,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NetworkResponse {
    #[serde(default)]
    pub(super) url: String,
    pub(super) status: i64,
    #[serde(default)]
    pub(super) headers: HashMap<String, Value>,
    pub(super) mime_type: Option<String>,
}

impl NetworkResponse {
    /// The HTTP status; none for what did not come by HTTP.
    pub(super) fn status(&self) -> Option<u16> {
        u16::try_from(self.status).ok().filter(|status| *status > 0)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| value.as_str())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoadingFinished {
    pub(super) request_id: String,
    #[serde(default)]
    pub(super) encoded_data_length: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoadingFailed {
    pub(super) request_id: String,
    #[serde(default)]
    pub(super) r#type: String,
    #[serde(default)]
    pub(super) error_text: String,
}

#[derive(Deserialize)]
pub(super) struct ContextCreated {
    pub(super) context: ContextDescription,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContextDescription {
    pub(super) id: i64,
    pub(super) unique_id: String,
    #[serde(default)]
    pub(super) name: String,
    pub(super) aux_data: Option<ContextAux>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContextAux {
    pub(super) frame_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContextDestroyed {
    pub(super) execution_context_id: i64,
}

/// A value on the other side.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RemoteValue {
    pub(super) value: Option<Value>,
    pub(super) description: Option<String>,
    pub(super) object_id: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct ConsoleCalled {
    pub(super) r#type: String,
    #[serde(default)]
    args: Vec<RemoteValue>,
}

impl ConsoleCalled {
    pub(super) fn text(&self) -> String {
        let text = |one: &RemoteValue| match (&one.value, &one.description) {
            (Some(Value::String(text)), _) => text.clone(),
            (_, Some(description)) => description.clone(),
            (Some(value), None) => value.to_string(),
            (None, None) => String::new(),
        };
        self.args.iter().take(8).map(text).collect::<Vec<_>>().join(" ")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExceptionThrown {
    pub(super) exception_details: ExceptionDetails,
}

#[derive(Deserialize)]
pub(super) struct ExceptionDetails {
    #[serde(default)]
    text: String,
    pub(super) url: Option<String>,
    exception: Option<RemoteValue>,
}

impl ExceptionDetails {
    pub(super) fn message(&self) -> String {
        let thrown = self.exception.as_ref();
        let said = thrown.and_then(|thrown| {
            thrown.description.clone().or_else(|| thrown.value.as_ref().map(std::string::ToString::to_string))
        });
        said.unwrap_or_else(|| self.text.clone()).chars().take(1000).collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Evaluated {
    pub(super) result: RemoteValue,
    pub(super) exception_details: Option<ExceptionDetails>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PausedId {
    pub(super) request_id: String,
}

/// A request that Chrome holds until it is told what to do with it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Paused {
    pub(super) request_id: String,
    pub(super) request: PausedRequest,
    #[serde(default)]
    pub(super) frame_id: String,
    #[serde(default)]
    pub(super) resource_type: String,
    pub(super) network_id: Option<String>,
    pub(super) redirected_request_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PausedRequest {
    pub(super) url: String,
    pub(super) method: String,
    #[serde(default)]
    pub(super) headers: HashMap<String, Value>,
    pub(super) post_data: Option<String>,
    #[serde(default)]
    pub(super) has_post_data: bool,
    #[serde(default)]
    pub(super) post_data_entries: Vec<PostDataEntry>,
}

#[derive(Deserialize)]
pub(super) struct PostDataEntry {
    pub(super) bytes: Option<String>,
}
