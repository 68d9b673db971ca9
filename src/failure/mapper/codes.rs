//! The codes that the mapper gives, each with its reason, whether a retry can help, and words for a person.
//!
//! `failure_code` is open, this list is not all of it: a worker, a queue or an automation adds its own.

use std::time::Duration;

use super::super::{Failure, FailureReason};
use FailureReason::{
    Blocked, CaptchaFailed, CaptchaPresent, CommentFormNotFound, ElementNotFound, EmailVerificationFailed,
    IframeMissed, PopupBlocking, RegistrationFailed, Timeout, Unknown,
};

/// A kind of failure.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) code: &'static str,
    pub(super) reason: FailureReason,
    retryable: bool,
    says: &'static str,
}

impl Class {
    /// A failure of this kind; `evidence` is the text that showed it.
    pub(super) fn failure(&self, evidence: &str) -> Failure {
        let says = self.says;
        let evidence = super::excerpt(evidence);
        let message = if evidence.is_empty() { says.to_owned() } else { format!("{says}: {evidence}") };
        if self.retryable {
            Failure::retryable(self.reason, self.code, message)
        } else {
            Failure::terminal(self.reason, self.code, message)
        }
    }
}

/// How long a site that asks for a pause between posts is left alone when it names no time: WordPress takes 15 s.
pub(super) const FLOOD_PAUSE: Duration = Duration::from_secs(20);

/// The class of a code; None if the table lacks it.
pub(super) fn class(code: &str) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.code == code)
}

const RETRY: bool = true;
const FINAL: bool = false;

const fn of(code: &'static str, reason: FailureReason, retryable: bool, says: &'static str) -> Class {
    Class { code, reason, retryable, says }
}

/// What an error is that no rule knows.
pub(super) static OTHER: Class = of("exception.other", Unknown, RETRY, "an error nobody has classified yet");

#[rustfmt::skip]
static CLASSES: &[Class] = &[
    // The network, as Chrome and libraries report it.
    of("net.dns", Unknown, RETRY, "the name of the site could not be resolved"),
    of("net.dns_timeout", Timeout, RETRY, "the name of the site was not resolved in time"),
    of("net.connect", Unknown, RETRY, "the connection to the site failed"),
    of("net.timeout", Timeout, RETRY, "the site did not answer in time"),
    of("net.tls", Unknown, FINAL, "the site's certificate or TLS set-up is not acceptable; its owner has to mend it"),
    of("net.tls_client_cert", Unknown, FINAL, "the site asks for a client certificate"),
    of("net.offline", Unknown, RETRY, "this machine has no network"),
    of("net.protocol", Unknown, RETRY, "the site's answer breaks the protocol"),
    of("net.response", Unknown, RETRY, "the site's answer can't be read"),
    of("net.cache", Unknown, RETRY, "the browser's cache failed"),
    of("net.file", Unknown, FINAL, "the file behind the address can't be read"),
    of("net.url", Unknown, FINAL, "the address is not one a browser can open"),
    of("net.resources", Unknown, RETRY, "the browser ran out of memory, sockets or disk"),
    of("net.throttled", Unknown, RETRY, "the browser throttles its requests to the site"),
    of("net.blocked_locally", Unknown, FINAL, "the request was refused on this machine, by policy or extension"),
    of("net.http_auth", Blocked, FINAL, "the site asks for HTTP credentials that were not accepted"),
    of("net.http_status", Blocked, FINAL, "the site answered with an error status and no page"),
    of("net.upload", Unknown, FINAL, "the upload failed"),
    of("net.other", Unknown, RETRY, "the request failed"),
    of("nav.aborted", Unknown, RETRY, "the navigation was aborted"),
    of("nav.redirect_loop", Unknown, RETRY, "the site redirects in a circle"),
    of("nav.redirect_unsafe", Unknown, FINAL, "the site redirects to an address that is not allowed"),
    of("nav.timeout", Timeout, RETRY, "the page did not load in time"),
    of("nav.interrupted", Unknown, RETRY, "the page navigated away in the middle of a step"),
    of("nav.download", Unknown, FINAL, "the address is a download, not a page"),
    of("nav.no_content", Unknown, FINAL, "the address answers without a page"),
    of("proxy.connect", Unknown, RETRY, "the proxy could not be reached or could not reach the site"),
    of("proxy.auth", Unknown, FINAL, "the proxy did not accept the user name and password; correct them"),
    of("proxy.tls", Unknown, FINAL, "the proxy's certificate is not acceptable"),
    of("frame.refused", IframeMissed, FINAL, "the site forbids showing the content in a frame"),

    // The browser and the document in it.
    of("browser.launch_failed", Unknown, RETRY, "the browser did not start"),
    of("browser.crashed", Unknown, RETRY, "the browser or the page is gone"),
    of("browser.renderer_crashed", Unknown, RETRY, "the page's process crashed"),
    of("browser.unresponsive", Timeout, RETRY, "the browser did not answer in time"),
    of("browser.protocol", Unknown, RETRY, "the browser refused a command"),
    of("session.gone", Unknown, RETRY, "the browser's session with the page is gone"),
    of("step.timeout", Timeout, RETRY, "a step did not end in time"),
    of("frame.gone", IframeMissed, RETRY, "the frame is gone or can't be reached"),
    of("dom.detached", ElementNotFound, RETRY, "the element is no longer in the page"),
    of("dom.handle_gone", Unknown, RETRY, "the browser no longer knows the object"),
    of("dom.ambiguous", ElementNotFound, FINAL, "more than one element fits"),
    of("dom.bad_selector", Unknown, FINAL, "the selector is not valid; correct it"),
    of("element.missing", ElementNotFound, FINAL, "an element that is needed is not in the page"),
    of("element.not_usable", ElementNotFound, RETRY, "the element can't be used"),
    of("dialog.none", Unknown, RETRY, "there is no dialog to answer"),
    of("popup.dialog", PopupBlocking, RETRY, "a JavaScript dialog stands over the page"),
    of("popup.covered", PopupBlocking, RETRY, "something lies over the element"),
    of("popup.consent", PopupBlocking, RETRY, "a consent dialog lies over the page"),
    of("popup.overlay", PopupBlocking, RETRY, "an overlay lies over the page"),

    // What the site says.
    of("captcha.failed", CaptchaFailed, FINAL, "the site did not accept the answer to its CAPTCHA; a person has to look"),
    of("captcha.present", CaptchaPresent, FINAL, "the page shows a CAPTCHA; a person has to look"),
    of("captcha.recaptcha", CaptchaPresent, FINAL, "the page shows a reCAPTCHA; a person has to look"),
    of("captcha.hcaptcha", CaptchaPresent, FINAL, "the page shows an hCaptcha; a person has to look"),
    of("captcha.turnstile", CaptchaPresent, FINAL, "the page shows a Turnstile challenge; a person has to look"),
    of("captcha.other", CaptchaPresent, FINAL, "the page shows a CAPTCHA; a person has to look"),
    of("block.page", Blocked, FINAL, "the site turned us away"),
    of("block.challenge", Blocked, FINAL, "the site wants to check the browser first"),
    of("block.rate_limit", Blocked, RETRY, "the site says there were too many requests"),
    of("comments.closed", CommentFormNotFound, FINAL, "comments are closed"),
    of("comments.form_missing", CommentFormNotFound, FINAL, "the page has no comment form"),
    of("login_required", CommentFormNotFound, FINAL, "the site wants a login first"),
    of("page.not_found", CommentFormNotFound, FINAL, "the page does not exist"),
    of("form.duplicate", Unknown, FINAL, "the site has this comment already"),
    of("form.spam", Blocked, FINAL, "the site took the text for spam"),
    of("form.flood", Blocked, RETRY, "the site wants a pause between posts"),
    of("form.invalid", Unknown, FINAL, "the site found fault with the form"),
    of("form.expired", Unknown, RETRY, "the form or session had expired"),
    of("form.not_saved", Unknown, RETRY, "the site could not save the text"),
    of("form.login_failed", RegistrationFailed, FINAL, "the site did not accept the user name and password"),
    of("registration.closed", RegistrationFailed, FINAL, "the site takes no new accounts"),
    of("registration.username_taken", RegistrationFailed, FINAL, "the user name is taken"),
    of("registration.username_invalid", RegistrationFailed, FINAL, "the site does not accept the user name"),
    of("registration.email_taken", RegistrationFailed, FINAL, "the email address has an account already"),
    of("registration.email_invalid", RegistrationFailed, FINAL, "the site does not accept the email address"),
    of("registration.password", RegistrationFailed, FINAL, "the site does not accept the password"),
    of("registration.rejected", RegistrationFailed, FINAL, "the site refused to create the account"),
    of("email.not_sent", EmailVerificationFailed, RETRY, "the site could not send its email"),
    of("email.code_invalid", EmailVerificationFailed, FINAL, "the site did not accept the link or code from its email"),
    of("email.unconfirmed", EmailVerificationFailed, FINAL, "the email address could not be confirmed"),
    of("site.down", Unknown, RETRY, "the site is down at the moment"),

    // This machine.
    of("infra.disk_full", Unknown, RETRY, "the disk is full"),
    of("infra.resources", Unknown, RETRY, "this machine ran out of memory or file descriptors"),
    of("infra.database", Unknown, RETRY, "the database failed"),
    of("infra.panic", Unknown, RETRY, "a fault in this program"),
    of("infra.cancelled", Unknown, RETRY, "the work was called off"),
    of("input.invalid_url", Unknown, FINAL, "the address is not valid; correct it"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_is_listed_twice() {
        for (index, class) in CLASSES.iter().enumerate() {
            assert!(CLASSES[..index].iter().all(|earlier| earlier.code != class.code), "{}", class.code);
        }
    }

    #[test]
    fn captchas_blocks_and_rejections_are_never_retried_but_rate_limits_are() {
        for class in CLASSES {
            match class.reason {
                CaptchaFailed | CaptchaPresent | CommentFormNotFound | RegistrationFailed => {
                    assert!(!class.retryable, "{}", class.code);
                }
                Timeout => assert!(class.retryable, "{}", class.code),
                _ => {}
            }
        }
        assert!(class("form.flood").is_some_and(|class| class.retryable));
        assert!(class("block.page").is_some_and(|class| !class.retryable));
    }
}
