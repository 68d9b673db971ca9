//! Asks a language model, over the protocol that OpenAI's endpoint for chats has and many others speak.
//!
//! Which endpoint is the configuration's to say, never a task's. The answer must fit a JSON schema; whoever asked checks
//! what it says all the same. Every call comes with the tokens that it used, also one that failed.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use url::Url;

use crate::cost::ModelCall;
use crate::tls;

/// Most bytes of an answer.
const MAX_ANSWER: usize = 256 << 10;
/// How often a call is made that the endpoint puts off, and the longest wait before it is made again.
const TRIES: u32 = 2;
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a token, about: for what a call used that was never answered.
const BYTES_A_TOKEN: usize = 4;

/// An endpoint, and how it is used.
#[derive(Debug)]
pub struct Client {
    url: Url,
    model: String,
    key: Option<SecretString>,
    timeout: Duration,
    max_output_tokens: u32,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LlmError {
    /// It can't be reached, or the connection broke.
    #[error("the language model can't be reached: {0}")]
    Unreachable(String),
    /// It took longer than it may.
    #[error("the language model did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It said no.
    #[error("the language model's endpoint answered {status}")]
    Refused {
        /// With this status.
        status: u16,
        /// After this time it may say something else.
        retry_after: Option<Duration>,
    },
    /// What it said is not what was asked for.
    #[error("the language model's answer can't be used: {0}")]
    Nonsense(String),
}

#[derive(Debug, Deserialize)]
struct Completion {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Usage,
}

#[derive(Debug, Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Client {
    /// A client of the endpoint whose base address is `url`, for example `https://api.example.org/v1`.
    pub fn new(
        url: Url,
        model: String,
        key: Option<SecretString>,
        timeout: Duration,
        max_output_tokens: u32,
    ) -> Client {
        Client { url, model, key, timeout, max_output_tokens }
    }

    /// The key that it shows.
    pub fn key(&self) -> Option<&SecretString> {
        self.key.as_ref()
    }

    /// The most that asking this can use.
    pub fn most(&self, system: &str, question: &str) -> ModelCall {
        ModelCall {
            model: self.model.clone(),
            input_tokens: (system.len() + question.len()) as u64 / 2 + 200,
            output_tokens: u64::from(self.max_output_tokens),
        }
    }

    /// Asks; the answer is JSON that the endpoint was told to fit to `schema`. `used` is told of each call that was made,
    /// one that failed included.
    ///
    /// # Errors
    /// See [`LlmError`].
    pub async fn ask(
        &self,
        system: &str,
        question: &str,
        schema: &Value,
        mut used: impl FnMut(ModelCall),
    ) -> Result<Value, LlmError> {
        let body = json!({
            "model": self.model,
            "max_tokens": self.max_output_tokens,
            "temperature": 0,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": true, "schema": schema},
            },
        })
        .to_string();
        let until = Instant::now() + self.timeout;
        let mut tries = 0;
        loop {
            tries += 1;
            let called = tokio::time::timeout_at(until, self.call(&body)).await;
            let answer = called.unwrap_or(Err(LlmError::TimedOut(self.timeout)));
            let call =
                |input_tokens, output_tokens| ModelCall { model: self.model.clone(), input_tokens, output_tokens };
            match answer {
                Ok(completion) => {
                    used(call(completion.usage.prompt_tokens, completion.usage.completion_tokens));
                    return content(&completion);
                }
                Err(LlmError::Refused { status, retry_after }) => {
                    // Nothing was read.
                    used(call(0, 0));
                    let wait = retry_after.unwrap_or(Duration::from_millis(500));
                    let again = (status == 429 || status >= 500) && tries < TRIES && wait <= LONGEST_WAIT;
                    if !again || Instant::now() + wait >= until {
                        return Err(LlmError::Refused { status, retry_after });
                    }
                    tokio::time::sleep(wait).await;
                }
                Err(error) => {
                    // It may have read the question, and may be charging for that.
                    let sent = !matches!(error, LlmError::Unreachable(_));
                    used(call(if sent { (body.len() / BYTES_A_TOKEN) as u64 } else { 0 }, 0));
                    return Err(error);
                }
            }
        }
    }

    async fn call(&self, body: &str) -> Result<Completion, LlmError> {
        let unreachable = |error: String| LlmError::Unreachable(error);
        let host = self.url.host_str().ok_or_else(|| unreachable("llm.url has no host".to_owned()))?;
        let port = self.url.port_or_known_default().unwrap_or(443);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await;
        let stream = stream.map_err(|error| unreachable(error.to_string()))?;
        if self.url.scheme() == "http" {
            return self.exchange(stream, body).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| unreachable(error.to_string()))?;
        let stream =
            tls::connector(tls::roots()).connect(name, stream).await.map_err(|error| unreachable(error.to_string()))?;
        self.exchange(stream, body).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        body: &str,
    ) -> Result<Completion, LlmError> {
        let unreachable = |error: &dyn std::error::Error| LlmError::Unreachable(error.to_string());
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        // Ends with the sender.
        tokio::spawn(connection);
        let path = format!("{}/chat/completions", self.url.path().trim_end_matches('/'));
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, self.url.authority())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("pagehand/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &self.key {
            let mut value = header::HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
                .map_err(|_| LlmError::Unreachable("llm.key is no text for a header".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Full::<bytes::Bytes>::from(body.to_owned())).map_err(|error| unreachable(&error))?;
        let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        if status != StatusCode::OK {
            let seconds =
                response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            return Err(LlmError::Refused { status: status.as_u16(), retry_after: seconds.map(Duration::from_secs) });
        }
        let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let answer = answer.map_err(|error| LlmError::Nonsense(format!("it broke off, or is too long ({error})")))?;
        serde_json::from_slice(&answer.to_bytes())
            .map_err(|error| LlmError::Nonsense(format!("it is no completion ({error})")))
    }
}

/// The JSON of the first choice.
fn content(completion: &Completion) -> Result<Value, LlmError> {
    let text = completion.choices.first().and_then(|choice| choice.message.content.as_deref());
    let text = text.ok_or_else(|| LlmError::Nonsense("it is empty".to_owned()))?;
    serde_json::from_str(text).map_err(|error| LlmError::Nonsense(format!("it is not JSON ({error})")))
}
