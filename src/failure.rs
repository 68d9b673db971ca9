//! Why an attempt failed: one of eleven reasons, and a finer code that is open. Pure: no I/O.
//!
//! A [`Failure`] is made once, where the fault is seen, travels up unchanged, and is logged once, in `worker`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod lines;
pub mod mapper;

/// The closed list of reasons. What it can't tell apart, [`Failure::code`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The site refused the answer to its CAPTCHA.
    CaptchaFailed,
    /// A CAPTCHA stands before the form; a person has to look.
    CaptchaPresent,
    /// The page has no comment form, or none for us.
    CommentFormNotFound,
    /// The site refused to create the account.
    RegistrationFailed,
    /// The account could not be confirmed by mail.
    EmailVerificationFailed,
    /// The site turned us away.
    Blocked,
    /// A deadline passed.
    Timeout,
    /// Something lies over the page and can't be removed.
    PopupBlocking,
    /// The form is inside a frame that can't be reached.
    IframeMissed,
    /// A field or button that is needed is not there.
    ElementNotFound,
    /// None of these: see the code.
    Unknown,
}

impl FailureReason {
    /// All eleven.
    pub const ALL: [FailureReason; 11] = [
        Self::CaptchaFailed,
        Self::CaptchaPresent,
        Self::CommentFormNotFound,
        Self::RegistrationFailed,
        Self::EmailVerificationFailed,
        Self::Blocked,
        Self::Timeout,
        Self::PopupBlocking,
        Self::IframeMissed,
        Self::ElementNotFound,
        Self::Unknown,
    ];

    /// What happened, as a part of a sentence; the code says more where the reason does not.
    pub fn in_words(self, code: &str) -> &'static str {
        match (self, code) {
            (Self::CaptchaFailed, _) => "the site refused the answer to its CAPTCHA",
            (Self::CaptchaPresent, _) => "a CAPTCHA stands before the form",
            (Self::CommentFormNotFound, _) => "the page has no comment form",
            (Self::RegistrationFailed, _) => "the site refused to create the account",
            (Self::EmailVerificationFailed, _) => "the account could not be confirmed by mail",
            (Self::Blocked, _) => "the site turned us away",
            (Self::Timeout, _) => "a deadline passed",
            (Self::PopupBlocking, _) => "something lies over the page",
            (Self::IframeMissed, _) => "the form is in a frame that can't be reached",
            (Self::ElementNotFound, _) => "a field or button is not there",
            (Self::Unknown, "infra.worker_lost") => "its worker was lost",
            (Self::Unknown, "infra.shutdown") => "the worker was shut down",
            (Self::Unknown, "outcome.uncertain") => "nobody can tell whether it was submitted",
            (Self::Unknown, code) => match code.split('.').next() {
                Some("input") => "the task itself is wrong",
                Some("policy") => "it is not allowed",
                Some("net" | "http") => "the network or the site failed",
                Some("browser") => "the browser failed",
                Some("proxy") => "the proxy failed",
                Some("infra") => "the machinery failed",
                _ => "for a reason that has no name",
            },
        }
    }

    /// The name in rows, files and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CaptchaFailed => "captcha_failed",
            Self::CaptchaPresent => "captcha_present",
            Self::CommentFormNotFound => "comment_form_not_found",
            Self::RegistrationFailed => "registration_failed",
            Self::EmailVerificationFailed => "email_verification_failed",
            Self::Blocked => "blocked",
            Self::Timeout => "timeout",
            Self::PopupBlocking => "popup_blocking",
            Self::IframeMissed => "iframe_missed",
            Self::ElementNotFound => "element_not_found",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for FailureReason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|reason| reason.as_str()).collect();
            format!("`{text}` is no failure reason; use one of {}", known.join(", "))
        })
    }
}

/// What went wrong with an attempt, and whether repeating it can help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One of the eleven.
    pub reason: FailureReason,
    /// Dotted and open, for example `net.dns`, `http.429`, `input.invalid_payload`.
    pub code: Cow<'static, str>,
    /// For a person: what happened, and what to do where that is known. Lower case, no full stop, no secrets.
    pub message: String,
    /// Whether the same task can succeed later without anybody changing anything.
    pub retryable: bool,
    /// The site's own wish, from `Retry-After`: not before this long from now.
    pub retry_after: Option<Duration>,
    /// The causes below `message`, outermost first.
    pub causes: Vec<String>,
}

impl Failure {
    /// A failure that a retry can mend.
    pub fn retryable(reason: FailureReason, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::terminal(reason, code, message) }
    }

    /// A failure that no retry mends.
    pub fn terminal(reason: FailureReason, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            reason,
            code: code.into(),
            message: message.into(),
            retryable: false,
            retry_after: None,
            causes: Vec::new(),
        }
    }

    /// The same failure with the site's wish when to come back.
    #[must_use]
    pub fn after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay;
        self
    }

    /// The same failure with the chain of causes of `error`, `error` itself included.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            self.causes.push(cause.to_string());
            next = cause.source();
        }
        self
    }
}
