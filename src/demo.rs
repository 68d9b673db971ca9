//! The built-in demo site: pages like those of the world, on loopback, for `pagehand demo`, the tests and the bench.
//!
//! Two sites in one: *The Tidewater Review*, a magazine whose articles take comments each in another way, and
//! *Almanac*, a small web app to register at. They keep the rules of real sites: hidden tokens bound to a cookie,
//! validation on the server, a moderation queue, duplicate and flood control, honeypots that answer with a false
//! success. Nothing in them knows of Pagehand or makes its work easier. What was really submitted stands in the
//! [`Ledger`], which no page shows: it is the judge from outside that a test asks.
//!
//! What can go wrong: a test that trusts the page instead of the ledger believes the false success of
//! `/articles/paper-boats`; a client that expects every connection to end waits for ever at `/articles/long-exposure`.
//!
//! | module | has |
//! |---|---|
//! | [`site`](DemoSite) | the listeners, the routes, the rude ways to end a connection |
//! | [`ledger`](Ledger) | what was submitted and what the site remembers |
//! | `articles` | which article exists and how it behaves |
//! | `pages` | the HTML and the rules behind each form |
//! | [`scenarios()`] | one task for each outcome |

mod articles;
mod ledger;
mod pages;
mod scenarios;
mod site;

pub use ledger::{Account, AccountState, Comment, CommentState, Ledger, Mail};
pub use scenarios::{Expectation, Scenario, failed_run, scenarios};
pub use site::DemoSite;

/// Path of the article that the bench comments on: one stylesheet, one script, three images and a classic form whose
/// POST answers 303 to the page that shows the comment.
pub const CANONICAL_ARTICLE: &str = "/articles/harbour-lights";
